"""A real ZooKeeper in a process of its own: Debian's package ``zookeeper``."""

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kavka.broker.cli.zookeeper import ZooKeeperMissing, java_command
from tests.broker_process import free_port

_CONFIG = """\
tickTime=200
initLimit=50
syncLimit=25
minSessionTimeout=400
maxSessionTimeout=60000
maxClientCnxns=0
dataDir={data}
clientPortAddress=127.0.0.1
clientPort={port}
admin.enableServer=false
4lw.commands.whitelist=ruok,srvr,cons
"""
_numbers = itertools.count(1)


def is_installed() -> bool:
    """Whether a ZooKeeper can be started here."""
    try:
        java_command(os.environ)
    except ZooKeeperMissing:
        return False
    return True


needs_zookeeper = pytest.mark.skipif(
    not is_installed() and not os.environ.get("KAVKA_REQUIRE_JAVA"),
    reason="needs Debian's packages zookeeper and default-jre-headless: see tests/run",
)


class ZooKeeper:
    """One server; its data outlive the process."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        config = _CONFIG.format(data=directory / "data", port=self.port) + settings
        (directory / "zoo.cfg").write_text(config)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def chroot(self) -> str:
        """A ``zookeeper.connect`` with a path that nobody else has."""
        return f"{self.address}/test-{os.getpid()}-{next(_numbers)}"

    def start(self) -> "ZooKeeper":
        """Start, and return once it answers."""
        with (self.directory / "zookeeper.log").open("ab") as log:
            java, *rest = java_command(os.environ)
            quick = ["-Dzookeeper.fsync.warningthresholdms=60000", "-Dzookeeper.forceSync=no"]
            self.process = subprocess.Popen(
                [java, *quick, *rest, str(self.directory / "zoo.cfg")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            if self._ask("ruok") == "imok":
                return self
            time.sleep(0.02)  # between polls of a condition, not instead of one
        raise AssertionError(f"ZooKeeper did not start:\n{self.log()}")

    def _ask(self, word: str) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(word.encode())
                return connection.recv(4096).decode()
        except OSError:
            return ""

    def log(self) -> str:
        path = self.directory / "zookeeper.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it; by default as in a crash, which it is made for."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None


@contextmanager
def running_zookeeper(directory: Path) -> Iterator[ZooKeeper]:
    server = ZooKeeper(directory).start()
    try:
        yield server
    finally:
        server.stop()
