"""Listeners of several brokers: who is told of which, and whom rules do not concern."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k44_incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import free_port, wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.zookeeper import ZooKeeper
from tests.wire import WireClient

BROKER = 4
SETTINGS = {
    "listener.security.protocol.map": (
        "PLAINTEXT:PLAINTEXT,REPLICATION:PLAINTEXT,CROSS_VPC:PLAINTEXT"
    ),
    "inter.broker.listener.name": "REPLICATION",
    "instance.flavour": "100",
}
MEMBERS = (1, 2, 3)


@pytest.fixture
def cluster(zookeeper: ZooKeeper, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(zookeeper, tmp_path, 0, SETTINGS)
    for broker_id in MEMBERS:
        listeners = ",".join(
            f"{name}://127.0.0.1:{free_port()}" for name in ("REPLICATION", "PLAINTEXT")
        )
        made.add(broker_id, {"listeners": listeners})
    try:
        yield made.start()
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.stop()


def alter(member: Member, settings: Mapping[str, str]) -> tuple[int, str | None]:
    configs = [AlterableConfig(name=name, value=value) for name, value in settings.items()]
    resource = AlterConfigsResource(
        resource_type=BROKER, resource_name=str(member.broker_id), configs=configs
    )
    request = IncrementalAlterConfigsRequest(resources=[resource])
    with WireClient(member.port) as client:
        [answer] = client.ask(request, IncrementalAlterConfigsResponse, 1).responses
    return answer.error_code, answer.error_message


def metadata(port: int, topic: str) -> MetadataResponse:
    with WireClient(port) as client:
        ask = MetadataRequest(topics=[MetadataRequestTopic(name=topic)])
        return client.ask(ask, MetadataResponse, 7)


def ports(answer: MetadataResponse) -> dict[int, int]:
    return {broker.node_id: broker.port for broker in answer.brokers}


def alive(client: WireClient) -> bool:
    try:
        client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
    except OSError:
        return False
    return True


def test_brokers_without_the_listener_are_left_out(cluster: Cluster) -> None:
    cluster.create("t", partitions=3, replicas=3)
    for member in cluster.running:
        told = ports(metadata(member.port, "t"))
        assert told == {each.broker_id: each.port for each in cluster.running}
    cross = {broker_id: free_port() for broker_id in MEMBERS}

    def open_at(broker_id: int) -> None:
        member = cluster[broker_id]
        listeners = f"{member.settings['listeners']},CROSS_VPC://127.0.0.1:{cross[broker_id]}"
        assert alter(member, {"listeners": listeners}) == (ErrorCode.NONE, None)

    open_at(1)
    open_at(2)
    some = {broker_id: cross[broker_id] for broker_id in (1, 2)}
    for broker_id in (1, 2):
        wait_for("metadata", lambda at=cross[broker_id]: ports(metadata(at, "t")) == some)
    [topic] = metadata(cross[1], "t").topics
    errors = {cluster.leader("t", p.partition_index).broker_id: p for p in topic.partitions}
    assert errors[3].error_code == ErrorCode.LISTENER_NOT_FOUND
    assert errors[3].leader_id == -1
    assert errors[1].error_code == errors[2].error_code == ErrorCode.NONE
    open_at(3)
    for broker_id in MEMBERS:
        wait_for("metadata", lambda at=cross[broker_id]: ports(metadata(at, "t")) == cross)
    [topic] = metadata(cross[1], "t").topics
    assert [p.error_code for p in topic.partitions] == [ErrorCode.NONE] * 3
    assert ports(metadata(cluster[1].port, "t")) == {m.broker_id: m.port for m in cluster.running}


def test_an_address_that_another_broker_has_is_refused(cluster: Cluster) -> None:
    first, second = cluster[1], cluster[2]
    replication = second.settings["listeners"].split(",")[0]
    told = f"{replication},PLAINTEXT://127.0.0.1:{first.port}"
    code, message = alter(second, {"advertised.listeners": told})
    assert code == ErrorCode.INVALID_CONFIG
    assert message is not None
    assert f"broker 1 is advertised at 127.0.0.1:{first.port} as well" in message


def test_rules_for_clients_do_not_concern_replication(cluster: Cluster) -> None:
    cluster.create("t", partitions=1, replicas=3, min_insync_replicas="3")
    with WireClient(cluster.leader("t").port) as client:
        for member in cluster.running:
            assert alter(member, {"source.allow": ""}) == (ErrorCode.NONE, None)
            with WireClient(member.port) as stranger:
                assert not alive(stranger)
        for number in range(3):
            batch = build_batch([Record(0, 0, None, b"v")], base_offset=0)
            answer = client.produce("t", batch, acks=-1)
            partition = answer.responses[0].partition_responses[0]
            assert (partition.error_code, partition.base_offset) == (ErrorCode.NONE, number)
        # A broker that has been away finds its way back through closed doors.
        leader = answer_leader(client, "t")
        follower = next(m for m in cluster.running if m.broker_id != leader)
        follower.kill()
        wait_for("the ISR to shrink", lambda: len(isr(client, "t")) == 2)
        follower.launch()
        follower.await_ready()
        wait_for("the ISR to grow", lambda: len(isr(client, "t")) == 3)


def answer_leader(client: WireClient, topic: str) -> int:
    ask = MetadataRequest(topics=[MetadataRequestTopic(name=topic)])
    leader: int = client.ask(ask, MetadataResponse, 7).topics[0].partitions[0].leader_id
    return leader


def isr(client: WireClient, topic: str) -> list[int]:
    ask = MetadataRequest(topics=[MetadataRequestTopic(name=topic)])
    nodes: list[int] = client.ask(ask, MetadataResponse, 7).topics[0].partitions[0].isr_nodes
    return nodes


def test_brokers_share_the_connections_of_the_flavour(cluster: Cluster) -> None:
    member = cluster[2]
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                socket.create_connection(
                    ("127.0.0.1", member.port), 60, source_address=(f"127.0.1.{number}", 0)
                )
            )
            for number in range(1, 6)
            for _ in range(200)
        ]
        assert alive(WireClient.over(clients[0]))
        assert alive(WireClient.over(clients[-1]))
        wait_for("a refusal", lambda: not answers(member.port))
        assert answers(cluster[1].port)
        assert alive(WireClient.over(clients[0]))
    assert "3000 connections of flavour 100, 1000, is used" in member.log()


def answers(port: int) -> bool:
    with WireClient(port) as client:
        return alive(client)
