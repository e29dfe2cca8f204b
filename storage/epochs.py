"""The leader-epoch cache: which leader wrote which part of a log (KIP-101, KIP-279).

Kept as ``leader-epoch-checkpoint`` in the partition's directory. The file need not be written at
each change: recovery assigns epochs again from the batches past the recovery point, and an
epoch without a batch means nothing to anybody. It must be saved before the recovery point
passes a new entry's start offset, so the owner saves a dirty cache when it flushes the log.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from kavka.storage.checkpoints import (
    CorruptCheckpoint,
    EpochEntry,
    encode_epochs,
    read_epochs,
)
from kavka.storage.fs import FileSystem

UNDEFINED_EPOCH: Final = -1
UNDEFINED_OFFSET: Final = -1


class EpochEndOffset(NamedTuple):
    """The answer to "where does this epoch end?": the epoch found, and its end (exclusive)."""

    epoch: int
    end_offset: int


class LeaderEpochCache:
    """(epoch, start offset) pairs, both ascending."""

    __slots__ = ("_epochs", "_starts", "dirty", "latest_epoch", "path")

    def __init__(self, path: str, entries: Iterable[EpochEntry] = ()) -> None:
        self.path = path
        self.dirty = False  # not yet in the file
        self.latest_epoch = UNDEFINED_EPOCH  # read by the append path: keep it an attribute
        self._epochs: list[int] = []
        self._starts: list[int] = []
        for entry in entries:
            if self._epochs and not (
                entry.epoch > self._epochs[-1] and entry.start_offset > self._starts[-1]
            ):
                raise CorruptCheckpoint(f"{path}: leader epochs are not ascending at {entry}")
            self._epochs.append(entry.epoch)
            self._starts.append(entry.start_offset)
        self._changed(dirty=False)

    @classmethod
    def load(cls, fs: FileSystem, path: str) -> "LeaderEpochCache":
        """Read the checkpoint file. Raises CorruptCheckpoint and OSError."""
        return cls(path, read_epochs(fs, path))

    def assign(self, epoch: int, start_offset: int) -> bool:
        """Note that records from ``start_offset`` on are of ``epoch``; say if that was news.

        Entries that contradict it (a later epoch, or a start at or past this one) go: the log
        was truncated below them.
        """
        assert epoch >= 0 and start_offset >= 0
        if epoch == self.latest_epoch and start_offset >= self._starts[-1]:
            return False
        keep = min(bisect_left(self._epochs, epoch), bisect_left(self._starts, start_offset))
        del self._epochs[keep:], self._starts[keep:]
        self._epochs.append(epoch)
        self._starts.append(start_offset)
        self._changed()
        return True

    def end_offset_for(self, epoch: int, log_end_offset: int) -> EpochEndOffset:
        """Where ``epoch`` ends here: OffsetForLeaderEpoch, and truncation of a follower.

        The latest epoch ends at the log's end. An epoch that wrote nothing here is answered
        with the largest one below it, so that the follower asks again or truncates (KIP-279).
        One older than all known ends where the first known begins: its data has been deleted.
        (-1, -1) for one that is later than all known, or undefined.
        """
        if epoch == UNDEFINED_EPOCH:
            return EpochEndOffset(UNDEFINED_EPOCH, UNDEFINED_OFFSET)
        if epoch == self.latest_epoch:
            return EpochEndOffset(epoch, log_end_offset)
        later = bisect_right(self._epochs, epoch)
        if later == len(self._epochs):
            return EpochEndOffset(UNDEFINED_EPOCH, UNDEFINED_OFFSET)
        found = self._epochs[later - 1] if later else epoch
        return EpochEndOffset(found, self._starts[later])

    def epoch_for_offset(self, offset: int) -> int:
        """The epoch whose records include ``offset``; -1 when none is known."""
        later = bisect_right(self._starts, offset)
        return self._epochs[later - 1] if later else UNDEFINED_EPOCH

    def truncate_from_end(self, end_offset: int) -> None:
        """Forget epochs that begin at or past ``end_offset``."""
        keep = bisect_left(self._starts, end_offset)
        if keep < len(self._starts):
            del self._epochs[keep:], self._starts[keep:]
            self._changed()

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget epochs before ``start_offset``; the one that covers it now begins there."""
        covering = bisect_right(self._starts, start_offset) - 1
        if covering < 0 or (covering == 0 and self._starts[0] == start_offset):
            return
        del self._epochs[:covering], self._starts[:covering]
        self._starts[0] = start_offset
        self._changed()

    def clear(self) -> None:
        """Forget everything: the log begins anew, or got records without epochs (v0, v1)."""
        if self._epochs:
            self._epochs.clear()
            self._starts.clear()
            self._changed()

    @property
    def earliest(self) -> EpochEntry | None:
        """The first entry."""
        return EpochEntry(self._epochs[0], self._starts[0]) if self._epochs else None

    @property
    def latest(self) -> EpochEntry | None:
        """The last entry."""
        return EpochEntry(self._epochs[-1], self._starts[-1]) if self._epochs else None

    def entries(self) -> list[EpochEntry]:
        """All entries, ascending."""
        return list(map(EpochEntry, self._epochs, self._starts))

    def encode(self) -> bytes:
        """The content of the checkpoint file, to be written in a thread."""
        return encode_epochs(self.entries())

    def save(self, fs: FileSystem, *, sync: bool = True) -> None:
        """Write the checkpoint file when something changed. *May block long.* Raises OSError.

        Off the loop instead: take :meth:`encode` and set ``dirty`` to False on the loop, write
        in the thread, and set ``dirty`` again when that fails.
        """
        if self.dirty:
            fs.atomic_write(self.path, self.encode(), sync=sync)
            self.dirty = False

    def __len__(self) -> int:
        return len(self._epochs)

    def _changed(self, *, dirty: bool = True) -> None:
        self.dirty = dirty
        self.latest_epoch = self._epochs[-1] if self._epochs else UNDEFINED_EPOCH
