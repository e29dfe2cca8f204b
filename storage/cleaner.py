"""The log cleaner: keeps the latest record of each key of compacted topics.

Who does what. The event loop owns the logs: it chooses what to clean
(:mod:`kavka.storage.cleanable`), makes a job of plain values, and puts what comes back in place
(:mod:`kavka.storage.cleaning_pass`, :mod:`kavka.storage.swap`). The work, decoding every record
of a log twice (:mod:`kavka.storage.rewrite`), is done by a helper *process*
(:mod:`kavka.storage.cleaning_workers`) that reads closed segments and writes ``.cleaned`` files
beside them. A thread for each worker carries messages between the two and waits for the disk.

Why a process. Decoding in Python holds the interpreter lock, which another thread gives up only
every 5 ms, and the loop needs it at each turn. Lateness of a 1 ms timer on uvloop, on two shared
cores, while 30 MB of 300,000 records were cleaned in 2 s (milliseconds):

=============  ========  ==========
 cleaned by     median    99 %
=============  ========  ==========
 nobody         0.08      0.13
 a thread       4–5       7–13
 a process      0.08      0.7–1.0
=============  ========  ==========

The process costs a tenth of a second to start and 17 MB beside its map of keys; it is there only
while there is something to clean, and runs at lower priority. A log of 1 GB with ten million
keys takes it two passes of the default 128 MiB map: 75 s and 145 MB at the most.

What is kept of a pass is the checkpoint of the first dirty offset, Kafka's
``cleaner-offset-checkpoint``. A pass that is called off (the log was truncated or deleted, a
setting changed, the broker stops) leaves what it has put in place, and the next one does the rest.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage import cleanable
from kavka.storage.cleanable import Cleanable, CompactionRules, LogState
from kavka.storage.cleaning_job import CleanedLog, CleaningAborted, CleaningFailed, WorkerDied
from kavka.storage.cleaning_pass import CleaningPass, make_job
from kavka.storage.clock import Clock
from kavka.storage.fs import FileSystem
from kavka.storage.index import CorruptIndex
from kavka.storage.log import Log, SegmentDeletion
from kavka.storage.log_state import LogState as AnyLog
from kavka.storage.open_files import OpenFiles
from kavka.storage.retention import SEGMENTS_AT_ONCE
from kavka.storage.workers import Workers

if TYPE_CHECKING:
    from kavka.storage.cleaning_workers import Worker

log = logging.getLogger("kavka.storage.cleaner")

SETTINGS: Final = frozenset(
    {
        "log.cleaner.threads",
        "log.cleaner.backoff.ms",
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.io.buffer.size",
        "log.cleaner.io.buffer.load.factor",
        "log.cleaner.io.max.bytes.per.second",
    }
)
"""Broker settings whose change starts the cleaner anew, as in Kafka."""

_SHORTEST_BACKOFF: Final = 0.02  # seconds; looking for work all the time would stall the loop
_AT_ONCE: Final = 20  # logs looked at before the loop gets its turn
_DEATHS: Final = 3  # of a worker over one log before that log counts as uncleanable

_T = TypeVar("_T")


class Logs(Protocol):
    """The owner of all logs, as the cleaner sees it."""

    def __iter__(self) -> Iterator[Log]: ...

    def get(self, topic_partition: TopicPartition) -> Log | None: ...

    def cleaned_to(self, topic_partition: TopicPartition) -> int | None:
        """The first dirty offset as last noted."""

    def note_cleaned(self, topic_partition: TopicPartition, offset: int) -> None:
        """Note the first dirty offset, and have it written."""

    def remove_segments(self, deletions: list[SegmentDeletion]) -> None:
        """Remove files when their delay is over, off the loop."""


class Cleaner:
    """Cleans compacted logs, as many at a time as ``log.cleaner.threads``. For the event loop."""

    def __init__(
        self,
        config: BrokerConfig,
        logs: Logs,
        fs: FileSystem,
        clock: Clock,
        open_files: OpenFiles,
    ) -> None:
        self._config = config
        self._logs = logs
        self._fs = fs
        self._clock = clock
        self._open_files = open_files
        self._running: dict[TopicPartition, CleaningPass] = {}
        self._deaths: dict[TopicPartition, int] = {}
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._changed: asyncio.Event | None = None  # settings, since the lanes last looked
        self._stopping = False
        self.uncleanable: dict[TopicPartition, str] = {}
        """Partitions left alone until the broker starts again, and why."""
        self.dirtiest = 0.0
        """The highest dirty ratio at the last look."""
        self.last_result: CleanedLog | None = None
        """Of the pass that ended last."""

    # -- start and stop -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to clean."""
        self._config.on_change(SETTINGS, self._settings_changed)
        self._open_lanes()

    async def stop(self) -> None:
        """Call off what is under way and let the worker processes go."""
        self._stopping = True
        self._interrupt()
        await asyncio.gather(*self._lanes.values())

    def _open_lanes(self) -> None:
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in range(self._config.get_int("log.cleaner.threads")):
            if number not in self._lanes:
                self._lanes[number] = loop.create_task(self._lane(number))

    def _interrupt(self) -> None:
        for each in self._running.values():
            each.abort()
        if self._changed is not None:
            self._changed.set()

    def _settings_changed(self, names: frozenset[str]) -> None:
        if not self._stopping:
            self._interrupt()
            self._open_lanes()

    def _goes_on(self, number: int) -> bool:
        return not self._stopping and number < self._config.get_int("log.cleaner.threads")

    async def _lane(self, number: int) -> None:
        """One of Kafka's cleaner threads."""
        lane = _Lane(f"kavka-cleaner-{number}", self._fs, self._clock)
        try:
            while self._goes_on(number):
                changed = self._changed
                assert changed is not None
                cleaned = await self._clean_one(lane)
                if self._goes_on(number):
                    await self._check_retention()
                if not cleaned and self._goes_on(number):
                    await lane.rest()
                    backoff = self._config.get_int("log.cleaner.backoff.ms") / 1000
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), max(backoff, _SHORTEST_BACKOFF))
        except Exception:
            log.exception("A cleaner has failed and cleans no more lane=%d", number)
        finally:
            del self._lanes[number]
            await lane.close()

    async def _clean_one(self, lane: "_Lane") -> bool:
        """Clean the log that needs it most; False when there was none, or it did not work."""
        chosen = await self._choose()
        if chosen is None:
            return False
        begun = self.begin(*chosen, lane.worker())
        if begun is None:
            return False
        loop = asyncio.get_running_loop()

        def on_loop(step: Callable[[], Any]) -> Any:
            done: Future[Any] = Future()
            loop.call_soon_threadsafe(_do, step, done)
            return done.result()

        try:
            outcome: CleanedLog | Exception = await lane.run(lambda: begun.run(on_loop))
        except Exception as error:
            outcome = error
        except asyncio.CancelledError:
            begun.abort()
            raise
        return self.end(begun, outcome)

    # -- what to clean ------------------------------------------------------------------------

    async def _choose(self) -> tuple[Log, Cleanable] | None:
        candidates = []
        for number, each in enumerate([*self._logs]):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if (found := self.judge(each)) is not None:
                candidates.append((each, found, _rules(each)))
        self.dirtiest = max((found.ratio for _, found, _ in candidates), default=0.0)
        chosen = cleanable.filthiest(candidates)
        if chosen is None or self._stopping:
            return None
        # Others, another lane among them, may have been at it meanwhile.
        again = self.judge(chosen[0])
        return (chosen[0], again) if again and again.is_due(_rules(chosen[0])) else None

    def judge(self, candidate: Log) -> Cleanable | None:
        """How dirty a log is; None for one that is not to be cleaned."""
        topic_partition = candidate.topic_partition
        if (
            not candidate.config.compact
            or candidate.offline is not None
            or topic_partition in self._running
            or topic_partition in self.uncleanable
            or self._logs.get(topic_partition) is not candidate
        ):
            return None
        state = LogState(
            self._logs.cleaned_to(topic_partition),
            candidate.log_start_offset,
            candidate.last_stable_offset,
            candidate.log_end_offset,
        )
        try:
            return cleanable.judge(
                candidate.segments, state, _rules(candidate), self._clock.wall_ms()
            )
        except (OSError, KafkaError, CorruptIndex) as error:
            self._give_up(topic_partition, str(error))
            return None

    # -- a pass -------------------------------------------------------------------------------

    def begin(self, cleaned: Log, found: Cleanable, worker: "Worker") -> CleaningPass | None:
        """Make a job of it; from here to :meth:`end` the log is being cleaned."""
        topic_partition = cleaned.topic_partition
        try:
            job = make_job(cleaned, found, self._config)
        except (OSError, CorruptIndex) as error:
            self._give_up(topic_partition, str(error))
            return None
        begun = CleaningPass(
            cleaned,
            found,
            job,
            worker,
            self._fs,
            self._open_files,
            self._logs.remove_segments,
            self._clock.monotonic(),
        )
        self._running[topic_partition] = begun
        log.info(
            "Cleaning begins partition=%s first_dirty_offset=%d first_uncleanable_offset=%d "
            "clean_bytes=%d dirty_bytes=%d",
            topic_partition,
            found.first_dirty,
            found.first_uncleanable,
            found.clean_bytes,
            found.dirty_bytes,
        )
        return begun

    def end(self, ended: CleaningPass, outcome: CleanedLog | Exception) -> bool:
        """Take in what became of a pass; whether it came to its end."""
        topic_partition = ended.log.topic_partition
        del self._running[topic_partition]
        called_off = ended.aborted.is_set() or isinstance(outcome, CleaningAborted)
        if not isinstance(outcome, CleanedLog):
            called_off = called_off or ended.overtaken
            if not called_off:
                self._failed(ended, outcome)
                return False
        if called_off:
            log.info("Cleaning called off partition=%s", topic_partition)
            return False
        assert isinstance(outcome, CleanedLog)
        self._deaths.pop(topic_partition, None)
        self.last_result = outcome
        self._logs.note_cleaned(topic_partition, outcome.end_offset)
        with contextlib.suppress(KafkaError):  # the log is offline then, and its owner knows
            ended.log.drop_old_snapshots()
        if outcome.keyless:
            log.warning(
                "Records without a key were dropped partition=%s records=%d",
                topic_partition,
                outcome.keyless,
            )
        log.info(
            "Cleaned partition=%s clean_to_offset=%d bytes=%d bytes_before=%d records=%d "
            "records_before=%d keys=%d map_used=%.1f%% seconds=%.3f",
            topic_partition,
            outcome.end_offset,
            outcome.bytes_written,
            outcome.bytes_read,
            outcome.records_kept,
            outcome.records_read,
            outcome.keys,
            100 * outcome.map_utilization,
            self._clock.monotonic() - ended.began,
        )
        return True

    def _failed(self, ended: CleaningPass, error: Exception) -> None:
        topic_partition = ended.log.topic_partition
        if ended.log.offline is not None:  # somebody has told why already
            return
        if isinstance(error, CleaningFailed) and error.passing:
            log.warning("Cleaning is tried again later: %s partition=%s", error, topic_partition)
            return
        if isinstance(error, WorkerDied):
            deaths = self._deaths[topic_partition] = self._deaths.get(topic_partition, 0) + 1
            if deaths < _DEATHS:
                log.error("Cleaning is tried again: %s partition=%s", error, topic_partition)
                return
        unexpected = None if isinstance(error, CleaningFailed) else error
        self._give_up(topic_partition, str(error), unexpected)

    def _give_up(
        self, topic_partition: TopicPartition, reason: str, error: Exception | None = None
    ) -> None:
        self.uncleanable[topic_partition] = reason
        log.error(
            "A partition cannot be cleaned and is left as it is until the broker starts again: "
            "%s partition=%s",
            reason,
            topic_partition,
            exc_info=error,
        )

    # -- what happens to logs meanwhile -----------------------------------------------------------

    def on_truncated(self, truncated: AnyLog) -> None:
        """A log has been cut: a pass over it is called off, and what is no more is not clean."""
        topic_partition = truncated.topic_partition
        self._abort(topic_partition)
        checkpoint = self._logs.cleaned_to(topic_partition)
        active = truncated.segments.last.base_offset
        if checkpoint is not None and checkpoint > active:
            self._logs.note_cleaned(topic_partition, active)

    def on_deleted(self, topic_partition: TopicPartition) -> None:
        """A log is gone, or moved: a new one of that name has nothing to do with it."""
        self._abort(topic_partition)
        self.uncleanable.pop(topic_partition, None)
        self._deaths.pop(topic_partition, None)

    def _abort(self, topic_partition: TopicPartition) -> None:
        running = self._running.get(topic_partition)
        if running is not None:
            running.abort()

    async def _check_retention(self) -> None:
        """Delete old segments of compacted topics: by ``compact,delete``, or below log start.

        Kafka's cleaner does it too, so that no segment is deleted while it is being cleaned.
        """
        for number, each in enumerate(list(self._logs)):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                while (
                    each.config.compact
                    and each.offline is None
                    and each.topic_partition not in self._running
                    and self._logs.get(each.topic_partition) is each
                ):
                    gone = each.delete_old_segments(self._clock.wall_ms(), SEGMENTS_AT_ONCE)
                    if not gone:
                        break
                    self._logs.remove_segments(gone)
                    await asyncio.sleep(0)
            except KafkaError as error:
                log.warning("Retention check failed: %s partition=%s", error, each.topic_partition)


