"""What administrators ask: every version answers with the codes of its era."""

from pathlib import Path
from typing import Any

import pytest

from kavka.broker.authorization import NOT_ASKED
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages import (
    k04_leader_and_isr as k04,
)
from kavka.protocol.messages import (
    k05_stop_replica as k05,
)
from kavka.protocol.messages import (
    k06_update_metadata as k06,
)
from kavka.protocol.messages import (
    k07_controlled_shutdown as k07,
)
from kavka.protocol.messages import (
    k19_create_topics as k19,
)
from kavka.protocol.messages import (
    k20_delete_topics as k20,
)
from kavka.protocol.messages import (
    k29_describe_acls as k29,
)
from kavka.protocol.messages import (
    k30_create_acls as k30,
)
from kavka.protocol.messages import (
    k31_delete_acls as k31,
)
from kavka.protocol.messages import (
    k37_create_partitions as k37,
)
from kavka.protocol.messages import (
    k43_elect_leaders as k43,
)
from kavka.protocol.messages import (
    k45_alter_partition_reassignments as k45,
)
from kavka.protocol.messages import (
    k46_list_partition_reassignments as k46,
)
from kavka.protocol.messages import (
    k60_describe_cluster as k60,
)
from kavka.protocol.schema import ZERO_UUID
from kavka.replication import znodes
from kavka.replication.controller.operations import NewTopic
from tests.unit.broker.admin.harness import Admin, run
from tests.unit.replication.harness import NODE, TIMEOUT_MS


async def create(admin: Admin, name: str = "t", partitions: int = 1) -> bytes:
    (created,) = await admin.harness.controller.create_topics(
        [NewTopic(name, partitions)], timeout_ms=TIMEOUT_MS
    )
    assert created.error is None
    return created.topic_id


async def depose(admin: Admin) -> None:
    """Have another broker be the controller."""
    store = admin.harness.store
    await store.delete(znodes.CONTROLLER)
    await store.create(znodes.CONTROLLER, znodes.encode_controller(2, 0))
    await admin.harness.settle()
    assert not admin.harness.controller.active


