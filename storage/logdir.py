"""One log directory: its lock and owner, the partitions in it, its checkpoint files."""

import logging
import os
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Final

from kavka.protocol.topics import TopicPartition
from kavka.storage import checkpoints, meta
from kavka.storage.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_START_OFFSETS,
    RECOVERY_POINTS,
    CorruptCheckpoint,
)
from kavka.storage.fs import FileSystem
from kavka.storage.log import Log
from kavka.storage.names import parse_directory

log = logging.getLogger("kavka.storage.logdir")

_NOT_OURS: Final = frozenset({"lost+found"})


class LogDirectory:
    """A directory of ``log.dirs``.

    ``offline`` says why it can no longer be used; its partitions then answer
    KAFKA_STORAGE_ERROR, while those of other directories go on.
    """

    __slots__ = (
        "_fs",
        "_lock",
        "_logs",
        "_unwritten",
        "_writing",
        "_written",
        "cleaner_offsets",
        "high_watermarks",
        "log_start_offsets",
        "lost_memory",
        "meta",
        "offline",
        "path",
        "recovery_points",
        "was_clean",
    )

    def _begin(self, fs: FileSystem, path: str) -> None:
        self._fs = fs
        self.path = path
        self.offline: str | None = None
        self.meta: meta.Meta | None = None
        self.was_clean = False
        self.lost_memory = False
        """Whether the machine went down before what was written here had reached the disk."""
        self._lock: meta.DirectoryLock | None = None
        self._logs: dict[TopicPartition, Log] = {}
        self.recovery_points: dict[TopicPartition, int] = {}
        self.log_start_offsets: dict[TopicPartition, int] = {}
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.cleaner_offsets: dict[TopicPartition, int] = {}  # first dirty ones; kept up to date
        self._written: dict[str, dict[TopicPartition, int]] = {}  # checkpoints as last handed out
        self._writing = Lock()
        self._unwritten: dict[str, Mapping[TopicPartition, int]] = {}  # that could not be written

    def __init__(self, fs: FileSystem, path: str, boot: bytes = b"") -> None:
        """Make the directory if need be, and lock it. ``boot`` tells this run of the machine from
        others.

        Raises LogDirectoryError when another broker has it or it is another's, and OSError.
        """
        self._begin(fs, path)
        _make(fs, path)
        self._lock = meta.DirectoryLock(fs, path)
        try:
            self.meta = meta.read_meta(fs, path)
            self.was_clean = meta.was_clean_shutdown(fs, path)
            if self.meta is not None and not self.was_clean:
                self.lost_memory = not boot or meta.noted_boot_id(fs, path) != boot
        except BaseException:
            self.unlock()
            raise

    @classmethod
    def out_of_reach(cls, fs: FileSystem, path: str, reason: str) -> "LogDirectory":
        """One whose disk has failed before it could be opened; the others go on without it."""
        directory = cls.__new__(cls)
        directory._begin(fs, path)
        directory.offline = f"the log directory {path} is offline: {reason}"
        return directory

    # -- partitions -------------------------------------------------------------------------

    @property
    def logs(self) -> Iterable[Log]:
        """All logs that live here."""
        return self._logs.values()

    @property
    def partition_count(self) -> int:
        """How many partitions live here: new ones go where there are fewest."""
        return len(self._logs)

    def add(self, added: Log) -> None:
        """A log lives here from now on."""
        self._logs[added.topic_partition] = added

    def remove(self, topic_partition: TopicPartition) -> None:
        """A log does not live here any more."""
        del self._logs[topic_partition]

    def partition_path(self, topic_partition: TopicPartition) -> str:
        """Where the files of a partition are, or would be."""
        return os.path.join(self.path, str(topic_partition))

    def scan(self) -> tuple[list[TopicPartition], list[str]]:
        """The partitions found here, and paths of directories that wait to be removed.

        Raises OSError.
        """
        live: list[TopicPartition] = []
        to_delete: list[str] = []
        for name in self._fs.listdir(self.path):
            path = os.path.join(self.path, name)
            if name in _NOT_OURS or name.startswith("."):
                continue
            found = parse_directory(name)
            if found is None:
                stat = self._fs.stat(path)
                if stat is not None and stat.is_dir:
                    log.warning(
                        "A directory is left alone, its name is not that of a partition path=%s",
                        path,
                    )
            elif found.kind in ("delete", "future"):  # a copy that was not completed
                to_delete.append(path)
            else:
                live.append(found.topic_partition)
        return live, to_delete

    # -- space ------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """Size of the volume; -1 when it cannot be told."""
        return self._space()[0]

    @property
    def usable_bytes(self) -> int:
        """Free space of the volume; -1 when it cannot be told."""
        return self._space()[1]

    def _space(self) -> tuple[int, int]:
        try:
            return self._fs.disk_space(self.path)
        except OSError as error:
            log.warning("The space of a log directory is unknown: %s path=%s", error, self.path)
            return -1, -1

    # -- checkpoints ------------------------------------------------------------------------

    def read_checkpoints(self) -> None:
        """Read how far each log had come. Damaged files are warned of and count as empty.

        An unknown recovery point means a longer recovery, an unknown start offset that deleted
        records may come back until retention, an unknown high watermark that it begins at the
        start, an unknown cleaner offset that all is compacted again. Raises OSError.
        """
        self.recovery_points = self._read(RECOVERY_POINTS)
        self.log_start_offsets = self._read(LOG_START_OFFSETS)
        self.high_watermarks = self._read(HIGH_WATERMARKS)
        self.cleaner_offsets = self._read(CLEANER_OFFSETS)

    def _read(self, name: str) -> dict[TopicPartition, int]:
        try:
            return checkpoints.read_offsets(self._fs, os.path.join(self.path, name))
        except CorruptCheckpoint as error:
            log.warning("A checkpoint file is damaged and taken as empty: %s", error)
            return {}

    def _state(self, name: str) -> dict[TopicPartition, int]:
        logs = self._logs.items()
        if name == RECOVERY_POINTS:
            return {each: one.recovery_point for each, one in logs}
        if name == HIGH_WATERMARKS:
            return {each: one.high_watermark for each, one in logs}
        if name == CLEANER_OFFSETS:
            return {each: to for each, to in self.cleaner_offsets.items() if each in self._logs}
        assert name == LOG_START_OFFSETS  # only where the names of files do not tell
        return {
            each: start
            for each, one in logs
            if (start := one.log_start_offset) > one.segments.first_on_disk
        }

    def changed_checkpoints(self, names: Iterable[str]) -> dict[str, dict[TopicPartition, int]]:
        """What is to be written of the checkpoint files ``names``, which counts as written now."""
        changed: dict[str, dict[TopicPartition, int]] = {}
        for name in names:
            state = self._state(name)
            if self._written.get(name) != state:
                self._written[name] = changed[name] = state
        return changed

    def overtaken_checkpoints(self) -> list[str]:
        """The checkpoint files that tell of a log that is not here, or a recovery point past the
        end of one that lost its end with the power."""
        logs = self._logs
        found = {
            RECOVERY_POINTS: self.recovery_points,
            LOG_START_OFFSETS: self.log_start_offsets,
            HIGH_WATERMARKS: self.high_watermarks,
            CLEANER_OFFSETS: self.cleaner_offsets,
        }
        overtaken = {name for name, offsets in found.items() if offsets.keys() - logs.keys()}
        if any(
            offset > logs[each].recovery_point
            for each, offset in self.recovery_points.items()
            if each in logs
        ):
            overtaken.add(RECOVERY_POINTS)
        return sorted(overtaken)

    def write_checkpoints(self, files: Mapping[str, Mapping[TopicPartition, int]]) -> None:
        """Replace checkpoint files, also those that could not be replaced the last time. *May
        block long*; one thread at a time. Raises OSError."""
        with self._writing:
            self._unwritten.update(files)
            for name, offsets in [*self._unwritten.items()]:
                checkpoints.write_offsets(self._fs, os.path.join(self.path, name), offsets)
                del self._unwritten[name]

    def checkpoints_failed(self, names: Iterable[str]) -> None:
        """What counted as written may not be: write it next time."""
        for name in names:
            self._written.pop(name, None)

    # -- owner and end ----------------------------------------------------------------------

    def claim(self, broker_id: int, cluster_id: str | None, now_ms: int) -> None:
        """Write whose directory this is, where that is not there yet. Raises OSError."""
        wanted = meta.Meta(broker_id, cluster_id)
        if self.meta is None or (self.meta.cluster_id is None and cluster_id is not None):
            meta.write_meta(self._fs, self.path, wanted, now_ms)
            self.meta = wanted

    def clear_clean_mark(self) -> None:
        """Logs are about to be written. *May block long.* Raises OSError."""
        meta.clear_clean_shutdown(self._fs, self.path)

    def note_boot(self, boot: bytes) -> None:
        """What was lost has been dealt with: from now on this run of the machine counts. *May
        block long.* Raises OSError."""
        if meta.noted_boot_id(self._fs, self.path) != boot:
            meta.note_boot_id(self._fs, self.path, boot)
        self.lost_memory = False

    def mark_clean(self) -> None:
        """Everything is flushed, checkpointed and closed. *May block long.* Raises OSError."""
        meta.mark_clean_shutdown(self._fs, self.path)

    def unlock(self) -> None:
        """Let another broker have it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _make(fs: FileSystem, path: str) -> None:
    """Make a directory and the missing ones above it, so that a power loss leaves none out: what
    is synced in it later would be gone with its name. Raises OSError."""
    if fs.exists(path):
        return
    above = os.path.dirname(path)
    _make(fs, above)
    fs.mkdir(path)
    fs.sync_dir(above)
