"""Files in a log directory that say whose it is: ``meta.properties``, the lock, the clean mark.

Formats and rules: log-storage.md §1. Errors are whole sentences that tell the user what to change;
they end the start of a broker.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from kavka.config import properties
from kavka.storage.fs import File, FileSystem

META_PROPERTIES: Final = "meta.properties"
CLEAN_SHUTDOWN: Final = ".kafka_cleanshutdown"
BOOT: Final = ".kavka_boot"
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_BOOT_ID_BYTES: Final = 64  # more than there are; files of /proc say that they have none
LOCK: Final = ".lock"

_VERSION: Final = "0"
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class LogDirectoryError(Exception):
    """A log directory that this broker must not use; the message says why and what to do."""


class Meta(NamedTuple):
    """Content of ``meta.properties``. ``cluster_id`` is Kafka 2.4's addition; 2.3 ignores it."""

    broker_id: int
    cluster_id: str | None = None


def read_meta(fs: FileSystem, log_dir: str) -> Meta | None:
    """Whose directory it is; None when it is nobody's yet.

    Raises LogDirectoryError for a file that cannot be understood, and OSError.
    """
    path = os.path.join(log_dir, META_PROPERTIES)
    try:
        data = fs.read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        found = {entry.name: entry.value for entry in properties.parse(properties.decode(data))}
    except properties.PropertiesError as error:
        raise LogDirectoryError(f"{path} cannot be read: {error}") from None
    version = found.get("version")
    if version != _VERSION:
        raise LogDirectoryError(
            f"{path} has version {version!r}, but only version 0 is known here (version 1 is "
            "of a KRaft cluster): give this broker a log directory of its own in log.dirs"
        )
    broker_id = found.get("broker.id", "")
    if not (broker_id.isascii() and broker_id.isdigit()):
        raise LogDirectoryError(
            f"{path} has no valid broker.id: put the right one there, or remove the file if the "
            "directory holds no data worth keeping"
        )
    return Meta(int(broker_id), found.get("cluster.id"))


def write_meta(fs: FileSystem, log_dir: str, meta: Meta, now_ms: int) -> None:
    """Mark a directory as a broker's. *May block long.* Raises OSError."""
    entries = {"version": _VERSION, "broker.id": str(meta.broker_id)}
    if meta.cluster_id is not None:
        entries["cluster.id"] = meta.cluster_id
    text = f"#\n#{_java_date(now_ms)}\n{properties.render(entries)}"
    fs.atomic_write(os.path.join(log_dir, META_PROPERTIES), text.encode())


def agree_on_broker_id(found: Mapping[str, Meta | None], configured: int) -> int | None:
    """The broker id that all log directories (path → their meta) and ``broker.id`` agree on.

    ``configured`` is negative for "take what is there"; None means that nobody knows one, so it
    has to be generated. Raises LogDirectoryError.
    """
    owners = {log_dir: meta.broker_id for log_dir, meta in found.items() if meta is not None}
    if len(set(owners.values())) > 1:
        claims = ", ".join(f"{log_dir} to {owner}" for log_dir, owner in owners.items())
        raise LogDirectoryError(
            f"the log directories belong to different brokers ({claims}): list only directories "
            "of one broker in log.dirs"
        )
    stored = next(iter(owners.values()), None)
    if configured < 0:
        return stored
    if stored is not None and stored != configured:
        raise LogDirectoryError(
            f"broker.id={configured} does not match broker.id={stored} in {META_PROPERTIES} of "
            f"{next(iter(owners))}: set broker.id={stored} to use that data, or choose an empty "
            "directory in log.dirs for a new broker"
        )
    return configured


def check_cluster_id(found: Mapping[str, Meta | None], cluster_id: str) -> None:
    """Refuse directories of another cluster. Raises LogDirectoryError."""
    for log_dir, meta in found.items():
        if meta is not None and meta.cluster_id not in (None, cluster_id):
            raise LogDirectoryError(
                f"{log_dir} belongs to cluster {meta.cluster_id}, but this is cluster "
                f"{cluster_id}: check zookeeper.connect and log.dirs"
            )


def mark_clean_shutdown(fs: FileSystem, log_dir: str) -> None:
    """Say that everything is flushed and checkpointed; the last thing a broker writes.

    *May block long.* Raises OSError.
    """
    fs.atomic_write(os.path.join(log_dir, CLEAN_SHUTDOWN), b"")


def was_clean_shutdown(fs: FileSystem, log_dir: str) -> bool:
    """Whether the last broker stopped in good order, so that its logs need no recovery."""
    return fs.exists(os.path.join(log_dir, CLEAN_SHUTDOWN))


def clear_clean_shutdown(fs: FileSystem, log_dir: str) -> None:
    """Take the mark away once all logs are loaded, and before anything is appended.

    Synced: a mark that came back after a power loss would vouch for torn logs. *May block long.*
    """
    if was_clean_shutdown(fs, log_dir):
        fs.unlink(os.path.join(log_dir, CLEAN_SHUTDOWN), missing_ok=True)
        fs.sync_dir(log_dir)


def boot_id(fs: FileSystem) -> bytes:
    """What tells one run of the machine from another; empty where that is not known."""
    try:
        file = fs.open(_BOOT_ID)
        try:
            return fs.pread(file, _BOOT_ID_BYTES, 0).strip()
        finally:
            file.close()
    except OSError:
        return b""


def noted_boot_id(fs: FileSystem, log_dir: str) -> bytes:
    """The machine's run in which the directory was last written; empty when nobody noted it.

    Raises OSError.
    """
    try:
        return fs.read_bytes(os.path.join(log_dir, BOOT))
    except FileNotFoundError:
        return b""


def note_boot_id(fs: FileSystem, log_dir: str, boot: bytes) -> None:
    """Note in which run of the machine the directory is written. *May block long.* Raises
    OSError."""
    fs.atomic_write(os.path.join(log_dir, BOOT), boot)


class DirectoryLock:
    """The exclusive right to a log directory, held while the object is not released.

    It is gone with the process, however that ends. The file stays, with the holder's process id
    in it, which Kafka neither writes nor minds.
    """

    __slots__ = ("_file", "_fs")

    def __init__(self, fs: FileSystem, log_dir: str) -> None:
        """Take the lock. Raises LogDirectoryError when somebody has it, and OSError."""
        self._fs = fs
        file = fs.open(os.path.join(log_dir, LOCK), write=True, create=True)
        if not fs.try_lock(file):
            holder = fs.pread(file, 32, 0).decode("ascii", "replace").strip()
            file.close()
            who = f"another broker (process {holder})" if holder.isdigit() else "another broker"
            raise LogDirectoryError(
                f"{who} is using the log directory {log_dir}: stop it, or give this one a "
                "directory of its own in log.dirs"
            )
        self._file: File | None = file
        fs.truncate(file, 0)
        fs.pwrite(file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one have it. Releasing twice is harmless."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # the process id is for people only
                self._fs.truncate(file, 0)
            file.close()


def _java_date(now_ms: int) -> str:
    """As ``java.util.Date`` prints it, whatever the locale."""
    now = time.gmtime(now_ms // 1000)  # a conversion, not a look at the clock
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    return f"{day} {month} {now.tm_mday:02} {clock} UTC {now.tm_year}"
