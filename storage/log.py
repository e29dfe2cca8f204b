"""A partition's log: segments one behind the other, and what is known about them.

Owned by one thread: the one that loads it, then the event loop. Only a :class:`FlushJob` runs in
another thread, and touches nothing but files. Loading and recovery are in
:mod:`kavka.storage.recovery`, questions by time and epoch in :mod:`kavka.storage.queries`.

Errors of the disk become KafkaError(KAFKA_STORAGE_ERROR) and leave the log as it was. A full disk
is only that; any other one means that the disk can no longer be believed, and takes the log
offline (its owner is told, for the whole directory goes with it).
"""

import logging
import os
import random
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    CONTROL_MASK,
    TIMESTAMP_TYPE_MASK,
    BatchHeader,
    crc_ok,
    iter_batches,
    read_header,
    stamp,
)
from kavka.protocol.topics import TopicPartition
from kavka.storage import queries
from kavka.storage.append import NO_TIMESTAMP, AppendInfo, AppendOrigin
from kavka.storage.clock import Clock
from kavka.storage.epochs import EpochEndOffset, LeaderEpochCache
from kavka.storage.fetch_slice import NOTHING, FetchSlice
from kavka.storage.flush import FlushJob
from kavka.storage.fs import FileSystem, is_disk_full, storage_error
from kavka.storage.names import DELETED_SUFFIX
from kavka.storage.open_files import OpenFiles
from kavka.storage.producers import ProducerStateManager
from kavka.storage.replay import EndMarker, read_marker, rebuild_producers
from kavka.storage.retention import LogBounds, RetentionRules, deletable
from kavka.storage.segment import Segment, TimestampedOffset
from kavka.storage.segments import Segments
from kavka.storage.topic_id import ZERO_TOPIC_ID, write_topic_id
from kavka.storage.txn_index import AbortedTxn

__all__ = ["AppendInfo", "AppendOrigin", "FetchSlice", "Log", "SegmentDeletion"]

log = logging.getLogger("kavka.storage.log")

_Answer = TypeVar("_Answer")

_ALWAYS: Final = -2  # no timestamp is below it
_SYNCED_OFTEN_MESSAGES: Final = 10_000
_SYNCED_OFTEN_MS: Final = 10_000


class SegmentDeletion:
    """A segment that is out of the log; its files are renamed and wait to be removed."""

    __slots__ = ("_paths", "base_offset", "delay_ms", "next_offset", "reason", "size")

    def __init__(self, segment: Segment, next_offset: int, reason: str, delay_ms: int) -> None:
        self.base_offset = segment.base_offset
        self.next_offset = next_offset
        self.size = segment.size  # bytes of records
        self.reason = reason
        self.delay_ms = delay_ms  # file.delete.delay.ms: readers may be at it
        self._paths = segment.paths()

    def run(self, fs: FileSystem) -> None:
        """Remove the files. *May block long.* Raises OSError; harmless to repeat."""
        for path in self._paths:
            fs.unlink(path, missing_ok=True)


