"""Tools of the newest release one after the other in one JVM, for who needs many of them."""

import itertools
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.java import own_command

_INT = struct.Struct(">i")


class Tools:
    """The JVM. Tools of which one run leaves something behind are not for it."""

    def __init__(self) -> None:
        self._line = own_command("Tools")
        self._process = subprocess.Popen(
            self._line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def run(
        self, main_class: str, *arguments: str, stdin: str = "", timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool to its end; how it ended, and what it printed."""
        texts = [main_class, *arguments]
        assert self._process.stdin is not None
        self._process.stdin.write(_INT.pack(len(texts)) + b"".join(map(_text, [*texts, stdin])))
        self._process.stdin.flush()
        late = threading.Timer(timeout, self._process.kill)
        late.start()
        try:
            (status,) = _INT.unpack(self._read(_INT.size))
            output = [self._read(_INT.unpack(self._read(_INT.size))[0]).decode() for _ in range(2)]
        finally:
            late.cancel()
        return subprocess.CompletedProcess(texts, status, *output)

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        assert len(data) == size, "the JVM of the tools has ended"
        return data

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def tools() -> Iterator[Tools]:
    jvm = Tools()
    try:
        yield jvm
    finally:
        jvm.close()


def _text(text: str) -> bytes:
    data = text.encode()
    return _INT.pack(len(data)) + data


def rows(shown: str) -> Sequence[dict[str, str]]:
    """A table that a tool printed, by the names of its columns. No value may have spaces."""
    printed = [line for line in shown.splitlines() if line.strip()]
    head, *others = itertools.dropwhile(lambda line: not line.isupper(), printed)
    return [dict(zip(head.split(), row.split(), strict=False)) for row in others]
