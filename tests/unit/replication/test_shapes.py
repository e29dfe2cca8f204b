"""The controller's requests keep what they say through every version of the protocol."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol import codec
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrPartitionError,
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicError,
    LeaderAndIsrTopicState,
)
from kavka.protocol.messages.k05_stop_replica import (
    StopReplicaPartitionError,
    StopReplicaPartitionState,
    StopReplicaRequest,
    StopReplicaResponse,
    StopReplicaTopicState,
)
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from kavka.replication.controller import shapes
from kavka.replication.controller.channels import ControlRequest
from kavka.replication.controller.network import fixed_versions

IDS = st.lists(st.integers(0, 5), max_size=3, unique=True)
NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True)
INDEXES = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True)


def topic_id(name: str) -> bytes:
    return name.encode() * 16


@st.composite
def leader_and_isr(draw: Any) -> LeaderAndIsrRequest:
    return LeaderAndIsrRequest(
        controller_id=1,
        controller_epoch=draw(st.integers(0, 9)),
        broker_epoch=7,
        topic_states=[
            LeaderAndIsrTopicState(
                topic_name=name,
                topic_id=topic_id(name),
                partition_states=[
                    LeaderAndIsrPartitionState(
                        partition_index=index,
                        leader=draw(st.integers(-1, 3)),
                        leader_epoch=draw(st.integers(0, 9)),
                        isr=draw(IDS),
                        replicas=draw(IDS),
                        partition_epoch=draw(st.integers(0, 9)),
                        is_new=draw(st.booleans()),
                    )
                    for index in draw(INDEXES)
                ],
            )
            for name in draw(NAMES)
        ],
    )


def told(request: ControlRequest) -> Any:
    """What a request says of partitions, in an order of its own."""
    said = []
    for topic in request.topic_states:
        for state in topic.partition_states:
            match state:
                case LeaderAndIsrPartitionState():
                    what: tuple[Any, ...] = (
                        *(state.leader, state.leader_epoch, tuple(state.isr)),
                        *(tuple(state.replicas), state.partition_epoch),
                    )
                case UpdateMetadataPartitionState():
                    what = (
                        *(state.leader, state.leader_epoch, tuple(state.isr)),
                        *(tuple(state.replicas), state.zk_version),
                    )
                case _:
                    what = (state.delete_partition,)
            said.append((topic.topic_name, state.partition_index, *what))
    return sorted(said)


def over_the_wire(request: ControlRequest, version: int) -> ControlRequest:
    received = codec.decode(type(request), memoryview(codec.encode(request, version)), version)
    shapes.from_wire(received, version)
    return received


@settings(max_examples=40, deadline=None)
@given(leader_and_isr(), st.integers(0, 7))
def test_leader_and_isr_says_the_same_in_every_version(
    request: LeaderAndIsrRequest, version: int
) -> None:
    (sent,) = shapes.to_wire(request, version)
    received = over_the_wire(sent, version)
    assert isinstance(received, LeaderAndIsrRequest)
    assert told(received) == told(request)
    assert received.controller_epoch == request.controller_epoch
    assert received.broker_epoch == (7 if version >= 2 else -1)
    # And so does the answer, on its way back.
    answer = LeaderAndIsrResponse(
        topics=[
            LeaderAndIsrTopicError(
                topic_id=topic.topic_id,
                partition_errors=[
                    LeaderAndIsrPartitionError(
                        partition_index=state.partition_index, error_code=state.leader_epoch
                    )
                    for state in topic.partition_states
                ],
            )
            for topic in received.topic_states
        ]
    )
    shaped = shapes.response_to_wire(received, answer, version)
    data = memoryview(codec.encode(shaped, version))
    back = shapes.response_from_wire(
        request, version, [codec.decode(LeaderAndIsrResponse, data, version)]
    )
    assert isinstance(back, LeaderAndIsrResponse)
    names = {topic_id(name): name for name in "abc"}
    codes = {
        (names[topic.topic_id], error.partition_index): error.error_code
        for topic in back.topics
        for error in topic.partition_errors
    }
    assert codes == {
        (topic.topic_name, state.partition_index): state.leader_epoch
        for topic in request.topic_states
        for state in topic.partition_states
    }


@settings(max_examples=40, deadline=None)
@given(NAMES, INDEXES, st.integers(0, 8))
def test_update_metadata_says_the_same_in_every_version(
    names: list[str], indexes: list[int], version: int
) -> None:
    request = UpdateMetadataRequest(
        controller_id=1,
        controller_epoch=3,
        topic_states=[
            UpdateMetadataTopicState(
                topic_name=name,
                topic_id=topic_id(name),
                partition_states=[
                    UpdateMetadataPartitionState(
                        partition_index=index, leader=index, isr=[index], replicas=[index, 9]
                    )
                    for index in indexes
                ],
            )
            for name in names
        ],
        live_brokers=[
            UpdateMetadataBroker(
                id=1,
                v0_host="h",
                v0_port=9092,
                endpoints=[
                    UpdateMetadataEndpoint(
                        port=9092, host="h", listener="PLAINTEXT", security_protocol=0
                    )
                ],
            )
        ],
    )
    (sent,) = shapes.to_wire(request, version)
    received = over_the_wire(sent, version)
    assert isinstance(received, UpdateMetadataRequest)
    assert told(received) == told(request)
    (endpoint,) = received.live_brokers[0].endpoints
    assert (endpoint.host, endpoint.port, endpoint.listener) == ("h", 9092, "PLAINTEXT")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b"]),
        st.dictionaries(st.integers(0, 3), st.booleans(), min_size=1),
        min_size=1,
    ),
    st.integers(0, 4),
)
def test_stop_replica_is_split_where_it_has_one_flag(
    stops: dict[str, dict[int, bool]], version: int
) -> None:
    request = StopReplicaRequest(
        broker_epoch=7,
        topic_states=[
            StopReplicaTopicState(
                topic_name=name,
                partition_states=[
                    StopReplicaPartitionState(partition_index=index, delete_partition=delete)
                    for index, delete in partitions.items()
                ],
            )
            for name, partitions in stops.items()
        ],
    )
    sent = shapes.to_wire(request, version)
    flags = {delete for partitions in stops.values() for delete in partitions.values()}
    assert len(sent) == (1 if version >= 3 else len(flags))
    received = [over_the_wire(part, version) for part in sent]
    assert sorted(said for part in received for said in told(part)) == told(request)
    answers = [
        StopReplicaResponse(
            partition_errors=[
                StopReplicaPartitionError(
                    topic_name=topic.topic_name,
                    partition_index=state.partition_index,
                    error_code=0,
                )
                for topic in part.topic_states
                for state in topic.partition_states
            ]
        )
        for part in received
        if isinstance(part, StopReplicaRequest)
    ]
    whole = shapes.response_from_wire(request, version, [*answers])
    assert isinstance(whole, StopReplicaResponse)
    assert len(whole.partition_errors) == len(told(request))


def test_a_release_fixes_the_versions() -> None:
    assert fixed_versions((2, 3)) == {4: 2, 5: 1, 6: 5, 7: 2}
    assert fixed_versions((1, 1)) == {4: 1, 5: 0, 6: 4, 7: 1}
    assert fixed_versions((0, 10, 2)) == {4: 0, 5: 0, 6: 3, 7: 1}
    assert fixed_versions((0, 10, 0)) == {4: 0, 5: 0, 6: 2, 7: 1}
