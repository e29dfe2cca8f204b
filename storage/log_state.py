"""The state of a partition's log: its segments and bounds, and how it gets to disk.

:class:`LogState` is the lowest of three layers: :class:`~kavka.storage.log_shrink.ShrinkingLog`
makes a log shorter, :class:`~kavka.storage.log.Log` writes and reads.

Owned by one thread: the one that loads it, then the event loop. Only a :class:`FlushJob` runs in
another thread, and touches nothing but files.

Errors of the disk become KafkaError(KAFKA_STORAGE_ERROR) and leave the log as it was. A full disk
is only that; any other one means that the disk can no longer be believed, and takes the log
offline (its owner is told, for the whole directory goes with it).
"""

import logging
import os
import random
from collections.abc import Callable
from typing import Final

from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage.clock import Clock
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.flush import FlushJob
from kavka.storage.fs import FileSystem, is_passing, storage_error
from kavka.storage.open_files import OpenFiles
from kavka.storage.producers import ProducerStateManager
from kavka.storage.segment import Segment
from kavka.storage.segments import Segments
from kavka.storage.swap import Swap
from kavka.storage.topic_id import ZERO_TOPIC_ID, write_topic_id

log = logging.getLogger("kavka.storage.log")

ALWAYS: Final = -2  # no timestamp is below it
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