# -- CreateTopics -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(8))
def test_topics_are_created(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        request = k19.CreateTopicsRequest(
            topics=[
                k19.CreatableTopic(
                    name="counts",
                    num_partitions=2,
                    replication_factor=1,
                    configs=[k19.CreatableTopicConfig(name="retention.ms", value="1000")],
                ),
                k19.CreatableTopic(
                    name="by.hand",
                    num_partitions=-1,
                    replication_factor=-1,
                    assignments=[
                        k19.CreatableReplicaAssignment(partition_index=0, broker_ids=[NODE])
                    ],
                ),
                k19.CreatableTopic(name="defaults", num_partitions=-1, replication_factor=-1),
                k19.CreatableTopic(name="bad name", num_partitions=1, replication_factor=1),
            ]
        )
        answer = await admin.ask(version, request, k19.CreateTopicsResponse)
        counts, by_hand, defaults, bad = answer.topics
        assert [topic.name for topic in answer.topics] == [t.name for t in request.topics]
        assert (counts.error_code, by_hand.error_code) == (0, 0)
        assert bad.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
        if version >= 1:
            assert bad.error_message is not None
            assert "ASCII alphanumerics" in bad.error_message
        if version >= 4:
            assert defaults.error_code == 0
            assert len(admin.harness.metadata.topics["defaults"].partitions) == 3
        else:
            assert defaults.error_code == ErrorCode.INVALID_PARTITIONS
        if version >= 5:
            assert (counts.num_partitions, counts.replication_factor) == (2, 1)
            assert counts.configs is not None
            retention = next(each for each in counts.configs if each.name == "retention.ms")
            assert (retention.value, retention.config_source) == ("1000", 1)
            assert len(counts.configs) > 20
        if version >= 7:
            assert counts.topic_id == admin.harness.metadata.topic_id("counts") != ZERO_UUID

    run(admin, scenario)


def test_a_topic_asked_for_twice_is_not_created(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        twice = k19.CreatableTopic(name="twice", num_partitions=1, replication_factor=1)
        once = k19.CreatableTopic(name="once", num_partitions=1, replication_factor=1)
        request = k19.CreateTopicsRequest(topics=[twice, once, twice])
        answer = await admin.ask(3, request, k19.CreateTopicsResponse)
        assert [topic.error_code for topic in answer.topics] == [
            ErrorCode.INVALID_REQUEST,
            ErrorCode.NONE,
            ErrorCode.INVALID_REQUEST,
        ]
        assert list(admin.harness.metadata.topics) == ["once"]

    run(admin, scenario)


def test_a_partition_assigned_twice(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        replica = k19.CreatableReplicaAssignment(partition_index=0, broker_ids=[NODE])
        topic = k19.CreatableTopic(
            name="t", num_partitions=-1, replication_factor=-1, assignments=[replica, replica]
        )
        request = k19.CreateTopicsRequest(topics=[topic])
        answer = await admin.ask(3, request, k19.CreateTopicsResponse)
        assert answer.topics[0].error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT

    run(admin, scenario)


def test_topics_are_only_validated(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        topic = k19.CreatableTopic(name="t", num_partitions=4, replication_factor=1)
        request = k19.CreateTopicsRequest(topics=[topic], validate_only=True)
        answer = await admin.ask(5, request, k19.CreateTopicsResponse)
        assert (answer.topics[0].error_code, answer.topics[0].num_partitions) == (0, 4)
        assert admin.harness.metadata.topics == {}

    run(admin, scenario)


# -- DeleteTopics -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(7))
def test_topics_are_deleted(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        topic_id = await create(admin)
        request = k20.DeleteTopicsRequest(timeout_ms=TIMEOUT_MS)
        if version >= 6:
            request.topics = [k20.DeleteTopicState(name=name) for name in ("t", "u", "t")]
        else:
            request.topic_names = ["t", "u", "t"]
        answer = await admin.ask(version, request, k20.DeleteTopicsResponse)
        assert [(each.name, each.error_code) for each in answer.responses] == [
            ("t", ErrorCode.NONE),
            ("u", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ]
        if version >= 6:
            assert answer.responses[0].topic_id == topic_id
        assert admin.harness.metadata.topics == {}
        assert len(admin.harness.replicas[NODE].deleted) == 1

    run(admin, scenario)


def test_topics_are_deleted_by_id(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        topic_id = await create(admin)
        request = k20.DeleteTopicsRequest(
            timeout_ms=TIMEOUT_MS,
            topics=[
                k20.DeleteTopicState(topic_id=topic_id),
                k20.DeleteTopicState(topic_id=b"?" * 16),
                k20.DeleteTopicState(name="t", topic_id=topic_id),
                k20.DeleteTopicState(),
            ],
        )
        answer = await admin.ask(6, request, k20.DeleteTopicsResponse)
        assert [(each.name, each.error_code) for each in answer.responses] == [
            ("t", ErrorCode.NONE),
            (None, ErrorCode.UNKNOWN_TOPIC_ID),
            ("t", ErrorCode.INVALID_REQUEST),
            (None, ErrorCode.INVALID_REQUEST),
        ]
        assert admin.harness.metadata.topics == {}

    run(admin, scenario)


@pytest.mark.parametrize(
    ("version", "expected"),
    [(2, ErrorCode.INVALID_REQUEST), (3, ErrorCode.TOPIC_DELETION_DISABLED)],
)
def test_deletion_may_be_forbidden(tmp_path: Path, version: int, expected: ErrorCode) -> None:
    admin = Admin(tmp_path, {"delete.topic.enable": "false"})

    async def scenario() -> None:
        await create(admin)
        request = k20.DeleteTopicsRequest(topic_names=["t"], timeout_ms=TIMEOUT_MS)
        answer = await admin.ask(version, request, k20.DeleteTopicsResponse)
        assert answer.responses[0].error_code == expected
        assert "t" in admin.harness.metadata.topics

    run(admin, scenario)


# -- CreatePartitions ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await create(admin)
        await create(admin, "by.hand")
        assignment = k37.CreatePartitionsAssignment(broker_ids=[NODE])
        request = k37.CreatePartitionsRequest(
            topics=[
                k37.CreatePartitionsTopic(name="t", count=3, assignments=None),
                k37.CreatePartitionsTopic(name="by.hand", count=2, assignments=[assignment]),
                k37.CreatePartitionsTopic(name="u", count=3, assignments=None),
                k37.CreatePartitionsTopic(name="twice", count=3, assignments=None),
                k37.CreatePartitionsTopic(name="twice", count=4, assignments=None),
            ],
            timeout_ms=TIMEOUT_MS,
        )
        answer = await admin.ask(version, request, k37.CreatePartitionsResponse)
        assert [(each.name, each.error_code) for each in answer.results] == [
            ("t", ErrorCode.NONE),
            ("by.hand", ErrorCode.NONE),
            ("u", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            ("twice", ErrorCode.INVALID_REQUEST),
        ]
        assert admin.harness.metadata.has_leaders("t", [0, 1, 2])
        assert admin.harness.metadata.has_leaders("by.hand", [0, 1])

    run(admin, scenario)


# -- elections and moves ------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(3))
def test_leaders_are_as_they_should_be(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await create(admin)
        named = k43.ElectLeadersRequest(
            topic_partitions=[k43.TopicPartitions(topic="t", partitions=[0, 7])],
            timeout_ms=TIMEOUT_MS,
        )
        answer = await admin.ask(version, named, k43.ElectLeadersResponse)
        (topic,) = answer.replica_election_results
        assert {each.partition_id: each.error_code for each in topic.partition_result} == {
            0: ErrorCode.ELECTION_NOT_NEEDED if version else ErrorCode.NONE,
            7: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        }
        everything = k43.ElectLeadersRequest(topic_partitions=None, timeout_ms=TIMEOUT_MS)
        answer = await admin.ask(version, everything, k43.ElectLeadersResponse)
        assert answer.replica_election_results == []
        if version >= 1:
            named.election_type = 9
            answer = await admin.ask(version, named, k43.ElectLeadersResponse)
            assert answer.error_code == ErrorCode.INVALID_REQUEST

    run(admin, scenario)


def test_moves_of_a_lone_broker(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await create(admin)
        request = k45.AlterPartitionReassignmentsRequest(
            topics=[
                k45.ReassignableTopic(
                    name="t",
                    partitions=[
                        k45.ReassignablePartition(partition_index=0, replicas=[2]),
                        k45.ReassignablePartition(partition_index=1, replicas=[1]),
                    ],
                )
            ]
        )
        answer = await admin.ask(0, request, k45.AlterPartitionReassignmentsResponse)
        assert answer.error_code == ErrorCode.NONE
        (topic,) = answer.responses
        assert [each.error_code for each in topic.partitions] == [
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ]
        listing = k46.ListPartitionReassignmentsRequest()
        moves = await admin.ask(0, listing, k46.ListPartitionReassignmentsResponse)
        assert (moves.error_code, moves.topics) == (ErrorCode.NONE, [])

    run(admin, scenario)


def test_a_move_is_listed(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await admin.harness.controller.create_topics(
            [NewTopic("t", assignment={0: [1], 1: [1]})], timeout_ms=TIMEOUT_MS
        )
        partitions = [k45.ReassignablePartition(partition_index=0, replicas=[2])]
        request = k45.AlterPartitionReassignmentsRequest(
            topics=[k45.ReassignableTopic(name="t", partitions=partitions)]
        )
        answer = await admin.ask(0, request, k45.AlterPartitionReassignmentsResponse)
        assert answer.responses[0].partitions[0].error_code == ErrorCode.NONE
        listing = k46.ListPartitionReassignmentsRequest(
            topics=[k46.ListPartitionReassignmentsTopics(name="t", partition_indexes=[0, 1])]
        )
        moves = await admin.ask(0, listing, k46.ListPartitionReassignmentsResponse)
        (topic,) = moves.topics
        (move,) = topic.partitions
        assert (move.replicas, move.adding_replicas, move.removing_replicas) == ([2, 1], [2], [1])

    run(admin, scenario, 2)


# -- DescribeCluster ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(2))
def test_the_cluster_is_described(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        request = k60.DescribeClusterRequest()
        answer = await admin.ask(version, request, k60.DescribeClusterResponse)
        assert answer.cluster_id == admin.harness.metadata.cluster_id
        assert answer.controller_id == NODE
        assert [(each.broker_id, each.host) for each in answer.brokers] == [(NODE, "host1")]
        assert answer.cluster_authorized_operations == NOT_ASKED
        request.include_cluster_authorized_operations = True
        answer = await admin.ask(version, request, k60.DescribeClusterResponse)
        assert answer.cluster_authorized_operations == 8096
        # From a listener that nobody is reached by, there is no controller to name.
        answer = await admin.ask(version, request, k60.DescribeClusterResponse, "OTHER")
        assert (answer.brokers, answer.controller_id) == ([], -1)

    run(admin, scenario)


@pytest.mark.parametrize(
    ("endpoint_type", "expected"),
    [(2, ErrorCode.MISMATCHED_ENDPOINT_TYPE), (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE)],
)
def test_there_are_no_controllers_of_their_own(
    tmp_path: Path, endpoint_type: int, expected: ErrorCode
) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        request = k60.DescribeClusterRequest(endpoint_type=endpoint_type)
        answer = await admin.ask(1, request, k60.DescribeClusterResponse)
        assert answer.error_code == expected

    run(admin, scenario)


# -- not the controller, and no controller but this ---------------------------------------------


def test_only_the_controller_administrates(tmp_path: Path) -> None:
    admin = Admin(tmp_path)
    expected = ErrorCode.NOT_CONTROLLER

    async def scenario() -> None:
        await create(admin)
        await depose(admin)
        creation = k19.CreateTopicsRequest(topics=[k19.CreatableTopic(name="u")])
        assert (await admin.ask(7, creation, k19.CreateTopicsResponse)).topics[
            0
        ].error_code == expected
        deletion = k20.DeleteTopicsRequest(topic_names=["t"])
        assert (await admin.ask(5, deletion, k20.DeleteTopicsResponse)).responses[
            0
        ].error_code == expected
        growth = k37.CreatePartitionsRequest(topics=[k37.CreatePartitionsTopic(name="t", count=9)])
        assert (await admin.ask(3, growth, k37.CreatePartitionsResponse)).results[
            0
        ].error_code == expected
        partitions = [k43.TopicPartitions(topic="t", partitions=[0])]
        election = k43.ElectLeadersRequest(topic_partitions=partitions)
        elected = await admin.ask(0, election, k43.ElectLeadersResponse)
        result = elected.replica_election_results[0].partition_result[0]
        assert result.error_code == expected
        assert (await admin.ask(2, election, k43.ElectLeadersResponse)).error_code == expected
        move = k45.AlterPartitionReassignmentsRequest()
        moved = await admin.ask(0, move, k45.AlterPartitionReassignmentsResponse)
        assert moved.error_code == expected
        listing = k46.ListPartitionReassignmentsRequest()
        listed = await admin.ask(0, listing, k46.ListPartitionReassignmentsResponse)
        assert listed.error_code == expected
        shutdown = k07.ControlledShutdownRequest(broker_id=NODE)
        stopped = await admin.ask(3, shutdown, k07.ControlledShutdownResponse)
        assert stopped.error_code == expected

    run(admin, scenario)


@pytest.mark.parametrize("version", range(4))
def test_controlled_shutdown(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await admin.harness.controller.create_topics(
            [NewTopic("t", assignment={0: [2, 1]}), NewTopic("lagging", assignment={0: [2, 1]})],
            timeout_ms=TIMEOUT_MS,
        )
        await admin.harness.shrink("lagging", 0, (2,))
        await admin.harness.settle()
        request = k07.ControlledShutdownRequest(broker_id=2)
        answer = await admin.ask(version, request, k07.ControlledShutdownResponse)
        assert answer.error_code == ErrorCode.NONE
        assert [(p.topic_name, p.partition_index) for p in answer.remaining_partitions] == [
            ("lagging", 0)
        ]
        request = k07.ControlledShutdownRequest(broker_id=77)
        answer = await admin.ask(version, request, k07.ControlledShutdownResponse)
        assert answer.error_code == ErrorCode.BROKER_NOT_AVAILABLE
        # Nobody but the controller itself speaks for it, and not over the network.
        request = k07.ControlledShutdownRequest(broker_id=NODE)
        answer = await admin.ask(version, request, k07.ControlledShutdownResponse)
        assert answer.error_code == ErrorCode.STALE_BROKER_EPOCH
        own = NewTopic("u", assignment={0: [NODE]})
        await admin.harness.controller.create_topics([own], timeout_ms=TIMEOUT_MS)
        assert admin.harness.metadata.has_leaders("u", [0])

    run(admin, scenario, 2)


@pytest.mark.parametrize(
    ("request_class", "response_class"),
    [
        (k04.LeaderAndIsrRequest, k04.LeaderAndIsrResponse),
        (k05.StopReplicaRequest, k05.StopReplicaResponse),
        (k06.UpdateMetadataRequest, k06.UpdateMetadataResponse),
    ],
)
def test_nobody_else_controls_a_lone_broker(
    tmp_path: Path, request_class: Any, response_class: Any
) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await create(admin)
        low, high = admin.broker.offered_versions[request_class.API_KEY]
        for version in range(low, high + 1):
            request = request_class(controller_id=9, controller_epoch=99)
            answer = await admin.ask(version, request, response_class)
            assert answer.error_code == ErrorCode.STALE_CONTROLLER_EPOCH
        assert admin.harness.metadata.controller_id == NODE

    run(admin, scenario)


# -- what is switched off -----------------------------------------------------------------------


def test_acls_need_an_authorizer(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        for version in range(4):
            described = await admin.ask(
                version, k29.DescribeAclsRequest(), k29.DescribeAclsResponse
            )
            assert described.error_code == ErrorCode.SECURITY_DISABLED
            created = await admin.ask(
                version,
                k30.CreateAclsRequest(creations=[k30.AclCreation(), k30.AclCreation()]),
                k30.CreateAclsResponse,
            )
            assert [each.error_code for each in created.results] == [54, 54]
            deleted = await admin.ask(
                version,
                k31.DeleteAclsRequest(filters=[k31.DeleteAclsFilter()]),
                k31.DeleteAclsResponse,
            )
            assert [each.error_code for each in deleted.filter_results] == [54]

    run(admin, scenario)
