# ruff: noqa: PTH103, PTH105, PTH108, PTH102, PTH112, PTH106, PTH116, PTH208
"""The only door to the disk.

Everything in storage takes a :class:`FileSystem` and calls nothing of ``os`` that touches files
beside it, so that a test can hand in one that loses what was not synced, tears the last write
or has no room left. Paths are strings. Every method raises ``OSError`` as the kernel does;
:func:`storage_error` turns that into what a client is told.

Calls marked *may block long* wait for the device and belong into a thread, never on the event
loop.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat as stat_modes
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from kavka.protocol.errors import ErrorCode, KafkaError

Buffer: TypeAlias = bytes | bytearray | memoryview

PAGE_SIZE: Final = mmap.PAGESIZE
_IOV_MAX: Final = 1024  # Linux's bound on buffers of one pwritev
_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
_DIRECTORY_ERRORS: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


class FileStat(NamedTuple):
    """What the file system knows of a file."""

    size: int  # bytes, including reserved blocks that hold no data yet
    mtime_ms: int  # milliseconds since 1970
    is_dir: bool


class DiskSpace(NamedTuple):
    """Bytes of the volume that holds a path."""

    total: int
    free: int  # what an unprivileged process may still use


class File:
    """An open file; the descriptor is closed when the last reference goes.

    A response that is being sent from a file holds a reference, so a segment may be closed or
    deleted at any time without harm to readers.
    """

    __slots__ = ("__weakref__", "_fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path  # where it was opened; a later rename does not change it

    def fileno(self) -> int:
        """The descriptor, for ``os.sendfile``."""
        return self._fd

    def close(self) -> None:
        """Close now, whoever still holds a reference. Closing twice is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        fd = self._fd
        if fd >= 0:
            self._fd = -1
            with contextlib.suppress(OSError):  # nobody is left to be told
                os.close(fd)

    def __repr__(self) -> str:
        return f"File({self.path!r}, fd={self._fd})"


