"""The indexes of a segment against its batches, in one walk over both."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from kavka.protocol.records.batch import NO_TIMESTAMP
from kavka.storage.fs import FileSystem
from kavka.storage.index import (
    CorruptIndex,
    OffsetIndex,
    OffsetPosition,
    TimeIndex,
    TimestampOffset,
)
from kavka.storage.inspect.batches import Batch
from kavka.storage.inspect.check_producers import EndedTxn
from kavka.storage.inspect.findings import Report
from kavka.storage.names import INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, segment_file
from kavka.storage.txn_index import AbortedTxn, TransactionIndex

_Check = TypeVar("_Check")


class OffsetIndexCheck:
    """Every entry is the position of a batch, and the last offset of that batch.

    Brokers before 3.x index an append of several batches as a whole: the offset then is the last
    one of a later batch. Searches from there are as right.
    """

    def __init__(self, report: Report, file: str, index: OffsetIndex) -> None:
        self._report = report
        self._file = file
        self._entries: Iterator[OffsetPosition] = index.entries()
        self._entry = next(self._entries, None)
        self._waiting: deque[int] = deque()  # offsets, until a batch ends with them

    def batch(self, batch: Batch) -> None:
        """The next batch of the log."""
        entry = self._entry
        while entry is not None and entry.position < batch.position:
            self._report.problem(
                self._file, entry.offset, f"no batch begins at position {entry.position}"
            )
            entry = next(self._entries, None)
        if entry is not None and entry.position == batch.position:
            if entry.offset < batch.last_offset:
                self._report.problem(
                    self._file,
                    entry.offset,
                    f"the batch at position {entry.position} ends with offset {batch.last_offset}",
                )
            elif not self._waiting or self._waiting[-1] < entry.offset:
                self._waiting.append(entry.offset)
            else:
                self._report.problem(self._file, entry.offset, "entries are not ascending")
            entry = next(self._entries, None)
        self._entry = entry
        while self._waiting and self._waiting[0] <= batch.last_offset:
            offset = self._waiting.popleft()
            if offset != batch.last_offset:
                self._report.problem(self._file, offset, "no batch ends with this offset")

    def end(self) -> None:
        """There are no more batches."""
        for offset in self._waiting:
            self._report.problem(self._file, offset, "no batch ends with this offset")
        while self._entry is not None:
            self._report.problem(
                self._file,
                self._entry.offset,
                f"no batch begins at position {self._entry.position}",
            )
            self._entry = next(self._entries, None)


class TimeIndexCheck:
    """Every entry is the largest timestamp up to the end of the batch that has its offset, and
    the last one the largest of all: retention goes by it."""

    def __init__(self, report: Report, file: str, index: TimeIndex) -> None:
        self._report = report
        self._file = file
        self._entries: Iterator[TimestampOffset] = index.entries()
        self._entry = next(self._entries, None)
        self._largest = NO_TIMESTAMP
        self._last_indexed = NO_TIMESTAMP

    def batch(self, batch: Batch) -> None:
        """The next batch of the log."""
        self._largest = max(self._largest, batch.max_timestamp)
        while (entry := self._entry) is not None and entry.offset <= batch.last_offset:
            if batch.magic == 2 and entry.offset < batch.base_offset:
                self._report.problem(self._file, entry.offset, "no batch has this offset")
            elif entry.timestamp != self._largest:
                self._report.problem(
                    self._file,
                    entry.offset,
                    f"the largest timestamp up to here is {self._largest}, not {entry.timestamp}",
                )
            self._last_indexed = entry.timestamp
            self._entry = next(self._entries, None)

    def end(self) -> None:
        """There are no more batches."""
        while self._entry is not None:
            self._report.problem(self._file, self._entry.offset, "the log ends before this offset")
            self._last_indexed = self._entry.timestamp
            self._entry = next(self._entries, None)
        if self._last_indexed < self._largest:
            self._report.problem(
                self._file,
                None,
                f"the segment's largest timestamp {self._largest} is not in it, the last one is "
                f"{self._last_indexed}",
            )


class TransactionIndexCheck:
    """Every aborted transaction is there, from its first record to its marker.

    Compaction may have removed records, the marker, or both: what is not in the log any more
    cannot be held against the index.
    """

    def __init__(self, report: Report, file: str, index: TransactionIndex) -> None:
        self._report = report
        self._file = file
        self._entries: deque[AbortedTxn] = deque(index.entries())

    def aborted(self, producer_id: int, ended: EndedTxn, marker_offset: int) -> None:
        """A marker aborts a transaction."""
        first_offset = ended.first_offset
        self._pass_removed(marker_offset)
        if self._entries and self._entries[0].last_offset == marker_offset:
            entry = self._entries.popleft()
            if entry.producer_id != producer_id:
                self._report.problem(
                    self._file,
                    marker_offset,
                    f"the transaction aborted here is of producer {producer_id}, not "
                    f"{entry.producer_id}",
                )
            elif first_offset is not None and entry.first_offset > first_offset:
                self._report.problem(
                    self._file,
                    marker_offset,
                    f"the aborted transaction of producer {producer_id} begins at {first_offset}, "
                    f"not {entry.first_offset}",
                )
            elif entry.last_stable_offset > ended.last_stable_offset:
                self._report.problem(
                    self._file,
                    marker_offset,
                    f"the last stable offset then is {ended.last_stable_offset}, not "
                    f"{entry.last_stable_offset}",
                )
        elif first_offset is not None:
            self._report.problem(
                self._file,
                marker_offset,
                f"the transaction of producer {producer_id} that is aborted here is missing",
            )

    def batch(self, batch: Batch) -> None:
        """A batch that aborts nothing."""
        self._pass_removed(batch.base_offset)
        while self._entries and self._entries[0].last_offset <= batch.last_offset:
            entry = self._entries.popleft()
            self._report.problem(
                self._file,
                entry.last_offset,
                f"no transaction of producer {entry.producer_id} is aborted here",
            )

    def end(self, next_offset: int) -> None:
        """There are no more batches; the segment ends before ``next_offset``."""
        for entry in self._entries:
            if entry.last_offset >= next_offset:
                self._report.problem(
                    self._file, entry.last_offset, "the log ends before this offset"
                )

    def _pass_removed(self, offset: int) -> None:
        """Entries below ``offset`` that no batch has met are of markers that were removed."""
        while self._entries and self._entries[0].last_offset < offset:
            self._entries.popleft()


class SegmentIndexes(NamedTuple):
    """The checks of one segment's indexes; None for an index that cannot be checked."""

    offsets: OffsetIndexCheck | None
    times: TimeIndexCheck | None
    transactions: TransactionIndexCheck | None

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        directory: str,
        name: str,
        base_offset: int,
        report: Report,
        needed: bool,
    ) -> "SegmentIndexes":
        """Read the indexes of the segment ``base_offset`` in ``directory``.

        Reports those that are missing though they are ``needed`` (the log is not empty), and
        those that cannot be one. ``name`` is the directory's in the report. Raises OSError.
        """

        def checked(suffix: str, make: Callable[[str, str], _Check]) -> _Check | None:
            file = segment_file(base_offset, suffix)
            path = os.path.join(directory, file)
            shown = os.path.join(name, file)
            if suffix != TXN_INDEX_SUFFIX and not fs.exists(path):
                if needed:
                    report.problem(shown, None, "the index is missing")
                return None
            try:
                return make(path, shown)
            except CorruptIndex as error:
                report.problem(shown, None, str(error).replace(path, "this file"))
                return None

        def offsets(path: str, shown: str) -> OffsetIndexCheck:
            index = OffsetIndex(fs, path, base_offset)
            index.sanity_check()
            return OffsetIndexCheck(report, shown, index)

        def times(path: str, shown: str) -> TimeIndexCheck:
            index = TimeIndex(fs, path, base_offset)
            index.sanity_check()
            return TimeIndexCheck(report, shown, index)

        def transactions(path: str, shown: str) -> TransactionIndexCheck:
            return TransactionIndexCheck(report, shown, TransactionIndex(fs, path, base_offset))

        return cls(
            checked(INDEX_SUFFIX, offsets),
            checked(TIME_INDEX_SUFFIX, times),
            checked(TXN_INDEX_SUFFIX, transactions),
        )

    def batch(self, batch: Batch, *, aborts: bool) -> None:
        """The next batch of the log; one that ``aborts`` a transaction was told already."""
        if self.offsets is not None:
            self.offsets.batch(batch)
        if self.times is not None:
            self.times.batch(batch)
        if self.transactions is not None and not aborts:
            self.transactions.batch(batch)

    def aborted(self, producer_id: int, ended: EndedTxn, marker_offset: int) -> None:
        """A marker aborts a transaction."""
        if self.transactions is not None:
            self.transactions.aborted(producer_id, ended, marker_offset)

    def end(self, next_offset: int) -> None:
        """There are no more batches; ``next_offset`` follows the last one."""
        if self.offsets is not None:
            self.offsets.end()
        if self.times is not None:
            self.times.end()
        if self.transactions is not None:
            self.transactions.end(next_offset)
