"""Partitions move to other brokers and to other directories while they are written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from kavka.protocol.messages.k34_alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopic,
)
from kavka.protocol.messages.k35_describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.test_java_tools import NEW, REASSIGN, replicas, server
from tests.cluster.witness import Writer, compare_replicas, judge, log_directory
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.java import run_tool
from tests.wire import WireClient

pytestmark = [pytest.mark.cluster, pytest.mark.java, needs_zookeeper]

TOPIC = "t"
ANY = "any"


@pytest.fixture
def cluster(zookeeper: ZooKeeper, tmp_path: Path) -> Iterator[Cluster]:
    """Four brokers with two log directories each, ``a`` and ``b``."""
    members = Cluster(zookeeper, tmp_path, 4, {"log.segment.delete.delay.ms": "0"})
    for member in members.members.values():
        member.settings["log.dirs"] = f"{member.data_dir}/a,{member.data_dir}/b"
    try:
        yield members.start()
    except BaseException:
        print(members.logs())
        raise
    finally:
        members.stop()


def plan(
    path: Path, wanted: Mapping[int, Sequence[int]], directories: Mapping[int, Sequence[str]]
) -> tuple[str, str]:
    """What tells the tool which replicas each partition is to have, and in which directories."""
    partitions = [
        {
            "topic": TOPIC,
            "partition": index,
            "replicas": targets,
            "log_dirs": directories.get(index, [ANY] * len(targets)),
        }
        for index, targets in wanted.items()
    ]
    path.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return "--reassignment-json-file", str(path)


def reassign(cluster: Cluster, *arguments: str) -> str:
    return run_tool(NEW, REASSIGN, *server(cluster), *arguments).stdout


def place(member: Member, index: int) -> str:
    """The log directory of a replica."""
    directory = log_directory(member, TOPIC, index)
    assert directory is not None
    return str(directory.parent)


def other_place(member: Member, index: int) -> str:
    """The one of a member's log directories that a replica is not in."""
    here = place(member, index)
    (other,) = {f"{member.data_dir}/a", f"{member.data_dir}/b"} - {here}
    return other


def move(member: Member, index: int, path: str) -> None:
    """Ask a broker to move its replica to another of its directories."""
    asked = AlterReplicaLogDirTopic(name=TOPIC, partitions=[index])
    request = AlterReplicaLogDirsRequest(dirs=[AlterReplicaLogDir(path=path, topics=[asked])])
    with WireClient(member.port) as client:
        (result,) = client.ask(request, AlterReplicaLogDirsResponse, 1).results
    assert [each.error_code for each in result.partitions] == [0]


