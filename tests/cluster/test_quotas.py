"""Quotas that brokers of a cluster share by ZooKeeper, with each other and with old tools."""

import pytest

from kavka.protocol.messages.k48_describe_client_quotas import (
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)
from kavka.protocol.messages.k49_alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityData,
    EntryData,
    OpData,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.kafka_process import zookeeper_tool
from tests.cluster.zookeeper import needs_zookeeper
from tests.wire import WireClient

pytestmark = [pytest.mark.cluster, needs_zookeeper]

Entity = tuple[tuple[str, str | None], ...]


def configs_tool(release: str, connect: str, *arguments: str) -> str:
    return zookeeper_tool(release, "kafka.admin.ConfigCommand", "--zookeeper", connect, *arguments)


def throttle_ms(member: Member, client_id: str) -> int:
    """What a client of that id is told that sends a kilobyte to a topic that is not there."""
    with WireClient(member.port, client_id=client_id) as client:
        records = build_batch([Record(0, 1, None, b"x" * 1_000, ())], base_offset=0)
        return client.produce("nowhere", records, acks=1).throttle_time_ms


def described(member: Member) -> dict[Entity, dict[str, float]]:
    with WireClient(member.port) as client:
        answer = client.ask(DescribeClientQuotasRequest(), DescribeClientQuotasResponse, 1)
    assert answer.entries is not None
    return {
        tuple(sorted((each.entity_type, each.entity_name) for each in entry.entity)): {
            value.key: value.value for value in entry.values
        }
        for entry in answer.entries
    }


def alter(member: Member, entity: Entity, **values: float | None) -> None:
    entry = EntryData(
        entity=[EntityData(entity_type=kind, entity_name=name) for kind, name in entity],
        ops=[
            OpData(key=key, value=value or 0.0, remove=value is None)
            for key, value in values.items()
        ],
    )
    with WireClient(member.port) as client:
        answer = client.ask(AlterClientQuotasRequest(entries=[entry]), AlterClientQuotasResponse, 1)
    assert [each.error_code for each in answer.entries] == [0], answer


@pytest.mark.java
@pytest.mark.parametrize("release", ["2.3", "1.1"])
def test_old_tools_and_brokers_understand_each_other(cluster: Cluster, release: str) -> None:
    pair = (
        *("--entity-type", "users", "--entity-name", "ANONYMOUS"),
        *("--entity-type", "clients", "--entity-name", "an app"),
    )
    configs_tool(
        *(release, cluster.connect, "--alter", *pair),
        *("--add-config", "producer_byte_rate=1000,request_percentage=200"),
    )
    for member in cluster.running:
        wait_for("the quota", lambda member=member: throttle_ms(member, "an app") > 0)
        assert throttle_ms(member, "another") == 0
    of_pair: Entity = (("client-id", "an app"), ("user", "ANONYMOUS"))
    values = {"producer_byte_rate": 1000.0, "request_percentage": 200.0}
    assert described(cluster[2]) == {of_pair: values}

    default: Entity = (("client-id", None),)
    alter(cluster[3], default, consumer_byte_rate=2_048.0)
    shown = configs_tool(
        *(release, cluster.connect, "--describe"),
        *("--entity-type", "clients", "--entity-default"),
    )
    assert "Configs for default client-id are consumer_byte_rate=2048" in shown
    assert described(cluster[1]) == {of_pair: values, default: {"consumer_byte_rate": 2048.0}}

    configs_tool(
        *(release, cluster.connect, "--alter", *pair),
        *("--delete-config", "producer_byte_rate,request_percentage"),
    )
    wait_for("no quota", lambda: throttle_ms(cluster[1], "an app") == 0)


def test_replicas_are_not_held_up_by_the_quotas_of_clients(cluster: Cluster) -> None:
    cluster.create("t", partitions=1, replicas=3)
    cluster.wait_for_isr("t", 3)
    alter(cluster[1], (("client-id", None),), consumer_byte_rate=1.0, request_percentage=0.01)
    for member in cluster.running:
        wait_for("the quota", lambda member=member: throttle_ms(member, "x") >= 0)
    with WireClient(cluster.leader("t").port, client_id="w") as client:
        for _ in range(3):
            records = build_batch([Record(0, 1, None, b"x" * 500_000, ())], base_offset=0)
            answer = client.produce("t", records, acks=-1)
            assert answer.responses[0].partition_responses[0].error_code == 0
    assert cluster.isr("t") == {1, 2, 3}


def test_a_broker_that_starts_has_the_quotas_of_all(cluster: Cluster) -> None:
    alter(cluster[1], (("user", None), ("client-id", None)), producer_byte_rate=1_000.0)
    assert cluster[3].stop() == 0
    cluster[3].start()
    assert throttle_ms(cluster[3], "x") > 0
