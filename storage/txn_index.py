"""The ``.txnindex`` of a segment: the transactions aborted by markers that stand in it.

Format (log-storage.md §2): 34 bytes an entry, big endian, ordered by last offset:
``version:int16 = 0, producer_id, first_offset, last_offset, last_stable_offset:int64``. A segment
without aborted transactions has no file. Like the other indexes (:mod:`kavka.storage.index`) it
lives in memory while it grows, is written out by the owner, and is rebuilt after a crash.
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import Final, NamedTuple

from kavka.storage.fs import FileSystem
from kavka.storage.index import CorruptIndex
from kavka.storage.producer_entry import CompletedTxn

_VERSION: Final = 0
_ENTRY: Final = Struct(">hqqqq")


class AbortedTxn(NamedTuple):
    """An aborted transaction.

    ``last_offset`` is its marker's. ``last_stable_offset`` is the LSO right after the marker:
    whatever other transactions were open then begin at or past it.
    """

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class AbortedSearch(NamedTuple):
    """What one segment's index knows; unless ``complete`` the next segment's must be asked."""

    aborted: list[AbortedTxn]
    complete: bool


class TransactionIndex:
    """Aborted transactions of one segment. Not thread-safe, except ``sync``."""

    __slots__ = ("_entries", "_fs", "_last_offsets", "_saved", "base_offset", "path")

    def __init__(self, fs: FileSystem, path: str, base_offset: int) -> None:
        """Stand for the file ``path``, which need not exist and is read when first asked."""
        self._fs = fs
        self.path = path
        self.base_offset = base_offset
        self._entries: list[AbortedTxn] | None = None
        self._last_offsets: list[int] = []
        self._saved = 0  # entries in the file; -1 when its content is not a prefix of ours

    def append(self, completed: CompletedTxn) -> None:
        """Add a transaction that its marker aborted; markers come in offset order."""
        assert completed.aborted
        entries = self._load()
        assert not entries or completed.last_offset > entries[-1].last_offset
        entries.append(
            AbortedTxn(
                completed.producer_id,
                completed.first_offset,
                completed.last_offset,
                completed.last_stable_offset,
            )
        )
        self._last_offsets.append(completed.last_offset)

    def collect(self, fetch_offset: int, upper_bound_offset: int) -> AbortedSearch:
        """Aborted transactions with records in ``[fetch_offset, upper_bound_offset)``.

        Complete when an entry's last stable offset shows that no later marker can abort
        anything below the bound.
        """
        entries = self._load()
        start = bisect_left(self._last_offsets, fetch_offset)
        if start and entries[start - 1].last_stable_offset >= upper_bound_offset:
            return AbortedSearch([], True)
        found = []
        for entry in entries[start:]:
            if entry.first_offset < upper_bound_offset:
                found.append(entry)
            if entry.last_stable_offset >= upper_bound_offset:
                return AbortedSearch(found, True)
        return AbortedSearch(found, False)

    def entries(self) -> Iterator[AbortedTxn]:
        """All entries, ascending by last offset."""
        return iter(self._load())

    def truncate_to(self, offset: int) -> None:
        """Drop transactions whose marker is at or past ``offset``."""
        entries = self._load()
        keep = bisect_left(self._last_offsets, offset)
        if keep < len(entries):
            del entries[keep:], self._last_offsets[keep:]
            self._saved = -1

    def reset(self) -> None:
        """Drop all entries (before a rebuild); the file goes at the next ``write_out``."""
        self._entries = []
        self._last_offsets = []
        self._saved = -1

    def write_out(self) -> bool:
        """Bring the file up to date (no sync); say whether it was not. Without entries there is
        none. Raises OSError."""
        entries = self._entries
        if entries is None or self._saved == len(entries):
            return False
        if not entries:
            self._fs.unlink(self.path, missing_ok=True)
            self._saved = 0
            return True
        file = self._fs.open(self.path, write=True, create=True)
        try:
            start = max(self._saved, 0)
            self._saved = -1  # until it is whole again
            self._fs.truncate(file, start * _ENTRY.size)
            data = b"".join(_ENTRY.pack(_VERSION, *entry) for entry in entries[start:])
            self._fs.pwrite(file, data, start * _ENTRY.size)
            self._saved = len(entries)
        finally:
            file.close()
        return True

    def sync(self) -> None:
        """Wait until what was written out is on the device. *May block long*; any thread."""
        if not self._fs.exists(self.path):
            return
        file = self._fs.open(self.path)
        try:
            self._fs.fdatasync(file)
        finally:
            file.close()

    def release(self) -> None:
        """Write out, then forget the entries; the next question reads them from the file."""
        self.write_out()
        self._entries = None
        self._last_offsets = []

    def close(self) -> None:
        """Write out and forget. No descriptor was open."""
        self.release()

    def rename(self, path: str) -> None:
        """Move the file, if there is one; entries in memory stay."""
        with suppress(FileNotFoundError):
            self._fs.rename(self.path, path)
        self.path = path

    def sanity_check(self) -> None:
        """Read the file and check each entry. Raises CorruptIndex: recover the segment."""
        self._load()

    def _load(self) -> list[AbortedTxn]:
        if self._entries is not None:
            return self._entries
        try:
            data = self._fs.read_bytes(self.path)
        except FileNotFoundError:
            data = b""
        if len(data) % _ENTRY.size:
            raise CorruptIndex(
                f"transaction index {self.path} has {len(data)} bytes, "
                f"which is not a multiple of {_ENTRY.size}"
            )
        entries: list[AbortedTxn] = []
        previous = self.base_offset - 1
        for version, *fields in _ENTRY.iter_unpack(data):
            entry = AbortedTxn(*fields)
            if version != _VERSION:
                raise CorruptIndex(f"transaction index {self.path} has unknown version {version}")
            if entry.last_offset <= previous or entry.first_offset > entry.last_offset:
                raise CorruptIndex(f"transaction index {self.path} has an impossible {entry}")
            previous = entry.last_offset
            entries.append(entry)
        self._entries = entries
        self._last_offsets = [entry.last_offset for entry in entries]
        self._saved = len(entries)
        return entries
