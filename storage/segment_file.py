"""The ``.log`` file of a segment: how bytes get into it.

Small batches are copied into a *window*: a piece of the file that is mapped writable,
over blocks that are reserved, and that was filled with zeros by an ordinary write just before.
The zeros are what makes it cheap: without them every first touch of a page is a fault through
the file system's journal (measured on ext4, Linux 6.18, for 1 KB appends, everything included:
1.8 µs by ``pwrite``, 1.6–2.4 µs by a window without zeros, 0.3–0.6 µs by one with). Past
:data:`MAPPED_APPEND_LIMIT` bytes ``pwrite`` wins and is used on the same file; both see the same
pages. (Batches begin anywhere in a page, which costs ``pwrite`` more than the round sizes that are
easily measured: a window takes 0.86 of its time at 16 KB, 0.95 at 32 KB, 1.37 at 64 KB.)

Windows are small (:data:`WINDOW_SIZES`), so that resident memory does not grow with the segment:
1 MB, which takes 0.7 of the time of 256 KB at 8 to 16 KB, is for segments of 64 MB and more. And
there is none before a segment has proved busy: thousands of idle partitions cost nothing.
Topics that are synced at each append have none at all: a sync would write the whole window out
each time (measured: 64 KB instead of 5 KB an append).

Blocks are reserved by ``posix_fallocate`` in growing steps, on the spot: 20–50 µs for 16 MiB, and
at most 140 µs beside two threads that sync all the time, so a helper thread would only add races
with the cutting of files. A full disk is an OSError there; a
write into a hole of a full disk would be SIGBUS, the death of the process. So while a segment is
active its file may be longer than its data; :meth:`SegmentFile.trim` cuts it at roll and clean
close, recovery cuts it after a crash.

Reading is ``pread`` and ``sendfile`` of the same file, never a mapping: a page fault on a cold
page holds the interpreter lock and stalls every thread, a ``pread`` does not.
"""

import errno
import os
from collections.abc import Sequence
from typing import Final

from kavka.storage.fs import PAGE_SIZE, Buffer, File, FileSystem
from kavka.storage.names import LOG_SUFFIX, segment_file
from kavka.storage.open_files import OpenFiles

MAPPED_APPEND_LIMIT: Final = 24 << 10  # bytes; larger appends go by pwrite
WINDOW_SIZES: Final = (1 << 16, 1 << 18, 1 << 20)  # bytes; the first window, then others, then …
BUSY: Final = 1 << 26  # … those of a segment with so many bytes
APPENDS_BEFORE_WINDOW: Final = 16  # small appends by pwrite before a window is worth it
FIRST_RESERVE: Final = 1 << 16  # bytes; later an eighth of the file, so that what is …
LARGEST_RESERVE: Final = 1 << 24  # … reserved does not fill a small disk; at most this
KEPT_FREE: Final = 1 << 20  # bytes of a volume that are never reserved for records

_ZEROS: Final = memoryview(bytes(max(WINDOW_SIZES)))  # never written, so it takes no memory


