"""Groups and transactions on a cluster: their coordinators move with leadership."""

import time
from collections import Counter

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster
from tests.cluster.zookeeper import needs_zookeeper

pytestmark = [pytest.mark.cluster, needs_zookeeper]


def consumer(cluster: Cluster, group: str, **settings: object) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            **settings,
        }
    )


def produce(cluster: Cluster, topic: str, values: range, partitions: int = 3) -> None:
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "enable.idempotence": True,
            "message.timeout.ms": 30_000,
        }
    )
    for value in values:
        producer.produce(topic, str(value).encode(), partition=value % partitions)
    assert producer.flush(30) == 0


def read(reader: Consumer, wanted: int, timeout: float = 30.0) -> list[int]:
    seen: list[int] = []

    def more() -> bool:
        seen.extend(int(m.value()) for m in reader.consume(100, 0.1) if m.error() is None)
        return len(seen) >= wanted

    wait_for(f"{wanted} records", more, timeout)
    return seen


def test_a_group_goes_on_when_its_coordinator_dies(cluster: Cluster) -> None:
    cluster.create("t")
    produce(cluster, "t", range(300))
    reader = consumer(cluster, "group")
    reader.subscribe(["t"])
    assert sorted(read(reader, 300)) == list(range(300))
    reader.commit(asynchronous=False)
    offsets = cluster.metadata().topics["__consumer_offsets"]
    assert all(len(p.replicas) == 3 for p in offsets.partitions.values())
    coordinator = cluster.coordinator("group")
    coordinator.kill()
    produce(cluster, "t", range(300, 600))
    assert sorted(read(reader, 300)) == list(range(300, 600))  # nothing again, nothing left out
    committed = wait_for("a commit at the new coordinator", lambda: commit(reader))
    assert sum(each.offset for each in committed) == 600
    assert cluster.coordinator("group") is not coordinator
    reader.close()


def commit(reader: Consumer) -> list[TopicPartition] | None:
    from confluent_kafka import KafkaException

    try:
        committed: list[TopicPartition] = reader.commit(asynchronous=False)
    except KafkaException:
        return None  # the coordinator is not known yet
    return committed


def test_a_transaction_spans_brokers_and_outlives_its_coordinator(cluster: Cluster) -> None:
    cluster.create("t")
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "transactional.id": "writer",
            "transaction.timeout.ms": 20_000,
        }
    )
    producer.init_transactions(30)
    for number in range(3):  # committed, aborted, committed
        producer.begin_transaction()
        for value in range(number * 30, number * 30 + 30):
            producer.produce("t", str(value).encode(), partition=value % 3)
        if number == 1:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    producer.begin_transaction()
    for value in range(90, 120):
        producer.produce("t", str(value).encode(), partition=value % 3)
    producer.flush(30)
    cluster.coordinator("writer", transactional=True).kill()
    producer.commit_transaction(30)
    reader = consumer(cluster, "readers", **{"isolation.level": "read_committed"})
    reader.assign([TopicPartition("t", index, 0) for index in range(3)])
    wanted = [*range(30), *range(60, 120)]
    assert Counter(read(reader, len(wanted))) == Counter(wanted)
    # And nothing more, from all partitions: no transaction is left open.
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert not [m for m in reader.consume(10, 0.1) if m.error() is None]
    positions = reader.position([TopicPartition("t", index) for index in range(3)])
    for index, position in enumerate(positions):
        _, high = reader.get_watermark_offsets(TopicPartition("t", index), timeout=10)
        assert position.offset == high, f"partition {index}"
    reader.close()
