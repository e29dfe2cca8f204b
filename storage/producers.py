"""The producers of a log: :class:`ProducerState` together with its snapshot files."""

from kavka.storage.fs import FileSystem
from kavka.storage.producer_entry import (
    AppendOrigin,
    CompletedTxn,
    Duplicate,
    Marker,
    ProducerEntry,
)
from kavka.storage.producer_state import ProducerState
from kavka.storage.snapshots import SnapshotFiles, encode_snapshot

__all__ = [
    "AppendOrigin",
    "CompletedTxn",
    "Duplicate",
    "Marker",
    "ProducerEntry",
    "ProducerStateManager",
]


class ProducerStateManager(ProducerState):
    """State of a log's producers that survives restarts without reading the whole log.

    A snapshot is taken when a segment is rolled, at clean close and during recovery. At load and
    after truncation :meth:`reload` tells from where the log must be read again; the log then
    calls ``update`` for each batch with a producer id and sets ``end_offset``.
    """

    __slots__ = ("_snapshot_offset", "snapshots")

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        name: str,
        *,
        expiration_ms: int,
        accept_unknown: bool = False,
    ) -> None:
        """Begin empty; ``directory`` is the partition's, ``name`` is for messages."""
        super().__init__(name, expiration_ms=expiration_ms, accept_unknown=accept_unknown)
        self.snapshots = SnapshotFiles(fs, directory)
        self._snapshot_offset = -1  # of the newest snapshot

    def reload(self, log_start_offset: int, log_end_offset: int, now_ms: int) -> int:
        """Get to a state at or below ``log_end_offset``; return the offset to read on from.

        Snapshots past the end or before the start are deleted. If the state is already that of
        the end, only what the start has made obsolete goes. Otherwise the newest snapshot that
        is whole replaces everything (without expired producers); without one the answer is the
        log's start. Raises OSError.
        """
        snapshots = self.snapshots
        for offset in snapshots.offsets():
            if offset > log_end_offset or offset < log_start_offset:
                snapshots.delete(offset)
        if self.end_offset == log_end_offset:
            self.on_log_start(log_start_offset)
        else:
            offset, entries = snapshots.load_newest() or (log_start_offset, [])
            self.restore(entries, offset)
            self.remove_expired(now_ms)
            self.on_log_start(log_start_offset)
        self._snapshot_offset = max(snapshots.offsets(), default=-1)
        return self.end_offset

    def take_snapshot(self) -> bool:
        """Write the state as of ``end_offset``, unless the newest snapshot is of that already.

        Says whether it did. Raises OSError.
        """
        if self.end_offset <= self._snapshot_offset:
            return False
        self.snapshots.write(self.end_offset, encode_snapshot(self.entries()))
        self._snapshot_offset = self.end_offset
        return True

    def write_empty_snapshot(self, offset: int) -> None:
        """Claim that no producer wrote below ``offset``.

        For a cleanly closed log of a version without snapshots, which need not be scanned then.
        """
        self.snapshots.write(offset, encode_snapshot(()))
        self._snapshot_offset = max(self._snapshot_offset, offset)

    def delete_snapshots_below(self, offset: int) -> None:
        """Remove snapshots that recovery and truncation cannot need any more."""
        for found in self.snapshots.offsets():
            if found >= offset:
                break
            self.snapshots.delete(found)

    def reset(self, offset: int) -> None:
        """Forget everything, snapshots too: the log begins anew at ``offset``."""
        for found in self.snapshots.offsets():
            self.snapshots.delete(found)
        self.clear(offset)
        self._snapshot_offset = -1
