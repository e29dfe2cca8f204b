"""``kavka check``: whether a data directory, which no broker is using, is as it should be.

Every file is read once from front to back. A problem is what a broker would stumble over, lose
records by, or have to repair although it was left in good order. After a crash less is asked:
what lies past the recovery point is rebuilt by the next start, and a torn end is cut off there.
"""

import errno
import os
from collections.abc import Callable
from typing import Final

from kavka.config import properties
from kavka.protocol.topics import TopicPartition
from kavka.storage import checkpoints, meta
from kavka.storage.checkpoints import CorruptCheckpoint
from kavka.storage.fs import FileSystem
from kavka.storage.inspect.check_partition import Doubt, Extent, PartitionCheck
from kavka.storage.inspect.findings import Finding, Report
from kavka.storage.names import DirectoryName, parse_directory, parse_segment_file
from kavka.storage.topic_id import PARTITION_METADATA, ZERO_TOPIC_ID, read_topic_id

_NO_DOUBT: Final = Doubt(2**63)
_CANNOT_LOCK: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_OWN_DIRECTORIES: Final = frozenset({"lost+found"})


class Unusable(Exception):
    """A directory that cannot be checked at all; the message says why."""


def check_directory(
    fs: FileSystem, path: str, tell: Callable[[Finding], None], *, deep: bool = False
) -> Report:
    """Check a directory of ``log.dirs``; findings are told as they come.

    ``deep`` decodes every record too. The directory's lock is held meanwhile. Raises Unusable, and
    OSError when something in it cannot be read.
    """
    stat = fs.stat(path)
    if stat is None or not stat.is_dir:
        raise Unusable(f"{path} is not a directory")
    if any(parse_segment_file(name) for name in fs.listdir(path)):
        raise Unusable(f"{path} is a partition's directory: name the log directory above it")
    check = _DirectoryCheck(fs, path, Report(tell), deep)
    try:
        lock = meta.DirectoryLock(fs, path)
    except meta.LogDirectoryError:
        raise Unusable(f"{path} is used by a broker: stop it first") from None
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        check.report.note(
            meta.LOCK, None, f"not locked ({error.strerror}): make sure that no broker runs there"
        )
        check.run()
    else:
        try:
            check.run()
        finally:
            lock.release()
    return check.report


class _DirectoryCheck:
    """One check of one log directory."""

    def __init__(self, fs: FileSystem, path: str, report: Report, deep: bool) -> None:
        self._fs = fs
        self._path = path
        self.report = report
        self._deep = deep
        self._clean = False
        self._topic_ids: dict[str, tuple[bytes, str]] = {}  # topic → id, and where it stands

    def run(self) -> None:
        """Check everything. Raises OSError."""
        self._clean = meta.was_clean_shutdown(self._fs, self._path)
        self._check_meta()
        recovery_points = self._offsets(checkpoints.RECOVERY_POINTS)
        starts = self._offsets(checkpoints.LOG_START_OFFSETS)
        high_watermarks = self._offsets(checkpoints.HIGH_WATERMARKS)
        cleaned = self._offsets(checkpoints.CLEANER_OFFSETS)
        partitions = self._partitions()
        if not self._clean and partitions:
            self.report.note(
                meta.CLEAN_SHUTDOWN,
                None,
                "not there: the broker did not stop in good order, and what it wrote after the "
                "recovery points will be looked through at its next start",
            )
        extents: dict[TopicPartition, Extent] = {}
        for name, found in partitions:
            self._check_topic_id(name, found.topic_partition.topic)
            extent = PartitionCheck(
                self._fs,
                os.path.join(self._path, name),
                name,
                self.report,
                doubt=_NO_DOUBT
                if self._clean
                else Doubt(recovery_points.get(found.topic_partition, 0)),
                log_start_offset=starts.get(found.topic_partition, 0),
                compacted=found.topic_partition in cleaned,
                deep=self._deep,
            ).run()
            if not found.kind:
                extents[found.topic_partition] = extent
        self._compare(checkpoints.RECOVERY_POINTS, recovery_points, extents)
        self._compare(checkpoints.LOG_START_OFFSETS, starts, extents)
        if self._clean:  # written more often than the log is synced: after a crash it may be ahead
            self._compare(checkpoints.HIGH_WATERMARKS, high_watermarks, extents)
            self._compare(checkpoints.CLEANER_OFFSETS, cleaned, extents)

    # -- the directory's own files ------------------------------------------------------------

    def _check_meta(self) -> None:
        name = meta.META_PROPERTIES
        try:
            data = self._fs.read_bytes(os.path.join(self._path, name))
        except FileNotFoundError:
            self.report.note(name, None, "not there: the directory is taken by the next broker")
            return
        try:
            found = {each.name: each.value for each in properties.parse(properties.decode(data))}
        except properties.PropertiesError as error:
            self.report.problem(name, None, str(error))
            return
        # 1 is of KRaft clusters, and has a node where 0 has a broker.
        owner = {"0": "broker.id", "1": "node.id"}.get(found.get("version", ""))
        if owner is None:
            self.report.problem(name, None, f"version {found.get('version')!r} is unknown")
        elif not (found.get(owner, "").isascii() and found.get(owner, "").isdigit()):
            self.report.problem(name, None, f"there is no valid {owner}")

    def _offsets(self, name: str) -> dict[TopicPartition, int]:
        path = os.path.join(self._path, name)
        try:
            found = checkpoints.read_offsets(self._fs, path)
        except CorruptCheckpoint as error:
            self.report.problem(name, None, str(error).removeprefix(f"{path}: "))
            return {}
        for topic_partition, offset in found.items():
            if offset < 0:
                self.report.problem(name, None, f"{topic_partition} has offset {offset}")
        return found

    def _compare(
        self,
        name: str,
        offsets: dict[TopicPartition, int],
        extents: dict[TopicPartition, Extent],
    ) -> None:
        """No log ends before what was noted of it: those records would be lost."""
        for topic_partition, offset in offsets.items():
            extent = extents.get(topic_partition)
            if extent is None:
                self.report.note(name, None, f"{topic_partition} is not in this directory")
            elif offset > extent.end_offset:
                self.report.problem(
                    name,
                    offset,
                    f"{topic_partition} should reach up to here, but ends at {extent.end_offset}",
                )

    # -- partitions ---------------------------------------------------------------------------

    def _partitions(self) -> list[tuple[str, DirectoryName]]:
        """The directories of partitions; those that wait to be deleted are left out."""
        partitions = []
        for name in self._fs.listdir(self._path):
            stat = self._fs.stat(os.path.join(self._path, name))
            if stat is None or not stat.is_dir or name in _OWN_DIRECTORIES or name[0] == ".":
                continue
            found = parse_directory(name)
            if found is None:
                self.report.note(name, None, "a directory whose name is not that of a partition")
            elif found.kind != "delete":
                partitions.append((name, found))
        return partitions

    def _check_topic_id(self, name: str, topic: str) -> None:
        file = os.path.join(name, PARTITION_METADATA)
        if not self._fs.exists(os.path.join(self._path, file)):
            return  # before 2.8 there was none
        topic_id = read_topic_id(self._fs, os.path.join(self._path, name))
        if topic_id == ZERO_TOPIC_ID:
            self.report.problem(file, None, "there is no topic id that can be read")
            return
        other = self._topic_ids.setdefault(topic, (topic_id, file))
        if other[0] != topic_id:
            self.report.problem(file, None, f"the topic id is not the one in {other[1]}")
