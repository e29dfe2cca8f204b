"""Cleaning a log: its dirty part is read into a map of keys, then segments are written anew.

Runs in a worker, off the loop: it reads closed segments and writes ``.cleaned`` files beside them,
nothing else. Kafka's ``Cleaner`` of 2.3 (log-storage.md §9), with these differences:

* Checksums are looked at, so that a damaged batch is never sealed with a new one: the partition
  then counts as uncleanable and stays as it is.
* The marker that is all that is left of an active producer is kept whole. Emptied (as Kafka does)
  it no longer tells the producer's epoch when the log is replayed.
* Markers are never looked up among the keys, and a part of the log that fits into the map is clean
  up to the next segment, even when its last offsets are missing.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from threading import Event
from typing import Final, NamedTuple

from kavka.config.limits import DECOMPRESSED_BATCH_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    LOG_OVERHEAD,
    BatchHeader,
    crc_ok,
    iter_batches,
    read_header,
    records_payload,
)
from kavka.protocol.records.control import EndTxnMarker, read_end_txn_marker
from kavka.protocol.records.crc import Buffer
from kavka.protocol.records.legacy import read_records
from kavka.storage.cleaned_transactions import CleanedTransactions
from kavka.storage.cleaning_job import (
    CleanedGroup,
    CleanedLog,
    CleaningAborted,
    CleaningJob,
    LastOfProducer,
    Source,
)
from kavka.storage.fs import FileSystem
from kavka.storage.names import (
    CLEANED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    segment_file,
)
from kavka.storage.offset_map import OffsetMap
from kavka.storage.open_files import OpenFiles
from kavka.storage.producer_entry import CompletedTxn
from kavka.storage.record_filter import (
    Filtered,
    emptied_batch,
    filter_batch,
    filter_message_set,
    spans,
)
from kavka.storage.segment import MAX_RELATIVE_OFFSET, Segment
from kavka.storage.throttle import Throttle
from kavka.storage.txn_index import AbortedTxn, TransactionIndex

_SMALLEST_BUFFER: Final = 4096  # bytes, whatever the setting says

Events = Generator[CleanedGroup | CleanedLog, None, None]
"""What a worker tells of a job: each group when it is complete, at last the result."""

Chunk = tuple[bytes, list[tuple[int, int, int]]]
"""Bytes of a log, and (position, size, format) of the whole batches in them."""


class Control:
    """How fast a worker may go, and whether it is to go on at all."""

    __slots__ = ("_aborted", "_throttle")

    def __init__(self, throttle: Throttle, aborted: Event) -> None:
        self._throttle = throttle  # of reads and writes together
        self._aborted = aborted

    def account(self, size: int) -> None:
        """``size`` bytes were read or written; pause if that was too fast.

        Raises CleaningAborted.
        """
        pause = self._throttle.pause(size)
        if self._aborted.wait(pause) if pause else self._aborted.is_set():
            raise CleaningAborted


class SourceSize(NamedTuple):
    """A segment's files, as far as grouping goes by them (bytes)."""

    base_offset: int
    size: int
    index_size: int
    time_index_size: int


def group_segments(
    segments: Sequence[SourceSize], segment_bytes: int, index_bytes: int, end_offset: int
) -> list[list[SourceSize]]:
    """Cut a run of segments into groups, each of which fits into one segment.

    ``end_offset`` bounds the offsets in the last one.
    """
    groups: list[list[SourceSize]] = []
    sizes = (0, 0, 0)
    for number, segment in enumerate(segments):
        following = segments[number + 1].base_offset if number + 1 < len(segments) else end_offset
        total = (
            sizes[0] + segment.size,
            sizes[1] + segment.index_size,
            sizes[2] + segment.time_index_size,
        )
        if (
            groups
            and total[0] <= segment_bytes
            and total[1] <= index_bytes
            and total[2] <= index_bytes
            and following - 1 - groups[-1][0].base_offset <= MAX_RELATIVE_OFFSET
        ):
            groups[-1].append(segment)
            sizes = total
        else:
            groups.append([segment])
            sizes = (segment.size, segment.index_size, segment.time_index_size)
    return groups


def remove_cleaned(fs: FileSystem, directory: str) -> None:
    """Remove what an interrupted cleaning left in ``directory``. Raises OSError."""
    try:
        names = fs.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(CLEANED_SUFFIX):
            fs.unlink(os.path.join(directory, name), missing_ok=True)


