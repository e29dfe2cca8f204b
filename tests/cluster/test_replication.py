"""Records are on all replicas, and survive the loss of any one broker."""

import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kavka.protocol.messages.k21_delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from kavka.replication.partition import DEBUGGING_REPLICA_ID
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.zookeeper import needs_zookeeper
from tests.wire import WireClient

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


def delete_before(client: WireClient, topic: str, offset: int, timeout_ms: int) -> tuple[int, int]:
    """DeleteRecords of partition 0: the error code and the low watermark."""
    partition = DeleteRecordsPartition(partition_index=0, offset=offset)
    request = DeleteRecordsRequest(
        topics=[DeleteRecordsTopic(name=topic, partitions=[partition])], timeout_ms=timeout_ms
    )
    answer = client.ask(request, DeleteRecordsResponse, 1).topics[0].partitions[0]
    return answer.error_code, answer.low_watermark


def first_offset(member: Member, topic: str) -> int:
    """Where a replica of partition 0 begins, whoever leads it."""
    partition = ListOffsetsPartition(partition_index=0, timestamp=-2)
    request = ListOffsetsRequest(
        replica_id=DEBUGGING_REPLICA_ID,
        topics=[ListOffsetsTopic(name=topic, partitions=[partition])],
    )
    with WireClient(member.port) as client:
        return client.ask(request, ListOffsetsResponse, 2).topics[0].partitions[0].offset


def test_records_are_deleted_once_no_live_replica_has_them(cluster: Cluster) -> None:
    cluster.create("short", partitions=1, replicas=3)
    producer = producer_of(cluster)
    for number in range(20):
        producer.produce("short", f"{number}".encode(), partition=0)
    assert producer.flush(30) == 0
    leader = cluster.leader("short")
    with WireClient(leader.port) as client:
        assert delete_before(client, "short", 12, 20_000) == (0, 12)
        assert [first_offset(member, "short") for member in cluster.running] == [12, 12, 12]
        # A follower that does not answer is waited for until it counts as dead.
        sleeper = next(
            member
            for member in cluster.running
            if member is not leader and member is not cluster.controller()
        )
        sleeper.pause()
        assert delete_before(client, "short", 15, 100) == (ErrorCode.REQUEST_TIMED_OUT, 12)
        assert delete_before(client, "short", -1, 20_000) == (0, 20)
        assert sleeper.broker_id not in cluster.metadata(leader).brokers
        sleeper.resume()
        wait_for("what has come back to delete, too", lambda: first_offset(sleeper, "short") == 20)
