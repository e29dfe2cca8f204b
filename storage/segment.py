"""One segment of a log: a ``.log`` file, its indexes, and what is known of them."""

import logging
import os
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, NamedTuple

from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import LOG_OVERHEAD, NO_TIMESTAMP, Record, iter_records
from kavka.storage.batch_scan import BatchPosition, scan
from kavka.storage.fs import Buffer, File, FileSystem
from kavka.storage.index import OffsetIndex, TimeIndex
from kavka.storage.names import INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, segment_file
from kavka.storage.open_files import OpenFiles
from kavka.storage.segment_file import MAPPED_APPEND_LIMIT, SegmentFile
from kavka.storage.txn_index import TransactionIndex

log = logging.getLogger("kavka.storage.log")

MAX_RELATIVE_OFFSET: Final = 2**31 - 1

_MARKS: Final = 512  # batch positions remembered for readers at the tail
_MAX_DECOMPRESSED: Final = 1 << 30  # bytes of one batch, when a record is searched in it
_LENGTH: Final = Struct(">i")


class TimestampedOffset(NamedTuple):
    """A record found by time."""

    timestamp: int
    offset: int
    leader_epoch: int


class Segment(SegmentFile):
    """A ``.log`` file, its indexes, and what is known of them without reading.

    Owned by one thread: the one that loads it, then the event loop. Every method may raise
    OSError; the state then is as it was before the call.
    """

    __slots__ = (
        "_entries_left",
        "_first_timestamp",
        "_marks",
        "_max_timestamp",
        "_max_timestamp_offset",
        "_unindexed",
        "created_ms",
        "index_interval",
        "is_active",
        "is_full",
        "offset_index",
        "roll_jitter_ms",
        "time_index",
        "txn_index",
    )

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        base_offset: int,
        open_files: OpenFiles,
        *,
        created_ms: int,
        index_interval: int = 4096,
        index_bytes: int = 10_485_760,
        mapped: bool = True,
        roll_jitter_ms: int = 0,
        preallocate: int = 0,
    ) -> None:
        """Stand for the segment at ``base_offset`` in ``directory``; nothing is touched yet.

        ``index_interval`` and ``index_bytes`` are index.interval.bytes and segment.index.bytes;
        ``mapped`` and ``preallocate`` are the file's; ``roll_jitter_ms`` is taken off
        segment.ms. ``created_ms`` decides when a segment without timestamps rolls.
        """
        super().__init__(
            fs, directory, base_offset, open_files, mapped=mapped, preallocate=preallocate
        )
        self.created_ms = created_ms
        self.index_interval = index_interval
        self.roll_jitter_ms = roll_jitter_ms
        base = os.path.join(directory, segment_file(base_offset, ""))
        self.offset_index = OffsetIndex(fs, base + INDEX_SUFFIX, base_offset, index_bytes)
        self.time_index = TimeIndex(fs, base + TIME_INDEX_SUFFIX, base_offset, index_bytes)
        self.txn_index = TransactionIndex(fs, base + TXN_INDEX_SUFFIX, base_offset)
        self.is_active = False
        self.is_full = False  # an index has no room
        self._max_timestamp: int | None = None  # None: not read from the time index yet
        self._max_timestamp_offset = base_offset
        self._first_timestamp: int | None = None  # max timestamp of the first batch
        self._unindexed = 0  # bytes since the last index entry
        self._entries_left = 0  # for which the indexes surely have room; 0: count again
        self._marks: dict[int, int] = {}  # offset → position of batches that begin with it

    # -- files ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Be a new segment, which has no files before its first record comes.

        So thousands of partitions without records cost no more than their directories.
        """
        self.exists = False
        self._max_timestamp = NO_TIMESTAMP
        self.offset_index.reset()
        self.time_index.reset()

    def restore(
        self, size: int, max_timestamp: int, max_timestamp_offset: int, first_timestamp: int | None
    ) -> None:
        """Be a segment that somebody else has written, and know of it what they know."""
        self.size = size
        self._max_timestamp = max_timestamp
        self._max_timestamp_offset = max_timestamp_offset
        self._first_timestamp = first_timestamp

    def retire(self) -> None:
        """Be the active segment no longer: :meth:`finish` has written all, forget what is known.

        So memory does not grow with the log: an entry of both indexes takes 20 bytes here.
        """
        self.is_active = False
        self._marks.clear()
        self.offset_index.release()
        self.time_index.release()

    def let_go(self) -> None:
        """Close the file, and forget what was read of indexes, until they are needed again."""
        super().let_go()
        if not self.is_active and self.size:
            self.offset_index.release()
            self.time_index.release()

    def set_suffix(self, suffix: str) -> None:
        """Say that the files bear ``suffix``, without renaming any."""
        self.suffix = suffix
        base = os.path.join(self.directory, segment_file(self.base_offset, ""))
        self.offset_index.path = base + INDEX_SUFFIX + suffix
        self.time_index.path = base + TIME_INDEX_SUFFIX + suffix
        self.txn_index.path = base + TXN_INDEX_SUFFIX + suffix

    def rename(self, suffix: str) -> None:
        """Give all files of the segment another suffix (``.deleted``, or none).

        Should it fail half-way, each part knows the name it has, and it may be repeated.
        """
        old, old_suffix = self.path, self.suffix
        self.suffix = suffix
        try:
            self._fs.rename(old, self.path)
        except OSError as error:
            # One that is still to be made may be there: making it may have failed half-way.
            if self.exists or not isinstance(error, FileNotFoundError):
                self.suffix = old_suffix
                raise
        base = os.path.join(self.directory, segment_file(self.base_offset, ""))
        self.offset_index.rename(base + INDEX_SUFFIX + suffix)
        self.time_index.rename(base + TIME_INDEX_SUFFIX + suffix)
        self.txn_index.rename(base + TXN_INDEX_SUFFIX + suffix)

    def paths(self) -> list[str]:
        """All its files, also those that may not be there."""
        return [self.path, self.offset_index.path, self.time_index.path, self.txn_index.path]

    # -- writing --------------------------------------------------------------------------

    def append(
        self,
        parts: Sequence[Buffer],
        size: int,
        first_offset: int,
        last_offset: int,
        max_timestamp: int,
        timestamp_offset: int,
    ) -> None:
        """Write whole batches, ``size`` bytes in one or several buffers, and index them.

        ``max_timestamp`` is the largest of them, ``timestamp_offset`` an offset up to which a
        record has it. This is the hottest code of the product.
        """
        position = self.size
        end = position + size
        if end <= self._window_end and size <= MAPPED_APPEND_LIMIT:
            window = self._window
            assert window is not None
            at = position - self._window_start
            for part in parts:
                after = at + len(part)
                window[at:after] = part
                at = after
        else:
            self.write(parts, position, end)
        self.account(position, size, first_offset, last_offset, max_timestamp, timestamp_offset)

    def account(
        self,
        position: int,
        size: int,
        first_offset: int,
        last_offset: int,
        max_timestamp: int,
        timestamp_offset: int,
    ) -> None:
        """Index what stands at ``position`` and count it in: after a write, and in recovery."""
        if position == 0:
            self._first_timestamp = max_timestamp
        largest = self._max_timestamp
        if largest is None:
            largest = self.max_timestamp
        if max_timestamp > largest:
            self._max_timestamp = max_timestamp
            self._max_timestamp_offset = timestamp_offset
        unindexed = self._unindexed
        if unindexed > self.index_interval:
            self.offset_index.append(last_offset, position)
            self.time_index.maybe_append(self.max_timestamp, self._max_timestamp_offset)
            self._entries_left -= 1
            if self._entries_left <= 0:
                self._count_entries()
            unindexed = 0
        self._unindexed = unindexed + size
        marks = self._marks
        if len(marks) >= _MARKS:
            marks.clear()
        marks[first_offset] = position
        self.size = position + size

    def _count_entries(self) -> None:
        """See how many entries the indexes surely have room for; none means roll."""
        offsets, times = self.offset_index, self.time_index
        self._entries_left = min(
            offsets.max_entries - len(offsets), times.max_entries - 1 - len(times)
        )
        self.is_full = self._entries_left <= 0

    # -- what is known --------------------------------------------------------------------

    @property
    def max_timestamp(self) -> int:
        """The largest record timestamp (ms), -1 when no record has one."""
        if self._max_timestamp is None:
            entry = self.time_index.last_entry
            self._max_timestamp = entry.timestamp
            self._max_timestamp_offset = entry.offset
            if entry.timestamp <= 0 and self.size:
                # Only records without time leave no entry. An index of zeros would have retention
                # delete everything: look at the records.
                self.rebuild_indexes()
            if not self.is_active:
                self.time_index.release()  # one entry was wanted, of perhaps thousands
        return self._max_timestamp

    @property
    def max_timestamp_offset(self) -> int:
        """An offset up to which the record with the largest timestamp is."""
        assert self.max_timestamp >= NO_TIMESTAMP
        return self._max_timestamp_offset

    @property
    def largest_timestamp(self) -> int:
        """What retention goes by: the largest record timestamp, else the file's mtime (ms)."""
        largest = self.max_timestamp
        if largest >= 0:
            return largest
        return self.mtime_ms

    @property
    def mtime_ms(self) -> int:
        """When the file was last written, ms since 1970."""
        stat = self._fs.stat(self.path)
        return stat.mtime_ms if stat else self.created_ms

    @property
    def first_timestamp(self) -> int:
        """The largest timestamp of the first batch (ms), which segment.ms counts from; or -1."""
        if self._first_timestamp is None:
            first = next(self.batches(0), None)
            if first is None:
                return NO_TIMESTAMP
            self._first_timestamp = first.max_timestamp
        return self._first_timestamp

    def should_roll(
        self,
        size: int,
        max_timestamp: int,
        last_offset: int,
        now_ms: int,
        bytes_limit: int,
        ms: int,
    ) -> bool:
        """Whether ``size`` more bytes must go into a new segment (log-storage.md §3).

        ``bytes_limit`` and ``ms`` are segment.bytes and segment.ms.
        """
        if self._entries_left <= 0:
            self._count_entries()
        if (
            self.size > bytes_limit - size
            or self.is_full
            or not 0 <= last_offset - self.base_offset <= MAX_RELATIVE_OFFSET
        ):
            return True
        if self.size == 0:
            return False
        first = self.first_timestamp
        waited = max_timestamp - first if first >= 0 else now_ms - self.created_ms
        return waited > ms - self.roll_jitter_ms

    # -- reading --------------------------------------------------------------------------

    def batches(self, start: int = 0, end: int | None = None) -> Iterator[BatchPosition]:
        """Walk over the batches from position ``start``, which must be one's start."""
        end = self.size if end is None else end
        if start >= end:
            return iter(())
        return scan(self._fs, self.file(), start, end)

    def batch_size_at(self, position: int) -> int:
        """Bytes of the batch that begins at ``position``."""
        length: int = _LENGTH.unpack_from(self.pread(LOG_OVERHEAD, position), 8)[0]
        return length + LOG_OVERHEAD

    def find_position(self, offset: int) -> int:
        """Where the first batch that ends at or after ``offset`` begins; ``size`` for none."""
        known = self._marks.get(offset)
        if known is not None:
            return known
        for batch in self._batches_from(offset):
            if batch.last_offset >= offset:
                return batch.position
        return self.size

    def _batches_from(self, offset: int) -> Iterator[BatchPosition]:
        """Walk from where the index says that ``offset`` is to come; rebuild one that lies."""
        entry = self.offset_index.lookup(offset)
        if entry.position:
            # Whatever an index file claims is believed only if a batch that fits stands there.
            try:
                batch = next(self.batches(entry.position), None)
            except KafkaError:
                batch = None
            if batch is None or not (
                self.base_offset <= batch.base_offset <= batch.last_offset <= entry.offset
            ):
                log.warning(
                    "An index points to where no batch is, and is rebuilt file=%s entry=%s",
                    self.offset_index.path,
                    tuple(entry),
                )
                self.rebuild_indexes()
                entry = self.offset_index.lookup(offset)
        return self.batches(entry.position)

    def find_by_timestamp(self, timestamp: int, starting_offset: int) -> TimestampedOffset | None:
        """The first record at or after ``starting_offset`` not older than ``timestamp``."""
        entry = self.time_index.lookup(timestamp)
        for batch in self._batches_from(max(entry.offset, starting_offset)):
            if batch.max_timestamp < timestamp or batch.last_offset < starting_offset:
                continue
            for record in self.records(batch):
                if record.timestamp >= timestamp and record.offset >= starting_offset:
                    return TimestampedOffset(record.timestamp, record.offset, batch.leader_epoch)
        return None

    def records(self, batch: BatchPosition) -> Iterator[Record]:
        """Decode the records of a batch. Raises KafkaError for damaged ones."""
        data = self.pread(batch.size, batch.position)
        if batch.header is None:
            from kavka.protocol.records.legacy import read_records

            return read_records(data, 0, batch.size, data[16], _MAX_DECOMPRESSED)
        return iter_records(data, 0, batch.header, _MAX_DECOMPRESSED)

    def read_end(self) -> tuple[int, int]:
        """One past the last offset in the file (the base offset when it is empty), and where its
        last batch ends: less than ``size`` when something else follows."""
        last, end = self.base_offset - 1, 0
        for batch in self._batches_from(self.base_offset + MAX_RELATIVE_OFFSET):
            last, end = batch.last_offset, batch.position + batch.size
        return last + 1, end

    # -- changing what is there -----------------------------------------------------------

    def truncate_to(self, offset: int, now_ms: int) -> int:
        """Remove the batches that end at or after ``offset``; return what comes next now.

        That is ``offset``, or less when it lay inside of a batch, which is gone as a whole then.
        """
        position = self.find_position(offset)
        first = next(self.batches(position), None)
        if first is not None:
            offset = min(offset, first.base_offset)
            self._cut(self.file(), position)
            self.size = position
        self.offset_index.truncate_to(offset)
        self.time_index.truncate_to(offset)
        self.txn_index.truncate_to(offset)
        self._marks.clear()
        self._unindexed = 0
        self._count_entries()
        if position == 0:
            self.created_ms = now_ms
            self._first_timestamp = None
        self.reload_max_timestamp()
        return offset

    def reload_max_timestamp(self) -> None:
        """Work out the largest timestamp from the time index and what follows its last entry."""
        timestamp, offset = self.time_index.last_entry
        for batch in self._batches_from(offset):
            if batch.max_timestamp > timestamp:
                timestamp, offset = batch.max_timestamp, batch.last_offset
        self._max_timestamp = timestamp
        self._max_timestamp_offset = offset

    def reset_indexes(self) -> None:
        """Forget all that recovery finds out again, the indexes first."""
        self.offset_index.reset()
        self.time_index.reset()
        self._marks.clear()
        self._unindexed = 0
        self._max_timestamp = NO_TIMESTAMP
        self._max_timestamp_offset = self.base_offset
        self._first_timestamp = None
        self._entries_left = 0
        self.is_full = False
        self.size = 0

    def rebuild_indexes(self) -> None:
        """Make offset and time index anew from the batch headers."""
        end = self.size
        self.reset_indexes()
        for batch in scan(self._fs, self.file(), 0, end):
            self.account(
                batch.position,
                batch.size,
                batch.base_offset,
                batch.last_offset,
                batch.max_timestamp,
                batch.last_offset,
            )
        self.size = end
        if not self.is_active:
            self.write_indexes()

    def write_indexes(self) -> bool:
        """Bring the index files up to date, with the last time index entry (no sync).

        Says whether one was changed.
        """
        if self.max_timestamp >= 0:
            self.time_index.maybe_append(self.max_timestamp, self._max_timestamp_offset)
        changed = self.offset_index.write_out()
        changed |= self.time_index.write_out()
        changed |= self.txn_index.write_out()
        return changed

    def finish(self) -> bool:
        """Complete the files at roll and clean close: indexes written, reservation cut.

        Says whether an index was changed.
        """
        # Before its first record it has no index files, but one that was emptied has old ones.
        has_indexes = self.size > 0 or self._fs.exists(self.offset_index.path)
        changed = has_indexes and self.write_indexes()
        self.trim()
        return changed

    def index_files(self) -> list[File]:
        """Its index files, opened, for a flush."""
        return [self._fs.open(path) for path in self.paths()[1:] if self._fs.exists(path)]
