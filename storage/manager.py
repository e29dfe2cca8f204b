"""All logs of a broker: where they live, how they are loaded, kept in bounds and stopped.

Use: :meth:`LogManager.open_directories` (locks, before anything else in them is touched),
:meth:`claim` once broker and cluster id are known, ``await start()``, ``await stop()``. All other
methods are for the event loop.
"""

import asyncio
import logging
import os
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from kavka.config.broker import BrokerConfig
from kavka.config.option import LONG_MAX
from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage import meta
from kavka.storage.checkpoints import HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS
from kavka.storage.clock import Clock, SystemClock
from kavka.storage.flush import Flusher
from kavka.storage.fs import FileSystem, is_disk_full, storage_error
from kavka.storage.log import Log, SegmentDeletion
from kavka.storage.logdir import LogDirectory
from kavka.storage.meta import LogDirectoryError
from kavka.storage.names import deletion_directory
from kavka.storage.open_files import OpenFiles
from kavka.storage.recovery import Loaded, Recovery, load_log
from kavka.storage.topic_id import ZERO_TOPIC_ID
from kavka.storage.workers import Workers

__all__ = ["LogDirectoryError", "LogManager"]

log = logging.getLogger("kavka.storage.manager")

FIRST_RUN: Final = 30.0  # seconds after start before background work begins, as in Kafka
PRODUCER_EXPIRY_INTERVAL: Final = 600.0  # seconds
FLUSH_CHECK: Final = 1.0  # seconds, while a topic has flush.ms
SYNC_THREADS: Final = 4
_AT_ONCE: Final = 20  # logs looked at before the loop gets its turn

TopicConfigs = Callable[[str], TopicConfig]


class _Found(NamedTuple):
    """A partition's directory to be loaded."""

    directory: LogDirectory
    topic_partition: TopicPartition