class _Lane:
    """A worker, and the thread that drives it; neither is there before it is needed."""

    def __init__(self, name: str, fs: FileSystem, clock: Clock) -> None:
        self._fs = fs
        self._clock = clock
        self._thread = Workers(name, 1)
        self._worker: Worker | None = None

    def worker(self) -> "Worker":
        if self._worker is None:
            from kavka.storage.cleaning_workers import ProcessWorker, ThreadWorker

            if type(self._fs) is FileSystem:
                self._worker = ProcessWorker(self._fs)
            else:  # one that another process would not see
                self._worker = ThreadWorker(self._fs, self._clock)
        return self._worker

    async def run(self, job: Callable[[], _T]) -> _T:
        """Do ``job`` in the thread."""
        done: Future[_T] = Future()
        self._thread.submit(lambda: _do(job, done))
        return await asyncio.wrap_future(done)

    async def rest(self) -> None:
        """Let the worker's process go."""
        if self._worker is not None:
            await self.run(self._worker.rest)
            self._worker = None

    async def close(self) -> None:
        await self.rest()
        self._thread.stop()


def _rules(each: Log) -> CompactionRules:
    config = each.config
    return CompactionRules(
        config.min_cleanable_dirty_ratio, config.min_compaction_lag_ms, config.max_compaction_lag_ms
    )


def _do(step: Callable[[], Any], done: "Future[Any]") -> None:
    try:
        done.set_result(step())
    except BaseException as error:
        done.set_exception(error)
