"""The stock Java tools against a cluster: the newest, and those that write ZooKeeper themselves."""

import json
import re
from pathlib import Path

import pytest

from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster
from tests.cluster.kafka_process import zookeeper_tool
from tests.cluster.witness import Writer, judge
from tests.cluster.zookeeper import needs_zookeeper
from tests.java import lines, run_tool

pytestmark = [pytest.mark.cluster, pytest.mark.java, needs_zookeeper]

NEW, OLD = "4.3", "2.3"
TOOLS = "org.apache.kafka.tools"
TOPICS = f"{TOOLS}.TopicCommand"
REASSIGN = f"{TOOLS}.reassign.ReassignPartitionsCommand"
ELECT = f"{TOOLS}.LeaderElectionCommand"
LOG_DIRS = f"{TOOLS}.LogDirsCommand"
GROUPS = f"{TOOLS}.consumer.group.ConsumerGroupCommand"
CONSUMER = f"{TOOLS}.consumer.ConsoleConsumer"
OLD_TOPICS = "kafka.admin.TopicCommand"
OLD_REASSIGN = "kafka.admin.ReassignPartitionsCommand"
OLD_ELECT = "kafka.admin.PreferredReplicaLeaderElectionCommand"
OLD_CONFIGS = "kafka.admin.ConfigCommand"


def server(cluster: Cluster) -> tuple[str, str]:
    return "--bootstrap-server", ",".join(member.bootstrap for member in cluster.running)


def partitions_of(cluster: Cluster, topic: str) -> set[int]:
    known = cluster.metadata().topics.get(topic)
    return set() if known is None else set(known.partitions)


def replicas(cluster: Cluster, topic: str) -> dict[int, list[int]]:
    partitions = cluster.metadata().topics[topic].partitions
    return {index: list(partition.replicas) for index, partition in partitions.items()}


def old_tool(main_class: str, *arguments: str) -> str:
    return zookeeper_tool(OLD, main_class, *arguments)


def plan(path: Path, topic: str, wanted: dict[int, list[int]]) -> str:
    """The file that tells the reassignment tools what to do."""
    partitions = [
        {"topic": topic, "partition": index, "replicas": targets}
        for index, targets in wanted.items()
    ]
    path.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return str(path)


def test_topics_log_dirs_and_groups_are_described(cluster: Cluster) -> None:
    run_tool(
        *(NEW, TOPICS, *server(cluster), "--create", "--topic", "t", "--partitions", "3"),
        *("--replication-factor", "3"),
    )
    writer = Writer(cluster, "t").start()
    writer.stop()
    head, *rows = lines(
        run_tool(NEW, TOPICS, *server(cluster), "--describe", "--topic", "t").stdout
    )
    assert "PartitionCount: 3" in head and "ReplicationFactor: 3" in head
    for row in rows:
        for what in ("Replicas", "Isr"):
            found = re.search(rf"{what}: ([\d,]+)", row)
            assert found and set(found[1].split(",")) == {"1", "2", "3"}, row
    told = run_tool(NEW, LOG_DIRS, *server(cluster), "--describe", "--topic-list", "t").stdout
    (described,) = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert {broker["broker"] for broker in described["brokers"]} == {1, 2, 3}
    for broker in described["brokers"]:
        (directory,) = broker["logDirs"]
        assert directory["error"] is None and len(directory["partitions"]) == 3
        assert all(p["size"] > 0 for p in directory["partitions"])
    run_tool(
        *(NEW, CONSUMER, *server(cluster), "--topic", "t", "--from-beginning", "--group", "g"),
        *("--max-messages", "50"),
    )
    groups = run_tool(NEW, GROUPS, *server(cluster), "--describe", "--group", "g").stdout
    # As many as it had come to: 50 messages may all be of one partition.
    assert any(re.match(r"g +t +\d +\d+ +\d+", line) for line in lines(groups))
    state = run_tool(NEW, GROUPS, *server(cluster), "--describe", "--group", "g", "--state").stdout
    coordinator = cluster.coordinator("g")
    assert f"{coordinator.bootstrap} ({coordinator.broker_id})" in state.replace("  ", " ")


def test_leadership_goes_home_by_the_election_tool(cluster: Cluster) -> None:
    cluster.create("t", replica_assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    cluster[2].stop()
    cluster[2].start()
    cluster.wait_for_isr("t", 3)
    told = run_tool(
        NEW, ELECT, *server(cluster), "--election-type", "preferred", "--all-topic-partitions"
    ).stdout
    assert "Successfully completed leader election (PREFERRED)" in told or "Valid" in told
    for index in range(3):
        assert cluster.leader("t", index).broker_id == index + 1


def test_tools_that_write_zookeeper_themselves(cluster: Cluster, tmp_path: Path) -> None:
    zookeeper = ("--zookeeper", cluster.connect)
    made = old_tool(
        *(OLD_TOPICS, *zookeeper, "--create", "--topic", "old"),
        *("--replica-assignment", "1:2,2:3", "--config", "retention.ms=3600000"),
    )
    assert "Created topic old." in made
    wait_for("the topic", lambda: len(partitions_of(cluster, "old")) == 2)
    writer = Writer(cluster, "old", partitions=2).start()
    described = old_tool(OLD_TOPICS, *zookeeper, "--describe", "--topic", "old")
    assert "PartitionCount:2" in described and "Isr: 1,2" in described
    assert "retention.ms=3600000" in described
    old_tool(OLD_TOPICS, *zookeeper, "--alter", "--topic", "old", "--partitions", "3")
    wait_for("a partition more", lambda: len(cluster.metadata().topics["old"].partitions) == 3)
    old_tool(
        *(OLD_CONFIGS, *zookeeper, "--alter", "--entity-type", "topics"),
        *("--entity-name", "old", "--add-config", "max.message.bytes=500000"),
    )
    described = run_tool(NEW, TOPICS, *server(cluster), "--describe", "--topic", "old").stdout
    assert "max.message.bytes=500000" in described
    file = plan(tmp_path / "plan", "old", {0: [3, 1], 1: [1, 2]})
    named = ("--reassignment-json-file", file)
    old_tool(OLD_REASSIGN, *zookeeper, *named, "--execute")

    def done() -> bool:
        told = old_tool(OLD_REASSIGN, *zookeeper, *named, "--verify")
        return told.count("completed successfully") == 2

    wait_for("the moves to end", done, 60)
    assert {index: replicas(cluster, "old")[index] for index in (0, 1)} == {0: [3, 1], 1: [1, 2]}
    cluster.wait_for_isr("old", 2)
    writer.stop()
    judge(writer)
    old_tool(OLD_ELECT, *zookeeper)
    wait_for("preferred leaders", lambda: cluster.leader("old", 0).broker_id == 3)
    old_tool(OLD_TOPICS, *zookeeper, "--delete", "--topic", "old")
    wait_for("the end of the topic", lambda: "old" not in cluster.metadata().topics)
