"""Removing files that are no longer needed, late and off the loop.

Unlinking a segment that is in the page cache takes 25–90 ms, so it is done in a thread; and it is
done after ``file.delete.delay.ms``, so that who is reading goes on. What has not been removed at
the end is found by its name (``.deleted``, ``-delete``) at the next start.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from kavka.storage.fs import FileSystem
from kavka.storage.log import SegmentDeletion
from kavka.storage.workers import Workers

log = logging.getLogger("kavka.storage.removal")


class Remover:
    """Removes files and directories after a delay. Used from the loop only."""

    __slots__ = ("_fs", "_jobs", "_loop", "_workers")

    def __init__(self, fs: FileSystem, loop: asyncio.AbstractEventLoop, workers: Workers) -> None:
        self._fs = fs
        self._loop = loop
        self._workers = workers
        self._jobs: dict[asyncio.TimerHandle, Callable[[], None]] = {}  # that wait

    def remove_segments(self, deletions: Iterable[SegmentDeletion]) -> None:
        """Remove the files of segments, each after its delay."""
        for deletion in deletions:
            self._later(
                deletion.delay_ms / 1000,
                lambda deletion=deletion: deletion.run(self._fs),  # type: ignore[misc]
                f"segment {deletion.base_offset}",
            )

    def remove_directory(self, path: str, delay: float) -> None:
        """Remove a directory and all in it after ``delay`` seconds."""
        self._later(delay, lambda: self._fs.remove_tree(path), path)

    def cancel(self) -> None:
        """Leave the rest to the next start."""
        for timer in self._jobs:
            timer.cancel()
        self._jobs.clear()

    def hurry(self) -> None:
        """Remove at once what waits for its delay: space is short, and who reads a file that is
        gone holds it open."""
        jobs = list(self._jobs.values())
        self.cancel()
        for job in jobs:
            self._workers.submit(job)

    def _later(self, delay: float, remove: Callable[[], None], what: str) -> None:
        def job() -> None:
            try:
                remove()
            except OSError as error:
                log.warning("Not removed, the next start tries again: %s what=%s", error, what)

        def due() -> None:
            del self._jobs[timer]
            self._workers.submit(job)

        if delay <= 0:
            self._workers.submit(job)
        else:
            timer = self._loop.call_later(delay, due)
            self._jobs[timer] = job
