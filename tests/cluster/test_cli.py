"""``kavka cluster up``: somebody tries a cluster out."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.broker_process import free_port, wait_for
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper

pytestmark = [pytest.mark.cluster, needs_zookeeper]


def free_row(length: int) -> int:
    """The first of so many ports in a row, with those for brokers above them."""
    while True:
        base = free_port()
        wanted = [base + n for n in range(length)] + [base + 100 + n for n in range(length)]
        try:
            for port in wanted:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base


def up(directory: Path, base: int, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "kavka", "cluster", "up", "--dir", str(directory)),
            *("--base-port", str(base), *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_command_starts_a_cluster_and_stops_it(tmp_path: Path) -> None:
    base = free_row(3)
    process = up(tmp_path / "c", base, "--zookeeper-port", str(free_port()))
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        assert (
            lines[4]
            == "The cluster is ready: "
            + ",".join(f"127.0.0.1:{base + number}" for number in range(3))
            + "\n"
        ), lines
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{base}"})

        def ports() -> bool:  # clients are told of the listener for clients only
            brokers = admin.list_topics(timeout=10).brokers.values()
            return {broker.port for broker in brokers} == {base, base + 1, base + 2}

        wait_for("three brokers", ports)
    finally:
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert not complaints


def test_a_zookeeper_that_runs_is_used(zookeeper: ZooKeeper, tmp_path: Path) -> None:
    base = free_row(1)
    options = ("--brokers", "1", "--zookeeper", zookeeper.chroot(), "--set", "log.level=WARN")
    for _ in range(2):  # the second time with the files of the first
        process = up(tmp_path / "c", base, *options)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("broker-1 is ready at ")
        assert process.stdout.readline() == f"The cluster is ready: 127.0.0.1:{base}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.communicate()


def test_a_broker_that_does_not_come_up_is_named(zookeeper: ZooKeeper, tmp_path: Path) -> None:
    options = ("--brokers", "1", "--zookeeper", zookeeper.chroot(), "--set", "num.partitions=none")
    process = up(tmp_path / "c", free_row(1), *options)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "broker-1 does not come up" in complaints and "broker-1.log" in complaints
