"""What is promised with brokers down, and what is not."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import NewPartitions, NewTopic

from kavka.protocol.messages.k43_elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    TopicPartitions,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, running_cluster
from tests.cluster.witness import Writer, compare_replicas, judge
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.wire import WireClient

pytestmark = [pytest.mark.cluster, needs_zookeeper]

NOT_ENOUGH_REPLICAS = 19
PREFERRED_LEADER_NOT_AVAILABLE = 80


def produce_code(cluster: Cluster, topic: str, acks: int = -1) -> int:
    """What the leader answers to one record."""
    with WireClient(cluster.leader(topic).port) as client:
        answer = client.produce(
            topic, build_batch([Record(0, 1, None, b"v")], base_offset=0), acks=acks
        )
        return answer.responses[0].partition_responses[0].error_code


def test_too_few_replicas_refuse_what_must_not_be_lost(cluster: Cluster) -> None:
    cluster.create("t", partitions=1, min_insync_replicas="2")
    writer = Writer(cluster, "t", partitions=1).start()
    leader = cluster.leader("t")
    others = [member for member in cluster.running if member is not leader]
    for member in others:
        member.kill()
    wait_for("the ISR to shrink", lambda: cluster.isr("t", 0, leader) == {leader.broker_id}, 40)
    assert produce_code(cluster, "t") == NOT_ENOUGH_REPLICAS
    assert produce_code(cluster, "t", acks=1) == 0
    for member in others:
        member.start()
    writer.progress(60)
    writer.stop()


def test_a_leader_that_may_lack_records_is_only_elected_where_that_is_allowed(
    cluster: Cluster,
) -> None:
    assignment = [[1, 2]]
    cluster.create("careful", replica_assignment=assignment)
    cluster.create("careless", replica_assignment=assignment, unclean_leader_election_enable="true")
    for topic in ("careful", "careless"):
        cluster.wait_for_isr(topic, 2)
    cluster[2].kill()
    for topic in ("careful", "careless"):
        wait_for("an ISR of one", lambda topic=topic: cluster.isr(topic, 0, cluster[3]) == {1}, 40)
        assert produce_code(cluster, topic) == 0  # only broker 1 has it
    cluster[1].kill()
    cluster[2].start()
    leaders = {
        topic: lambda topic=topic: cluster.metadata(cluster[3]).topics[topic].partitions[0].leader
        for topic in ("careful", "careless")
    }
    wait_for("an unclean leader", lambda: leaders["careless"]() == 2)
    assert leaders["careful"]() == -1
    cluster[1].start()
    wait_for("the leader that has everything", lambda: leaders["careful"]() == 1)
    for topic in ("careful", "careless"):
        cluster.wait_for_isr(topic, 2)


def test_a_topic_is_deleted_though_a_replica_is_away(cluster: Cluster) -> None:
    cluster.create("gone", partitions=2)
    cluster.create("kept", partitions=2)
    Writer(cluster, "gone", partitions=2).start().stop()
    away = cluster[3]
    away.kill()
    wait_for("its absence to be seen", lambda: 3 not in cluster.metadata().brokers)
    admin = cluster.admin()
    admin.delete_topics(["gone"], operation_timeout=20)["gone"].result(30)
    wait_for("the topic to go", lambda: "gone" not in cluster.metadata().topics)

    def left(broker_id: int) -> list[Path]:
        # What is renamed is deleted a minute later.
        return list(cluster[broker_id].data_dir.glob("gone-[0-9]"))

    wait_for("the replicas to go", lambda: not left(1) and not left(2))
    assert left(3)
    away.start()
    wait_for("the last replicas to go", lambda: not left(3))

    def again() -> bool:
        try:
            cluster.create("gone", partitions=1)
        except KafkaException:
            return False  # its nodes go last
        return True

    wait_for("its name to be free", again)
    assert "kept" in cluster.metadata().topics


def test_partitions_are_added_while_a_topic_is_written(cluster: Cluster) -> None:
    cluster.create("t", partitions=2)
    writer = Writer(cluster, "t", partitions=2).start()
    admin = cluster.admin()
    admin.create_partitions([NewPartitions("t", 5)], operation_timeout=20)["t"].result(30)
    partitions = cluster.metadata().topics["t"].partitions
    assert len(partitions) == 5 and all(len(p.replicas) == 3 for p in partitions.values())
    writer.progress()
    writer.stop()
    judge(writer)
    compare_replicas(cluster, "t", 5)


def test_a_preferred_leader_that_is_away_is_not_elected(cluster: Cluster) -> None:
    cluster.create("t", replica_assignment=[[2, 1, 3]])
    cluster[2].stop()
    request = ElectLeadersRequest(
        topic_partitions=[TopicPartitions(topic="t", partitions=[0])], timeout_ms=5000
    )

    def elect() -> int:
        with WireClient(cluster.controller().port) as client:
            (topic,) = client.ask(request, ElectLeadersResponse, 1).replica_election_results
            return topic.partition_result[0].error_code

    assert elect() == PREFERRED_LEADER_NOT_AVAILABLE
    cluster[2].start()
    cluster.wait_for_isr("t", 3)
    assert elect() == 0
    wait_for("all to hear of it", lambda: cluster.leader("t").broker_id == 2)


@pytest.mark.parametrize("racks", [("a", "b", "c"), ("a", "a", "b")])
def test_replicas_are_spread_over_racks(
    zookeeper: ZooKeeper, tmp_path: Path, racks: tuple[str, ...]
) -> None:
    with running_cluster(zookeeper, tmp_path, racks=racks) as cluster:
        cluster.create("t", partitions=6, replicas=2)
        for partition in cluster.metadata().topics["t"].partitions.values():
            assert len({racks[replica - 1] for replica in partition.replicas}) == 2
        cluster.create("all", partitions=3, replicas=3)
        # A whole rack may go.
        for member in cluster.running:
            if racks[member.broker_id - 1] == "a":
                member.kill()
        for topic, partitions in (("t", 6), ("all", 3)):
            wait_for(
                f"leaders of {topic}",
                lambda topic=topic, partitions=partitions: cluster._is_led(
                    cluster.metadata(), topic, partitions
                ),
            )


def test_more_replicas_than_brokers_are_refused(cluster: Cluster) -> None:
    admin = cluster.admin()
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic("t", 1, 4)])["t"].result(30)
    assert refused.value.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR


def test_nothing_is_promised_while_zookeeper_is_away(zookeeper: ZooKeeper, tmp_path: Path) -> None:
    own = ZooKeeper(tmp_path / "zookeeper").start()
    try:
        with running_cluster(own, tmp_path) as cluster:
            cluster.create("before")
            own.stop()
            admin = cluster.admin()
            with pytest.raises(KafkaException) as refused:
                admin.create_topics([NewTopic("t", 1, 3)], operation_timeout=2)["t"].result(30)
            assert refused.value.args[0].code() == KafkaError.REQUEST_TIMED_OUT
            producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
            producer.produce("before", b"served")
            assert producer.flush(20) == 0
            # And who has to stop does not wait for what cannot be.
            assert cluster[1].stop() == 0
            own.start()
            cluster.wait_for_brokers({2, 3})
            assert "t" not in cluster.metadata().topics
    finally:
        own.stop()
