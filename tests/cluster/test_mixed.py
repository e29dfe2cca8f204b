"""Two brokers of ours and one of Apache Kafka 2.3.0 are one cluster, whoever is its controller."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions
from kazoo.client import KazooClient

from kavka.protocol.messages import k10_find_coordinator as k10
from kavka.protocol.messages import k43_elect_leaders as k43
from tests.broker_process import free_port, wait_for
from tests.cluster.kafka_cluster import Cluster
from tests.cluster.kafka_process import running_kafka
from tests.cluster.witness import Writer, judge, log_bytes
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.java import class_path
from tests.wire import WireClient

pytestmark = [pytest.mark.cluster, pytest.mark.java, needs_zookeeper]

TOPIC = "t"
GROUP = "g"
APACHES = 3  # its broker's id
OURS = {1, 2}


class Mixed:
    """The cluster, and its third broker, which may be killed and started again."""

    def __init__(self, ours: Cluster, directory: Path) -> None:
        self.ours = ours
        self.directory = directory
        self.port = free_port()
        self._running = contextlib.ExitStack()

    @property
    def bootstrap(self) -> str:
        return f"{self.ours.bootstrap},127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start Apache's broker, and wait until everybody knows it."""
        settings = {
            "broker.id": str(APACHES),
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "zookeeper.connect": self.ours.connect,
            "zookeeper.session.timeout.ms": "4000",  # a JVM may pause for longer than ours
            "zookeeper.connection.timeout.ms": "30000",
            "offsets.topic.replication.factor": "3",
            "transaction.state.log.replication.factor": "3",
            "replica.fetch.wait.max.ms": "100",
            "auto.leader.rebalance.enable": "false",
        }
        self._running.enter_context(running_kafka("2.3", self.directory, settings))
        self.ours.wait_for_brokers({*OURS, APACHES}, 60)

    def kill(self) -> None:
        self._running.close()

    def controller(self) -> int:
        return self.ours.metadata().controller_id

    def elect(self) -> None:
        """Have the controller elect every partition's preferred leader, as soon as that is in
        sync for the controller, too."""
        controller = self.controller()
        port = self.port if controller == APACHES else self.ours[controller].port
        indexes = sorted(self.ours.metadata().topics[TOPIC].partitions)
        request = k43.ElectLeadersRequest(
            topic_partitions=[k43.TopicPartitions(topic=TOPIC, partitions=indexes)],
            timeout_ms=10_000,
        )

        def at_home() -> bool:
            with WireClient(port) as client:
                client.ask(request, k43.ElectLeadersResponse, 0)
            partitions = self.ours.metadata().topics[TOPIC].partitions.values()
            return all(each.leader == each.replicas[0] for each in partitions)

        wait_for("preferred leaders", at_home)

    def make_apaches_controller(self) -> None:
        """Have the office vacant until it falls to Apache's broker."""
        address, _, path = self.ours.connect.partition("/")
        zookeeper = KazooClient(address)
        zookeeper.start()
        try:
            while self.controller() != APACHES:
                before = zookeeper.get(f"/{path}/controller_epoch")[0]
                zookeeper.delete(f"/{path}/controller")
                wait_for(
                    "another term",
                    lambda before=before: zookeeper.get(f"/{path}/controller_epoch")[0] != before,
                )
                told = int(zookeeper.get(f"/{path}/controller")[0].split(b'"brokerid":')[1][:1])
                wait_for("the controller", lambda told=told: self.controller() == told)
        finally:
            zookeeper.stop()
            zookeeper.close()

    def commit(self, offset: int) -> None:
        """Commit an offset of each partition for the group, once its coordinator is in office."""

        def is_committed() -> bool:
            try:
                self.consumer(GROUP).commit(offsets=_places(offset), asynchronous=False)
            except KafkaException as error:
                assert error.args[0].code() == KafkaError.NOT_COORDINATOR
                return False
            return True

        wait_for("the commit", is_committed)

    def committed(self) -> list[int]:
        """Those offsets; empty while their coordinator cannot be asked."""
        try:
            return [each.offset for each in self.consumer(GROUP).committed(_places(0), timeout=10)]
        except KafkaException:
            return []

    def consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )


def _places(offset: int) -> list[TopicPartition]:
    return [TopicPartition(TOPIC, index, offset) for index in range(3)]


