"""Putting a cleaned segment in the place of those it was made from, so that no crash can harm.

Steps, the first two of them on disk before the next (the caller syncs the directory):

1. :meth:`Swap.begin`: ``.cleaned`` → ``.swap``. A crash before its end changes nothing: recovery
   removes ``.cleaned`` files, and a ``.swap`` that has one beside it. From here on recovery puts
   the new segment in place.
2. :meth:`Swap.commit`: readers get the new segment; the old files become ``.deleted``.
3. :meth:`Swap.finish`: ``.swap`` → the segment's own name.

All are for the owner of the log. Between 1 and 2 a truncation that reaches into the old segments
withdraws the swap, for recovery would bring back what was cut.
"""

import contextlib
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from kavka.storage.cleaning_job import CleanedGroup, CleaningAborted
from kavka.storage.fs import FileSystem
from kavka.storage.names import CLEANED_SUFFIX, DELETED_SUFFIX, SWAP_SUFFIX
from kavka.storage.segment import Segment

if TYPE_CHECKING:
    from kavka.storage.log_state import LogState


class _State(Enum):
    NEW = auto()
    BEGUN = auto()  # recovery would complete it
    COMMITTED = auto()
    OVER = auto()  # finished or withdrawn


class Swap:
    """One replacement. Each step raises OSError, and CleaningAborted when the log has changed so
    that the new segment no longer fits; it is withdrawn then."""

    __slots__ = ("_fs", "_log", "_new", "_state", "end_offset", "old")

    def __init__(
        self,
        fs: FileSystem,
        log: "LogState",
        old: Sequence[Segment],
        end_offset: int,
        group: CleanedGroup,
        new: Segment,
    ) -> None:
        """``old`` are the segments that were read, ``end_offset`` is where the next one begins;
        ``new`` stands for the ``.cleaned`` files that ``group`` tells of."""
        self._fs = fs
        self._log = log
        self.old = list(old)
        self._new = new
        self._state = _State.NEW
        self.end_offset = end_offset
        new.set_suffix(CLEANED_SUFFIX)
        new.restore(
            group.size, group.max_timestamp, group.max_timestamp_offset, group.first_timestamp
        )

    def _give_up(self) -> None:
        self.withdraw()
        raise CleaningAborted

    def _check(self) -> None:
        """See that the old segments are still there, side by side and closed."""
        segments = self._log.segments
        following = segments.after(self.old[-1])
        if (
            self._state is _State.OVER
            or self._log.offline is not None
            or segments.position_of(self.old) is None
            or following is None
            or following.base_offset != self.end_offset
        ):
            self._give_up()

    def begin(self) -> None:
        """Make the new files valid: recovery would use them from now on."""
        self._check()
        self._state = _State.BEGUN
        self._log.swap = self
        self._new.rename(SWAP_SUFFIX)

    def commit(self) -> None:
        """Let readers see the new segment; the files of the old ones become ``.deleted``."""
        self._check()
        self._state = _State.COMMITTED
        self._log.swap = None
        self._log.segments.replace(self.old, self._new)
        for segment in self.old:
            segment.rename(DELETED_SUFFIX)
            segment.release()

    def finish(self) -> None:
        """Give the new files their own names, if the segment is still in the log."""
        assert self._state is _State.COMMITTED
        self._state = _State.OVER
        if self._new.suffix == SWAP_SUFFIX:
            self._new.rename("")
            self._new.let_go()  # an open file would bear the old name

    def withdraw(self) -> None:
        """Remove the new files, unless the new segment is in the log already.

        Once begun this waits for the disk, so that no crash can bring them back. Raises OSError.
        """
        if self._state in (_State.COMMITTED, _State.OVER):
            return
        begun = self._state is _State.BEGUN
        self._state = _State.OVER
        self._log.swap = None
        self._new.release()
        for suffix in (SWAP_SUFFIX, CLEANED_SUFFIX):  # a failed begin leaves some of both
            self._new.set_suffix(suffix)
            for path in self._new.paths():
                self._fs.unlink(path, missing_ok=True)
        if begun:
            with contextlib.suppress(FileNotFoundError):  # the whole partition is gone
                self._fs.sync_dir(self._log.directory)

    def on_truncate(self, offset: int) -> None:
        """The log is about to be cut at ``offset``. May wait for the disk. Raises OSError."""
        if offset < self.end_offset:
            self.withdraw()
