"""The committed offsets of one group.

An offset is visible once its record is replicated. Until then it is *in flight*: requests for
stable offsets (KIP-447) are told to wait and expiry leaves the partition alone. Offsets committed
in a transaction wait for its end instead. Whichever record stands later in the log wins, in
whatever order replication is reported: that is also what a reload would find.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from kavka.protocol.topics import TopicPartition

NO_EXPIRY: Final = -1
LOG_END: Final = 2**63 - 1  # a position behind every record
NO_LEADER_EPOCH: Final = -1


class CommittedOffset(NamedTuple):
    """A committed position; ``expire_timestamp`` only from clients that set a retention."""

    offset: int
    leader_epoch: int = NO_LEADER_EPOCH
    metadata: str = ""
    commit_timestamp: int = -1
    expire_timestamp: int = NO_EXPIRY


class _Entry(NamedTuple):
    position: int  # offset of the record in its partition of __consumer_offsets
    value: CommittedOffset


class GroupOffsets:
    """Committed, in-flight and transactional offsets by topic-partition."""

    __slots__ = ("_committed", "_in_flight", "_transactional")

    def __init__(self) -> None:
        self._committed: dict[TopicPartition, _Entry] = {}
        self._in_flight: dict[TopicPartition, set[int]] = {}
        self._transactional: dict[int, dict[TopicPartition, _Entry]] = {}

    # -- reading ----------------------------------------------------------------------------

    def get(self, partition: TopicPartition) -> CommittedOffset | None:
        entry = self._committed.get(partition)
        return None if entry is None else entry.value

    def __iter__(self) -> Iterator[tuple[TopicPartition, CommittedOffset]]:
        for partition, entry in self._committed.items():
            yield partition, entry.value

    def __len__(self) -> int:
        """How many partitions have a committed offset."""
        return len(self._committed)

    @property
    def in_use(self) -> bool:
        """Whether there is any offset, committed or to be."""
        return bool(self._committed or self._in_flight or self._transactional)

    def is_in_flight(self, partition: TopicPartition) -> bool:
        return partition in self._in_flight

    def is_unstable(self, partition: TopicPartition) -> bool:
        """Whether a commit for the partition is under way, plain or in a transaction."""
        return partition in self._in_flight or any(
            partition in entries for entries in self._transactional.values()
        )

    def partitions(self) -> set[TopicPartition]:
        """All partitions with an offset, committed or under way."""
        found = set(self._committed) | set(self._in_flight)
        for entries in self._transactional.values():
            found |= entries.keys()
        return found

    # -- plain commits ----------------------------------------------------------------------

    def begin(self, partition: TopicPartition, position: int) -> None:
        """A commit was appended at ``position`` and is not replicated yet."""
        self._in_flight.setdefault(partition, set()).add(position)

    def finish(self, partition: TopicPartition, position: int, value: CommittedOffset) -> None:
        """The commit at ``position`` is replicated. No effect if a deletion came after it."""
        if self._land(partition, position):
            self.put(partition, value, position)

    def give_up(self, partition: TopicPartition, position: int) -> None:
        """The commit at ``position`` was not replicated in time."""
        self._land(partition, position)

    def _land(self, partition: TopicPartition, position: int) -> bool:
        positions = self._in_flight.get(partition)
        if positions is None or position not in positions:
            return False
        positions.discard(position)
        if not positions:
            del self._in_flight[partition]
        return True

    def put(self, partition: TopicPartition, value: CommittedOffset, position: int) -> None:
        """Take over what the record at ``position`` says, unless a later one has spoken."""
        known = self._committed.get(partition)
        if known is None or known.position <= position:
            self._committed[partition] = _Entry(position, value)

    def remove(self, partition: TopicPartition) -> None:
        """A tombstone was written: nothing that stands before it in the log counts any more."""
        self._committed.pop(partition, None)
        self._in_flight.pop(partition, None)
        for producer_id in list(self._transactional):
            entries = self._transactional[producer_id]
            entries.pop(partition, None)
            if not entries:
                del self._transactional[producer_id]

    # -- commits in transactions ------------------------------------------------------------

    def put_transactional(
        self, producer_id: int, partition: TopicPartition, value: CommittedOffset, position: int
    ) -> None:
        """Keep the record at ``position`` until its producer's transaction ends."""
        self._transactional.setdefault(producer_id, {})[partition] = _Entry(position, value)

    def end_transaction(
        self, producer_id: int, committed: bool, marker_position: int = LOG_END
    ) -> None:
        """The transaction's marker was written: its offsets count, or never were.

        Records behind the marker belong to the producer's next transaction, which may begin
        before the marker is known to be replicated.
        """
        entries = self._transactional.pop(producer_id, {})
        later = {}
        for partition, entry in entries.items():
            if entry.position > marker_position:
                later[partition] = entry
            elif committed:
                self.put(partition, entry.value, entry.position)
        if later:
            self._transactional[producer_id] = later

    @property
    def open_producers(self) -> set[int]:
        """Producers with offsets in a transaction that has not ended."""
        return set(self._transactional)
