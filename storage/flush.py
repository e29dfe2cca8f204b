"""Syncing logs to disk: a job that runs in any thread, and group commit.

A sync costs from a tenth of a millisecond to many, whatever its size. So there is never more than
one under way for a log, and it serves everything that was appended before it began: under load
the batches grow instead of the queue.
"""

import contextlib
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from kavka.protocol.errors import KafkaError
from kavka.storage.fs import File, FileSystem
from kavka.storage.workers import Workers


class FlushJob:
    """Files to sync so that all records below ``offset`` are on disk.

    Made and evaluated by the owner of the log, run in a thread: it holds files and bytes, no
    state of the log.
    """

    __slots__ = (
        "_directories",
        "_done",
        "_epochs",
        "_files",
        "_fs",
        "_lock",
        "_names",
        "_wait",
        "_without_names",
        "error",
        "offset",
        "rolls",
        "truncations",
    )

    def __init__(self, fs: FileSystem, offset: int, truncations: int, rolls: int = 0) -> None:
        self.offset = offset
        self.truncations = truncations  # how often the log had been truncated when it was made
        self.rolls = rolls  # and rolled
        self.error: OSError | None = None  # set by run()
        self._fs = fs
        self._files: list[File] = []
        self._epochs: tuple[str, bytes] | None = None
        self._directories: list[str] = []
        self._wait: Callable[[], None] | None = None
        self._lock = Lock()
        self._done = False
        self._names = Lock()
        self._without_names = False

    def leave_names(self) -> None:
        """Sync open files only from now on: the directory is no longer the log's.

        A new log may be given its name at any moment, and must not get the old one's epochs.
        *Waits* while names are being written.
        """
        with self._names:
            self._without_names = True

    def add_wait(self, wait: Callable[[], None]) -> None:
        """Begin with this, which blocks until what others are to write is on disk."""
        self._wait = wait

    def add_file(self, file: File) -> None:
        """Sync a ``.log`` file, or an index of a closed segment: below the recovery point they
        are not rebuilt. It is open, so that a rename meanwhile does no harm."""
        self._files.append(file)

    def add_epochs(self, path: str, data: bytes) -> None:
        """Write the leader-epoch checkpoint; its directory has to be added, too."""
        self._epochs = (path, data)

    def add_directory(self, path: str) -> None:
        """Sync the names of files in ``path``."""
        self._directories.append(path)

    def run(self) -> None:
        """Do it, once however often this is called, also by two threads. *Blocks.* An error of
        the disk is kept in ``error``."""
        with self._lock:
            if self._done:
                return
            try:
                self._run()
            except OSError as error:
                self.error = error
            self._done = True

    def _run(self) -> None:
        if self._wait is not None:
            self._wait()
        for file in self._files:
            self._fs.fdatasync(file)
        with self._names:
            if self._without_names:
                return
            if self._epochs is not None:
                self._fs.atomic_write(*self._epochs, sync_name=False)
            for path in self._directories:
                self._fs.sync_dir(path)


class Flushable(Protocol):
    """A log, as the flusher sees it."""

    def begin_flush(self) -> FlushJob:
        """What to sync; raises KafkaError when the log is offline."""

    def finish_flush(self, job: FlushJob) -> None:
        """Take in the result; raises KafkaError when the job failed."""


class Loop(Protocol):
    """The part of an event loop that is needed here."""

    def call_soon(self, callback: Callable[..., object], *args: object) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object: ...


class Flusher:
    """Group commit for all logs of a broker. Used from the loop only."""

    __slots__ = ("_loop", "_running", "_waiting", "_when_idle", "_workers")

    def __init__(self, loop: Loop, workers: Workers) -> None:
        self._loop = loop
        self._workers = workers
        self._running: dict[Flushable, list[Callable[[], None]]] = {}
        self._waiting: dict[Flushable, list[Callable[[], None]]] = {}
        self._when_idle: list[Callable[[], None]] = []

    def request(self, log: Flushable, callback: Callable[[], None] | None = None) -> None:
        """Sync what has been appended to ``log`` by the end of this loop turn, or later.

        ``callback`` runs on the loop once the log's ``recovery_point`` has moved, or the log has
        gone offline because it could not.
        """
        waiting = self._waiting.get(log)
        if waiting is None:
            self._waiting[log] = [] if callback is None else [callback]
            if log not in self._running:
                self._loop.call_soon(self._start, log)
        elif callback is not None:
            waiting.append(callback)

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once nothing is under way or waiting, at once if so. For the end."""
        if self._running or self._waiting:
            self._when_idle.append(callback)
        else:
            callback()

    def _start(self, log: Flushable) -> None:
        callbacks = self._waiting.pop(log)
        try:
            job = log.begin_flush()
        except KafkaError:  # it is offline, and those who wait will see that
            self._tell(callbacks)
            self._check_idle()
            return
        self._running[log] = callbacks
        self._workers.submit(lambda: self._work(log, job))

    def _work(self, log: Flushable, job: FlushJob) -> None:
        job.run()
        self._loop.call_soon_threadsafe(self._done, log, job)

    def _done(self, log: Flushable, job: FlushJob) -> None:
        callbacks = self._running.pop(log)
        with contextlib.suppress(KafkaError):  # then the log is offline, and those who wait see it
            log.finish_flush(job)
        self._tell(callbacks)
        if log in self._waiting and log not in self._running:
            self._start(log)
        self._check_idle()

    def _check_idle(self) -> None:
        if self._when_idle and not self._running and not self._waiting:
            callbacks, self._when_idle = self._when_idle, []
            self._tell(callbacks)

    def _tell(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in callbacks:
            callback()
