"""One pass of the cleaner over one log: from the job to the last new segment in its place."""

import contextlib
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from kavka.config.broker import BrokerConfig
from kavka.storage.cleanable import Cleanable
from kavka.storage.cleaning_job import (
    CleanedGroup,
    CleanedLog,
    CleaningAborted,
    CleaningFailed,
    CleaningJob,
    LastOfProducer,
    Source,
)
from kavka.storage.fs import FileSystem, is_passing, storage_error
from kavka.storage.log import Log, SegmentDeletion
from kavka.storage.open_files import OpenFiles
from kavka.storage.segment import Segment
from kavka.storage.swap import Swap

if TYPE_CHECKING:
    from kavka.storage.cleaning_workers import Worker

OnLoop = Callable[[Callable[[], Any]], Any]
"""Does a step on the event loop, waits for it, and gives its result or raises its error."""

RemoveSegments = Callable[[list[SegmentDeletion]], None]

_REASON: Final = "compacted"


def make_job(cleaned: Log, found: Cleanable, config: BrokerConfig) -> CleaningJob:
    """What a worker must know to clean ``cleaned``. Raises OSError, CorruptIndex."""
    topic, segments = cleaned.config, cleaned.segments
    threads = max(config.get_int("log.cleaner.threads"), 1)
    end = found.first_uncleanable
    return CleaningJob(
        name=str(cleaned.topic_partition),
        directory=cleaned.directory,
        segments=tuple(
            Source(each.base_offset, each.size) for each in segments if each.base_offset < end
        ),
        first_dirty=found.first_dirty,
        first_uncleanable=end,
        later_segments=tuple(each.base_offset for each in segments[:-1] if each.base_offset >= end),
        active_aborted=tuple(segments.last.txn_index.entries()),
        producers=tuple(
            LastOfProducer(entry.producer_id, entry.epoch, entry.last_offset)
            for entry in cleaned.producers.entries()
        ),
        delete_retention_ms=topic.delete_retention_ms,
        segment_bytes=topic.segment_bytes,
        segment_index_bytes=topic.segment_index_bytes,
        index_interval_bytes=topic.index_interval_bytes,
        map_bytes=config.get_int("log.cleaner.dedupe.buffer.size") // threads,
        map_load=config.get_float("log.cleaner.io.buffer.load.factor"),
        buffer_bytes=config.get_int("log.cleaner.io.buffer.size") // threads // 2,
        bytes_per_second=config.get_float("log.cleaner.io.max.bytes.per.second") / threads,
    )


class CleaningPass:
    """Made on the loop. :meth:`run` belongs to a thread, and has the loop do what is the loop's."""

    __slots__ = (
        "_fs",
        "_open_files",
        "_remove_segments",
        "_segments",
        "_worker",
        "aborted",
        "began",
        "bytes_before",
        "found",
        "job",
        "log",
    )

    def __init__(
        self,
        cleaned: Log,
        found: Cleanable,
        job: CleaningJob,
        worker: "Worker",
        fs: FileSystem,
        open_files: OpenFiles,
        remove_segments: RemoveSegments,
        began: float,
    ) -> None:
        """``began`` is the clock's, for what is said at the end."""
        self.log = cleaned
        self.found = found
        self.job = job
        self.began = began
        self.aborted = Event()
        self._worker = worker
        self._fs = fs
        self._open_files = open_files
        self._remove_segments = remove_segments
        reached = job.first_uncleanable
        self._segments = {
            each.base_offset: each for each in cleaned.segments if each.base_offset < reached
        }
        self.bytes_before = sum(each.size for each in self._segments.values())

    def abort(self) -> None:
        """Call it off: what is not in its place yet will not be. From the loop."""
        self.aborted.set()
        self._worker.interrupt()

    @property
    def overtaken(self) -> bool:
        """Whether segments that were still to be read are no longer in the log."""
        segments = self.log.segments
        return any(segments.position_of([each]) is None for each in self._segments.values())

    def run(self, on_loop: OnLoop) -> CleanedLog:
        """Do it. *Blocks.* Raises CleaningAborted and CleaningFailed."""
        with contextlib.closing(self._worker.run(self.job, self.aborted)) as events:
            for event in events:
                if isinstance(event, CleanedLog):
                    return event
                self._put_in_place(event, on_loop)
        raise CleaningFailed("a cleaning worker ended without a result")

    def _put_in_place(self, group: CleanedGroup, on_loop: OnLoop) -> None:
        swap = self._swap(group)
        directory = self.log.directory
        try:
            on_loop(lambda: self._begin(swap))
            self._sync(directory)
            on_loop(lambda: self._commit(swap))
        except BaseException:
            on_loop(swap.withdraw)
            raise
        self._sync(directory)
        on_loop(lambda: self._finish(swap))

    def _swap(self, group: CleanedGroup) -> Swap:
        job, base_offset = self.job, group.sources[0]
        last = group.sources[-1]
        following = [base for base in (*self._segments, job.first_uncleanable) if base > last]
        new = Segment(
            self._fs,
            job.directory,
            base_offset,
            self._open_files,
            created_ms=0,  # asked of an active segment only, which this one never is
            index_interval=job.index_interval_bytes,
            index_bytes=job.segment_index_bytes,
        )
        old = [self._segments[base] for base in group.sources]
        return Swap(self._fs, self.log, old, min(following), group, new)

    def _sync(self, directory: str) -> None:
        try:
            self._fs.sync_dir(directory)
        except FileNotFoundError:
            raise CleaningAborted from None  # the partition was deleted
        except OSError as error:
            raise CleaningFailed.of(error) from error

    # -- steps on the loop ----------------------------------------------------------------------

    def _begin(self, swap: Swap) -> None:
        if self.aborted.is_set():
            raise CleaningAborted
        try:
            swap.begin()
        except OSError as error:
            raise self._failed(error, fatal=False) from error

    def _commit(self, swap: Swap) -> None:
        if self.aborted.is_set():
            raise CleaningAborted
        try:
            swap.commit()
        except OSError as error:
            raise self._failed(error, fatal=True) from error
        for each in swap.old:
            del self._segments[each.base_offset]

    def _finish(self, swap: Swap) -> None:
        try:
            swap.finish()
        except OSError as error:
            raise self._failed(error, fatal=True) from error
        # Should the last name be lost, recovery finds the ``.swap``, and needs nothing else.
        delay = self.log.config.file_delete_delay_ms
        self._remove_segments(
            [SegmentDeletion(each, swap.end_offset, _REASON, delay) for each in swap.old]
        )

    def _failed(self, error: OSError, fatal: bool) -> CleaningFailed:
        """Half a replacement is not to be gone on with: recovery completes it at the next start."""
        passing = is_passing(error)
        if fatal or not passing:
            told = storage_error(error, f"replace segments of {self.log.topic_partition}")
            self.log.go_offline(error, str(told))
        return CleaningFailed(f"{error}", passing=passing and not fatal)
