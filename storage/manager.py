"""All logs of a broker: where they live, how they are loaded, kept in bounds and stopped.

Use: :meth:`LogManager.open_directories` (locks, before anything else in them is touched),
:meth:`claim` once broker and cluster id are known, ``await start()``, ``await stop()``. All other
methods are for the event loop.
"""

import asyncio
import errno
import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Final

from kavka.config.broker import BrokerConfig
from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage import meta
from kavka.storage.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_START_OFFSETS,
    RECOVERY_POINTS,
)
from kavka.storage.cleaner import Cleaner
from kavka.storage.clock import Clock, SystemClock
from kavka.storage.flush import Flusher
from kavka.storage.fs import FileSystem, is_passing, storage_error
from kavka.storage.loading import Found, load_all, refuse_twins
from kavka.storage.log import Log, SegmentDeletion
from kavka.storage.log_state import LogState
from kavka.storage.logdir import LogDirectory
from kavka.storage.meta import LogDirectoryError
from kavka.storage.moves import Move, Mover
from kavka.storage.names import deletion_directory, future_directory
from kavka.storage.open_files import OpenFiles
from kavka.storage.recovery import Loaded, Recovery, load_log
from kavka.storage.removal import Remover
from kavka.storage.topic_id import ZERO_TOPIC_ID
from kavka.storage.upkeep import Upkeep
from kavka.storage.workers import Workers

__all__ = ["LogDirectoryError", "LogManager"]

log = logging.getLogger("kavka.storage.manager")

_WISHES: Final = 10_000  # directories remembered for partitions that are not there yet
SYNC_THREADS: Final = 4
_CHECKPOINTS: Final = (RECOVERY_POINTS, LOG_START_OFFSETS, HIGH_WATERMARKS, CLEANER_OFFSETS)
# What a dying disk says, while a wrong setting says something else and is to be put right.
_DISK_FAILED: Final = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO})
CLOSE_THREADS: Final = 4  # for each directory; they wait for the disk

