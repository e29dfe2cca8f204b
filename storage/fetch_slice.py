"""What a read hands out: a piece of a segment's file, not its bytes."""

from typing import Final

from kavka.storage.fs import File, FileSystem

_PROBE_STEP: Final = 1 << 16  # bytes between two probes of the page cache
_READ_AHEAD: Final = 1 << 20  # bytes read at a time to warm the page cache


class FetchSlice:
    """Whole batches but for the last, which may be cut anywhere (legal in a fetch).

    ``file`` stays open as long as somebody holds the slice, whatever happens to its segment.
    Send with ``os.sendfile(socket, slice.file.fileno(), slice.position, slice.size)``, or take
    the bytes by :meth:`view`.
    """

    __slots__ = ("_fs", "_recent", "file", "first_offset_hint", "position", "size")

    def __init__(
        self,
        fs: FileSystem,
        file: File,
        position: int,
        size: int,
        first_offset_hint: int,
        recent: bool,
    ) -> None:
        self._fs = fs
        self.file = file
        self.position = position  # bytes from the start of the file
        self.size = size  # bytes
        self.first_offset_hint = first_offset_hint  # the offset asked for
        self._recent = recent

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send."""
        return self.size == 0

    def view(self) -> memoryview:
        """The bytes, for TLS, conversion and decoding.

        A copy by ``pread``: a mapping's page faults would hold the interpreter lock while a cold
        page is fetched, and stall every thread. Raises OSError.
        """
        if not self.size:
            return memoryview(b"")
        return memoryview(self._fs.pread(self.file, self.size, self.position))

    def read_into(self, view: memoryview, start: int) -> int:
        """Fill ``view`` with the bytes from ``start`` on; fewer where the file has shrunk."""
        return self._fs.pread_into(self.file, view, self.position + start)

    def is_cached(self) -> bool:
        """Whether it can be sent without waiting for the disk, as far as probes can tell.

        Costs nothing for what was written a moment ago, 1–4 µs per 64 KB otherwise.
        """
        if self._recent or not self.size:
            return True
        fs, file, last = self._fs, self.file, self.position + self.size - 1
        return fs.is_cached(file, last) and all(
            fs.is_cached(file, at) for at in range(self.position, last, _PROBE_STEP)
        )

    def warm_up(self) -> None:
        """Read it into the page cache. *May block long*: for a thread, when not cached."""
        end = self.position + self.size
        for at in range(self.position, end, _READ_AHEAD):
            self._fs.pread(self.file, min(_READ_AHEAD, end - at), at)


NOTHING: Final = FetchSlice(FileSystem(), File(-1, ""), 0, 0, -1, True)
"""The empty slice: nothing to read yet."""