@pytest.fixture
def mixed(zookeeper: ZooKeeper, tmp_path: Path) -> Iterator[Mixed]:
    class_path("2.3")  # or there is no use in starting anything
    # As for an upgrade of Kafka: brokers of ours say no more to others than those understand.
    ours = Cluster(zookeeper, tmp_path, 2, {"inter.broker.protocol.version": "2.3"})
    cluster = Mixed(ours, tmp_path / "kafka")
    try:
        ours.start()
        cluster.start()
        yield cluster
    finally:
        print(ours.logs())
        cluster.kill()
        ours.stop()


def transact(mixed: Mixed, topic: str) -> int:
    """Write by transactions of each broker's coordinator to leaders on each broker; how many
    records are committed."""
    by_coordinator: dict[int, str] = {}
    committed = number = 0
    with WireClient(mixed.ours[1].port) as client:
        while len(by_coordinator) < 3:
            number += 1
            name = f"transaction-{number}"
            request = k10.FindCoordinatorRequest(key=name, key_type=1)
            answer = client.ask(request, k10.FindCoordinatorResponse, 1)
            if answer.node_id >= 0:
                by_coordinator.setdefault(answer.node_id, name)
    for name in by_coordinator.values():
        producer = Producer({"bootstrap.servers": mixed.bootstrap, "transactional.id": name})
        producer.init_transactions(30)
        for kept in (True, False):
            producer.begin_transaction()
            for index in range(3):
                producer.produce(topic, b"kept" if kept else b"given up", partition=index)
            if kept:
                producer.commit_transaction(30)
                committed += 3
            else:
                producer.abort_transaction(30)
    return committed


def delete_records(ours: Cluster, index: int, offset: int) -> int:
    """Delete what is before ``offset`` in a partition; what is left begins there, everywhere.

    Followers may tell Apache's broker that they have done so in the moment in which it sets out to
    wait for them; it then waits in vain. Asked again, it knows.
    """
    place = TopicPartition("transactions", index, offset)
    admin = ours.admin()
    tries = 3 if index == 2 else 1  # Apache's broker leads that one
    while True:
        tries -= 1
        deleted = admin.delete_records([place], operation_timeout=10)[place]
        try:
            low_watermark: int = deleted.result(30).low_watermark
        except KafkaException as error:
            if error.args[0].code() != KafkaError.REQUEST_TIMED_OUT or not tries:
                raise
        else:
            return low_watermark


def test_one_cluster_with_kafka_itself(mixed: Mixed) -> None:
    ours = mixed.ours
    assignment = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
    ours.create(TOPIC, replica_assignment=assignment, min_insync_replicas="2")
    ours.create("transactions", replica_assignment=assignment)
    writer = Writer(ours, TOPIC).start()
    mixed.commit(7)

    # Our controller. What is committed by transactions is what both kinds of leaders show.
    assert mixed.controller() in OURS
    committed = transact(mixed, "transactions")
    reader = mixed.consumer("reader")
    reader.assign([TopicPartition("transactions", index, 0) for index in range(3)])
    seen: list[bytes | None] = []

    def all_of_it() -> bool:
        seen.extend(each.value() for each in reader.consume(100, 0.2) if each.error() is None)
        return len(seen) >= committed

    wait_for("what is committed", all_of_it)
    assert seen == [b"kept"] * committed
    reader.close()
    assert [delete_records(ours, index, 1) for index in range(3)] == [1, 1, 1]

    # Apache's controller: it elects, moves leadership back, and adds a partition.
    mixed.make_apaches_controller()
    ours[1].kill()
    writer.progress()
    ours[1].start()
    ours.wait_for_isr(TOPIC, 3)
    mixed.elect()
    writer.progress()
    admin = ours.admin()  # who knows the controller of now
    admin.create_partitions([NewPartitions(TOPIC, 4)], operation_timeout=20)[TOPIC].result(30)

    # Ours again, as Apache's broker is killed: it knows the topics, and the offsets of groups.
    mixed.kill()
    writer.progress()
    wait_for("a controller of ours", lambda: mixed.controller() in OURS)
    assert wait_for("offsets", mixed.committed) == [7, 7, 7]
    mixed.start()
    ours.wait_for_isr(TOPIC, 3)
    mixed.elect()
    writer.progress()
    assert wait_for("offsets", mixed.committed) == [7, 7, 7]
    writer.stop()
    judge(writer)
    for index in range(3):
        name = f"{TOPIC}-{index}"
        places = [*(ours[broker].data_dir for broker in OURS), mixed.directory / "data"]

        def equal(name: str = name, places: list[Path] = places) -> bool:
            copies = {log_bytes(place / name) for place in places}
            return len(copies) == 1 and bool(copies.pop())

        wait_for(f"three equal copies of {name}", equal)
