"""Tools one after the other in one JVM, and what they print."""

import contextlib
import itertools
import struct
import subprocess
import threading
from collections.abc import Sequence

_INT = struct.Struct(">i")


class Tools:
    """A JVM that runs tools, until it is closed, or a tool takes too long or leaves threads."""

    def __init__(self, line: Sequence[str]) -> None:
        """``line`` is how to start Tools.java."""
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def run(self, texts: Sequence[str], stdin: str, timeout: float) -> tuple[int, str, str]:
        """Run a main class with its arguments to its end; how it ended, and what it printed.

        Raises subprocess.TimeoutExpired.
        """
        assert self._process.stdin is not None
        late = threading.Event()

        def expire() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, expire)
        timer.start()
        try:
            self._process.stdin.write(_INT.pack(len(texts)) + b"".join(map(_text, [*texts, stdin])))
            self._process.stdin.flush()
            (status,) = _INT.unpack(self._read(_INT.size))
            out, err, left = (
                self._read(_INT.unpack(self._read(_INT.size))[0]).decode() for _ in range(3)
            )
        except (OSError, EOFError) as ended:
            self.close()
            if late.is_set():
                raise subprocess.TimeoutExpired([*texts], timeout) from ended
            raise AssertionError(f"the JVM has ended while it ran {texts}") from ended
        finally:
            timer.cancel()
        if left:  # clients that are still at work would meet the next tool
            self.close()
        return status, out, err

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def close(self) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def _text(text: str) -> bytes:
    data = text.encode()
    return _INT.pack(len(data)) + data


def rows(shown: str) -> Sequence[dict[str, str]]:
    """A table that a tool printed, by the names of its columns. No value may have spaces."""
    printed = [line for line in shown.splitlines() if line.strip()]
    head, *others = itertools.dropwhile(lambda line: not line.isupper(), printed)
    return [dict(zip(head.split(), row.split(), strict=False)) for row in others]