class LogState:
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
        "_job",
        "_random",
        "_roll_after",
        "_rolled_from",
        "_rolls",
        "_truncations",
        "_unsynced_from",
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
        "on_settle",
        "on_storage_error",
        "on_truncated",
        "producers",
        "recovery_point",
        "segments",
        "swap",
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
        self.swap: Swap | None = None  # a compacted segment is about to be put in place
        self.on_config: Callable[[LogState], None] | None = None
        self.on_rolled: Callable[[LogState], None] | None = None
        self.on_settle: Callable[[], None] | None = None
        """Waits, in a thread, until checkpoints asked for by ``on_truncated`` are written."""
        self.on_storage_error: Callable[[LogState, OSError], None] | None = None
        self.on_truncated: Callable[[LogState, list[SegmentDeletion]], None] | None = None
        self._fs = fs
        self._clock = clock
        self._random = rng
        self._files = open_files
        self._roll_after = ALWAYS  # a larger timestamp means: look at segment.ms
        self._rolled_from: int | None = None  # base of the first segment rolled and not synced
        self._rolls = 0
        self._truncations = 0
        self._directory_dirty = new_names  # names in the directory are not synced
        self._job: FlushJob | None = None  # that is under way
        # Files changed below the recovery point: the next flush begins at this offset.
        self._unsynced_from: int | None = None
        self._active = segments.last
        self._active.is_active = True
        self._tune(self._active)

    # -- how far ----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of records in all segments."""
        return self.segments.size

    @property
    def allocated(self) -> int:
        """Bytes of records, and what is reserved behind them for the next ones."""
        active = self._active
        return self.segments.size + max(active.reserved - active.size, 0)

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

    # -- segments ---------------------------------------------------------------------------

    def roll(self, now_ms: int | None = None, base_offset: int = 0) -> Segment:
        """Begin a new segment at the log's end, or at ``base_offset`` if that is larger.

        An empty active segment with that offset stays. Raises KafkaError KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        base_offset = max(base_offset, self.log_end_offset)
        active = self._active
        if active.base_offset == base_offset and not active.size:
            return active
        if self._unsynced_from is not None:
            # A new name may be on disk before what was cut is: recovery would begin behind that.
            self.flush()
        self._rolls += 1
        if self._rolled_from is None:
            # Whatever its records: it is cut to its data, and its indexes are written.
            self._rolled_from = active.base_offset
        try:
            active.finish()
            segment = self._new_segment(base_offset, now_ms)
        except OSError as error:
            raise self._failed(error, "begin a new segment of") from error
        try:
            segment.create()
        except OSError as error:
            self._take_back(segment)
            raise self._failed(error, "begin a new segment of") from error
        active.retire()
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

    def _take_back(self, segment: Segment) -> None:
        """Remove the file of a segment that could not be begun: at the next start it would be the
        last one, and records written meanwhile into the one before it would count for nothing. So
        they would if a power loss brought it back."""
        segment.release()
        self.must_sync(self.log_end_offset, new_names=True)
        try:
            self._fs.unlink(segment.path, missing_ok=True)
        except OSError as error:
            raise self._failed(error, "take back a new segment of", fatal=True) from error

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
            preallocate=config.segment_bytes if config.preallocate else 0,
        )
        segment.begin()
        return segment

    @property
    def _segment_ms(self) -> int:
        """When a segment is rolled: segment.ms, or before its records are overdue for compaction
        (KIP-354), which leaves the active one alone."""
        config = self.config
        if config.compact:
            return min(config.segment_ms, config.max_compaction_lag_ms)
        return config.segment_ms

    def _activate(self, segment: Segment) -> None:
        segment.is_active = True
        self.segments.add(segment)
        self._active = segment
        self._roll_after = ALWAYS
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
        self._roll_after = ALWAYS
        self._tune(self._active)
        if self.on_config is not None:
            self.on_config(self)

    def note_topic_id(self, topic_id: bytes) -> None:
        """Be of this topic from now on: for a log whose id was lost with the power, or that an
        older version wrote. Raises KafkaError KAFKA_STORAGE_ERROR."""
        try:
            if self.segments.first.exists:  # or it comes with the first record
                write_topic_id(self._fs, self.directory, topic_id)
        except OSError as error:
            raise self._failed(error, "note the topic of") from error
        self.topic_id = topic_id

    # -- on disk ----------------------------------------------------------------------------

    def begin_flush(self) -> FlushJob:
        """What must be synced so that all records written so far are on disk.

        Run it in a thread, then hand it to :meth:`finish_flush`. One job at a time: the next one
        leaves out what this one does. Raises KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        try:
            job = FlushJob(self._fs, self.log_end_offset, self._truncations, self._rolls)
            new_names = False
            unsynced, rolled = self._unsynced_from, self._rolled_from
            due = unsynced is not None or rolled is not None
            if due or self.log_end_offset > self.recovery_point:
                if unsynced is not None and self.on_settle is not None:
                    job.add_wait(self.on_settle)
                bounds = (self.recovery_point, unsynced, rolled)
                first = min(bound for bound in bounds if bound is not None)
                for segment in self.segments.reaching(first):
                    if segment.exists:
                        job.add_file(segment.file())
                    if not segment.is_active or due:
                        for file in segment.index_files():
                            job.add_file(file)
                new_names, self._directory_dirty = self._directory_dirty, False
            if self.leader_epochs.dirty:
                job.add_epochs(self.leader_epochs.path, self.leader_epochs.encode())
                self.leader_epochs.dirty = False
                job.add_directory(self.directory)
            elif new_names:
                job.add_directory(self.directory)
            if new_names:
                job.add_directory(os.path.dirname(self.directory))
            self._job = job
            return job
        except OSError as error:
            raise self._failed(error, "flush") from error

    def finish_flush(self, job: FlushJob) -> None:
        """Take in what a flush did. Raises KafkaError when it failed (the log is offline then)."""
        if self._job is job:
            self._job = None
        if job.error is not None:
            # What a failed sync was to write may be lost although a later one succeeds.
            raise self._failed(job.error, "flush", fatal=True)
        self.last_flushed = self._clock.monotonic()
        if job.rolls == self._rolls:
            self._rolled_from = None
        if job.truncations == self._truncations:
            self._unsynced_from = None
            self.recovery_point = max(self.recovery_point, job.offset)

    def flush(self) -> None:
        """Sync all records written so far. *Blocks.* Raises KafkaError KAFKA_STORAGE_ERROR."""
        if self._job is not None:  # one is under way: do it here, or wait for who does
            self._job.run()
            self.finish_flush(self._job)
        job = self.begin_flush()
        job.run()
        self.finish_flush(job)

    def must_sync(self, offset: int, *, new_names: bool = False) -> None:
        """Files that hold ``offset`` and later ones were changed below the recovery point.

        The next flush syncs them, and nothing is appended before: after a power loss new records
        could stand beside old ones that the change had removed.
        """
        known = self._unsynced_from
        self._unsynced_from = offset if known is None else min(offset, known)
        self._directory_dirty = self._directory_dirty or new_names

    def close(self) -> None:
        """Flush and close at a clean stop. *Blocks.* Raises KafkaError KAFKA_STORAGE_ERROR."""
        try:
            if self.offline is None:
                if self._active.finish():  # the next start believes its indexes
                    self.must_sync(self.log_end_offset, new_names=True)
                self.flush()
                if self.log_end_offset > self.log_start_offset:
                    self.producers.take_snapshot()
        except OSError as error:
            raise self._failed(error, "close") from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of all files and write nothing: for a log that is deleted, or offline."""
        if self._job is not None:
            self._job.leave_names()
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
        if fatal or not is_passing(error):
            self.go_offline(error, str(told))
        return told

    def go_offline(self, error: OSError, reason: str) -> None:
        """Answer KAFKA_STORAGE_ERROR from now on, and tell the owner why."""
        if self.offline is None:
            self.offline = reason
            if self.on_storage_error is not None:
                self.on_storage_error(self, error)

    def __repr__(self) -> str:
        bounds = f"{self.log_start_offset}..{self.log_end_offset}"
        return f"{type(self).__name__}({self.topic_partition}, {bounds})"
