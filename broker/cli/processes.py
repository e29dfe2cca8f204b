"""The processes of a cluster on this machine."""

import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click

from kavka.broker.cli import zookeeper

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


class Processes:
    """A ZooKeeper and brokers that are started, watched and stopped together."""

    def __init__(self, directory: Path, assignments: Sequence[str]) -> None:
        self._directory = directory
        self._assignments = assignments
        self._zookeeper: subprocess.Popen[bytes] | None = None
        self._brokers: dict[str, subprocess.Popen[str]] = {}
        self._stopping = False

    def catch_signals(self) -> None:
        def note(number: int, frame: FrameType | None) -> None:
            self._stopping = True

        signal.signal(signal.SIGTERM, note)
        signal.signal(signal.SIGINT, note)

    def start_zookeeper(self, port: int) -> str:
        home = self._directory / "zookeeper"
        home.mkdir(exist_ok=True)
        if zookeeper.answers(port):
            raise click.ClickException(
                f"A ZooKeeper runs at port {port} already: use it by --zookeeper "
                f"127.0.0.1:{port}, or choose another --zookeeper-port"
            )
        zookeeper.write_config(home / "zoo.cfg", home / "data", port)
        try:
            self._zookeeper = zookeeper.start(home / "zoo.cfg", port, home / "zookeeper.log")
        except (zookeeper.ZooKeeperMissing, RuntimeError) as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"ZooKeeper is ready at 127.0.0.1:{port}")
        return f"127.0.0.1:{port}/kavka"

    def brokers(self, files: Sequence[Path]) -> int:
        """Start all brokers and wait for the end; the exit status."""
        for path in files:
            command = [sys.executable, "-m", "kavka", "serve", "--config", str(path)]
            for assignment in self._assignments:
                command += ["--set", assignment]
            with path.with_suffix(".log").open("ab") as log:
                self._brokers[path.stem] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # told to stop by us, not by the terminal
                )
        addresses: list[str] = []
        for name, process in self._brokers.items():
            line = self._ready_line(process)
            if self._stopping:
                return 0
            if not line:
                raise click.ClickException(
                    f"{name} does not come up, see {self._directory / name}.log"
                )
            click.echo(line.replace("kavka is ready", f"{name} is ready").rstrip())
            addresses += [
                word.removeprefix("PLAINTEXT://").rstrip(",")
                for word in line.split()
                if word.startswith("PLAINTEXT://")
            ]
        click.echo(f"The cluster is ready: {','.join(addresses)}")
        return self._watch()

    def _ready_line(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and not self._stopping:
            readable, _, _ = select.select([process.stdout], [], [], 0.2)
            if readable:
                return process.stdout.readline()
        return ""

    def _watch(self) -> int:
        """Until told to stop, or until no broker is left; say which have ended."""
        while not self._stopping:
            for name, process in list(self._brokers.items()):
                if process.poll() is not None:
                    del self._brokers[name]
                    log = self._directory / f"{name}.log"
                    click.echo(
                        f"{name} has ended, status {process.returncode}: see {log}", err=True
                    )
            if not self._brokers:
                return 1
            time.sleep(0.2)  # between two looks; a signal ends it at once
        return 0

    def stop(self) -> None:
        """Stop the brokers, together, and then what they need."""
        for process in self._brokers.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for name, process in self._brokers.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                click.echo(f"{name} does not stop, and is killed", err=True)
                process.kill()
                process.wait()
        if self._zookeeper is not None:
            self._zookeeper.terminate()
            self._zookeeper.wait()
