"""What a partition knows of its producers: idempotence (KIP-98) and open transactions.

Pure decisions, no I/O and no clock; :mod:`kavka.storage.producers` adds the snapshot files.
The owner of the log works in three steps: :meth:`ProducerState.check` before anything is written,
the write, then :meth:`ProducerState.update` with the offset the batch got. Loading a log is the
same ``update`` for each batch behind the snapshot. Rules: wire-and-records.md §7 and
log-storage.md §8; they are Kafka 2.3's unless said otherwise.

Only v2 batches with a producer id come here.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    CONTROL_MASK,
    MAX_SEQUENCE,
    NO_SEQUENCE,
    TRANSACTIONAL_MASK,
    BatchHeader,
)
from kavka.storage.producer_entry import (
    NO_OFFSET,
    AppendOrigin,
    CompletedTxn,
    Duplicate,
    Marker,
    ProducerEntry,
)

log = logging.getLogger("kavka.storage.producers")


class ProducerState:
    """All producers of one partition.

    ``accept_unknown`` chooses between two generations for a producer the partition has forgotten,
    or never met, that does not begin with sequence 0:

    * False (Kafka up to 2.4): UNKNOWN_PRODUCER_ID. Producers are forgotten as soon as their
      records are deleted.
    * True (KIP-360, Kafka 2.5): the batch is accepted. Producers are kept until they expire.
    """

    __slots__ = (
        "_entries",
        "_log_start",
        "_ongoing",
        "_unreplicated",
        "accept_unknown",
        "end_offset",
        "expiration_ms",
        "first_unstable_offset",
        "name",
        "transactions_ended",
    )

    def __init__(self, name: str, *, expiration_ms: int, accept_unknown: bool = False) -> None:
        self.name = name  # of the partition, for messages
        self.expiration_ms = expiration_ms
        self.accept_unknown = accept_unknown
        self.end_offset = NO_OFFSET
        """The state covers records below this; -1 before anything is known. The log sets it
        after each append, also of batches without producer id."""
        self.first_unstable_offset: int | None = None
        """First offset whose transaction is open, or ended by a marker at or above the high
        watermark, but not below the log's start; None when there is none. The LSO is its minimum
        with the high watermark."""
        self.transactions_ended = 0
        """How many markers have come since the log was opened, of any producer."""
        self._log_start = 0
        self._entries: dict[int, ProducerEntry] = {}
        self._ongoing: dict[int, int] = {}  # first offset → producer id, ascending
        # (first offset, marker's offset) of ended ones, ascending by marker
        self._unreplicated: deque[tuple[int, int]] = deque()

    # -- before the append ----------------------------------------------------------------

    def check(
        self,
        header: BatchHeader,
        origin: AppendOrigin = AppendOrigin.CLIENT,
        marker: Marker | None = None,
    ) -> Duplicate | None:
        """Decide whether a batch may be appended; nothing changes.

        Returns where it already is when a client sends one of its last five batches again.
        ``marker`` is the content of a control batch. Raises KafkaError INVALID_PRODUCER_EPOCH,
        OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID, INVALID_TXN_STATE or
        TRANSACTION_COORDINATOR_FENCED.
        """
        entry = self._entries.get(header.producer_id)
        if origin is AppendOrigin.CLIENT:
            return self._check_client(entry, header)
        try:
            if marker is not None:
                self._check_marker(entry, header, marker)
            elif not header.attributes & CONTROL_MASK:
                self._check_epoch(entry, header)
                self._check_transaction(entry, header)
        except KafkaError as error:
            if origin is not AppendOrigin.REPLICATION:
                raise
            log.warning(
                "The leader appended what its producer state should not have let in: %s "
                "partition=%s offset=%d",
                error,
                self.name,
                header.base_offset,
            )
        return None

    def check_all(
        self, headers: Sequence[BatchHeader], origin: AppendOrigin = AppendOrigin.CLIENT
    ) -> Duplicate | None:
        """:meth:`check` for data batches appended together, each judged as if those before it
        had been appended. One duplicate makes the whole append one, as in Kafka.
        """
        if len(headers) == 1:
            return self.check(headers[0], origin)
        if origin is not AppendOrigin.CLIENT:
            for header in headers:
                self.check(header, origin)
            return None
        seen: dict[int, ProducerEntry] = {}
        for header in headers:
            producer_id = header.producer_id
            entry = seen.get(producer_id) or self._entries.get(producer_id)
            duplicate = self._check_client(entry, header)
            if duplicate is not None:
                if duplicate.first_offset == NO_OFFSET:  # of a batch in this very append
                    assert entry is not None
                    raise self._out_of_order(header, entry)
                return duplicate
            if entry is None:
                entry = seen[producer_id] = ProducerEntry(producer_id, header.producer_epoch)
            elif producer_id not in seen:
                entry = seen[producer_id] = entry.copy()
            entry.add(header, NO_OFFSET, header.max_timestamp)
            if header.attributes & TRANSACTIONAL_MASK:
                entry.txn_first_offset = max(entry.txn_first_offset, 0)
        return None

    def _check_client(self, entry: ProducerEntry | None, header: BatchHeader) -> Duplicate | None:
        base_sequence = header.base_sequence
        if entry is None:
            if base_sequence != 0 and not self.accept_unknown:
                raise self._unknown_producer(header)
            return None
        if header.producer_epoch == entry.epoch:
            # The next sequence cannot be one of the kept batches', so look for those only now.
            if base_sequence != (entry.last_sequence + 1) & MAX_SEQUENCE:
                batch = entry.find(base_sequence, header.last_sequence)
                if batch is not None:
                    return Duplicate(batch.first_offset, batch.last_offset, batch.timestamp)
                if entry.last_sequence == NO_SEQUENCE and not self.accept_unknown:
                    raise self._unknown_producer(header)
                raise self._out_of_order(header, entry)
        elif header.producer_epoch < entry.epoch:
            raise self._fenced(header, entry)
        elif base_sequence != 0:
            raise self._out_of_order(header, entry)
        if entry.txn_first_offset >= 0:
            self._check_transaction(entry, header)
        return None

    def _check_epoch(self, entry: ProducerEntry | None, header: BatchHeader) -> None:
        if entry is not None and header.producer_epoch < entry.epoch:
            raise self._fenced(header, entry)

    def _check_transaction(self, entry: ProducerEntry | None, header: BatchHeader) -> None:
        if (
            entry is not None
            and entry.txn_first_offset >= 0
            and not header.attributes & TRANSACTIONAL_MASK
        ):
            raise KafkaError(
                ErrorCode.INVALID_TXN_STATE,
                f"producer {header.producer_id} wrote to {self.name} outside of its transaction "
                f"that is open there since offset {entry.txn_first_offset}",
            )

    def _check_marker(
        self, entry: ProducerEntry | None, header: BatchHeader, marker: Marker
    ) -> None:
        self._check_epoch(entry, header)
        if entry is not None and marker.coordinator_epoch < entry.coordinator_epoch:
            raise KafkaError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"a marker for producer {header.producer_id} on {self.name} has coordinator "
                f"epoch {marker.coordinator_epoch}, but {entry.coordinator_epoch} was seen",
            )

    def _fenced(self, header: BatchHeader, entry: ProducerEntry) -> KafkaError:
        return KafkaError(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"producer {header.producer_id} on {self.name} has epoch {header.producer_epoch}, "
            f"but {entry.epoch} was seen",
        )

    def _out_of_order(self, header: BatchHeader, entry: ProducerEntry) -> KafkaError:
        return KafkaError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"producer {header.producer_id} epoch {header.producer_epoch} on {self.name} sent "
            f"sequence {header.base_sequence}, but the last was {entry.last_sequence} of epoch "
            f"{entry.epoch}",
        )

    def _unknown_producer(self, header: BatchHeader) -> KafkaError:
        return KafkaError(
            ErrorCode.UNKNOWN_PRODUCER_ID,
            f"producer {header.producer_id} epoch {header.producer_epoch} on {self.name} sent "
            f"sequence {header.base_sequence}, but nothing is known of it there",
        )

    # -- after the append -----------------------------------------------------------------

    def update(
        self,
        header: BatchHeader,
        first_offset: int,
        timestamp: int,
        marker: Marker | None = None,
    ) -> CompletedTxn | None:
        """Take in a batch that now stands at ``first_offset``; never refuses.

        ``timestamp`` is the batch's largest as stored (the broker's with LogAppendTime). Returns
        the transaction that a marker ended; None also for a marker of a transaction that wrote
        nothing here, since it changes nothing for a reader (Kafka does so since 2.5).
        """
        producer_id = header.producer_id
        entry = self._entries.get(producer_id)
        if header.attributes & CONTROL_MASK:
            if marker is None:  # emptied by compaction: the transaction is gone from the log
                return None
            if entry is None:
                entry = self._entries[producer_id] = ProducerEntry(
                    producer_id, header.producer_epoch
                )
            return self._end_transaction(
                entry, header, first_offset + header.last_offset_delta, timestamp, marker
            )
        if entry is None:
            entry = self._entries[producer_id] = ProducerEntry(producer_id, header.producer_epoch)
        entry.add(header, first_offset, timestamp)
        # A batch that compaction emptied belongs to a transaction whose end is known, and may
        # have outlived its marker: it opens nothing.
        if (
            header.attributes & TRANSACTIONAL_MASK
            and entry.txn_first_offset < 0
            and header.records_count > 0
        ):
            entry.txn_first_offset = first_offset
            self._ongoing[first_offset] = producer_id
            if self.first_unstable_offset is None:
                self.first_unstable_offset = first_offset
        return None

    def _end_transaction(
        self,
        entry: ProducerEntry,
        header: BatchHeader,
        offset: int,
        timestamp: int,
        marker: Marker,
    ) -> CompletedTxn | None:
        self.transactions_ended += 1
        if header.producer_epoch != entry.epoch:  # the coordinator fenced the producer by it
            entry.epoch = header.producer_epoch
            entry.forget_batches()
        entry.coordinator_epoch = marker.coordinator_epoch
        entry.last_timestamp = timestamp
        first_offset = entry.txn_first_offset
        if first_offset < 0:
            return None
        entry.txn_first_offset = NO_OFFSET
        del self._ongoing[first_offset]
        # Unstable as before, until the marker is below the high watermark.
        self._unreplicated.append((first_offset, offset))
        return CompletedTxn(
            entry.producer_id,
            first_offset,
            offset,
            not marker.committed,
            next(iter(self._ongoing), offset + 1),
        )

    def on_high_watermark(self, high_watermark: int) -> None:
        """Transactions whose marker is below the high watermark become stable."""
        unreplicated = self._unreplicated
        if unreplicated and unreplicated[0][1] < high_watermark:
            while unreplicated and unreplicated[0][1] < high_watermark:
                unreplicated.popleft()
            self._find_first_unstable()

    # -- forgetting -----------------------------------------------------------------------

    def remove_expired(self, now_ms: int) -> list[int]:
        """Forget producers without open transaction and idle for ``expiration_ms`` or more.

        Returns their ids. Idle counts from the timestamp of the last batch or marker.
        """
        expired = [
            producer_id
            for producer_id, entry in self._entries.items()
            if self._is_expired(entry, now_ms)
        ]
        for producer_id in expired:
            del self._entries[producer_id]
        return expired

    def on_log_start(self, log_start_offset: int) -> None:
        """Records below ``log_start_offset`` have been deleted.

        Unless ``accept_unknown``, producers all of whose batches are below go, open transaction
        or not. Those known by a marker only stay until they expire, so that they stay fenced
        (2.3 forgets them).
        """
        while self._unreplicated and self._unreplicated[0][1] < log_start_offset:
            self._unreplicated.popleft()
        if not self.accept_unknown:
            gone = [
                entry
                for entry in self._entries.values()
                if self._is_deleted(entry, log_start_offset)
            ]
            for entry in gone:
                del self._entries[entry.producer_id]
                if entry.txn_first_offset >= 0:
                    del self._ongoing[entry.txn_first_offset]
        self.end_offset = max(self.end_offset, log_start_offset)
        self._log_start = log_start_offset
        self._find_first_unstable()

    def clear(self, offset: int) -> None:
        """Forget everything: the log begins anew at ``offset``."""
        self._unreplicated.clear()
        self._log_start = offset
        self.restore((), offset)

    def restore(self, entries: Iterable[ProducerEntry], end_offset: int) -> None:
        """Replace all producers by ``entries`` as of ``end_offset``; the log is read from there.

        Ended transactions stay unstable if their markers are below ``end_offset``: those above
        come again, or have been truncated.
        """
        self._entries = {entry.producer_id: entry for entry in entries}
        self._ongoing = {
            entry.txn_first_offset: entry.producer_id
            for entry in sorted(self._entries.values(), key=lambda entry: entry.txn_first_offset)
            if entry.txn_first_offset >= 0
        }
        while self._unreplicated and self._unreplicated[-1][1] >= end_offset:
            self._unreplicated.pop()
        self.end_offset = end_offset
        self._find_first_unstable()

    def _is_expired(self, entry: ProducerEntry, now_ms: int) -> bool:
        return entry.txn_first_offset < 0 and now_ms - entry.last_timestamp >= self.expiration_ms

    def _is_deleted(self, entry: ProducerEntry, log_start_offset: int) -> bool:
        """Drop the entry's batches below the log's start; say whether that left it none."""
        batches = entry.batches
        if not batches:
            return False
        while batches and batches[0].last_offset < log_start_offset:
            batches.popleft()
        return not batches

    def _find_first_unstable(self) -> None:
        first = min((first for first, _ in self._unreplicated), default=None)
        ongoing = next(iter(self._ongoing), None)
        if first is None or (ongoing is not None and ongoing < first):
            first = ongoing
        self.first_unstable_offset = None if first is None else max(first, self._log_start)

    # -- looking --------------------------------------------------------------------------

    def get(self, producer_id: int) -> ProducerEntry | None:
        """What is known of a producer."""
        return self._entries.get(producer_id)

    def entries(self) -> Iterator[ProducerEntry]:
        """All producers: for DescribeProducers, snapshots, and what the cleaner must keep."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