class Log:
    """One replica of one partition.

    Offsets: ``log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset``
    (log end is the next offset to be written), and ``recovery_point``: all below it is on disk.
    """

    __slots__ = (
        "__weakref__",
        "_active",
        "_clock",
        "_directory_dirty",
        "_files",
        "_fs",
        "_random",
        "_roll_after",
        "_truncations",
        "config",
        "directory",
        "high_watermark",
        "last_flushed",
        "leader_epochs",
        "log_end_offset",
        "log_start_offset",
        "offline",
        "on_config",
        "on_rolled",
        "on_storage_error",
        "on_truncated",
        "producers",
        "recovery_point",
        "segments",
        "topic_id",
        "topic_partition",
    )

    def __init__(
        self,
        topic_partition: TopicPartition,
        directory: str,
        config: TopicConfig,
        *,
        fs: FileSystem,
        clock: Clock,
        rng: random.Random,
        open_files: OpenFiles,
        segments: Segments,
        leader_epochs: LeaderEpochCache,
        producers: ProducerStateManager,
        log_start_offset: int,
        log_end_offset: int,
        recovery_point: int,
        topic_id: bytes = ZERO_TOPIC_ID,
        new_names: bool = True,
    ) -> None:
        """Put together what :func:`kavka.storage.recovery.load_log` found; use that.

        ``new_names`` says that files were made which the directory may lose at a power loss.
        """
        self.topic_partition = topic_partition
        self.topic_id = topic_id
        self.directory = directory
        self.config = config
        self.segments = segments
        self.leader_epochs = leader_epochs
        self.producers = producers
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset
        self.recovery_point = recovery_point
        self.high_watermark = log_start_offset
        self.last_flushed = clock.monotonic()  # seconds, for flush.ms
        self.offline: str | None = None  # why it can no longer be used
        self.on_config: Callable[[Log], None] | None = None
        self.on_rolled: Callable[[Log], None] | None = None
        self.on_storage_error: Callable[[Log, OSError], None] | None = None
        self.on_truncated: Callable[[Log, list[SegmentDeletion]], None] | None = None
        self._fs = fs
        self._clock = clock
        self._random = rng
        self._files = open_files
        self._roll_after = _ALWAYS  # a larger timestamp means: look at segment.ms
        self._truncations = 0
        self._directory_dirty = new_names  # names in the directory are not synced
        self._active = segments.last
        self._active.is_active = True
        self._tune(self._active)

    # -- how far ----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of records in all segments."""
        return self.segments.size

    @property
    def last_stable_offset(self) -> int:
        """How far read_committed consumers may read: nothing of an open transaction."""
        unstable = self.producers.first_unstable_offset
        high_watermark = self.high_watermark
        return high_watermark if unstable is None or unstable > high_watermark else unstable

    @property
    def unflushed(self) -> int:
        """Records that are not on disk yet, for flush.messages."""
        return self.log_end_offset - self.recovery_point

    def advance_high_watermark(self, offset: int) -> None:
        """Consumers may read below ``offset`` now. It never goes back, nor past the end."""
        if offset > self.high_watermark:
            self.high_watermark = min(offset, self.log_end_offset)
            self.producers.on_high_watermark(self.high_watermark)

    def restore_high_watermark(self, offset: int) -> None:
        """Take the checkpointed high watermark at load, whatever lies between the bounds."""
        self.high_watermark = max(self.log_start_offset, min(offset, self.log_end_offset))
        self.producers.on_high_watermark(self.high_watermark)

    # -- writing ----------------------------------------------------------------------------

    def append_as_leader(
        self,
        batches: Sequence[tuple[BatchHeader, memoryview]],
        leader_epoch: int,
        now_ms: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> AppendInfo:
        """Give validated v2 batches their offsets and write them, all or none.

        Each view is writable, holds exactly one batch and is stamped in place. Raises KafkaError:
        RECORD_LIST_TOO_LARGE for more than segment.bytes, what
        :meth:`ProducerStateManager.check` raises, KAFKA_STORAGE_ERROR.
        """
        if self.offline is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        if len(batches) != 1:
            return self._append_many(batches, leader_epoch, now_ms, origin)
        header, view = batches[0]
        producers = self.producers
        marker: EndMarker | None = None
        if header.producer_id >= 0:
            if header.attributes & CONTROL_MASK:
                marker = read_marker(view, header)
            duplicate = producers.check(header, origin, marker)
            if duplicate is not None:
                return AppendInfo.of_duplicate(duplicate, self.log_start_offset)
        first = self.log_end_offset
        last = first + header.last_offset_delta
        size = len(view)
        timestamp = header.max_timestamp
        stamp(view, 0, first, leader_epoch)
        segment = self._segment_for(size, first, last, timestamp, now_ms)
        try:
            segment.append((view,), size, first, last, timestamp, last)
        except OSError as error:
            raise self._failed(error, "append") from error
        self.log_end_offset = producers.end_offset = last + 1
        self.segments.size += size
        if leader_epoch != self.leader_epochs.latest_epoch and leader_epoch >= 0:
            self.leader_epochs.assign(leader_epoch, first)
        if header.producer_id >= 0:
            self._note_producer(segment, header, first, marker)
        return AppendInfo(
            first,
            last,
            timestamp if header.attributes & TIMESTAMP_TYPE_MASK else NO_TIMESTAMP,
            self.log_start_offset,
            size,
        )

    def _append_many(
        self,
        batches: Sequence[tuple[BatchHeader, memoryview]],
        leader_epoch: int,
        now_ms: int,
        origin: AppendOrigin,
    ) -> AppendInfo:
        """Several batches in one write: several message sets of an old producer, coordinators."""
        assert batches
        producers = self.producers
        checked: list[BatchHeader] = []
        markers: dict[int, EndMarker | None] = {}
        for index, (header, view) in enumerate(batches):
            if header.producer_id < 0:
                continue
            if header.attributes & CONTROL_MASK:
                markers[index] = read_marker(view, header)
                producers.check(header, origin, markers[index])
            else:
                checked.append(header)
        if checked:
            duplicate = producers.check_all(checked, origin)
            if duplicate is not None:
                return AppendInfo.of_duplicate(duplicate, self.log_start_offset)
        first = next_offset = self.log_end_offset
        firsts: list[int] = []
        size = 0
        timestamp, timestamp_offset = NO_TIMESTAMP, first
        for header, view in batches:
            firsts.append(next_offset)
            stamp(view, 0, next_offset, leader_epoch)
            next_offset += header.last_offset_delta + 1
            size += len(view)
            if header.max_timestamp > timestamp:
                timestamp, timestamp_offset = header.max_timestamp, next_offset - 1
        last = next_offset - 1
        segment = self._segment_for(size, first, last, timestamp, now_ms)
        try:
            segment.append(
                [view for _, view in batches], size, first, last, timestamp, timestamp_offset
            )
        except OSError as error:
            raise self._failed(error, "append") from error
        self.log_end_offset = producers.end_offset = next_offset
        self.segments.size += size
        if leader_epoch != self.leader_epochs.latest_epoch and leader_epoch >= 0:
            self.leader_epochs.assign(leader_epoch, first)
        for index, (header, _) in enumerate(batches):
            if header.producer_id >= 0:
                self._note_producer(segment, header, firsts[index], markers.get(index))
        append_time = NO_TIMESTAMP
        if batches[0][0].attributes & TIMESTAMP_TYPE_MASK:
            append_time = timestamp
        return AppendInfo(first, last, append_time, self.log_start_offset, size)

    def append_as_follower(self, data: memoryview) -> AppendInfo:
        """Write what the leader has sent, with its offsets and epochs; a cut last batch is left.

        Raises KafkaError: CORRUPT_MESSAGE for a batch that is damaged, OFFSET_OUT_OF_RANGE for
        offsets that do not follow what is here, KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        headers: list[tuple[BatchHeader, int]] = []
        end = 0
        expected = self.log_end_offset
        timestamp, timestamp_offset = NO_TIMESTAMP, expected
        for position, size, magic in iter_batches(data):
            if magic != 2 or not crc_ok(data, position, size):
                raise KafkaError(
                    ErrorCode.CORRUPT_MESSAGE,
                    f"a batch for {self.topic_partition} is damaged at byte {position} of a fetch",
                )
            header = read_header(data, position)
            if header.base_offset < expected or header.last_offset_delta < 0:
                raise KafkaError(
                    ErrorCode.OFFSET_OUT_OF_RANGE,
                    f"{self.topic_partition} got offset {header.base_offset} from its leader, "
                    f"but {expected} comes next",
                )
            expected = header.base_offset + header.last_offset_delta + 1
            if header.max_timestamp > timestamp:
                timestamp, timestamp_offset = header.max_timestamp, expected - 1
            headers.append((header, position))
            end = position + size
        if not headers:
            offset = self.log_end_offset
            return AppendInfo(offset, offset - 1, NO_TIMESTAMP, self.log_start_offset, 0)
        first = headers[0][0].base_offset
        last = expected - 1
        segment = self._segment_for(end, first, last, timestamp, self._clock.wall_ms(), True)
        try:
            segment.append((data[:end],), end, first, last, timestamp, timestamp_offset)
        except OSError as error:
            raise self._failed(error, "append") from error
        self.log_end_offset = self.producers.end_offset = expected
        self.segments.size += end
        for header, position in headers:
            if header.leader_epoch != self.leader_epochs.latest_epoch and header.leader_epoch >= 0:
                self.leader_epochs.assign(header.leader_epoch, header.base_offset)
            if header.producer_id >= 0:
                marker = None
                if header.attributes & CONTROL_MASK:
                    marker = read_marker(data[position : position + header.size], header)
                self.producers.check(header, AppendOrigin.REPLICATION, marker)
                self._note_producer(segment, header, header.base_offset, marker)
        return AppendInfo(first, last, NO_TIMESTAMP, self.log_start_offset, end)

    def _note_producer(
        self, segment: Segment, header: BatchHeader, first_offset: int, marker: EndMarker | None
    ) -> None:
        completed = self.producers.update(header, first_offset, header.max_timestamp, marker)
        if completed is not None and completed.aborted:
            segment.txn_index.append(completed)

    # -- segments ---------------------------------------------------------------------------

    def _segment_for(
        self,
        size: int,
        first: int,
        last: int,
        timestamp: int,
        now_ms: int,
        follows: bool = False,
    ) -> Segment:
        """The segment that ``size`` more bytes go into: the active one, or a new one."""
        segment = self._active
        config = self.config
        if (  # every new segment goes the slow way once
            segment.size + size <= config.segment_bytes
            and timestamp <= self._roll_after
            and not segment.is_full
            and last - segment.base_offset <= 0x7FFF_FFFF
        ):
            return segment
        if size > config.segment_bytes and not follows:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"{size} bytes at once are more than segment.bytes={config.segment_bytes} "
                f"of {self.topic_partition}",
            )
        try:
            if not segment.exists:
                segment.create()
                write_topic_id(self._fs, self.directory, self.topic_id)
            roll = segment.should_roll(
                size, timestamp, last, now_ms, config.segment_bytes, config.segment_ms
            )
            if not roll and segment.size:
                started = segment.first_timestamp
                if started >= 0:
                    self._roll_after = started + config.segment_ms - segment.roll_jitter_ms
        except OSError as error:
            raise self._failed(error, "read") from error
        return self.roll(now_ms, first) if roll else segment

    def roll(self, now_ms: int | None = None, base_offset: int = 0) -> Segment:
        """Begin a new segment at the log's end, or at ``base_offset`` if that is larger.

        An empty active segment with that offset stays. Raises KafkaError KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        base_offset = max(base_offset, self.log_end_offset)
        active = self._active
        if active.base_offset == base_offset and not active.size:
            return active
        try:
            active.finish()
            segment = self._new_segment(base_offset, now_ms)
            segment.create()
        except OSError as error:
            raise self._failed(error, "begin a new segment of") from error
        active.is_active = False
        self._activate(segment)
        try:
            self.producers.take_snapshot()
        except OSError as error:
            # Costs a longer replay at the next start, nothing else.
            log.warning(
                "Producer snapshot not written: %s partition=%s offset=%d",
                error,
                self.topic_partition,
                base_offset,
            )
        if self.on_rolled is not None:
            self.on_rolled(self)
        return segment

    def _new_segment(self, base_offset: int, now_ms: int | None = None) -> Segment:
        config = self.config
        jitter = min(config.segment_jitter_ms, config.segment_ms)
        segment = Segment(
            self._fs,
            self.directory,
            base_offset,
            self._files,
            created_ms=self._clock.wall_ms() if now_ms is None else now_ms,
            index_bytes=config.segment_index_bytes,
            roll_jitter_ms=self._random.randrange(jitter) if jitter > 0 else 0,
        )
        segment.begin()
        return segment

    def _activate(self, segment: Segment) -> None:
        segment.is_active = True
        self.segments.add(segment)
        self._active = segment
        self._roll_after = _ALWAYS
        self._directory_dirty = True
        self._tune(segment)

    def _tune(self, segment: Segment) -> None:
        """Give the active segment the settings it needs on each append."""
        config = self.config
        segment.index_interval = config.index_interval_bytes
        segment.mapped = (
            config.flush_messages >= _SYNCED_OFTEN_MESSAGES and config.flush_ms >= _SYNCED_OFTEN_MS
        )

    def update_config(self, config: TopicConfig) -> None:
        """Live by other settings from now on."""
        self.config = config
        self._roll_after = _ALWAYS
        self._tune(self._active)
        if self.on_config is not None:
            self.on_config(self)

    # -- reading ----------------------------------------------------------------------------

    def read(
        self, offset: int, max_bytes: int, upper_bound_offset: int, min_one: bool = True
    ) -> FetchSlice:
        """Records from the batch with ``offset`` on, below ``upper_bound_offset``.

        At most ``max_bytes``, but with ``min_one`` at least one batch if there is one. The first
        batch may begin below ``offset``, the last may be cut. Raises KafkaError
        OFFSET_OUT_OF_RANGE (below the log's start or past its end), KAFKA_STORAGE_ERROR.
        """
        if self.offline is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        end = self.log_end_offset
        if not self.log_start_offset <= offset <= end:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} of {self.topic_partition} is not between its start "
                f"{self.log_start_offset} and its end {end}",
            )
        if offset >= upper_bound_offset or offset == end:
            return NOTHING
        try:
            segment: Segment | None = self._active
            assert segment is not None
            if offset < segment.base_offset:
                segment = self.segments.floor(offset)
            while segment is not None:
                position = segment.find_position(offset)
                limit = segment.size
                if upper_bound_offset < end:
                    limit = self._limit(segment, upper_bound_offset)
                available = limit - position
                if available > 0:
                    if available > max_bytes:
                        available = max_bytes
                        if min_one:
                            available = min(
                                max(max_bytes, segment.batch_size_at(position)), limit - position
                            )
                    if available <= 0:
                        return NOTHING
                    return FetchSlice(
                        self._fs,
                        segment.file(),
                        position,
                        available,
                        offset,
                        segment is self._active,
                    )
                segment = self.segments.after(segment)
        except OSError as error:
            raise self._failed(error, "read") from error
        return NOTHING

    def _limit(self, segment: Segment, upper_bound_offset: int) -> int:
        """Position in ``segment`` up to which all is below the bound."""
        following = self.segments.after(segment)
        if following is not None and following.base_offset <= upper_bound_offset:
            return segment.size
        if upper_bound_offset <= segment.base_offset:
            return 0
        return segment.find_position(upper_bound_offset)

    def aborted_transactions(self, offset: int, fetch_slice: FetchSlice) -> list[AbortedTxn]:
        """Aborted transactions that reach into what was read from ``offset`` on.

        For read_committed consumers, who leave their records out. Raises KafkaError
        KAFKA_STORAGE_ERROR.
        """
        try:
            return queries.aborted_transactions(self, offset, fetch_slice)
        except OSError as error:
            raise self._failed(error, "read") from error

    # -- questions --------------------------------------------------------------------------

    def offset_for_timestamp(self, timestamp: int) -> TimestampedOffset | None:
        """The first record that is not older than ``timestamp`` (ms): time, offset, epoch."""
        return self._ask(lambda: queries.offset_for_timestamp(self, timestamp))

    def max_timestamp_offset(self) -> TimestampedOffset | None:
        """The record with the largest timestamp; None when no record has one."""
        return self._ask(lambda: queries.max_timestamp_offset(self))

    def legacy_offsets_before(self, timestamp: int, max_offsets: int) -> list[int]:
        """ListOffsets v0: offsets of segments by file time, newest first."""
        return self._ask(
            lambda: queries.legacy_offsets_before(
                self, timestamp, max_offsets, self._clock.wall_ms()
            )
        )

    def end_offset_for_epoch(self, epoch: int) -> EpochEndOffset:
        """Where a leader epoch ends here (OffsetForLeaderEpoch, KIP-101, KIP-279)."""
        return self.leader_epochs.end_offset_for(epoch, self.log_end_offset)

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        self._require_online()
        try:
            return question()
        except OSError as error:
            raise self._failed(error, "read") from error

    # -- shortening -------------------------------------------------------------------------

    def increment_log_start_offset(self, offset: int) -> bool:
        """Records below ``offset`` are deleted (logically; segments go later). True if news.

        Raises KafkaError OFFSET_OUT_OF_RANGE past the high watermark.
        """
        if offset > self.high_watermark:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"cannot delete up to offset {offset} of {self.topic_partition}: its high "
                f"watermark is {self.high_watermark}",
            )
        if offset <= self.log_start_offset:
            return False
        self._move_start(offset)
        return True

    def _move_start(self, offset: int) -> None:
        self.log_start_offset = offset
        self.leader_epochs.truncate_from_start(offset)
        self.producers.on_log_start(offset)

    def truncate_to(self, offset: int) -> bool:
        """Remove records at and past ``offset`` (whole batches); True if there were any.

        A batch that reaches over ``offset`` goes as a whole, and the log then ends where it
        began (Kafka keeps ``offset`` as its end, and cannot take that batch again). Raises KafkaError
        KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        if offset >= self.log_end_offset:
            return False
        if self.segments.first.base_offset > offset:
            self.truncate_fully_and_start_at(offset)
            return True
        now_ms = self._clock.wall_ms()
        try:
            self._truncations += 1
            gone = self.segments.remove_from(offset + 1)
            active = self.segments.last
            active.is_active = True
            offset = active.truncate_to(offset, now_ms)
            self.segments.recount()
            self._become(active, offset)
            deletions = self._take_out(gone)
            rebuild_producers(self.producers, self.segments, self.log_start_offset, offset, now_ms)
            self._tell_truncated(deletions)
        except OSError as error:
            raise self._failed(error, "truncate") from error
        return True

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Remove everything; the next record gets ``offset``. Raises KAFKA_STORAGE_ERROR."""
        self._require_online()
        try:
            self._truncations += 1
            gone = self.segments.remove_from(0)
            deletions = self._take_out(gone)
            segment = self._new_segment(offset)
            segment.create()  # its name is what remembers the offset
            self._activate(segment)
            self.producers.reset(offset)
            self.leader_epochs.clear()
            self.log_start_offset = self.recovery_point = offset
            self._become(segment, offset)
            self._tell_truncated(deletions)
        except OSError as error:
            raise self._failed(error, "truncate") from error

    def _become(self, active: Segment, end_offset: int) -> None:
        """End at ``end_offset`` in ``active`` from now on."""
        self._active = active
        self._roll_after = _ALWAYS
        self._tune(active)
        self.log_end_offset = end_offset
        self.recovery_point = min(self.recovery_point, end_offset)
        self.log_start_offset = min(self.log_start_offset, end_offset)
        self.high_watermark = min(self.high_watermark, end_offset)
        self.leader_epochs.truncate_from_end(end_offset)

    def _take_out(self, segments: list[Segment]) -> list[SegmentDeletion]:
        """Rename the files of segments that are no longer in the log."""
        deletions = []
        for segment in segments:
            segment.rename(DELETED_SUFFIX)
            segment.release()
            deletions.append(SegmentDeletion(segment, segment.base_offset, "truncated", 0))
        return deletions

    def _tell_truncated(self, deletions: list[SegmentDeletion]) -> None:
        """Leave it to the owner to remove files off the loop, and to checkpoint the new end."""
        if self.on_truncated is not None:
            self.on_truncated(self, deletions)
        else:
            for deletion in deletions:
                deletion.run(self._fs)

    def delete_old_segments(self, now_ms: int) -> list[SegmentDeletion]:
        """Take the segments out that retention no longer covers; their files are renamed.

        The caller runs the deletions in a thread after their delay. Raises KafkaError
        KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        config = self.config
        rules = RetentionRules(
            "delete" in config.cleanup_policy, config.retention_ms, config.retention_bytes
        )
        bounds = LogBounds(self.log_start_offset, self.high_watermark, self.log_end_offset)
        try:
            reasons = deletable(self.segments, rules, bounds, now_ms)
        except OSError as error:
            raise self._failed(error, "read") from error
        return self._delete_first(reasons, now_ms) if reasons else []

    def _delete_first(self, reasons: list[str], now_ms: int) -> list[SegmentDeletion]:
        if len(reasons) == len(self.segments):
            self.roll(now_ms)
        deletions: list[SegmentDeletion] = []
        for reason in reasons:
            segment = self.segments.first
            try:
                segment.rename(DELETED_SUFFIX)
            except OSError as error:
                raise self._failed(error, "delete a segment of") from error
            segment.release()
            self.segments.remove_first()
            next_offset = self.segments.first.base_offset
            deletions.append(
                SegmentDeletion(segment, next_offset, reason, self.config.file_delete_delay_ms)
            )
            log.info(
                "Segment deleted partition=%s base_offset=%d next_offset=%d bytes=%d %s",
                self.topic_partition,
                segment.base_offset,
                next_offset,
                segment.size,
                reason,
            )
        first = self.segments.first.base_offset
        if first > self.log_start_offset:
            self._move_start(first)
        self.recovery_point = max(self.recovery_point, first)
        self._delete_snapshots()
        return deletions

    def _delete_snapshots(self) -> None:
        """Keep the producer snapshots that recovery or truncation may want (log-storage.md §7)."""
        keep = min(
            self.segments.before(self._active).base_offset,
            self.segments.floor(max(self.recovery_point, self.log_start_offset)).base_offset,
        )
        try:
            self.producers.delete_snapshots_below(keep)
        except OSError as error:
            raise self._failed(error, "delete a snapshot of") from error

    # -- on disk ----------------------------------------------------------------------------

    def begin_flush(self) -> FlushJob:
        """What must be synced so that all records written so far are on disk.

        Run it in a thread, then hand it to :meth:`finish_flush`. Raises KafkaError
        KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        try:
            job = FlushJob(self._fs, self.log_end_offset, self._truncations)
            if self.log_end_offset > self.recovery_point:
                for segment in self.segments.reaching(self.recovery_point):
                    if segment.exists:
                        job.add_file(segment.file())
                    if not segment.is_active:
                        for file in segment.index_files():
                            job.add_file(file)
                if self._directory_dirty:
                    job.add_directory(self.directory)
                    job.add_directory(os.path.dirname(self.directory))
                    self._directory_dirty = False
            if self.leader_epochs.dirty:
                job.add_epochs(self.leader_epochs.path, self.leader_epochs.encode())
                self.leader_epochs.dirty = False
            return job
        except OSError as error:
            raise self._failed(error, "flush") from error

    def finish_flush(self, job: FlushJob) -> None:
        """Take in what a flush did. Raises KafkaError when it failed (the log is offline then)."""
        if job.error is not None:
            # What a failed sync was to write may be lost although a later one succeeds.
            raise self._failed(job.error, "flush", fatal=True)
        self.last_flushed = self._clock.monotonic()
        if job.truncations == self._truncations and job.offset > self.recovery_point:
            self.recovery_point = job.offset

    def flush(self) -> None:
        """Sync all records written so far. *Blocks.* Raises KafkaError KAFKA_STORAGE_ERROR."""
        job = self.begin_flush()
        job.run()
        self.finish_flush(job)

    def close(self) -> None:
        """Flush and close at a clean stop. *Blocks.* Raises KafkaError KAFKA_STORAGE_ERROR."""
        try:
            if self.offline is None:
                self._active.finish()
                self._active.is_active = False  # its indexes are complete: flush syncs them too
                self.flush()
                if self.log_end_offset > self.log_start_offset:
                    self.producers.take_snapshot()
        except OSError as error:
            raise self._failed(error, "close") from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of all files and write nothing: for a log that is deleted, or offline."""
        for segment in self.segments:
            segment.release()
        if self.offline is None:
            self.offline = f"the log of {self.topic_partition} is closed"

    # -- trouble ----------------------------------------------------------------------------

    def _require_online(self) -> None:
        if self.offline is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)

    def _failed(self, error: OSError, doing: str, fatal: bool = False) -> KafkaError:
        told = storage_error(error, f"{doing} {self.topic_partition} in {self.directory}")
        if fatal or not is_disk_full(error):
            self.go_offline(error, str(told))
        return told

    def go_offline(self, error: OSError, reason: str) -> None:
        """Answer KAFKA_STORAGE_ERROR from now on, and tell the owner why."""
        if self.offline is None:
            self.offline = reason
            if self.on_storage_error is not None:
                self.on_storage_error(self, error)

    def __repr__(self) -> str:
        return f"Log({self.topic_partition}, {self.log_start_offset}..{self.log_end_offset})"