def limit_moves(cluster: Cluster, member: Member, rate: str) -> None:
    """Let a broker copy no more than so many bytes a second from one directory to another."""
    name = "replica.alter.log.dirs.io.max.bytes.per.second"
    entry = ConfigEntry(name, rate, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(
        ConfigResource.Type.BROKER, str(member.broker_id), incremental_configs=[entry]
    )
    admin = cluster.admin()
    admin.incremental_alter_configs([resource])[resource].result(30)


def described(member: Member, index: int) -> dict[str, DescribeLogDirsPartition]:
    """What a broker has of a partition, by directory."""
    request = DescribeLogDirsRequest(topics=None)
    with WireClient(member.port) as client:
        directories = client.ask(request, DescribeLogDirsResponse, 1).results
    return {
        directory.log_dir: partition
        for directory in directories
        for topic in directory.topics
        if topic.name == TOPIC
        for partition in topic.partitions
        if partition.partition_index == index
    }


def is_settled(member: Member, index: int, path: str) -> bool:
    """Whether a replica is in this directory and nowhere else."""
    found = described(member, index)
    return list(found) == [path] and not found[path].is_future_key


def test_replicas_move_to_other_brokers_and_directories_while_they_are_written(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create(TOPIC, replica_assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    writer = Writer(cluster, TOPIC, size=1000).start()
    # To brokers 2, 3 and 4: new replicas in directories that were wished for, and one of those
    # that are there already to the other one.
    wanted = {0: [2, 3, 4], 1: [3, 4, 2], 2: [4, 2, 3]}
    on_4 = [f"{cluster[4].data_dir}/{name}" for name in ("b", "a", "b")]
    moved = other_place(cluster[3], 0)
    directories = {0: [ANY, moved, on_4[0]], 1: [ANY, on_4[1], ANY], 2: [on_4[2], ANY, ANY]}
    named = plan(tmp_path / "plan", wanted, directories)
    throttle = ("--throttle", "10000000", "--replica-alter-log-dirs-throttle", "10000000")
    begun = reassign(cluster, *named, "--execute", *throttle)
    assert "Successfully started partition reassignments for t-0,t-1,t-2" in begun
    assert begun.count("log directory to") == 4

    def done() -> bool:
        told = reassign(cluster, *named, "--verify")
        return (
            told.count("is completed") == 3
            and told.count("completed successfully") == 4
            and "Clearing topic-level throttles" in told
        )

    wait_for("the move to end", done, 90)
    wait_for("all to hear of it", lambda: replicas(cluster, TOPIC) == wanted)
    cluster.wait_for_isr(TOPIC, 3)
    for index in range(3):
        wait_for("an old replica to go", lambda index=index: not described(cluster[1], index))
        assert is_settled(cluster[4], index, on_4[index]), described(cluster[4], index)
    assert is_settled(cluster[3], 0, moved)
    writer.progress()

    # Leaders and followers within their brokers.
    leaders = {index: cluster.leader(TOPIC, index) for index in range(3)}
    targets = [
        (member, index, other_place(member, index))
        for index, leader in leaders.items()
        for member in (leader, cluster[4])
    ]
    for member, index, path in dict.fromkeys(targets):
        move(member, index, path)
    for member, index, path in targets:
        wait_for(
            f"{index} to be in {path}",
            lambda member=member, index=index, path=path: is_settled(member, index, path),
        )
    writer.progress()
    assert {index: cluster.leader(TOPIC, index) for index in range(3)} == leaders

    # Moves that are taken back: one within a broker, and one to a broker.
    index, leader = 0, leaders[0]
    here, there = place(leader, index), other_place(leader, index)
    back = plan(tmp_path / "back", {0: [2, 3, 1]}, {})
    cluster[1].stop()
    refused = run_tool(NEW, REASSIGN, *server(cluster), *back, "--execute", check=False)
    assert refused.returncode != 0
    cluster[1].start()
    cluster.wait_for_brokers({1, 2, 3, 4})
    reassign(cluster, *back, "--execute", "--throttle", "1")
    limit_moves(cluster, leader, "1000")
    move(leader, index, there)
    wait_for("a copy", lambda: len(described(leader, index)) == 2)
    assert described(leader, index)[there].is_future_key
    listed = reassign(cluster, "--list")
    assert "t-0: replicas: 2,3,1,4. adding: 1. removing: 4." in listed
    wait_for("a replica that is behind", lambda: described(cluster[1], 0))
    assert 1 not in cluster.isr(TOPIC)
    move(leader, index, here)
    assert is_settled(leader, index, here)
    cancelled = reassign(cluster, *back, "--cancel")
    assert "Successfully cancelled partition reassignment for: t-0" in cancelled
    wait_for("all to hear of it", lambda: replicas(cluster, TOPIC)[0] == [2, 3, 4])
    wait_for("the replica that is not wanted to go", lambda: not described(cluster[1], 0))
    writer.progress()
    # And the same once more, to its end.
    reassign(cluster, *back, "--execute")
    wait_for("the move to end", lambda: replicas(cluster, TOPIC)[0] == [2, 3, 1], 60)
    wait_for("the old replica to go", lambda: not described(cluster[4], 0))
    writer.progress()
    writer.stop()
    judge(writer)
    assert compare_replicas(cluster, TOPIC, replicas=3) > 1_000_000
