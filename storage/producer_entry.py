"""The vocabulary of producer state: one producer, its last batches, what an append leads to."""

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple, Protocol

from kavka.protocol.records.batch import MAX_SEQUENCE, NO_SEQUENCE, NO_TIMESTAMP, BatchHeader

BATCHES_KEPT: Final = 5
"""How many batches a producer may have under way, and so how many can come twice (KIP-98)."""

NO_OFFSET: Final = -1
NO_COORDINATOR_EPOCH: Final = -1


class AppendOrigin(Enum):
    """Who appends, and so what is checked."""

    CLIENT = "client"  # everything
    COORDINATOR = "coordinator"  # epochs and transaction state; no sequences, no duplicates
    REPLICATION = "replication"  # nothing: the leader has decided; contradictions are logged


class Marker(Protocol):
    """The value of an end-transaction marker, as far as it matters here."""

    @property
    def committed(self) -> bool: ...
    @property
    def coordinator_epoch(self) -> int: ...


class BatchMetadata(NamedTuple):
    """One of the last batches of a producer."""

    base_sequence: int
    last_sequence: int
    last_offset: int
    offset_delta: int  # last offset − first offset
    timestamp: int  # the batch's largest, ms

    @property
    def first_offset(self) -> int:
        return self.last_offset - self.offset_delta


class Duplicate(NamedTuple):
    """A batch that is in the log already: the client gets the answer of the first append."""

    first_offset: int
    last_offset: int
    timestamp: int


class CompletedTxn(NamedTuple):
    """A transaction that a marker has just ended.

    ``last_offset`` is the marker's; ``last_stable_offset`` is what read_committed consumers may
    read up to once the marker is replicated. An aborted one goes into the ``.txnindex``.
    """

    producer_id: int
    first_offset: int
    last_offset: int
    aborted: bool
    last_stable_offset: int


class ProducerEntry:
    """State of one producer id. For everybody but this module: read only."""

    __slots__ = (
        "batches",
        "coordinator_epoch",
        "epoch",
        "last_sequence",
        "last_timestamp",
        "producer_id",
        "txn_first_offset",
    )

    def __init__(
        self,
        producer_id: int,
        epoch: int,
        *,
        batches: Iterable[BatchMetadata] = (),
        last_timestamp: int = NO_TIMESTAMP,
        coordinator_epoch: int = NO_COORDINATOR_EPOCH,
        txn_first_offset: int = NO_OFFSET,
    ) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.batches: deque[BatchMetadata] = deque(batches, BATCHES_KEPT)  # of this epoch
        self.last_sequence = self.batches[-1].last_sequence if self.batches else NO_SEQUENCE
        self.last_timestamp = last_timestamp  # of the last batch or marker, ms; for expiry
        self.coordinator_epoch = coordinator_epoch  # of the last marker
        self.txn_first_offset = txn_first_offset  # of the open transaction, or NO_OFFSET

    @property
    def last_offset(self) -> int:
        """Last offset of the last data batch; -1 when only a marker is known."""
        return self.batches[-1].last_offset if self.batches else NO_OFFSET

    def copy(self) -> "ProducerEntry":
        """Another entry that can change on its own."""
        return ProducerEntry(
            self.producer_id,
            self.epoch,
            batches=self.batches,
            last_timestamp=self.last_timestamp,
            coordinator_epoch=self.coordinator_epoch,
            txn_first_offset=self.txn_first_offset,
        )

    def find(self, base_sequence: int, last_sequence: int) -> BatchMetadata | None:
        """The kept batch with exactly these sequences."""
        for batch in self.batches:
            if batch.base_sequence == base_sequence and batch.last_sequence == last_sequence:
                return batch
        return None

    def forget_batches(self) -> None:
        """Drop the kept batches, and with them the last sequence."""
        self.batches.clear()
        self.last_sequence = NO_SEQUENCE

    def add(self, header: BatchHeader, first_offset: int, timestamp: int) -> None:
        """Take in a data batch that has been appended at ``first_offset``."""
        if header.producer_epoch != self.epoch:
            self.epoch = header.producer_epoch
            self.batches.clear()
        delta = header.last_offset_delta
        base_sequence = last_sequence = header.base_sequence
        if base_sequence != NO_SEQUENCE:
            last_sequence = (base_sequence + delta) & MAX_SEQUENCE
        self.last_sequence = last_sequence
        self.batches.append(
            tuple.__new__(  # twice as fast as the named tuple's own constructor
                BatchMetadata,
                (base_sequence, last_sequence, first_offset + delta, delta, timestamp),
            )
        )
        self.last_timestamp = timestamp

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProducerEntry):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"ProducerEntry({fields})"
