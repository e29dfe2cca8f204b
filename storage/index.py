"""The two sparse indexes of a segment: ``.index`` (offset → position), ``.timeindex``.

Formats (log-storage.md §2), both big endian and ascending, no header, so that Kafka's dump tool
reads them:

* offset index, 8 bytes: ``relative_offset:int32, position:int32``
* time index, 12 bytes: ``timestamp:int64, relative_offset:int32``

Entries live in arrays of machine integers, never in objects and never in a writable mapping: an
append is one ``array.append``, a lookup one C ``bisect``. The file is only a copy that
:meth:`~OffsetIndex.write_out` brings up to date. That is enough because the indexes of segments
at or past the recovery point are rebuilt after a crash anyway; an owner that lets the recovery
point pass a segment must ``write_out`` and ``sync`` its indexes first. Nothing is preallocated, so
a full disk shows as ENOSPC in ``write_out`` and never as SIGBUS, and no descriptor stays open.

Only the index of a segment that is written to is in memory. An old one is looked up in its file
(some ten small reads of the page cache, 20–30 µs), so that memory does not grow with the log.
Not thread-safe, except ``sync``.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from operator import lt
from struct import Struct
from typing import Final, NamedTuple

from kavka.storage.fs import FileSystem

OFFSET_ENTRY_SIZE: Final = 8
TIME_ENTRY_SIZE: Final = 12
DEFAULT_MAX_BYTES: Final = 10_485_760  # segment.index.bytes

_BLOCK: Final = 512  # entries read at once at the end of a search in a file
_MAX_RELATIVE: Final = 0x7FFF_FFFF
_LOW_WORD: Final = 0xFFFF_FFFF
_OFFSET_ENTRY: Final = Struct(">ii")
_TIME_ENTRY: Final = Struct(">qi")
_SWAP: Final = sys.byteorder == "little"  # the files are big endian
assert array("q").itemsize == 8 and array("i").itemsize == 4


class CorruptIndex(Exception):
    """An index file that cannot be one; its segment has to be recovered (scanned)."""


class OffsetPosition(NamedTuple):
    """An offset, and where in the ``.log`` file (bytes) the batch that ends with it begins."""

    offset: int
    position: int


class TimestampOffset(NamedTuple):
    """A timestamp (ms), and the offset up to which no record has a larger one."""

    timestamp: int
    offset: int


class _Index:
    """What both indexes share: the file, its name and when it is read and written."""

    __slots__ = ("_disk_entries", "_fs", "_loaded", "_saved", "base_offset", "max_entries", "path")

    _ENTRY_SIZE: int

    def __init__(
        self, fs: FileSystem, path: str, base_offset: int, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        """Stand for the file ``path``, which is not touched before it is needed."""
        self._fs = fs
        self.path = path
        self.base_offset = base_offset
        self.max_entries = max_bytes // self._ENTRY_SIZE
        self._loaded = False
        self._saved = 0  # entries of the file that equal those in memory
        self._disk_entries = -1  # entries in the file, valid or not; -1: there is no file

    # -- the entries in memory, different for each kind -----------------------------------

    def _clear(self) -> None:
        raise NotImplementedError

    def _decode(self, data: bytes) -> None:
        raise NotImplementedError

    def _encode(self, start: int) -> bytes:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def _check_last(self, entry: bytes, entries: int) -> None:
        raise NotImplementedError

    # -- the file -------------------------------------------------------------------------

    def create(self) -> None:
        """Begin empty, with an empty file: a missing one would mean recovery at next start."""
        self.reset()
        self.write_out()

    def _load(self) -> None:
        """Read the file, leaving out a partial last entry and unused (zero) space behind."""
        size = self._ENTRY_SIZE
        try:
            data = self._fs.read_bytes(self.path)
            on_disk = -(-len(data) // size)
        except FileNotFoundError:
            data = b""
            on_disk = -1
        whole = len(data) // size
        # A live Kafka leaves its preallocated file full of zeros behind the entries.
        used = bisect_left(
            range(whole), True, key=lambda i: not any(data[i * size : i * size + size])
        )
        self._decode(data[: used * size])
        self._disk_entries = on_disk
        self._saved = used
        self._loaded = True

    def _search(self, is_right: Callable[[bytes], bool]) -> tuple[bytes, bytes]:
        """In the file, the last entry left of a border and the first one right of it, or b"".

        ``is_right`` is false for entries up to some point and true from there on; unused (zero)
        space lies to the right of everything.
        """
        size = self._ENTRY_SIZE
        try:
            file = self._fs.open(self.path)
        except FileNotFoundError:
            return b"", b""
        try:
            low, high = 0, self._fs.file_size(file) // size
            while high - low > _BLOCK:
                middle = (low + high) // 2
                entry = self._fs.pread(file, size, middle * size)
                if is_right(entry) or not any(entry):
                    high = middle
                else:
                    low = middle + 1
            start = max(low - 1, 0)  # one before the block may be the last one on the left
            data = self._fs.pread(file, (high + 1 - start) * size, start * size)
        finally:
            file.close()
        whole = len(data) // size

        def at(slot: int) -> bytes:
            return data[slot * size : slot * size + size]

        found = bisect_left(
            range(whole), True, key=lambda slot: is_right(at(slot)) or not any(at(slot))
        )
        right = at(found) if found < whole else b""
        return at(found - 1) if found else b"", right if any(right) else b""

    def write_out(self) -> bool:
        """Bring the file up to date (no sync); say whether it was not.

        Raises OSError; harmless to repeat.
        """
        if not self._loaded:
            return False
        count = len(self)
        if self._saved == count == self._disk_entries:
            return False
        size = self._ENTRY_SIZE
        file = self._fs.open(self.path, write=True, create=True)
        try:
            if self._disk_entries != self._saved:
                self._fs.truncate(file, self._saved * size)
                self._disk_entries = self._saved
            if count > self._saved:
                self._disk_entries = count  # whatever a failing write leaves must be cut
                self._fs.pwrite(file, self._encode(self._saved), self._saved * size)
                self._saved = count
        finally:
            file.close()
        return True

    def sync(self) -> None:
        """Wait until what was written out is on the device. *May block long*; any thread."""
        file = self._fs.open(self.path)
        try:
            self._fs.fdatasync(file)
        finally:
            file.close()

    @property
    def unwritten(self) -> int:
        """Entries that are only in memory."""
        return len(self) - self._saved if self._loaded else 0

    def release(self) -> None:
        """Write out, then forget the entries; the next question reads them from the file."""
        if self._loaded:
            self.write_out()
            self._clear()
            self._loaded = False

    def reset(self) -> None:
        """Drop all entries (before a rebuild); the file is cut at the next ``write_out``."""
        stat = self._fs.stat(self.path)
        self._disk_entries = -(-stat.size // self._ENTRY_SIZE) if stat else -1
        self._clear()
        self._saved = 0
        self._loaded = True

    def rename(self, path: str) -> None:
        """Move the file, if there is one; entries in memory stay."""
        with suppress(FileNotFoundError):
            self._fs.rename(self.path, path)
        self.path = path

    def close(self) -> None:
        """Write out and forget. No descriptor was open."""
        self.release()

    def sanity_check(self) -> None:
        """Kafka's quick check of a file, without reading it whole.

        Raises CorruptIndex when the size is not a multiple of the entry size or the last entry
        is impossible; FileNotFoundError when there is no file.
        """
        file = self._fs.open(self.path)
        try:
            size = self._fs.file_size(file)
            if size % self._ENTRY_SIZE:
                raise CorruptIndex(
                    f"index {self.path} has {size} bytes, "
                    f"which is not a multiple of {self._ENTRY_SIZE}"
                )
            if size:
                last = self._fs.pread(file, self._ENTRY_SIZE, size - self._ENTRY_SIZE)
                self._check_last(last, size // self._ENTRY_SIZE)
        finally:
            file.close()

    def _keep(self, count: int) -> None:
        """Tell the file's book-keeping that only the first ``count`` entries remain."""
        self._saved = min(self._saved, count)


