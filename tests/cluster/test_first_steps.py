"""Three brokers become one cluster."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster
from tests.cluster.zookeeper import needs_zookeeper

pytestmark = [pytest.mark.cluster, needs_zookeeper]


def test_three_brokers_find_each_other_and_lead_topics_together(cluster: Cluster) -> None:
    assert {cluster.metadata(member).controller_id for member in cluster.running} <= {1, 2, 3}
    cluster.create("wide", partitions=3, replicas=3)
    for member in cluster.running:
        topic = cluster.metadata(member).topics["wide"]
        assert {p.leader for p in topic.partitions.values()} == {1, 2, 3}
        assert all(set(p.replicas) == {1, 2, 3} for p in topic.partitions.values())


def test_records_go_to_the_leaders_of_partitions_on_three_brokers(cluster: Cluster) -> None:
    cluster.create("spread", partitions=6, replicas=1)
    producer = Producer({"bootstrap.servers": cluster[1].bootstrap})
    for number in range(600):
        producer.produce("spread", f"{number}".encode(), partition=number % 6)
    assert producer.flush(20) == 0
    consumer = Consumer(
        {
            "bootstrap.servers": cluster[2].bootstrap,
            "group.id": "readers",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.assign([TopicPartition("spread", index, 0) for index in range(6)])
    seen: list[int] = []

    def read() -> bool:
        seen.extend(int(m.value()) for m in consumer.consume(100, 0.2) if m.error() is None)
        return len(seen) >= 600

    wait_for("600 records", read)
    consumer.close()
    assert sorted(seen) == list(range(600))