class Rewriter:
    """One cleaning of one log: iterate over :meth:`run`."""

    def __init__(self, job: CleaningJob, fs: FileSystem, control: Control) -> None:
        self._job = job
        self._fs = fs
        self._control = control
        self._buffer = max(job.buffer_bytes, _SMALLEST_BUFFER)
        self._last_of = {each.producer_id: each for each in job.producers}
        self._map = OffsetMap(job.map_bytes, job.first_uncleanable - job.first_dirty)
        self._end = job.first_dirty  # all below is clean when we are done
        self._mtimes: dict[int, int] = {}  # by base offset, ms
        self._horizon = 0  # tombstones of segments older than this go (ms)
        self._keeps_deletes = True  # in the segment being read
        self._bytes_read = 0
        self._bytes_written = 0
        self._records_read = 0
        self._records_kept = 0
        self._keyless = 0

    def run(self) -> Events:
        """Yield each group when its files are complete and on disk, and at last the result.

        The files of a group are the receiver's then. Raises CleaningAborted, OSError, KafkaError
        for a log that cannot be read.
        """
        job = self._job
        for source in job.segments:
            stat = self._fs.stat(self._path(source.base_offset, LOG_SUFFIX))
            if stat is None:
                raise FileNotFoundError(self._path(source.base_offset, LOG_SUFFIX))
            self._mtimes[source.base_offset] = stat.mtime_ms
        clean = [each.base_offset for each in job.segments if each.base_offset < job.first_dirty]
        if clean:
            self._horizon = self._mtimes[clean[-1]] - job.delete_retention_ms
        aborted = self._aborted_transactions()
        self._build_map(CleanedTransactions(self._reaching(aborted, job.first_dirty)))
        transactions = CleanedTransactions(aborted)
        sources = [each for each in job.segments if each.base_offset < self._end]
        sizes = [
            SourceSize(
                each.base_offset,
                each.size,
                self._file_size(each.base_offset, INDEX_SUFFIX),
                self._file_size(each.base_offset, TIME_INDEX_SUFFIX),
            )
            for each in sources
        ]
        groups = group_segments(
            sizes, job.segment_bytes, job.segment_index_bytes, job.first_uncleanable
        )
        for group in groups:
            yield self._rewrite(group, transactions)
        yield CleanedLog(
            self._end,
            self._bytes_read,
            self._bytes_written,
            self._records_read,
            self._records_kept,
            self._map.size,
            self._map.utilization,
            self._keyless,
        )

    # -- reading ------------------------------------------------------------------------------

    def _path(self, base_offset: int, suffix: str) -> str:
        return os.path.join(self._job.directory, segment_file(base_offset, suffix))

    def _file_size(self, base_offset: int, suffix: str) -> int:
        stat = self._fs.stat(self._path(base_offset, suffix))
        return stat.size if stat else 0

    def _aborted_transactions(self) -> list[AbortedTxn]:
        job = self._job
        found = [*job.active_aborted]
        for base_offset in (*(each.base_offset for each in job.segments), *job.later_segments):
            path = self._path(base_offset, TXN_INDEX_SUFFIX)
            found += TransactionIndex(self._fs, path, base_offset).entries()
        return found

    @staticmethod
    def _reaching(aborted: list[AbortedTxn], offset: int) -> list[AbortedTxn]:
        return [txn for txn in aborted if txn.last_offset >= offset]

    def _chunks(self, source: Source | SourceSize) -> Iterator[Chunk]:
        """The batches of a segment, a buffer full at a time or one that is larger."""
        fs = self._fs
        file = fs.open(self._path(source.base_offset, LOG_SUFFIX))
        try:
            position, size = 0, source.size
            wanted = self._buffer
            while position < size:
                data = fs.pread(file, min(wanted, size - position), position)
                self._control.account(len(data))
                batches = [*iter_batches(data)]
                if not batches:
                    wanted = self._whole_batch(data, size - position)
                    continue
                yield data, batches
                at, length, _ = batches[-1]
                position += at + length
                wanted = self._buffer
        finally:
            file.close()

    @staticmethod
    def _whole_batch(data: bytes, left: int) -> int:
        """Bytes of the batch that ``data`` has only the beginning of."""
        size = left + 1
        if len(data) >= LOG_OVERHEAD:
            size = int.from_bytes(data[8:LOG_OVERHEAD], "big", signed=True) + LOG_OVERHEAD
        if not len(data) < size <= left:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "a batch passes its segment's end")
        return size

    def _header(self, data: bytes, at: int, size: int) -> BatchHeader:
        header = read_header(data, at)
        if not crc_ok(data, at, size):
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE,
                f"the checksum of the batch at offset {header.base_offset} does not match",
            )
        return header

    @staticmethod
    def _marker(data: bytes, at: int, header: BatchHeader) -> EndTxnMarker | None:
        return read_end_txn_marker(data, at, header) if header.records_count else None

    # -- the map --------------------------------------------------------------------------------

    def _build_map(self, transactions: CleanedTransactions) -> None:
        """Read the dirty part, as far as its keys fit into the map."""
        job = self._job
        room = max(1, min(int(self._map.slots * job.map_load), self._map.slots - 1))
        for number, source in enumerate(job.segments):
            following = job.segments[number + 1 :]
            if following and following[0].base_offset <= job.first_dirty:
                continue
            for data, batches in self._chunks(source):
                for at, size, magic in batches:
                    if not self._map_batch(data, at, size, magic, transactions, room):
                        return
        self._end = job.first_uncleanable

    def _map_batch(
        self,
        data: bytes,
        at: int,
        size: int,
        magic: int,
        transactions: CleanedTransactions,
        room: int,
    ) -> bool:
        """Put the keys of a batch into the map; False when there is no room for one."""
        first_dirty, offsets = self._job.first_dirty, self._map
        if magic < 2:
            for record in read_records(data, at, size, magic, DECOMPRESSED_BATCH_BYTES_MAX):
                if record.key is not None and record.offset >= first_dirty:
                    if offsets.size >= room:
                        return False
                    offsets.put(record.key, record.offset)
                self._end = max(self._end, record.offset + 1)
            return True
        header = self._header(data, at, size)
        if header.is_control:
            transactions.on_marker(header, self._marker(data, at, header))
        elif not transactions.on_data(header) and header.last_offset >= first_dirty:
            payload = records_payload(data, at, header, DECOMPRESSED_BATCH_BYTES_MAX)
            put = offsets.put
            for _, _, offset, _, key, _ in spans(payload, header):
                if key is not None and offset >= first_dirty:
                    if offsets.size >= room:
                        return False
                    put(key, offset)
                    self._end = offset + 1
        self._end = max(self._end, header.next_offset)
        return True

    # -- the new segments -----------------------------------------------------------------------

    def _rewrite(
        self, group: Sequence[SourceSize], transactions: CleanedTransactions
    ) -> CleanedGroup:
        with _NewSegment(self._job, self._fs, self._control, group[0].base_offset) as target:
            for source in group:
                self._keeps_deletes = self._mtimes[source.base_offset] > self._horizon
                self._bytes_read += source.size
                for data, batches in self._chunks(source):
                    for at, size, magic in batches:
                        self._rewrite_batch(data, at, size, magic, transactions, target)
                    target.write(self._buffer)
            cleaned = target.complete(self._mtimes[group[-1].base_offset])
            self._bytes_written += cleaned.size
            return cleaned._replace(sources=tuple(each.base_offset for each in group))

    def _rewrite_batch(
        self,
        data: bytes,
        at: int,
        size: int,
        magic: int,
        transactions: CleanedTransactions,
        target: "_NewSegment",
    ) -> None:
        if magic < 2:
            left = filter_message_set(data, at, size, magic, self._keep)
            self._records_kept += left.records
            if left.records:
                target.add(left.data, left.last_offset, left.last_offset, left.max_timestamp)
            return
        header = self._header(data, at, size)
        whole: Buffer = memoryview(data)[at : at + size]
        last = self._last_of.get(header.producer_id) if header.producer_id >= 0 else None
        if header.is_control:
            self._records_read += 1
            may_go, aborted = transactions.on_marker(header, self._marker(data, at, header))
            if not may_go or self._keeps_deletes or _is_last_marker(header, last):
                self._records_kept += 1
                target.add_batch(whole, header, header.max_timestamp)
            if aborted is not None:
                target.add_aborted(aborted)
            return
        self._records_read += header.records_count
        if transactions.on_data(header):
            left = Filtered(b"", 0, header.last_offset, header.max_timestamp)
        elif header.base_offset >= self._end and header.records_count:
            left = Filtered(whole, header.records_count, header.last_offset, header.max_timestamp)
        else:
            left = filter_batch(data, at, header, self._keep)
        self._records_kept += left.records
        if left.records:
            target.add_batch(left.data, header, left.max_timestamp)
        elif last is not None and last.last_offset == header.last_offset:
            target.add_batch(emptied_batch(header), header, header.max_timestamp)

    def _keep(self, offset: int, key: bytes | None, has_value: bool) -> bool:
        if offset >= self._end:
            return True
        if key is None:
            self._keyless += 1
            return False
        return (has_value or self._keeps_deletes) and offset >= self._map.get(key)


