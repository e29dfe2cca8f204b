"""Transactions as the cleaner meets them: what of them may go (log-storage.md §9).

Pure: batches and markers go in in log order, verdicts come out. Kafka's
``CleanedTransactionMetadata``.
"""

from collections.abc import Iterable

from kavka.protocol.records.batch import BatchHeader
from kavka.protocol.records.control import ControlType, EndTxnMarker
from kavka.storage.txn_index import AbortedTxn


class CleanedTransactions:
    """Which transaction each producer is in, for one walk over a log."""

    __slots__ = ("_aborted", "_coming", "_committed", "_seen")

    def __init__(self, aborted: Iterable[AbortedTxn]) -> None:
        """``aborted`` are all transactions that the walk may meet and that were aborted."""
        # The same one may be told by two indexes, of a segment and of its replacement.
        self._coming = sorted(set(aborted), key=lambda txn: txn.first_offset, reverse=True)
        self._aborted: dict[int, AbortedTxn] = {}  # by producer: begun, the marker is to come
        self._seen: set[int] = set()  # those of them that still had a batch in the log
        self._committed: set[int] = set()  # producers with a batch of a committed one

    def _begin_up_to(self, offset: int) -> None:
        while self._coming and self._coming[-1].first_offset <= offset:
            txn = self._coming.pop()
            self._aborted.setdefault(txn.producer_id, txn)

    def on_data(self, header: BatchHeader) -> bool:
        """Take a batch with records in; True when it belongs to an aborted transaction."""
        self._begin_up_to(header.last_offset)
        if not header.is_transactional:
            return False
        producer_id = header.producer_id
        if producer_id in self._aborted:
            self._seen.add(producer_id)
            return True
        self._committed.add(producer_id)
        return False

    def on_marker(
        self, header: BatchHeader, marker: EndTxnMarker | None
    ) -> tuple[bool, AbortedTxn | None]:
        """Take a control batch in; ``marker`` is what it holds.

        Says whether nothing of the transaction was met any more, so that the marker may go. When
        an aborted one was met it is returned, for the new transaction index. (Its batches go now,
        all but the last of an active producer, and its marker in a later cleaning.)
        """
        self._begin_up_to(header.last_offset)
        if header.records_count == 0:  # emptied before
            return True, None
        if marker is None:  # a control record of another kind
            return False, None
        producer_id = header.producer_id
        if marker.type is ControlType.COMMIT:
            found = producer_id in self._committed
            self._committed.discard(producer_id)
            return not found, None
        txn = self._aborted.pop(producer_id, None)
        found = producer_id in self._seen
        self._seen.discard(producer_id)
        return not found, txn if found else None
