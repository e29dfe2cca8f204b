"""What the log says about producers, against what their snapshots say."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kavka.protocol.records.batch import BatchHeader
from kavka.storage.producer_entry import ProducerEntry

_PRODUCERS_MAX: Final = 100_000
"""How many are followed, so that memory stays bounded; of later ones snapshots are believed."""


class EndedTxn(NamedTuple):
    """A transaction that a marker has ended, as far as the log shows it."""

    first_offset: int | None  # None: not in the log
    last_stable_offset: int  # right behind the marker


class _Producer(NamedTuple):
    epoch: int
    last_sequence: int = -1
    last_offset: int = -1  # -1: nothing but a marker since the epoch began


class ProducerTracker:
    """Follows the producers through a log."""

    __slots__ = ("_open", "_producers", "log_start_offset")

    def __init__(self, log_start_offset: int) -> None:
        self.log_start_offset = log_start_offset
        self._producers: dict[int, _Producer] = {}
        self._open: dict[int, int] = {}  # producer id → first offset of its transaction, ascending

    def data(self, header: BatchHeader) -> None:
        """A batch of records of a producer."""
        producer_id = header.producer_id
        if producer_id not in self._producers and len(self._producers) >= _PRODUCERS_MAX:
            return
        self._producers[producer_id] = _Producer(
            header.producer_epoch, header.last_sequence, header.last_offset
        )
        if header.is_transactional and header.records_count:
            # (Compaction may leave an empty batch of a transaction that is long over.)
            self._open.setdefault(producer_id, header.base_offset)

    def marker(self, header: BatchHeader) -> EndedTxn:
        """A marker ends the producer's transaction."""
        known = self._producers.get(header.producer_id)
        if known is None:
            if len(self._producers) < _PRODUCERS_MAX:
                self._producers[header.producer_id] = _Producer(header.producer_epoch)
        elif header.producer_epoch != known.epoch:
            self._producers[header.producer_id] = _Producer(header.producer_epoch)
        first = self._open.pop(header.producer_id, None)
        return EndedTxn(first, next(iter(self._open.values()), header.next_offset))

    def contradictions(self, entries: Iterable[ProducerEntry]) -> Iterator[str]:
        """What a snapshot of the present offset says, and the log does not.

        A producer may be missing there, for it may have expired, unless its transaction is open.
        """
        missing = set(self._open)
        for entry in entries:
            missing.discard(entry.producer_id)
            known = self._producers.get(entry.producer_id)
            if known is None:
                continue
            txn = self._open.get(entry.producer_id, -1)
            said: tuple[object, ...] = (entry.epoch,)
            found: tuple[object, ...] = (known.epoch,)
            if entry.last_offset >= self.log_start_offset:
                said += (entry.last_sequence, entry.last_offset)
                found += (known.last_sequence, known.last_offset)
            if entry.txn_first_offset < 0 or entry.txn_first_offset >= self.log_start_offset:
                said += (entry.txn_first_offset,)
                found += (txn,)
            if said != found:
                yield (
                    f"producer {entry.producer_id} is said to have epoch {entry.epoch}, last "
                    f"sequence {entry.last_sequence}, last offset {entry.last_offset} and "
                    f"transaction {entry.txn_first_offset}; in the log that is {known.epoch}, "
                    f"{known.last_sequence}, {known.last_offset} and {txn}"
                )
        for producer_id in sorted(missing):
            yield f"producer {producer_id}, which has an open transaction, is missing"
