"""A real ZooKeeper: one server, or three, in processes of their own. Debian's package
``zookeeper``."""

import itertools
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kavka.broker.cli.zookeeper import ZooKeeperMissing, java_command
from tests.broker_process import free_port, wait_for

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
        return _own_path(self.address)

    def start(self) -> "ZooKeeper":
        """Start, and return once it serves."""
        self.launch()
        self.await_serving()
        return self

    def launch(self) -> None:
        """Start without waiting."""
        with (self.directory / "zookeeper.log").open("ab") as log:
            java, *rest = java_command(os.environ)
            quick = ["-Dzookeeper.fsync.warningthresholdms=60000", "-Dzookeeper.forceSync=no"]
            self.process = subprocess.Popen(
                [java, *quick, *rest, str(self.directory / "zoo.cfg")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def await_serving(self) -> None:
        """Wait until a launched server answers clients, as one of an ensemble if it is one."""
        assert self.process is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            if self.mode():
                return
            time.sleep(0.02)  # between polls of a condition, not instead of one
        raise AssertionError(f"ZooKeeper did not start:\n{self.log()}")

    def mode(self) -> str:
        """``standalone``, ``leader`` or ``follower``; empty when it does not serve."""
        found = re.search(r"^Mode: (\w+)", self._ask("srvr"), re.MULTILINE)
        return found[1] if found else ""

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


def _own_path(address: str) -> str:
    return f"{address}/test-{os.getpid()}-{next(_numbers)}"


class Ensemble:
    """Three servers, of which one may be away."""

    def __init__(self, directory: Path) -> None:
        numbers = range(1, 4)
        voters = "".join(
            f"server.{number}=127.0.0.1:{free_port()}:{free_port()}\n" for number in numbers
        )
        self.members: list[ZooKeeper] = []
        for number in numbers:
            member = ZooKeeper(directory / f"{number}", voters)
            data = member.directory / "data"
            data.mkdir()
            (data / "myid").write_text(f"{number}")
            self.members.append(member)

    def chroot(self) -> str:
        """A ``zookeeper.connect`` with a path that nobody else has."""
        return _own_path(",".join(member.address for member in self.members))

    def leader(self) -> ZooKeeper:
        """The member that leads the others."""
        return wait_for(
            "a leader of the ensemble",
            lambda: next((each for each in self.members if each.mode() == "leader"), None),
        )


@contextmanager
def running_ensemble(directory: Path) -> Iterator[Ensemble]:
    ensemble = Ensemble(directory)
    try:
        for member in ensemble.members:
            member.launch()
        for member in ensemble.members:
            member.await_serving()
        yield ensemble
    finally:
        for member in ensemble.members:
            member.stop()


@contextmanager
def running_zookeeper(directory: Path) -> Iterator[ZooKeeper]:
    server = ZooKeeper(directory).start()
    try:
        yield server
    finally:
        server.stop()
