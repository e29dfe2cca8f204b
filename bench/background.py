"""Work in processes of its own, so that one load does not disturb the measurement of another."""

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """A forked process that computes one value, or works until it is stopped."""

    def __init__(self, work: Callable[[], T]) -> None:
        reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(reading)
            status = 1
            try:
                with os.fdopen(writing, "wb") as pipe:
                    pickle.dump(work(), pipe)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        self._pipe = os.fdopen(reading, "rb")

    def result(self) -> T:
        """Wait for the value."""
        with self._pipe:
            data = self._pipe.read()
        _, status = os.waitpid(self._pid, 0)
        assert status == 0, "a load generator failed"
        value: T = pickle.loads(data)
        return value

    def stop(self) -> None:
        """End it, wherever it is."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._pipe.close()