TopicConfigs = Callable[[str], TopicConfig]


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
        boot: bytes | None = None,
    ) -> None:
        """``boot`` tells this run of the machine from others; by default it is asked for."""
        self._boot = boot
        self._config = config
        self._fs = fs or FileSystem()
        self._clock = clock or SystemClock()
        self._random = rng or random.Random()
        self._open_files = open_files or OpenFiles()
        self._directories: list[LogDirectory] = []
        self._logs: dict[TopicPartition, Log] = {}
        self._homes: dict[TopicPartition, LogDirectory] = {}
        self._started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._disk = Workers("kavka-disk", 1)  # removals and checkpoints, one behind the other
        self._sync = Workers("kavka-sync", SYNC_THREADS)
        self._flusher: Flusher | None = None
        self._remover: Remover | None = None
        self.upkeep = Upkeep(self, config, self._clock)
        self.mover = Mover(self, config, self._fs, self._clock)
        self._preferred: dict[TopicPartition, str] = {}  # directories for partitions to come
        self._leaving: dict[TopicPartition, object] = {}  # deleted, but for checkpoints on disk
        self.cleaner: Cleaner | None = None
        """Compacts; None when ``log.cleaner.enable`` is off."""
        if config.get_bool("log.cleaner.enable"):
            self.cleaner = Cleaner(config, self, self._fs, self._clock, self._open_files)
        self.on_directory_offline: Callable[[LogDirectory], None] | None = None
        """Told once when a directory fails; when none is left the broker should stop."""

    # -- start and stop -----------------------------------------------------------------------

    def open_directories(self) -> int | None:
        """Make and lock all directories of ``log.dirs``; return the broker id they belong to.

        None when neither they nor ``broker.id`` tell one. *Blocks*, shortly. Raises
        LogDirectoryError, a whole sentence for the user, after releasing what was locked.
        """
        failed = "", ""
        if self._boot is None:
            self._boot = meta.boot_id(self._fs)
        try:
            for path in self._config.log_dirs:
                try:
                    self._directories.append(
                        LogDirectory(self._fs, os.path.abspath(path), self._boot)
                    )
                except OSError as error:
                    reason = os.strerror(error.errno) if error.errno else str(error)
                    if error.errno not in _DISK_FAILED:
                        raise _unusable(path, reason) from error
                    log.error("Log directory offline: %s path=%s", reason, path)
                    self._directories.append(
                        LogDirectory.out_of_reach(self._fs, os.path.abspath(path), reason)
                    )
                    failed = path, reason
            if all(directory.offline for directory in self._directories):
                raise _unusable(*failed)
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
            if directory.offline is not None:
                continue
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
        self._remover = Remover(self._fs, loop, self._disk)
        began = self._clock.monotonic()
        found: list[Found] = []
        unwanted: list[str] = []
        for directory in self._directories:
            if directory.offline is not None:
                continue
            try:
                directory.read_checkpoints()
                live, to_delete = directory.scan()
            except OSError as error:
                self.directory_failed(directory, error)
                continue
            found += (Found(directory, each, topic_config(each.topic)) for each in live)
            unwanted += to_delete
        refuse_twins(found)
        total = Recovery()
        for one, loaded in await load_all(
            found, self._load, self._config.get_int("num.recovery.threads.per.data.dir")
        ):
            if isinstance(loaded, OSError):
                self.directory_failed(one.directory, loaded)
                continue
            self._adopt(one.directory, loaded.log)
            high_watermark = one.directory.high_watermarks.get(one.topic_partition, 0)
            loaded.log.restore_high_watermark(high_watermark)
            total = Recovery(*map(sum, zip(total, loaded.recovery, strict=True)))
        for directory in self._directories:
            if directory.offline is None:
                try:
                    # A recovery point past a log's end would vouch for what is appended now, and
                    # what is said of a log that is gone would be taken for the next one's.
                    changed = directory.changed_checkpoints(directory.overtaken_checkpoints())
                    await loop.run_in_executor(None, directory.write_checkpoints, changed)
                    await loop.run_in_executor(None, directory.clear_clean_mark)
                except OSError as error:
                    self.directory_failed(directory, error)
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
            self.remover.remove_directory(path, delay)
        self._started = True
        self.upkeep.begin(loop)
        if self.cleaner is not None:
            self.cleaner.start()

    def _load(
        self, found: Found, topic_id: bytes = ZERO_TOPIC_ID, *, is_new: bool = False
    ) -> Loaded:
        """Load one log; runs in threads at the start. A new one has nothing to recover."""
        directory, topic_partition, config = found
        return load_log(
            topic_partition,
            directory.partition_path(topic_partition),
            config,
            fs=self._fs,
            clock=self._clock,
            rng=self._random,
            open_files=self._open_files,
            producer_expiration_ms=self._config.get_int("transactional.id.expiration.ms"),
            log_start_offset=0 if is_new else directory.log_start_offsets.get(topic_partition, 0),
            recovery_point=0 if is_new else directory.recovery_points.get(topic_partition, 0),
            clean=is_new or directory.was_clean,
            topic_id=topic_id,
        )

    def _adopt(self, directory: LogDirectory, added: Log) -> None:
        self._logs[added.topic_partition] = added
        self._homes[added.topic_partition] = directory
        directory.add(added)
        added.on_rolled = self._rolled
        added.on_truncated = self._truncated
        added.on_settle = lambda: self._settle(directory)
        added.on_storage_error = self._storage_failed
        added.on_config = self.upkeep.configured
        self.upkeep.configured(added)
        if directory.offline is not None:
            added.go_offline(OSError(directory.offline), directory.offline)

    async def stop(self) -> None:
        """Flush, checkpoint and close all logs, leave the clean-shutdown marks, unlock.

        A manager whose start failed only unlocks.
        """
        if not self._started:
            self._unlock()
            return
        loop = asyncio.get_running_loop()
        if self.cleaner is not None:
            await self.cleaner.stop()
        await self.upkeep.end()
        await self.mover.stop()
        self.remover.cancel()
        idle = loop.create_future()
        self.flusher.when_idle(lambda: idle.set_result(None))
        await idle
        await loop.run_in_executor(None, self._disk.stop)
        for directory in self._directories:
            logs = [*directory.logs]
            shares = [logs[number::CLOSE_THREADS] for number in range(CLOSE_THREADS)]
            closed = await asyncio.gather(
                *(loop.run_in_executor(None, _close_logs, share) for share in shares if share)
            )
            await loop.run_in_executor(None, self._close, directory, all(closed))
        await loop.run_in_executor(None, self._sync.stop)
        self._unlock()

    def _close(self, directory: LogDirectory, logs_closed: bool) -> None:
        """Leave checkpoints and the mark; runs in a thread when the loop touches logs no more."""
        if directory.offline is None and logs_closed:
            names = (HIGH_WATERMARKS, RECOVERY_POINTS, LOG_START_OFFSETS)
            try:
                directory.write_checkpoints(directory.changed_checkpoints(names))
                directory.mark_clean()
                return
            except OSError as error:
                log.error("Checkpoints not written: %s path=%s", error, directory.path)
        log.warning(
            "No clean-shutdown mark is left, the next start will recover path=%s", directory.path
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

    @property
    def remover(self) -> Remover:
        """Removes files late; there is one from :meth:`start` on."""
        assert self._remover is not None
        return self._remover

    def get(self, topic_partition: TopicPartition) -> Log | None:
        """The log of a partition, if there is one here."""
        return self._logs.get(topic_partition)

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs.values())

    @property
    def lost_memory(self) -> bool:
        """Whether the machine went down after the last start, with what was not on disk yet."""
        return any(directory.lost_memory for directory in self._directories)

    def whole(self) -> set[TopicPartition]:
        """The partitions that have kept all their records nevertheless."""
        return {
            topic_partition
            for topic_partition, each in self._logs.items()
            if not self._homes[topic_partition].lost_memory or each.config.flush_messages <= 1
        }

    async def forgive(self) -> None:
        """What :attr:`lost_memory` tells has been dealt with, or is of no concern."""
        loop = asyncio.get_running_loop()
        for directory in self._directories:
            if directory.offline is None:
                try:
                    await loop.run_in_executor(None, directory.note_boot, self._boot or b"")
                except OSError as error:
                    self.directory_failed(directory, error)

    def __len__(self) -> int:
        return len(self._logs)

    def get_or_create(
        self,
        topic_partition: TopicPartition,
        config: TopicConfig,
        topic_id: bytes = ZERO_TOPIC_ID,
        *,
        is_new: bool = True,
    ) -> Log:
        """The log of a partition; a new one goes to the directory with the fewest.

        A partition that is not new and not found may lie in a directory that is offline: it is
        not begun again beside it, empty. Raises KafkaError: INCONSISTENT_TOPIC_ID when what is
        there is of another topic with the same name, KAFKA_STORAGE_ERROR.
        """
        found = self._logs.get(topic_partition)
        if found is not None:
            if topic_id not in (ZERO_TOPIC_ID, found.topic_id) and found.topic_id != ZERO_TOPIC_ID:
                raise KafkaError(
                    ErrorCode.INCONSISTENT_TOPIC_ID,
                    f"the log of {topic_partition} here belongs to an earlier topic of that name",
                )
            if found.topic_id == ZERO_TOPIC_ID:
                found.note_topic_id(topic_id)
            found.update_config(config)
            return found
        usable = [each for each in self._directories if each.offline is None]
        if not usable:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "all log directories are offline")
        if not is_new and len(usable) < len(self._directories):
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"the log of {topic_partition} is not here, and a log directory is offline",
            )
        directory = min(usable, key=lambda each: each.partition_count)
        wanted = self._preferred.pop(topic_partition, None)
        directory = next((each for each in usable if each.path == wanted), directory)
        try:
            loaded = self._load(Found(directory, topic_partition, config), topic_id, is_new=True)
        except OSError as error:
            self._note_error(directory, error)
            raise storage_error(error, f"create {topic_partition} in {directory.path}") from error
        self._adopt(directory, loaded.log)
        if topic_partition in self._leaving:
            # A crash would take it for the one of that name which has just been deleted. A thread
            # waits for what takes care of that, so that perhaps no append has to.
            loaded.log.must_sync(loaded.log.log_end_offset)
            self.flusher.request(loaded.log)
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
        self.mover.cancel(topic_partition)
        self._forget(gone, directory)
        self.remover.remove_directory(target, gone.config.file_delete_delay_ms / 1000)
        log.info("Partition deleted partition=%s bytes=%d", topic_partition, gone.size)
        return True

    def _forget(self, gone: Log, directory: LogDirectory) -> None:
        topic_partition = gone.topic_partition
        gone.abandon()
        del self._logs[topic_partition], self._homes[topic_partition]
        self.upkeep.forget(gone)
        if self.cleaner is not None:
            self.cleaner.on_deleted(topic_partition)
        directory.remove(topic_partition)
        for known in (
            directory.recovery_points,
            directory.log_start_offsets,
            directory.high_watermarks,
            directory.cleaner_offsets,
        ):
            known.pop(topic_partition, None)
        # A new partition of that name must not be taken for one flushed as far as this was.
        leaving = self._leaving[topic_partition] = object()

        def left() -> None:
            if self._leaving.get(topic_partition) is leaving:
                del self._leaving[topic_partition]

        self._checkpoint(directory, _CHECKPOINTS, left)

    # -- moving -----------------------------------------------------------------------------

    def move(self, topic_partition: TopicPartition, path: str) -> None:
        """Begin to move a partition to the directory ``path``; nothing happens if it is there.

        Raises KafkaError: LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR when either directory is
        offline, INVALID_TOPIC_EXCEPTION when the name of the copy would be too long,
        REPLICA_NOT_AVAILABLE when there is no such partition yet (it will be made there).
        """
        target = next((each for each in self._directories if each.path == path), None)
        if target is None:
            raise KafkaError(ErrorCode.LOG_DIR_NOT_FOUND, f"{path} is not one of log.dirs")
        current = self._logs.get(topic_partition)
        for offline in (target.offline, None if current is None else current.offline):
            if offline is not None:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, offline)
        name = future_directory(topic_partition, self._unique())
        if current is None:
            if len(self._preferred) < _WISHES:
                self._preferred[topic_partition] = path
            raise KafkaError(ErrorCode.REPLICA_NOT_AVAILABLE)
        if self.mover.target_of(topic_partition) == path:
            return
        self.mover.cancel(topic_partition)
        if self._homes[topic_partition] is target:
            return
        first = current.segments.first.base_offset
        try:
            future = self._load_moved(current, os.path.join(path, name), first)
        except OSError as error:
            self._note_error(target, error)
            raise storage_error(error, f"move {topic_partition} to {path}") from error
        self.mover.begin(current, future, target)

    def _load_moved(self, current: Log, path: str, log_start_offset: int) -> Log:
        return load_log(
            current.topic_partition,
            path,
            current.config,
            fs=self._fs,
            clock=self._clock,
            rng=self._random,
            open_files=self._open_files,
            producer_expiration_ms=self._config.get_int("transactional.id.expiration.ms"),
            log_start_offset=log_start_offset,
            topic_id=current.topic_id,
        ).log

    def finish_move(self, move: Move) -> None:
        """Put the copy in the place of the partition. *Blocks* while the last of it is synced.

        After a crash half-way both directories are complete, and the start asks for one to be
        taken away. Raises KafkaError KAFKA_STORAGE_ERROR and OSError.
        """
        current, future, target = move.current, move.future, move.target
        topic_partition = move.topic_partition
        home = self._homes[topic_partition]
        if self.cleaner is not None:
            self.cleaner.on_deleted(topic_partition)
        self.mover.catch_up(move)
        future.restore_high_watermark(current.high_watermark)
        future.close()
        final = target.partition_path(topic_partition)
        gone = os.path.join(home.path, deletion_directory(topic_partition, self._unique()))
        self._fs.rename(future.directory, final)
        try:
            self._fs.sync_dir(target.path)
            self._fs.rename(current.directory, gone)
        except OSError:
            self._fs.rename(final, future.directory)
            raise
        try:
            moved = self._load_moved(current, final, current.log_start_offset)
        except OSError as error:
            self.directory_failed(target, error)
            current.go_offline(error, str(target.offline))
            raise
        moved.restore_high_watermark(current.high_watermark)
        cleaned_to = home.cleaner_offsets.get(topic_partition)
        self._forget(current, home)
        self._adopt(target, moved)
        if cleaned_to is not None:
            target.cleaner_offsets[topic_partition] = cleaned_to
        self._checkpoint(target, _CHECKPOINTS)
        try:
            self._fs.sync_dir(home.path)  # or there are two after a power loss, one of them old
        except OSError as error:
            self._note_error(home, error)
        self.remover.remove_directory(gone, current.config.file_delete_delay_ms / 1000)
        if self.mover.on_moved is not None:
            self.mover.on_moved(current, moved)

    def _unique(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

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

    def _storage_failed(self, failed: LogState, error: OSError) -> None:
        self.directory_failed(self._homes[failed.topic_partition], error)

    def _note_error(self, directory: LogDirectory, error: OSError) -> None:
        if not is_passing(error):
            self.directory_failed(directory, error)

    def directory_failed(self, directory: LogDirectory, error: OSError) -> None:
        """Take a directory offline, and its logs with it; its owner is told once."""
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
        for move in self.mover:
            if move.target is directory:
                move.future.go_offline(error, directory.offline)
        if self.on_directory_offline is not None:
            self.on_directory_offline(directory)

    # -- what logs say ----------------------------------------------------------------------

    def _rolled(self, rolled: LogState) -> None:
        self.flusher.request(rolled)

    def _truncated(self, truncated: LogState, deletions: list[SegmentDeletion]) -> None:
        self.remove_segments(deletions)
        self.mover.on_truncated(truncated)
        self._checkpoint(
            self._homes[truncated.topic_partition], (RECOVERY_POINTS, LOG_START_OFFSETS)
        )
        if self.cleaner is not None:
            self.cleaner.on_truncated(truncated)

    def remove_segments(self, deletions: list[SegmentDeletion]) -> None:
        """Remove the files of segments that are out of their log, in a thread after their
        delay."""
        self.remover.remove_segments(deletions)

    # -- checkpoints ------------------------------------------------------------------------

    def cleaned_to(self, topic_partition: TopicPartition) -> int | None:
        """The first offset of a compacted log that has not been cleaned, as last noted."""
        return self._homes[topic_partition].cleaner_offsets.get(topic_partition)

    def note_cleaned(self, topic_partition: TopicPartition, offset: int) -> None:
        """Note how far a log has been cleaned, and write it down in the disk thread."""
        home = self._homes[topic_partition]
        home.cleaner_offsets[topic_partition] = offset
        self._checkpoint(home, (CLEANER_OFFSETS,))

    def checkpoint(self, name: str) -> None:
        """Write one kind of checkpoint file in every directory, in the disk thread."""
        for directory in self._directories:
            self._checkpoint(directory, (name,))

    def _checkpoint(
        self,
        directory: LogDirectory,
        names: tuple[str, ...],
        written: Callable[[], None] | None = None,
    ) -> None:
        """Write checkpoint files in the disk thread; ``written`` is called when all that was asked
        for so far is on disk."""
        if directory.offline is not None:
            return
        changed = directory.changed_checkpoints(names)
        loop = self._loop
        assert loop is not None

        def run() -> None:
            try:
                directory.write_checkpoints(changed)
            except OSError as error:
                loop.call_soon_threadsafe(self._not_written, directory, names, error)
            else:
                if written is not None:
                    loop.call_soon_threadsafe(written)

        if changed or written is not None:
            self._disk.submit(run)

    def _settle(self, directory: LogDirectory) -> None:
        """Wait, in any thread, until the checkpoints asked for so far are on disk. Those that
        failed are tried again: what is written next must not be done without them. Raises
        OSError."""
        self._disk.wait()
        directory.write_checkpoints({})

    def _not_written(self, directory: LogDirectory, names: tuple[str, ...], error: OSError) -> None:
        log.warning("Checkpoint not written: %s path=%s", error, directory.path)
        directory.checkpoints_failed(names)
        self._note_error(directory, error)


def _unusable(path: str, reason: str) -> LogDirectoryError:
    return LogDirectoryError(
        f"cannot use the log directory {path}: {reason}; give another one in log.dirs"
    )


def _close_logs(logs: list[Log]) -> bool:
    """Close logs, in a thread; say whether all could be closed cleanly."""
    clean = True
    for each in logs:
        try:
            each.close()
        except KafkaError as error:
            log.error("Not closed cleanly: %s partition=%s", error, each.topic_partition)
            clean = False
    return clean