def _is_last_marker(header: BatchHeader, last: LastOfProducer | None) -> bool:
    return last is not None and last.last_offset < 0 and last.epoch == header.producer_epoch


class _NewSegment:
    """The ``.cleaned`` files of one group. Unless :meth:`complete` was reached, the end of the
    ``with`` block removes them."""

    def __init__(
        self, job: CleaningJob, fs: FileSystem, control: Control, base_offset: int
    ) -> None:
        self._fs = fs
        self._control = control
        self._directory = job.directory
        self._segment = Segment(
            fs,
            job.directory,
            base_offset,
            OpenFiles(2),
            created_ms=0,
            index_interval=job.index_interval_bytes,
            index_bytes=job.segment_index_bytes,
        )
        self._segment.set_suffix(CLEANED_SUFFIX)
        self._pending = bytearray()  # accounted for in the segment, not written yet
        self._first_timestamp: int | None = None
        self._complete = False

    def __enter__(self) -> "_NewSegment":
        segment, fs = self._segment, self._fs
        for path in segment.paths():
            fs.unlink(path, missing_ok=True)
        segment.begin()
        # Exclusive: should a worker of a broker that was killed be at it still, one of us fails.
        fs.open(segment.path, write=True, create=True, exclusive=True).close()
        segment.txn_index.reset()
        return self

    def __exit__(self, *_: object) -> None:
        segment = self._segment
        segment.release()
        if not self._complete:
            for path in segment.paths():
                self._fs.unlink(path, missing_ok=True)

    def add_batch(self, data: Buffer, header: BatchHeader, max_timestamp: int) -> None:
        """Put a v2 batch behind those before it."""
        self.add(data, header.base_offset, header.last_offset, max_timestamp)

    def add(self, data: Buffer, base_offset: int, last_offset: int, max_timestamp: int) -> None:
        """Put a batch or message set behind those before it."""
        if self._first_timestamp is None:
            self._first_timestamp = max_timestamp
        self._pending += data
        segment = self._segment
        segment.account(
            segment.size, len(data), base_offset, last_offset, max_timestamp, last_offset
        )

    def add_aborted(self, txn: AbortedTxn) -> None:
        """An aborted transaction whose marker was kept because batches of it were met."""
        self._segment.txn_index.append(
            CompletedTxn(
                txn.producer_id,
                txn.first_offset,
                txn.last_offset,
                True,
                txn.last_stable_offset,
            )
        )

    def write(self, at_least: int = 1) -> None:
        """Write out what is pending if that is so many bytes. Raises OSError, CleaningAborted."""
        size = len(self._pending)
        if size >= at_least:
            self._fs.pwrite(self._segment.file(), self._pending, self._segment.size - size)
            self._pending = bytearray()
            self._control.account(size)

    def complete(self, mtime_ms: int) -> CleanedGroup:
        """Finish the files, sync them and their names. Raises OSError, CleaningAborted."""
        self.write()
        segment, fs = self._segment, self._fs
        log_file = segment.file()
        if segment.size:
            segment.write_indexes()
        else:
            segment.offset_index.write_out()
            segment.time_index.write_out()
        fs.set_mtime(segment.path, mtime_ms)  # tombstones grow old by it
        for file in (log_file, *segment.index_files()):
            fs.fdatasync(file)
        fs.sync_dir(self._directory)
        self._complete = True
        return CleanedGroup(
            (),
            segment.size,
            segment.max_timestamp,
            segment.max_timestamp_offset,
            self._first_timestamp,
        )
