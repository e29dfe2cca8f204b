"""A broker in a process of its own, for tests that a client, a signal or a crash must meet."""

import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

# Below the ports that the kernel gives to clients: a client that waits for a killed broker to come
# back could otherwise be given the broker's own port, and connect to itself.
PORTS = range(20_000, 32_000)

READY = re.compile(r"(?:(?<!_)PLAINTEXT|INTERNAL_PLAIN)://(?P<host>[\d.]+):(?P<port>\d+)")


def free_port() -> int:
    """A port of :data:`PORTS` that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class BrokerProcess:
    """``kavka serve`` on a free port and a data directory that outlives the process."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{free_port()}",
            "log.dirs": str(data_dir),
            "group.initial.rebalance.delay.ms": "0",
            **(settings or {}),
        }
        self.log_path = data_dir.with_suffix(".log")
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> "BrokerProcess":
        """Start, and return once the broker says that it is ready."""
        self.launch()
        self.await_ready()
        return self

    def launch(self) -> None:
        """Start without waiting."""
        command = [sys.executable, "-m", "kavka", "serve"]
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}
            )

    def await_ready(self) -> None:
        """Wait until a launched broker says that it is ready."""
        match = READY.search(self._first_line(60.0))
        assert match, f"no address in the ready line; log:\n{self.log()}"
        self.port = int(match["port"])

    def _first_line(self, timeout: float) -> str:
        assert self.process is not None and self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], timeout)
        line = self.process.stdout.readline() if readable else ""
        assert line, f"the broker did not become ready; log:\n{self.log()}"
        return line

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def stop(self) -> int:
        """Stop cleanly; the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Let it die as in a crash."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status


@contextmanager
def running_broker(
    data_dir: Path, settings: Mapping[str, str] | None = None
) -> Iterator[BrokerProcess]:
    """A started broker that is stopped, and must stop cleanly, at the end."""
    broker = BrokerProcess(data_dir, settings).start()
    try:
        yield broker
    finally:
        if broker.process is not None:
            assert broker.stop() == 0, broker.log()


T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], T], timeout: float = 30.0) -> T:
    """Poll until ``condition()`` gives something true; that is the result."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)  # between polls of a condition, not instead of one
    raise AssertionError(f"waited {timeout} s in vain for {what}")
