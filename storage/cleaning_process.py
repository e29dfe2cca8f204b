"""The cleaning worker's own process: ``python -m kavka.storage.cleaning_process``.

Started by :class:`kavka.storage.cleaning_workers.ProcessWorker`, which sends jobs to its standard
input and reads what comes of them from its standard output; both are pickled values. It ends with
its input, so it does not outlive its broker, not even one that was killed in the middle of a job.
"""

import os
import pickle
import signal
import sys
import threading
from queue import SimpleQueue
from typing import BinaryIO, Final

from kavka.storage.cleaning_job import GO_ON, CleanedGroup, CleaningFailed, CleaningJob
from kavka.storage.clock import SystemClock
from kavka.storage.fs import FileSystem
from kavka.storage.rewrite import Control, Rewriter
from kavka.storage.throttle import Throttle

_NICE: Final = 10  # serving comes first where there is not a core for each


def main() -> None:
    """Clean what is asked for until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the broker as well
    os.nice(_NICE)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not print into the protocol
    received: SimpleQueue[object] = SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, received), daemon=True).start()
    while True:
        job = received.get()
        assert isinstance(job, CleaningJob)
        _work(job, received, output)


def _read(source: BinaryIO, received: "SimpleQueue[object]") -> None:
    try:
        while True:
            received.put(pickle.load(source))
    except EOFError:
        os._exit(0)  # in the middle of whatever: nobody is left to take the result


def _work(job: CleaningJob, received: "SimpleQueue[object]", output: BinaryIO) -> None:
    control = Control(Throttle(job.bytes_per_second, SystemClock()), threading.Event())
    try:
        for event in Rewriter(job, FileSystem(), control).run():
            _send(output, event)
            if isinstance(event, CleanedGroup):
                answer = received.get()
                assert answer == GO_ON
    except Exception as error:
        _send(output, CleaningFailed.of(error))


def _send(output: BinaryIO, value: object) -> None:
    pickle.dump(value, output)
    output.flush()


if __name__ == "__main__":
    main()
