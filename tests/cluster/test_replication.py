"""Records are on all replicas, and survive the loss of any one broker."""

import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.zookeeper import needs_zookeeper

pytestmark = [pytest.mark.cluster, needs_zookeeper]


def producer_of(cluster: Cluster, **settings: object) -> Producer:
    return Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.timeout.ms": 60_000,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )


def read(cluster: Cluster, topic: str, count: int, partition: int = 0) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "readers",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    seen: list[bytes] = []

    def more() -> bool:
        seen.extend(m.value() or b"" for m in consumer.consume(1000, 0.2) if m.error() is None)
        return len(seen) >= count

    wait_for(f"{count} records of {topic}", more)
    consumer.close()
    return seen


def log_bytes(member: Member, topic: str, partition: int = 0) -> bytes:
    """All that is in a replica's segments, without what is only reserved behind them."""
    directory: Path = member.data_dir / f"{topic}-{partition}"
    return b"".join(path.read_bytes().rstrip(b"\0") for path in sorted(directory.glob("*.log")))


def test_acknowledged_by_all_means_that_all_have_it(cluster: Cluster) -> None:
    cluster.create("copied", partitions=1, replicas=3)
    producer = producer_of(cluster)
    for number in range(2000):
        producer.produce("copied", f"{number}".encode(), partition=0)
    assert producer.flush(30) == 0
    assert read(cluster, "copied", 2000) == [f"{number}".encode() for number in range(2000)]
    wait_for(
        "three equal copies",
        lambda: len({log_bytes(member, "copied") for member in cluster.running}) == 1,
    )
    assert len(log_bytes(cluster[1], "copied")) > 2000


def test_a_killed_leader_takes_nothing_acknowledged_with_it(cluster: Cluster) -> None:
    cluster.create("survivor", partitions=1, replicas=3, min_insync_replicas="2")
    acknowledged: list[int] = []

    def told(number: int) -> object:
        def callback(error: KafkaError | None, _: object) -> None:
            assert error is None, error
            acknowledged.append(number)

        return callback

    producer = producer_of(cluster)
    victim = cluster.leader("survivor")
    for number in range(6000):
        if number == 2000:
            victim.kill()
        producer.produce("survivor", f"{number}".encode(), partition=0, on_delivery=told(number))
        producer.poll(0)
        if number % 100 == 0:
            time.sleep(0.01)
    assert producer.flush(60) == 0
    assert len(acknowledged) == 6000
    assert read(cluster, "survivor", 6000) == [f"{number}".encode() for number in range(6000)]
    victim.start()
    cluster.wait_for_isr("survivor", 3)
    wait_for(
        "three equal copies",
        lambda: len({log_bytes(member, "survivor") for member in cluster.running}) == 1,
    )
