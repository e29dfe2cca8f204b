"""Who does the work of a cleaning: a helper process, or the calling thread.

Both are driven from a thread of their own by :class:`kavka.storage.cleaner.Cleaner`.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from threading import Event, Lock
from typing import IO, Final, Protocol

from kavka.storage.cleaning_job import (
    GO_ON,
    CleanedLog,
    CleaningAborted,
    CleaningFailed,
    CleaningJob,
    WorkerDied,
)
from kavka.storage.clock import Clock
from kavka.storage.fs import FileSystem
from kavka.storage.rewrite import Control, Events, Rewriter, remove_cleaned
from kavka.storage.throttle import Throttle

_PATIENCE: Final = 5.0  # seconds for a process to end by itself


class Worker(Protocol):
    """Cleans one log at a time."""

    def run(self, job: CleaningJob, aborted: Event) -> Events:
        """Do a job: each group when it is complete, at last the result.

        *Blocks.* Raises CleaningAborted and CleaningFailed, and leaves no ``.cleaned`` file then,
        nor when it is closed.
        """

    def interrupt(self) -> None:
        """Called from another thread when ``aborted`` has been set."""

    def rest(self) -> None:
        """There is nothing to do for a while. *May block shortly.*"""


class ThreadWorker:
    """Works in the thread that iterates: for file systems that live in this process only."""

    def __init__(self, fs: FileSystem, clock: Clock) -> None:
        self._fs = fs
        self._clock = clock

    def run(self, job: CleaningJob, aborted: Event) -> Events:
        control = Control(Throttle(job.bytes_per_second, self._clock), aborted)
        try:
            yield from Rewriter(job, self._fs, control).run()
        except (CleaningAborted, CleaningFailed):
            raise
        except Exception as error:
            raise CleaningFailed.of(error) from error

    def interrupt(self) -> None:
        """The event is enough."""

    def rest(self) -> None:
        """Nothing is held."""


class ProcessWorker:
    """Hands jobs to a helper process, which is started for the first and ends at :meth:`rest`."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._lock = Lock()  # the process is killed by another thread
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, job: CleaningJob, aborted: Event) -> Events:
        with self._lock:
            if aborted.is_set():
                raise CleaningAborted
            if self._process is None:
                self._process = _start()
            process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        done = False
        try:
            _send(process.stdin, job)
            while True:
                event = pickle.load(process.stdout)
                if isinstance(event, CleaningFailed):
                    raise event
                if isinstance(event, CleanedLog):
                    done = True
                    break
                yield event
                _send(process.stdin, GO_ON)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            if aborted.is_set():
                raise CleaningAborted from error
            raise WorkerDied(f"the cleaning process ended: {_status(process)}") from error
        finally:
            if not done:
                self.interrupt()
                self.rest()
                remove_cleaned(self._fs, job.directory)
        yield event

    def interrupt(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def rest(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # what it did not want to read
                stream.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start() -> "subprocess.Popen[bytes]":
    environment = dict(os.environ)
    # An interpreter of its own must find the same modules, however this one came by them.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-P", "-m", "kavka.storage.cleaning_process"]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
    except OSError as error:
        raise CleaningFailed(f"the cleaning process cannot be started: {error}", True) from error


def _send(stream: IO[bytes], value: object) -> None:
    pickle.dump(value, stream)
    stream.flush()


def _status(process: "subprocess.Popen[bytes]") -> str:
    try:
        code = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        return "it no longer answers"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
