"""Metadata: answers from pieces are what encoding them whole gives; asking creates topics."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.authorization import NOT_ASKED
from kavka.broker.metadata_answers import MetadataAnswers, topic_response
from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponseTopic,
)
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from kavka.protocol.schema import ZERO_UUID
from kavka.replication.controller.operations import NewTopic
from kavka.replication.metadata import MetadataCache
from tests.unit.broker.admin.harness import Admin, run
from tests.unit.replication.harness import NODE, TIMEOUT_MS

VERSIONS = range(13)
ALL_TOPIC_OPERATIONS = 3576
ALL_CLUSTER_OPERATIONS = 8096


def asking(*names: str, create: bool = False) -> MetadataRequest:
    return MetadataRequest(
        topics=[MetadataRequestTopic(name=name) for name in names],
        allow_auto_topic_creation=create,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_all_topics(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await admin.harness.controller.create_topics(
            [NewTopic("t", 2), NewTopic("__consumer_offsets", 1)], timeout_ms=TIMEOUT_MS
        )
        everything = MetadataRequest(topics=None if version else [])
        answer = await admin.ask(version, everything, MetadataResponse)
        assert [b.node_id for b in answer.brokers] == [NODE]
        assert (answer.brokers[0].host, answer.brokers[0].port) == ("host1", 9092)
        assert {topic.name: len(topic.partitions) for topic in answer.topics} == {
            "t": 2,
            "__consumer_offsets": 1,
        }
        if version >= 1:
            assert answer.controller_id == NODE
            assert {topic.name for topic in answer.topics if topic.is_internal} == {
                "__consumer_offsets"
            }
        if version >= 2:
            assert answer.cluster_id == admin.harness.metadata.cluster_id
        if version >= 10:
            by_name = {topic.name: topic.topic_id for topic in answer.topics}
            assert by_name["t"] == admin.harness.metadata.topic_id("t")
        partition = answer.topics[0].partitions[0]
        assert (partition.error_code, partition.leader_id) == (0, NODE)
        assert (partition.replica_nodes, partition.isr_nodes) == ([NODE], [NODE])
        if version >= 7:
            assert partition.leader_epoch == 0

    run(admin, scenario)


def test_no_topics_are_none_since_v1(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await admin.harness.controller.create_topics([NewTopic("t")], timeout_ms=TIMEOUT_MS)
        assert (await admin.ask(1, asking(), MetadataResponse)).topics == []
        assert len((await admin.ask(0, asking(), MetadataResponse)).topics) == 1

    run(admin, scenario)


def test_named_topics_and_those_that_are_not_there(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await admin.harness.controller.create_topics([NewTopic("t")], timeout_ms=TIMEOUT_MS)
        request = asking("t", "u", "t", "bad name", "__consumer_offsets")
        answer = await admin.ask(9, request, MetadataResponse)
        assert [(topic.name, topic.error_code) for topic in answer.topics] == [
            ("t", ErrorCode.NONE),
            ("u", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            ("bad name", ErrorCode.INVALID_TOPIC_EXCEPTION),
            ("__consumer_offsets", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ]
        await admin.harness.settle()
        assert list(admin.harness.metadata.topics) == ["t"]

    run(admin, scenario)


def test_topics_by_id(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        (created,) = await admin.harness.controller.create_topics(
            [NewTopic("t")], timeout_ms=TIMEOUT_MS
        )
        unknown = b"?" * 16
        request = MetadataRequest(
            topics=[
                MetadataRequestTopic(name=None, topic_id=created.topic_id),
                MetadataRequestTopic(name=None, topic_id=unknown),
                MetadataRequestTopic(name="t"),
            ]
        )
        answer = await admin.ask(12, request, MetadataResponse)
        assert [(t.name, t.topic_id, t.error_code) for t in answer.topics] == [
            ("t", created.topic_id, ErrorCode.NONE),
            (None, unknown, ErrorCode.UNKNOWN_TOPIC_ID),
        ]
        # v10 has the field but did not serve it.
        for version in (10, 11):
            answer = await admin.ask(version, request, MetadataResponse)
            assert {topic.error_code for topic in answer.topics} == {ErrorCode.INVALID_REQUEST}

    run(admin, scenario)


def test_a_topic_is_created_because_a_client_asks(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        answer = await admin.ask(4, asking("t", create=True), MetadataResponse)
        (topic,) = answer.topics
        assert (topic.error_code, topic.partitions) == (ErrorCode.LEADER_NOT_AVAILABLE, [])
        await admin.harness.settle()
        answer = await admin.ask(4, asking("t", create=True), MetadataResponse)
        (topic,) = answer.topics
        assert topic.error_code == ErrorCode.NONE
        assert sorted(p.partition_index for p in topic.partitions) == [0, 1, 2]
        assert all(p.leader_id == NODE for p in topic.partitions)

    run(admin, scenario)


def test_old_clients_cannot_say_that_they_do_not_want_topics(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        answer = await admin.ask(3, asking("t"), MetadataResponse)
        assert answer.topics[0].error_code == ErrorCode.LEADER_NOT_AVAILABLE

    run(admin, scenario)


def test_creation_can_be_switched_off(tmp_path: Path) -> None:
    admin = Admin(tmp_path, {"auto.create.topics.enable": "false"})

    async def scenario() -> None:
        answer = await admin.ask(4, asking("t", create=True), MetadataResponse)
        assert answer.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(admin, scenario)


def test_internal_topics_come_with_their_own_layout(tmp_path: Path) -> None:
    admin = Admin(
        tmp_path, {"auto.create.topics.enable": "false", "offsets.topic.num.partitions": "5"}
    )

    async def scenario() -> None:
        answer = await admin.ask(4, asking("__consumer_offsets", create=True), MetadataResponse)
        (topic,) = answer.topics
        assert (topic.error_code, topic.is_internal) == (ErrorCode.LEADER_NOT_AVAILABLE, True)
        await admin.harness.settle()
        assert len(admin.harness.metadata.topics["__consumer_offsets"].partitions) == 5
        overrides = await admin.harness.configs.read("topics", "__consumer_offsets")
        assert overrides["cleanup.policy"] == "compact"

    run(admin, scenario)


def test_topics_that_cannot_be_created(tmp_path: Path) -> None:
    admin = Admin(tmp_path, {"default.replication.factor": "3"})

    async def scenario() -> None:
        answer = await admin.ask(4, asking("t", "bad name", create=True), MetadataResponse)
        assert {topic.name: topic.error_code for topic in answer.topics} == {
            "t": ErrorCode.INVALID_REPLICATION_FACTOR,
            "bad name": ErrorCode.INVALID_TOPIC_EXCEPTION,
        }

    run(admin, scenario)


@pytest.mark.parametrize("version", [8, 10, 11])
def test_authorized_operations(tmp_path: Path, version: int) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        await admin.harness.controller.create_topics([NewTopic("t")], timeout_ms=TIMEOUT_MS)
        request = asking("t")
        answer = await admin.ask(version, request, MetadataResponse)
        assert answer.topics[0].topic_authorized_operations == NOT_ASKED
        assert answer.cluster_authorized_operations == NOT_ASKED
        request.include_topic_authorized_operations = True
        request.include_cluster_authorized_operations = True
        answer = await admin.ask(version, request, MetadataResponse)
        assert answer.topics[0].topic_authorized_operations == ALL_TOPIC_OPERATIONS
        expected = ALL_CLUSTER_OPERATIONS if version <= 10 else NOT_ASKED
        assert answer.cluster_authorized_operations == expected

    run(admin, scenario)


def endpoint(listener: str, host: str) -> UpdateMetadataEndpoint:
    return UpdateMetadataEndpoint(port=9092, host=host, listener=listener, security_protocol=0)


def cache_of(*partitions: UpdateMetadataPartitionState) -> MetadataCache:
    """Brokers 1 (IN and OUT) and 2 (IN only); 3 is dead."""
    cache = MetadataCache("c")
    cache.update(
        UpdateMetadataRequest(
            controller_id=1,
            live_brokers=[
                UpdateMetadataBroker(
                    id=1, endpoints=[endpoint("IN", "a"), endpoint("OUT", "A")], rack=None
                ),
                UpdateMetadataBroker(id=2, endpoints=[endpoint("IN", "b")], rack="r"),
            ],
            topic_states=[
                UpdateMetadataTopicState(
                    topic_name="t", topic_id=b"t" * 16, partition_states=list(partitions)
                )
            ],
        )
    )
    return cache


@pytest.mark.parametrize(
    ("version", "leader", "listener", "expected"),
    [
        (7, 1, "IN", (ErrorCode.NONE, 1, 4, [1, 3], [1, 3])),
        (7, 3, "IN", (ErrorCode.LEADER_NOT_AVAILABLE, -1, -1, [1, 3], [])),
        (7, -1, "IN", (ErrorCode.LEADER_NOT_AVAILABLE, -1, -1, [1, 3], [])),
        (7, 2, "OUT", (ErrorCode.LISTENER_NOT_FOUND, -1, -1, [1, 3], [])),
        (5, 2, "OUT", (ErrorCode.LEADER_NOT_AVAILABLE, -1, -1, [1, 3], [])),
        (0, 1, "IN", (ErrorCode.REPLICA_NOT_AVAILABLE, 1, 4, [1], [1])),
        (0, 3, "IN", (ErrorCode.LEADER_NOT_AVAILABLE, -1, -1, [1], [])),
    ],
)
def test_dead_brokers_and_missing_listeners(
    version: int,
    leader: int,
    listener: str,
    expected: tuple[ErrorCode, int, int, list[int], list[int]],
) -> None:
    cache = cache_of(
        UpdateMetadataPartitionState(
            leader=leader, leader_epoch=4, isr=[1, 3], replicas=[1, 3], offline_replicas=[3]
        )
    )
    (partition,) = topic_response(cache.topics["t"], cache, version, listener).partitions
    assert (
        partition.error_code,
        partition.leader_id,
        partition.leader_epoch,
        partition.replica_nodes,
        partition.isr_nodes,
    ) == expected
    assert partition.offline_replicas == [3]


def test_brokers_are_those_with_the_listener() -> None:
    cache, answers = cache_of(), MetadataAnswers()
    inside = codec.decode(MetadataResponse, answers.encode(cache, 9, "IN", []), 9)
    outside = codec.decode(MetadataResponse, answers.encode(cache, 9, "OUT", []), 9)
    assert [(b.node_id, b.host, b.rack) for b in inside.brokers] == [(1, "a", None), (2, "b", "r")]
    assert [(b.node_id, b.host) for b in outside.brokers] == [(1, "A")]


@dataclasses.dataclass
class Step:
    """A change of the cluster, or a question."""

    topics: dict[str, int]
    brokers: int
    ask: list[str] | None
    version: int
    failed: int


STEPS = st.lists(
    st.builds(
        Step,
        topics=st.dictionaries(st.sampled_from("abcd"), st.integers(-2, 2), max_size=3),
        brokers=st.integers(0, 2),
        ask=st.none() | st.lists(st.sampled_from("abcd"), unique=True),
        version=st.sampled_from(VERSIONS),
        failed=st.sampled_from([0, 1, 2, 130]),
    ),
    min_size=1,
    max_size=8,
)


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_joined_answers_are_what_encoding_them_whole_gives(steps: list[Step]) -> None:
    cache, answers = MetadataCache("cluster"), MetadataAnswers()
    for step in steps:
        cache.update(
            UpdateMetadataRequest(
                controller_id=step.brokers,
                live_brokers=[
                    UpdateMetadataBroker(
                        id=broker, endpoints=[endpoint("IN", f"h{broker}")], rack=None
                    )
                    for broker in range(1, step.brokers + 1)
                ],
                topic_states=[
                    UpdateMetadataTopicState(
                        topic_name=name,
                        topic_id=name.encode() * 16,
                        partition_states=[
                            UpdateMetadataPartitionState(leader=leader, isr=[1], replicas=[1])
                        ],
                    )
                    for name, leader in step.topics.items()
                ],
            )
        )
        names = None if step.ask is None else [name for name in step.ask if name in cache.topics]
        failed = [
            MetadataResponseTopic(error_code=3, name=f"missing{number}", topic_id=ZERO_UUID)
            for number in range(step.failed if names is not None else 0)
        ]
        whole = MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=b.id, host=b.endpoints[0].host, port=9092)
                for b in cache.brokers.values()
            ],
            cluster_id="cluster",
            controller_id=cache.controller_id,
            topics=[
                topic_response(cache.topics[name], cache, step.version, "IN")
                for name in (cache.topics if names is None else names)
            ]
            + failed,
        )
        for _ in range(2):  # the second time from the pieces
            joined = answers.encode(cache, step.version, "IN", names, failed)
            assert joined == codec.encode(whole, step.version)