class FileSystem:
    """The machine's own file system. Subclass it to make a faulty one."""

    # -- open files -----------------------------------------------------------------------

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        """Open ``path`` for reading, or for both; ``create`` makes it when missing.

        ``exclusive`` with ``create`` raises FileExistsError when it is already there.
        """
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL
        return File(os.open(path, flags, 0o644), path)

    def pread(self, file: File, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        data = os.pread(file.fileno(), size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(file.fileno(), size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pread_into(self, file: File, view: memoryview, offset: int) -> int:
        """Fill ``view`` from ``offset`` on; returns bytes read, fewer only at the file's end."""
        got = os.preadv(file.fileno(), (view,), offset)
        while 0 < got < len(view):
            more = os.preadv(file.fileno(), (view[got:],), offset + got)
            if not more:
                break
            got += more
        return got

    def pwrite(self, file: File, data: Buffer, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        written = os.pwrite(file.fileno(), data, offset)
        if written != len(data):
            rest = memoryview(data)
            while written < len(rest):
                written += os.pwrite(file.fileno(), rest[written:], offset + written)

    def pwritev(self, file: File, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all ``buffers`` one behind the other at ``offset``."""
        total = sum(map(len, buffers))
        if len(buffers) <= _IOV_MAX and os.pwritev(file.fileno(), buffers, offset) == total:
            return
        # Rare (too many pieces, or a short write near a limit): plain and complete.
        for buffer in buffers:
            self.pwrite(file, buffer, offset)
            offset += len(buffer)

    def allocate(self, file: File, offset: int, length: int) -> None:
        """Reserve real blocks for ``[offset, offset+length)`` and grow the file to hold them.

        ENOSPC is reported here instead of as SIGBUS at a later write through a mapping. *May
        block long* for large lengths.
        """
        os.posix_fallocate(file.fileno(), offset, length)

    def truncate(self, file: File, size: int) -> None:
        """Cut the file to ``size``, or grow it with a hole."""
        os.ftruncate(file.fileno(), size)

    def fdatasync(self, file: File) -> None:
        """Wait until data and size are on the device. *May block long.*"""
        os.fdatasync(file.fileno())

    def file_size(self, file: File) -> int:
        """Bytes in an open file."""
        return os.fstat(file.fileno()).st_size

    def map(self, file: File, length: int, *, offset: int = 0, write: bool = False) -> memoryview:
        """Map ``length`` bytes from ``offset`` (a multiple of PAGE_SIZE), shared with everybody
        who reads or writes the file.

        The mapping lives as long as the view and its slices. The file must never become shorter
        than what anybody may still touch: access past its end kills the process.
        """
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        return memoryview(mmap.mmap(file.fileno(), length, access=access, offset=offset))

    def is_cached(self, file: File, offset: int) -> bool:
        """Whether the byte at ``offset`` can be read without waiting for the device.

        True too where the kernel cannot tell (RWF_NOWAIT is refused by some file systems).
        """
        try:
            os.preadv(file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def try_lock(self, file: File) -> bool:
        """Take the exclusive lock of ``file``; False when another broker has it.

        Two kinds of lock at once: ``flock`` keeps out two brokers of one process as well, and
        the POSIX lock is the one that a JVM takes. Both go when the process is killed.
        """
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    # -- whole files ----------------------------------------------------------------------

    def read_bytes(self, path: str) -> bytes:
        """All of a (small) file."""
        file = self.open(path)
        try:
            return self.pread(file, self.file_size(file), 0)
        finally:
            file.close()

    def atomic_write(
        self, path: str, data: Buffer, *, sync: bool = True, sync_name: bool = True
    ) -> None:
        """Replace ``path`` by ``data``: after a crash it is the old file or the new one.

        Kafka's way: ``<path>.tmp``, sync, rename, sync the directory. Without ``sync`` a power
        loss (not a crash of the process) may leave an empty file; without ``sync_name`` the old
        one, for a caller who syncs the directory himself. *May block long.*
        """
        temporary = path + ".tmp"
        file = self.open(temporary, write=True, create=True)
        try:
            self.truncate(file, 0)
            self.pwrite(file, data, 0)
            if sync:
                self.fdatasync(file)
        finally:
            file.close()
        self.rename(temporary, path)
        if sync and sync_name:
            self.sync_dir(os.path.dirname(path))

    # -- names ----------------------------------------------------------------------------

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name; a file at ``target`` is replaced."""
        os.replace(source, target)

    def unlink(self, path: str, *, missing_ok: bool = False) -> None:
        """Remove a file. *May block long* (25–90 ms for a cached segment)."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        return sorted(os.listdir(path))

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        """Make a directory; nothing happens when it is there already.

        ``parents`` makes the missing ones above it too.
        """
        if parents:
            os.makedirs(path, exist_ok=True)
            return
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def remove_tree(self, path: str) -> None:
        """Remove a directory and everything in it; missing is fine. *May block long.*"""
        try:
            names = self.listdir(path)
        except FileNotFoundError:
            return
        for name in names:
            child = os.path.join(path, name)
            entry = self.stat(child)
            if entry is None:
                continue
            if entry.is_dir:
                self.remove_tree(child)
            else:
                self.unlink(child, missing_ok=True)
        self.rmdir(path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        return self.stat(path) is not None

    def stat(self, path: str) -> FileStat | None:
        """Size, modification time and kind; None when nothing has that name."""
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStat(
            found.st_size, found.st_mtime_ns // 1_000_000, stat_modes.S_ISDIR(found.st_mode)
        )

    def set_mtime(self, path: str, mtime_ms: int) -> None:
        """Set the modification time (compaction carries it over from its sources)."""
        os.utime(path, ns=(mtime_ms * 1_000_000, mtime_ms * 1_000_000))

    def sync_dir(self, path: str) -> None:
        """Wait until the names in a directory are on the device. *May block long.*"""
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _DIRECTORY_ERRORS:  # some file systems cannot, and need not
                raise
        finally:
            os.close(fd)

    def disk_space(self, path: str) -> DiskSpace:
        """Size and free bytes of the volume that holds ``path``."""
        found = os.statvfs(path)
        return DiskSpace(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail)


def is_passing(error: OSError) -> bool:
    """Whether something only ran short: space, descriptors, memory. Any other error means that
    the disk can no longer be believed."""
    return error.errno in _PASSING


def storage_error(error: OSError, doing: str) -> KafkaError:
    """What a client is told when the disk refuses: KAFKA_STORAGE_ERROR, and why.

    ``doing`` completes "could not …", for example ``"append to /data/orders-0"``.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"could not {doing}: {reason}")
