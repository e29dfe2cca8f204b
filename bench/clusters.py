"""Three brokers of one kind on this machine, each a process of its own."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient, NewTopic

from bench.brokers import Broker, Kafka, Make
from bench.measure import cpu_seconds
from tests.broker_process import free_port, wait_for
from tests.cluster.kafka_cluster import Cluster
from tests.cluster.zookeeper import ZooKeeper, is_installed, running_zookeeper

SIZE: Final = 3
# Kafka's defaults, where the cluster of the tests has shorter times and fewer partitions.
DEFAULTS: Final[Mapping[str, str]] = {
    "zookeeper.session.timeout.ms": "6000",
    "offsets.topic.num.partitions": "50",
    "transaction.state.log.num.partitions": "50",
    "replica.fetch.wait.max.ms": "500",
    "replica.fetch.backoff.ms": "1000",
    "controlled.shutdown.retry.backoff.ms": "5000",
    "max.connections.per.ip": "100000",
}


class Measured:
    """A running cluster: where it is reached and what its brokers cost."""

    def __init__(self, name: str, bootstrap: str, pids: Sequence[int]) -> None:
        self.name = name
        self.bootstrap = bootstrap
        self._pids = list(pids)
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def cpu_seconds(self) -> float:
        """Processor time of all brokers together; that of a ZooKeeper is not in it."""
        return sum(map(cpu_seconds, self._pids))

    def create(self, topic: str, partitions: int, **config: str) -> None:
        """A topic of three replicas, all of them in sync when this returns."""
        settings = {name.replace("_", "."): value for name, value in config.items()}
        new = NewTopic(topic, partitions, SIZE, config=settings)
        self._admin.create_topics([new])[topic].result(60)
        wait_for(f"the replicas of {topic}", lambda: self._is_in_sync(topic, partitions), 60)

    def _is_in_sync(self, topic: str, partitions: int) -> bool:
        known = self._admin.list_topics(topic, timeout=10).topics[topic].partitions
        return len(known) == partitions and all(
            each.leader >= 0 and len(each.isrs) == SIZE for each in known.values()
        )

    def brokers(self) -> int:
        """How many are known to be alive."""
        return len(self._admin.list_topics(timeout=10).brokers)


@contextlib.contextmanager
def zookeeper_and_directory() -> Iterator[tuple[ZooKeeper, Path]]:
    """A ZooKeeper, and a directory for brokers, for the length of a scenario."""
    assert is_installed(), "there is no ZooKeeper on this machine: Debian's package zookeeper"
    with tempfile.TemporaryDirectory(prefix="kavka-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with running_zookeeper(directory / "zookeeper") as zookeeper:
            yield zookeeper, directory


@contextlib.contextmanager
def kavka_cluster(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Three brokers over a ZooKeeper, with the defaults of a production cluster."""
    with zookeeper_and_directory() as (zookeeper, directory):
        cluster = Cluster(zookeeper, directory, SIZE, {**DEFAULTS, **(settings or {})})
        try:
            yield cluster.start()
        finally:
            if keep := os.environ.get("KAVKA_BENCH_LOGS"):
                with Path(keep).open("a") as logs:
                    logs.write(cluster.logs())
            cluster.stop()


@contextlib.contextmanager
def _measured_kavka() -> Iterator[Measured]:
    with kavka_cluster() as cluster:
        pids = [member.pid for member in cluster.running]
        yield Measured("kavka", cluster.bootstrap, pids)


@contextlib.contextmanager
def _measured_kafka() -> Iterator[Measured]:
    """Three nodes of Apache Kafka, each broker and controller."""
    ports = [(free_port(), free_port()) for _ in range(SIZE)]
    voters = ",".join(f"{i}@127.0.0.1:{quorum}" for i, (_, quorum) in enumerate(ports, 1))
    nodes: list[Broker] = []
    for number, (port, quorum) in enumerate(ports, 1):
        own = {
            "node.id": str(number),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{quorum}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "offsets.topic.replication.factor": str(SIZE),
            "transaction.state.log.replication.factor": str(SIZE),
            "transaction.state.log.min.isr": "2",
        }
        node = Kafka(own)
        node.bootstrap = f"127.0.0.1:{port}"
        nodes.append(node)
    try:
        for node in nodes:
            node.prepare()
        with ThreadPoolExecutor(SIZE) as starting:
            list(starting.map(lambda node: node.start(), nodes))
        bootstrap = ",".join(node.bootstrap for node in nodes)
        measured = Measured("kafka", bootstrap, [node.pid for node in nodes])
        wait_for("three brokers", lambda: measured.brokers() == SIZE, 60)
        yield measured
    finally:
        for node in nodes:
            if node.pid:
                os.kill(node.pid, signal.SIGKILL)  # the last ones wait for a quorum in vain
        for node in nodes:
            node.remove()


@contextlib.contextmanager
def all_clusters(contenders: Sequence[Make]) -> Iterator[list[Measured]]:
    """A cluster of every contender that makes one; all run at once, so that they can take turns."""
    with contextlib.ExitStack() as stack:
        clusters = [stack.enter_context(_measured_kavka())]
        if any(make.name == "kafka" for make in contenders):
            clusters.append(stack.enter_context(_measured_kafka()))
        yield clusters
