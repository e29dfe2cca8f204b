"""A broker of an old Kafka release, as the standard to measure this one by."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kavka.broker.cli.zookeeper import java_command
from tests.java import command, run_tool

SETTINGS: Mapping[str, str] = {
    "broker.id": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
}


def installed_zookeeper() -> str:
    """The class path of the installed ZooKeeper's client: the one that an old release came with
    cannot read how newer Javas write an address (ZOOKEEPER-3779).
    """
    server = java_command(os.environ)
    return server[server.index("-cp") + 1]


def zookeeper_tool(release: str, main_class: str, *arguments: str) -> str:
    """What a tool of an old release prints that writes ZooKeeper itself, as it was used then."""
    return run_tool(release, main_class, *arguments, ahead=installed_zookeeper()).stdout


class KafkaProcess:
    """What tests of a broker know of it."""

    def __init__(self, settings: Mapping[str, str], log_path: Path) -> None:
        self.settings = dict(settings)
        self._log_path = log_path

    def log(self) -> str:
        return self._log_path.read_text()


@contextmanager
def running_kafka(
    release: str, directory: Path, settings: Mapping[str, str]
) -> Iterator[KafkaProcess]:
    """A started broker; the caller finds out when it answers."""
    whole = {**SETTINGS, "log.dirs": str(directory / "data"), **settings}
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in whole.items()))
    start = command(release, "kafka.Kafka", str(file), ahead=installed_zookeeper())
    log_path = directory / "kafka.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(start, stdout=log, stderr=log)
    try:
        yield KafkaProcess(whole, log_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