class SegmentFile:
    """A ``.log`` file that grows at its end, and is opened when it is needed.

    Owned by one thread. Every method may raise OSError; the state then is as it was before.
    """

    __slots__ = (
        "__weakref__",
        "_appends",
        "_file",
        "_fs",
        "_open_files",
        "_reserve_step",
        "_reserved",
        "_window",
        "_window_end",
        "_window_start",
        "base_offset",
        "directory",
        "exists",
        "in_use",
        "mapped",
        "size",
        "suffix",
    )

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        base_offset: int,
        open_files: OpenFiles,
        *,
        mapped: bool = True,
        preallocate: int = 0,
    ) -> None:
        """Stand for the file, which is not touched yet.

        ``mapped`` False means that every append goes by pwrite; ``preallocate`` is how many
        bytes are reserved at first (preallocate=true: segment.bytes).
        """
        self._fs = fs
        self.directory = directory
        self.base_offset = base_offset
        self.suffix = ""  # ".deleted" and the like
        self.exists = True  # False: the file is made when the first record comes
        self.size = 0  # bytes of data; the file may be longer
        self.mapped = mapped
        self.in_use = False  # lately; for OpenFiles
        self._open_files = open_files
        self._file: File | None = None
        self._reserved = 0  # blocks are allocated up to here
        self._reserve_step = max(FIRST_RESERVE, preallocate)
        self._window: memoryview | None = None
        self._window_start = 0
        self._window_end = 0  # 0: there is no window
        self._appends = 0

    @property
    def path(self) -> str:
        """The ``.log`` file."""
        return os.path.join(self.directory, segment_file(self.base_offset, LOG_SUFFIX)) + (
            self.suffix
        )

    @property
    def reserved(self) -> int:
        """Bytes from the file's start for which blocks are allocated; 0 before it is opened."""
        return self._reserved

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def create(self) -> None:
        """Make the file of a new segment now."""
        self.file()

    def file(self) -> File:
        """The open file, opened when it is not."""
        file = self._file
        self.in_use = True
        if file is None:
            file = self._fs.open(self.path, write=True, create=not self.exists)
            if self.exists:
                self._reserved = self._fs.file_size(file)
            else:
                self._fs.truncate(file, 0)  # whatever lay there is not of this log
                self._reserved = 0
                self.exists = True
            self._file = file
            self._open_files.opened(self)
        return file

    def let_go(self) -> None:
        """Close file and mapping until they are needed again."""
        self._window = None
        self._window_end = 0
        self._appends = 0
        self._file = None

    def pread(self, size: int, position: int) -> bytes:
        """Read bytes of the log."""
        return self._fs.pread(self.file(), size, position)

    def write(self, parts: Sequence[Buffer], position: int, end: int) -> None:
        """Write ``parts`` one behind the other, from ``position``, where the data ends, to ``end``.

        The segment's ``append`` has a copy of the quick case in itself.
        """
        file = self.file()
        if end > self._reserved:
            self._reserve(file, end)
        if self.mapped and end - position <= MAPPED_APPEND_LIMIT and position >= self._window_end:
            self._appends += 1
            if self._appends >= APPENDS_BEFORE_WINDOW:
                self._move_window(file, position)
        if end <= self._window_end and end - position <= MAPPED_APPEND_LIMIT:
            assert self._window is not None
            at = position - self._window_start
            for part in parts:
                self._window[at : at + len(part)] = part
                at += len(part)
            return
        try:
            if len(parts) == 1:
                self._fs.pwrite(file, parts[0], position)
            else:
                self._fs.pwritev(file, parts, position)
        except OSError:
            # Whatever part of it was written must not be mistaken for a batch later.
            self._cut(file, position)
            raise

    def _reserve(self, file: File, end: int) -> None:
        """Allocate blocks up to ``end`` and some more. Raises OSError when the disk is full."""
        step = max(self._reserve_step, min(self._reserved // 8, LARGEST_RESERVE))
        wanted = -(-max(end, self._reserved + step) // PAGE_SIZE) * PAGE_SIZE
        try:
            self._allocate(file, wanted)
        except OSError:
            # A nearly full disk: what is needed now may still fit.
            wanted = -(-end // PAGE_SIZE) * PAGE_SIZE
            self._allocate(file, wanted)
        self._reserved = wanted
        self._reserve_step = FIRST_RESERVE

    def _allocate(self, file: File, end: int) -> None:
        """Allocate blocks up to ``end``, but none of the last ones of the volume.

        A topic can be deleted only where the metadata store can still write: whoever lets
        records have the last page of a disk can never empty it again.
        """
        length = end - self._reserved
        total, free = self._fs.disk_space(self.directory)
        if free - length < min(KEPT_FREE, total // 64):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._fs.allocate(file, self._reserved, length)

    def _move_window(self, file: File, position: int) -> None:
        """Map the next piece of the file for writing, over reserved blocks full of zeros."""
        size = WINDOW_SIZES[(self._window_end > 0) + (position >= BUSY)]
        start = position // PAGE_SIZE * PAGE_SIZE
        self._window = None
        self._window_end = 0
        if start + size > self._reserved:
            try:
                self._reserve(file, start + size)
            except OSError:
                return  # this append is within what is reserved; the next may be refused
        self._fs.pwrite(file, _ZEROS[: start + size - position], position)
        try:
            self._window = self._fs.map(file, size, offset=start, write=True)
        except OSError:
            self.mapped = False  # too many mappings or descriptors: it works without, too
            return
        self._window_start = start
        self._window_end = start + size

    def cut_file(self) -> None:
        """Cut the file to its data."""
        self._cut(self.file(), self.size)

    def _cut(self, file: File, size: int) -> None:
        """Cut the file to ``size`` bytes and forget window and reservation."""
        self._window = None
        self._window_end = 0
        self._fs.truncate(file, size)
        self._reserved = size

    def trim(self) -> None:
        """Cut what was reserved behind the data."""
        if self._reserved > self.size:  # 0 when it has not been opened since it was loaded
            self._cut(self.file(), self.size)

    def release(self) -> None:
        """Forget the file; nothing is written. It may still be read, and is opened again then."""
        self.let_go()
        self._open_files.closed(self)