class LogManager:
    """The logs of one broker, in one or several directories."""

    def __init__(
        self,
        config: BrokerConfig,
        fs: FileSystem | None = None,
        clock: Clock | None = None,
        *,
        rng: random.Random | None = None,
        open_files: OpenFiles | None = None,
    ) -> None:
        self._config = config
        self._fs = fs or FileSystem()
        self._clock = clock or SystemClock()
        self._random = rng or random.Random()
        self._open_files = open_files or OpenFiles()
        self._directories: list[LogDirectory] = []
        self._logs: dict[TopicPartition, Log] = {}
        self._homes: dict[TopicPartition, LogDirectory] = {}
        self._timed: set[Log] = set()  # those with flush.ms
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._disk = Workers("kavka-disk", 1)  # removals and checkpoints, one behind the other
        self._sync = Workers("kavka-sync", SYNC_THREADS)
        self._flusher: Flusher | None = None
        self.on_directory_offline: Callable[[LogDirectory], None] | None = None
        """Told once when a directory fails; when none is left the broker should stop."""

    # -- start and stop -----------------------------------------------------------------------

    def open_directories(self) -> int | None:
        """Make and lock all directories of ``log.dirs``; return the broker id they belong to.

        None when neither they nor ``broker.id`` tell one. *Blocks*, shortly. Raises
        LogDirectoryError, a whole sentence for the user, after releasing what was locked.
        """
        try:
            for path in self._config.log_dirs:
                try:
                    self._directories.append(LogDirectory(self._fs, os.path.abspath(path)))
                except OSError as error:
                    reason = os.strerror(error.errno) if error.errno else str(error)
                    raise LogDirectoryError(
                        f"cannot use the log directory {path}: {reason}; give another one in "
                        "log.dirs"
                    ) from error
            return meta.agree_on_broker_id(
                {directory.path: directory.meta for directory in self._directories},
                self._config.broker_id,
            )
        except LogDirectoryError:
            self._unlock()
            raise

    def claim(self, broker_id: int, cluster_id: str | None) -> None:
        """Check that the directories are this cluster's, and mark new ones as this broker's.

        *Blocks*, shortly. Raises LogDirectoryError and OSError.
        """
        if cluster_id is not None:
            meta.check_cluster_id(
                {directory.path: directory.meta for directory in self._directories}, cluster_id
            )
        for directory in self._directories:
            directory.claim(broker_id, cluster_id, self._clock.wall_ms())

    async def start(self, topic_config: TopicConfigs) -> None:
        """Load all logs, in threads, then begin background work.

        ``topic_config`` gives a topic's settings (the broker's for a topic that is gone).
        Raises LogDirectoryError, after unlocking.
        """
        try:
            await self._start(topic_config)
        except BaseException:
            self._unlock()
            raise

    async def _start(self, topic_config: TopicConfigs) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._flusher = Flusher(loop, self._sync)
        began = self._clock.monotonic()
        found: list[_Found] = []
        unwanted: list[str] = []
        for directory in self._directories:
            try:
                directory.read_checkpoints()
                live, to_delete = directory.scan()
            except OSError as error:
                self._directory_failed(directory, error)
                continue
            found += (_Found(directory, topic_partition) for topic_partition in live)
            unwanted += to_delete
        self._refuse_twins(found)
        total = await self._load_all(found, topic_config)
        for directory in self._directories:
            if directory.offline is None:
                try:
                    await loop.run_in_executor(None, directory.clear_clean_mark)
                except OSError as error:
                    self._directory_failed(directory, error)
        if found:
            log.info(
                "Logs loaded partitions=%d seconds=%.3f segments_recovered=%d bytes_recovered=%d "
                "bytes_cut=%d",
                len(self._logs),
                self._clock.monotonic() - began,
                total.segments,
                total.bytes,
                total.cut_bytes,
            )
        delay = self._config.get_int("log.segment.delete.delay.ms") / 1000
        for path in unwanted:
            self._remove_later(path, delay)
        self._started = True
        self._begin_tasks(loop)

    def _refuse_twins(self, found: list[_Found]) -> None:
        seen: dict[TopicPartition, LogDirectory] = {}
        for directory, topic_partition in found:
            other = seen.setdefault(topic_partition, directory)
            if other is not directory:
                raise LogDirectoryError(
                    f"partition {topic_partition} is in two log directories, {other.path} and "
                    f"{directory.path}: move one of them away"
                )

    async def _load_all(self, found: list[_Found], topic_config: TopicConfigs) -> Recovery:
        """Load each directory's logs in num.recovery.threads.per.data.dir threads."""
        assert self._loop is not None
        lanes_each = self._config.get_int("num.recovery.threads.per.data.dir")
        lanes: dict[tuple[LogDirectory, int], list[tuple[_Found, TopicConfig]]] = {}
        for number, one in enumerate(found):
            lane = lanes.setdefault((one.directory, number % lanes_each), [])
            lane.append((one, topic_config(one.topic_partition.topic)))
        results = await asyncio.gather(
            *(self._loop.run_in_executor(None, self._load_lane, lane) for lane in lanes.values())
        )
        total = Recovery()
        for lane_results in results:
            for one, loaded in lane_results:
                if isinstance(loaded, OSError):
                    self._directory_failed(one.directory, loaded)
                    continue
                self._adopt(one.directory, loaded.log)
                loaded.log.restore_high_watermark(
                    one.directory.high_watermarks.get(one.topic_partition, 0)
                )
                total = Recovery(*map(sum, zip(total, loaded.recovery, strict=True)))
        return total

    def _load_lane(
        self, lane: list[tuple[_Found, TopicConfig]]
    ) -> list[tuple[_Found, Loaded | OSError]]:
        """Runs in a thread: touches nothing but files."""
        results: list[tuple[_Found, Loaded | OSError]] = []
        for one, config in lane:
            try:
                results.append((one, self._load(one.directory, one.topic_partition, config)))
            except OSError as error:
                results.append((one, error))
                break  # the rest of the directory is lost as well
        return results

    def _load(
        self,
        directory: LogDirectory,
        topic_partition: TopicPartition,
        config: TopicConfig,
        topic_id: bytes = ZERO_TOPIC_ID,
    ) -> Loaded:
        return load_log(
            topic_partition,
            directory.partition_path(topic_partition),
            config,
            fs=self._fs,
            clock=self._clock,
            rng=self._random,
            open_files=self._open_files,
            producer_expiration_ms=self._config.get_int("transactional.id.expiration.ms"),
            log_start_offset=directory.log_start_offsets.get(topic_partition, 0),
            recovery_point=directory.recovery_points.get(topic_partition, 0),
            clean=directory.was_clean,
            topic_id=topic_id,
        )

    def _adopt(self, directory: LogDirectory, added: Log) -> None:
        self._logs[added.topic_partition] = added
        self._homes[added.topic_partition] = directory
        directory.add(added)
        added.on_rolled = self._rolled
        added.on_truncated = self._truncated
        added.on_storage_error = self._storage_failed
        added.on_config = self._configured
        self._configured(added)
        if directory.offline is not None:
            added.go_offline(OSError(directory.offline), directory.offline)

    async def stop(self) -> None:
        """Flush, checkpoint and close all logs, leave the clean-shutdown marks, unlock.

        A manager whose start failed only unlocks.
        """
        if not self._started:
            self._unlock()
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for timer in self._timers:
            timer.cancel()  # what waits to be removed is found again at the next start
        self._timers.clear()
        loop = asyncio.get_running_loop()
        idle = loop.create_future()
        self.flusher.when_idle(lambda: idle.set_result(None))
        await idle
        await asyncio.gather(
            *(loop.run_in_executor(None, self._close, each) for each in self._directories)
        )
        await loop.run_in_executor(None, self._disk.stop)
        await loop.run_in_executor(None, self._sync.stop)
        self._unlock()

    def _close(self, directory: LogDirectory) -> None:
        """Runs in a thread at the end, when the loop touches logs no more."""
        files = {HIGH_WATERMARKS: directory.encode_high_watermarks()}
        closed = True
        for each in directory.logs:
            try:
                each.close()
            except KafkaError as error:
                log.error("Not closed cleanly: %s partition=%s", error, each.topic_partition)
                closed = False
        if not closed or directory.offline is not None:
            log.warning(
                "No clean-shutdown mark is left, the next start will recover path=%s",
                directory.path,
            )
            return
        files[RECOVERY_POINTS] = directory.encode_recovery_points()
        files[LOG_START_OFFSETS] = directory.encode_log_start_offsets()
        try:
            directory.write_checkpoints(files)
            directory.mark_clean()
        except OSError as error:
            log.error(
                "No clean-shutdown mark is left, the next start will recover: %s path=%s",
                error,
                directory.path,
            )

    def _unlock(self) -> None:
        for directory in self._directories:
            directory.unlock()

    # -- logs -------------------------------------------------------------------------------

    @property
    def flusher(self) -> Flusher:
        """Group commit; there is one from :meth:`start` on."""
        assert self._flusher is not None
        return self._flusher

    def get(self, topic_partition: TopicPartition) -> Log | None:
        """The log of a partition, if there is one here."""
        return self._logs.get(topic_partition)

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs.values())

    def __len__(self) -> int:
        return len(self._logs)

    def get_or_create(
        self,
        topic_partition: TopicPartition,
        config: TopicConfig,
        topic_id: bytes = ZERO_TOPIC_ID,
    ) -> Log:
        """The log of a partition; a new one goes to the directory with the fewest.

        Raises KafkaError: INCONSISTENT_TOPIC_ID when what is there is of another topic with the
        same name, KAFKA_STORAGE_ERROR.
        """
        found = self._logs.get(topic_partition)
        if found is not None:
            if topic_id not in (ZERO_TOPIC_ID, found.topic_id) and found.topic_id != ZERO_TOPIC_ID:
                raise KafkaError(
                    ErrorCode.INCONSISTENT_TOPIC_ID,
                    f"the log of {topic_partition} here belongs to an earlier topic of that name",
                )
            found.update_config(config)
            return found
        usable = [each for each in self._directories if each.offline is None]
        if not usable:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "all log directories are offline")
        directory = min(usable, key=lambda each: each.partition_count)
        try:
            loaded = self._load(directory, topic_partition, config, topic_id)
        except OSError as error:
            self._note_error(directory, error)
            raise storage_error(error, f"create {topic_partition} in {directory.path}") from error
        self._adopt(directory, loaded.log)
        return loaded.log

    def delete(self, topic_partition: TopicPartition) -> bool:
        """Take a partition out; its files go after file.delete.delay.ms. False if there is none.

        Raises KafkaError KAFKA_STORAGE_ERROR.
        """
        gone = self._logs.get(topic_partition)
        if gone is None:
            return False
        directory = self._homes[topic_partition]
        target = os.path.join(directory.path, deletion_directory(topic_partition, self._unique()))
        try:
            self._fs.rename(gone.directory, target)
        except OSError as error:
            self._note_error(directory, error)
            raise storage_error(error, f"delete {topic_partition} in {directory.path}") from error
        gone.abandon()
        del self._logs[topic_partition], self._homes[topic_partition]
        self._timed.discard(gone)
        directory.remove(topic_partition)
        for known in (
            directory.recovery_points,
            directory.log_start_offsets,
            directory.high_watermarks,
        ):
            known.pop(topic_partition, None)
        # A new partition of that name must not be taken for one flushed as far as this was.
        self._checkpoint(directory, (RECOVERY_POINTS, LOG_START_OFFSETS, HIGH_WATERMARKS))
        self._remove_later(target, gone.config.file_delete_delay_ms / 1000)
        log.info("Partition deleted partition=%s bytes=%d", topic_partition, gone.size)
        return True

    def _unique(self) -> str:
        return uuid.UUID(int=self._random.getrandbits(128), version=4).hex

    # -- directories ------------------------------------------------------------------------

    def describe(self) -> list[LogDirectory]:
        """All directories, also those that are offline, for DescribeLogDirs."""
        return self._directories

    def has_directory(self, path: str) -> bool:
        """Whether ``path`` is one of ``log.dirs``."""
        return any(each.path == path for each in self._directories)

    def directory_of(self, topic_partition: TopicPartition) -> str | None:
        """Path of the log directory that a partition lives in."""
        home = self._homes.get(topic_partition)
        return None if home is None else home.path

    def _storage_failed(self, failed: Log, error: OSError) -> None:
        self._directory_failed(self._homes[failed.topic_partition], error)

    def _note_error(self, directory: LogDirectory, error: OSError) -> None:
        if not is_disk_full(error):
            self._directory_failed(directory, error)

    def _directory_failed(self, directory: LogDirectory, error: OSError) -> None:
        if directory.offline is not None:
            return
        reason = os.strerror(error.errno) if error.errno else str(error)
        directory.offline = f"the log directory {directory.path} is offline: {reason}"
        log.error(
            "Log directory offline, its partitions answer KAFKA_STORAGE_ERROR: %s path=%s "
            "partitions=%d",
            reason,
            directory.path,
            directory.partition_count,
        )
        for each in directory.logs:
            each.go_offline(error, directory.offline)
        if self.on_directory_offline is not None:
            self.on_directory_offline(directory)

    # -- what logs say ----------------------------------------------------------------------

    def _rolled(self, rolled: Log) -> None:
        self.flusher.request(rolled)

    def _truncated(self, truncated: Log, deletions: list[SegmentDeletion]) -> None:
        self._run_deletions(deletions)
        self._checkpoint(
            self._homes[truncated.topic_partition], (RECOVERY_POINTS, LOG_START_OFFSETS)
        )

    def _configured(self, changed: Log) -> None:
        if changed.config.flush_ms < LONG_MAX:
            self._timed.add(changed)
        else:
            self._timed.discard(changed)

    # -- removing files ---------------------------------------------------------------------

    def _run_deletions(self, deletions: list[SegmentDeletion]) -> None:
        for deletion in deletions:
            self._later(deletion.delay_ms / 1000, self._deletion_job(deletion))

    def _deletion_job(self, deletion: SegmentDeletion) -> Callable[[], None]:
        def run() -> None:
            try:
                deletion.run(self._fs)
            except OSError as error:
                log.warning(
                    "A deleted segment's files could not be removed, the next start tries again: "
                    "%s base_offset=%d",
                    error,
                    deletion.base_offset,
                )

        return run

    def _remove_later(self, path: str, delay: float) -> None:
        def run() -> None:
            try:
                self._fs.remove_tree(path)
            except OSError as error:
                log.warning(
                    "A deleted partition could not be removed, the next start tries again: "
                    "%s path=%s",
                    error,
                    path,
                )

        self._later(delay, run)

    def _later(self, delay: float, job: Callable[[], None]) -> None:
        """Run ``job`` in the disk thread after ``delay`` seconds."""
        if delay <= 0 or self._loop is None:
            self._disk.submit(job)
            return

        def due() -> None:
            self._timers.discard(timer)
            self._disk.submit(job)

        timer = self._loop.call_later(delay, due)
        self._timers.add(timer)

    # -- background work --------------------------------------------------------------------

    def _begin_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self._config

        def every(ms: int, work: Callable[[], object], first: float = FIRST_RUN) -> None:
            if ms < LONG_MAX:
                interval = max(ms / 1000, 0.001)
                self._tasks.append(loop.create_task(_repeat(interval, work, first)))

        every(config.get_int("log.retention.check.interval.ms"), self.check_retention)
        every(
            config.get_int("log.flush.offset.checkpoint.interval.ms"),
            lambda: self.checkpoint(RECOVERY_POINTS),
        )
        every(
            config.get_int("log.flush.start.offset.checkpoint.interval.ms"),
            lambda: self.checkpoint(LOG_START_OFFSETS),
        )
        every(
            config.get_int("replica.high.watermark.checkpoint.interval.ms"),
            lambda: self.checkpoint(HIGH_WATERMARKS),
            FLUSH_CHECK,
        )
        every(int(FLUSH_CHECK * 1000), self.check_flush, FLUSH_CHECK)
        every(int(PRODUCER_EXPIRY_INTERVAL * 1000), self.expire_producers)

    async def check_retention(self) -> None:
        """Delete what the topics' retention no longer covers, a few logs at a time."""
        now_ms = self._clock.wall_ms()
        for number, each in enumerate([*self._logs.values()]):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if each.offline is None and self._logs.get(each.topic_partition) is each:
                try:
                    self._run_deletions(each.delete_old_segments(now_ms))
                except KafkaError as error:
                    log.warning(
                        "Retention check failed: %s partition=%s", error, each.topic_partition
                    )

    def check_flush(self) -> None:
        """Flush the logs of topics with ``flush.ms`` that have waited for so long."""
        now = self._clock.monotonic()
        for each in self._timed:
            if each.unflushed and (now - each.last_flushed) * 1000 >= each.config.flush_ms:
                self.flusher.request(each)

    def expire_producers(self) -> None:
        """Forget idempotent producers that have been idle for long."""
        now_ms = self._clock.wall_ms()
        for each in self._logs.values():
            each.producers.remove_expired(now_ms)

    def checkpoint(self, name: str) -> None:
        """Write one kind of checkpoint file in every directory, in the disk thread."""
        for directory in self._directories:
            self._checkpoint(directory, (name,))

    def _checkpoint(self, directory: LogDirectory, names: tuple[str, ...]) -> None:
        if directory.offline is not None:
            return
        encoders = {
            RECOVERY_POINTS: directory.encode_recovery_points,
            LOG_START_OFFSETS: directory.encode_log_start_offsets,
            HIGH_WATERMARKS: directory.encode_high_watermarks,
        }
        files = {name: encoders[name]() for name in names}

        def run() -> None:
            try:
                directory.write_checkpoints(files)
            except OSError as error:
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._note_error, directory, error)

        self._disk.submit(run)


async def _repeat(interval: float, work: Callable[[], object], first: float) -> None:
    """Do ``work`` (a coroutine function or not) ever again; it handles its own errors."""
    await asyncio.sleep(first)
    while True:
        result = work()
        if asyncio.iscoroutine(result):
            await result
        await asyncio.sleep(interval)