class OffsetIndex(_Index):
    """Offset → byte position of the batch that contains it, about every 4 KiB of log."""

    __slots__ = ("_entries",)

    _ENTRY_SIZE = OFFSET_ENTRY_SIZE

    def __init__(
        self, fs: FileSystem, path: str, base_offset: int, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        super().__init__(fs, path, base_offset, max_bytes)
        # relative_offset << 32 | position: its big-endian bytes are the entry in the file.
        self._entries = array("q")

    def append(self, offset: int, position: int) -> None:
        """Add an entry: the batch at ``position`` ends with ``offset``. Both only grow."""
        if not self._loaded:
            self._load()
        entries = self._entries
        relative = offset - self.base_offset
        assert 0 <= relative <= _MAX_RELATIVE >= position > 0, "an entry does not fit"
        assert not entries or relative > entries[-1] >> 32, "offsets in an index only grow"
        entries.append(relative << 32 | position)

    def position_for(self, offset: int) -> int:
        """Where to begin to scan for ``offset``: the position of the floor entry, else 0."""
        if not self._loaded:
            self._load()
        found = bisect_right(self._entries, (offset - self.base_offset) << 32 | _LOW_WORD)
        return self._entries[found - 1] & _LOW_WORD if found else 0

    def lookup(self, offset: int) -> OffsetPosition:
        """The largest entry ≤ ``offset``, else (base offset, 0)."""
        if not self._loaded:
            relative = offset - self.base_offset
            left, _ = self._search(lambda entry: _OFFSET_ENTRY.unpack(entry)[0] > relative)
            return self._decoded(left) if left else OffsetPosition(self.base_offset, 0)
        found = bisect_right(self._entries, (offset - self.base_offset) << 32 | _LOW_WORD)
        return self._entry(found - 1) if found else OffsetPosition(self.base_offset, 0)

    def first_at_or_after(self, position: int) -> OffsetPosition | None:
        """The first entry whose position is ≥ ``position``; None when there is none.

        Its offset bounds what a read that ends before ``position`` can hold, which is how far
        aborted transactions are looked for.
        """
        if not self._loaded:
            _, right = self._search(lambda entry: _OFFSET_ENTRY.unpack(entry)[1] >= position)
            return self._decoded(right) if right else None
        found = bisect_left(self._entries, position, key=lambda entry: entry & _LOW_WORD)
        return self._entry(found) if found < len(self._entries) else None

    def truncate_to(self, offset: int) -> None:
        """Drop the entries with offsets ≥ ``offset``."""
        if not self._loaded:
            self._load()
        keep = bisect_left(self._entries, (offset - self.base_offset) << 32)
        del self._entries[keep:]
        self._keep(keep)

    @property
    def last_offset(self) -> int:
        """Offset of the last entry, the base offset without one."""
        if not self._loaded:
            self._load()
        return self.base_offset + (self._entries[-1] >> 32) if self._entries else self.base_offset

    @property
    def is_full(self) -> bool:
        """No entry fits any more (segment.index.bytes): time to roll."""
        return len(self) >= self.max_entries

    def entries(self) -> Iterator[OffsetPosition]:
        """All entries, ascending."""
        return map(self._entry, range(len(self)))

    def verify(self, log_size: int) -> None:
        """Check every entry: ascending, and inside a log of ``log_size`` bytes.

        Raises CorruptIndex. Reads the whole file: for start after a crash, not for each start.
        """
        self.sanity_check()
        entries = [*self.entries()]
        positions = [entry.position for entry in entries]
        if not (
            all(map(lt, self._entries, islice(self._entries, 1, None)))
            and all(map(lt, positions, islice(positions, 1, None)))
            and (not entries or (entries[0].offset >= self.base_offset))
            and (not positions or (positions[0] > 0 and positions[-1] < log_size))
        ):
            raise CorruptIndex(f"entries of index {self.path} are not ascending or lie outside")

    def _decoded(self, entry: bytes) -> OffsetPosition:
        relative, position = _OFFSET_ENTRY.unpack(entry)
        return OffsetPosition(self.base_offset + relative, position)

    def _entry(self, slot: int) -> OffsetPosition:
        entry = self._entries[slot]
        return OffsetPosition(self.base_offset + (entry >> 32), entry & _LOW_WORD)

    def __len__(self) -> int:
        if not self._loaded:
            self._load()
        return len(self._entries)

    def _clear(self) -> None:
        self._entries = array("q")

    def _decode(self, data: bytes) -> None:
        self._entries = array("q", data)
        if _SWAP:
            self._entries.byteswap()

    def _encode(self, start: int) -> bytes:
        part = self._entries[start:]
        if _SWAP:
            part.byteswap()
        return part.tobytes()

    def _check_last(self, entry: bytes, entries: int) -> None:
        relative = int.from_bytes(entry[:4], "big", signed=True)
        if relative <= 0:
            raise CorruptIndex(
                f"index {self.path} has {entries} entries, but its last offset "
                f"{self.base_offset + relative} is not larger than the base offset"
            )


class TimeIndex(_Index):
    """Timestamp → offset: up to which offset no record is younger than the timestamp."""

    __slots__ = ("_offsets", "_timestamps")

    _ENTRY_SIZE = TIME_ENTRY_SIZE

    def __init__(
        self, fs: FileSystem, path: str, base_offset: int, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        super().__init__(fs, path, base_offset, max_bytes)
        self._timestamps = array("q")
        self._offsets = array("i")  # relative

    def maybe_append(self, timestamp: int, offset: int) -> bool:
        """Add an entry if ``timestamp`` is later than the last one's; say whether it was."""
        if not self._loaded:
            self._load()
        timestamps = self._timestamps
        if timestamps:
            if timestamp <= timestamps[-1]:
                return False
        elif timestamp < 0:
            return False
        relative = offset - self.base_offset
        assert 0 <= relative <= _MAX_RELATIVE
        offsets = self._offsets
        assert not offsets or relative >= offsets[-1], "offsets in an index only grow"
        timestamps.append(timestamp)
        offsets.append(relative)
        return True

    def lookup(self, timestamp: int) -> TimestampOffset:
        """The largest entry with a timestamp ≤ ``timestamp``, else (-1, base offset)."""
        if not self._loaded:
            left, _ = self._search(lambda entry: _TIME_ENTRY.unpack(entry)[0] > timestamp)
            return self._decoded(left)
        return self._entry(bisect_right(self._timestamps, timestamp) - 1)

    @property
    def last_entry(self) -> TimestampOffset:
        """The last entry, (-1, base offset) without one."""
        if not self._loaded:
            left, _ = self._search(lambda _: False)
            return self._decoded(left)
        return self._entry(len(self) - 1)

    def truncate_to(self, offset: int) -> None:
        """Drop the entries with offsets ≥ ``offset``."""
        if not self._loaded:
            self._load()
        keep = bisect_left(self._offsets, offset - self.base_offset)
        del self._timestamps[keep:], self._offsets[keep:]
        self._keep(keep)

    @property
    def is_full(self) -> bool:
        """Only the slot reserved for the entry at roll is left: time to roll."""
        return len(self) >= self.max_entries - 1

    def entries(self) -> Iterator[TimestampOffset]:
        """All entries, ascending."""
        return map(self._entry, range(len(self)))

    def verify(self) -> None:
        """Check every entry: timestamps ascending, offsets never falling. Raises CorruptIndex."""
        self.sanity_check()
        if not self._loaded:
            self._load()
        offsets = self._offsets
        if not (
            all(map(lt, self._timestamps, islice(self._timestamps, 1, None)))
            and not any(map(lt, islice(offsets, 1, None), offsets))
            and (not offsets or (offsets[0] >= 0 and self._timestamps[0] >= 0))
        ):
            raise CorruptIndex(f"entries of time index {self.path} are not ascending")

    def _decoded(self, entry: bytes) -> TimestampOffset:
        if not entry:
            return TimestampOffset(-1, self.base_offset)
        timestamp, relative = _TIME_ENTRY.unpack(entry)
        return TimestampOffset(timestamp, self.base_offset + relative)

    def _entry(self, slot: int) -> TimestampOffset:
        if slot < 0:
            return TimestampOffset(-1, self.base_offset)
        return TimestampOffset(self._timestamps[slot], self.base_offset + self._offsets[slot])

    def __len__(self) -> int:
        if not self._loaded:
            self._load()
        return len(self._timestamps)

    def _clear(self) -> None:
        self._timestamps = array("q")
        self._offsets = array("i")

    def _decode(self, data: bytes) -> None:
        words = array("i", data)
        times = array("i", bytes(len(words) // 3 * 8))
        times[0::2] = words[0::3]
        times[1::2] = words[1::3]
        self._timestamps = array("q", times.tobytes())
        self._offsets = words[2::3]
        if _SWAP:
            self._timestamps.byteswap()
            self._offsets.byteswap()

    def _encode(self, start: int) -> bytes:
        timestamps, offsets = self._timestamps[start:], self._offsets[start:]
        if _SWAP:
            timestamps.byteswap()
            offsets.byteswap()
        # Weave 8-byte and 4-byte columns word by word: slices do it at C speed.
        times = array("i", timestamps.tobytes())
        words = array("i", bytes(len(offsets) * TIME_ENTRY_SIZE))
        words[0::3] = times[0::2]
        words[1::3] = times[1::2]
        words[2::3] = offsets
        return words.tobytes()

    def _check_last(self, entry: bytes, entries: int) -> None:
        timestamp = int.from_bytes(entry[:8], "big", signed=True)
        relative = int.from_bytes(entry[8:], "big", signed=True)
        if timestamp < 0 or relative < 0:
            raise CorruptIndex(
                f"time index {self.path} has {entries} entries, but the last one is "
                f"({timestamp}, {self.base_offset + relative})"
            )
