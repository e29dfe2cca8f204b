"""A few threads for calls that block in the kernel."""

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Final

log = logging.getLogger("kavka.storage.workers")

_STOP: Final = None


class Workers:
    """Runs jobs in up to ``limit`` threads, started as they are needed.

    A job is a function without arguments that handles its own expected errors; an unexpected one
    is logged and ends only the job.
    """

    __slots__ = ("_idle", "_jobs", "_limit", "_lock", "_name", "_threads")

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._lock = Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._idle = 0  # threads that wait; a race makes one thread too many, no harm

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job`` in a thread, in order of submission when there is only one."""
        if self._jobs.qsize() >= self._idle and len(self._threads) < self._limit:
            with self._lock:  # other threads wait, and submit to do so
                if len(self._threads) < self._limit:
                    self._start()
        self._jobs.put(job)

    def _start(self) -> None:
        thread = Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> None:
        """Until the jobs submitted so far are done, when there is one thread. *Blocks.*"""
        assert self._limit == 1
        if not self._threads:  # none has been submitted
            return
        done = Event()
        self.submit(done.set)
        done.wait()

    def stop(self) -> None:
        """Finish what was submitted and end the threads. *Blocks.*"""
        for _ in self._threads:
            self._jobs.put(_STOP)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self) -> None:
        while True:
            self._idle += 1
            job = self._jobs.get()
            self._idle -= 1
            if job is _STOP:
                return
            try:
                job()
            except Exception:
                log.exception("A background job failed thread=%s", self._name)
