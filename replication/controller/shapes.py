"""The controller's requests in the shape that each version of the protocol gives them.

Inside a broker there is one shape, that of the newest versions: partitions grouped by topic,
topics with ids. Older versions have flat lists, no ids, and one flag for all replicas of a
StopReplica; both ends of a connection translate here.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrPartitionError,
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicError,
    LeaderAndIsrTopicState,
)
from kavka.protocol.messages.k05_stop_replica import (
    StopReplicaPartitionState,
    StopReplicaPartitionV0,
    StopReplicaRequest,
    StopReplicaResponse,
    StopReplicaTopicState,
    StopReplicaTopicV1,
)
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from kavka.replication.controller.channels import ControlRequest, ControlResponse

N = TypeVar(
    "N",
    LeaderAndIsrPartitionState,
    LeaderAndIsrPartitionError,
    UpdateMetadataPartitionState,
)

_LISR_GROUPED: Final = 2
_LISR_TOPIC_IDS: Final = 5
_STOP_GROUPED: Final = 1
_STOP_FLAG_BY_PARTITION: Final = 3
_METADATA_ENDPOINTS: Final = 1
_METADATA_LISTENERS: Final = 3
_METADATA_GROUPED: Final = 5

_PROTOCOL_NAMES: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


# -- the sender -----------------------------------------------------------------------------------


def to_wire(request: ControlRequest, version: int) -> list[ControlRequest]:
    """The request as ``version`` has it: several where it cannot say all of it in one."""
    match request:
        case LeaderAndIsrRequest():
            return [_lisr_to_wire(request) if version < _LISR_GROUPED else request]
        case UpdateMetadataRequest():
            return [_metadata_to_wire(request) if version < _METADATA_GROUPED else request]
        case StopReplicaRequest():
            if version >= _STOP_FLAG_BY_PARTITION:
                return [request]
            halves = [_stop_to_wire(request, delete) for delete in (False, True)]
            return [*([half for half in halves if half.topics] or halves[:1])]


def _lisr_to_wire(request: LeaderAndIsrRequest) -> LeaderAndIsrRequest:
    flat: list[LeaderAndIsrPartitionState] = []
    for topic in request.topic_states:
        for state in topic.partition_states:
            flat.append(
                LeaderAndIsrPartitionState(
                    topic_name=topic.topic_name,
                    partition_index=state.partition_index,
                    controller_epoch=state.controller_epoch,
                    leader=state.leader,
                    leader_epoch=state.leader_epoch,
                    isr=state.isr,
                    partition_epoch=state.partition_epoch,
                    replicas=state.replicas,
                    is_new=state.is_new,
                )
            )
    return LeaderAndIsrRequest(
        controller_id=request.controller_id,
        controller_epoch=request.controller_epoch,
        ungrouped_partition_states=flat,
        live_leaders=request.live_leaders,
    )


def _metadata_to_wire(request: UpdateMetadataRequest) -> UpdateMetadataRequest:
    flat: list[UpdateMetadataPartitionState] = []
    for topic in request.topic_states:
        for state in topic.partition_states:
            flat.append(
                UpdateMetadataPartitionState(
                    topic_name=topic.topic_name,
                    partition_index=state.partition_index,
                    controller_epoch=state.controller_epoch,
                    leader=state.leader,
                    leader_epoch=state.leader_epoch,
                    isr=state.isr,
                    zk_version=state.zk_version,
                    replicas=state.replicas,
                    offline_replicas=state.offline_replicas,
                )
            )
    return UpdateMetadataRequest(
        controller_id=request.controller_id,
        controller_epoch=request.controller_epoch,
        ungrouped_partition_states=flat,
        live_brokers=request.live_brokers,
    )


def _stop_to_wire(request: StopReplicaRequest, delete: bool) -> StopReplicaRequest:
    topics: list[StopReplicaTopicV1] = []
    for topic in request.topic_states:
        indexes = [
            state.partition_index
            for state in topic.partition_states
            if state.delete_partition is delete
        ]
        if indexes:
            topics.append(StopReplicaTopicV1(name=topic.topic_name, partition_indexes=indexes))
    return StopReplicaRequest(
        controller_id=request.controller_id,
        controller_epoch=request.controller_epoch,
        broker_epoch=request.broker_epoch,
        delete_partitions=delete,
        topics=topics,
        ungrouped_partitions=[
            StopReplicaPartitionV0(topic_name=topic.name, partition_index=index)
            for topic in topics
            for index in topic.partition_indexes
        ],
    )


def response_from_wire(
    request: ControlRequest, version: int, responses: list[ControlResponse]
) -> ControlResponse:
    """What the responses to the requests that ``to_wire`` made of this one say together."""
    first = responses[0]
    match request, first:
        case LeaderAndIsrRequest(), LeaderAndIsrResponse():
            if version < _LISR_TOPIC_IDS:
                _group_errors(request, first)
        case StopReplicaRequest(), StopReplicaResponse():
            for other in responses[1:]:
                assert isinstance(other, StopReplicaResponse)
                first.error_code = first.error_code or other.error_code
                first.partition_errors.extend(other.partition_errors)
    return first


def _group_errors(request: LeaderAndIsrRequest, response: LeaderAndIsrResponse) -> None:
    ids = {topic.topic_name: topic.topic_id for topic in request.topic_states}
    response.topics = [
        LeaderAndIsrTopicError(topic_id=ids[name], partition_errors=errors)
        for name, errors in _by_topic(response.partition_errors).items()
        if name in ids
    ]


# -- the receiver ---------------------------------------------------------------------------------


def from_wire(request: ControlRequest, version: int) -> None:
    """Bring a request that came in ``version`` into the one shape."""
    match request:
        case LeaderAndIsrRequest():
            if version < _LISR_GROUPED:
                _group_lisr(request)
        case UpdateMetadataRequest():
            _complete_metadata(request, version)
        case StopReplicaRequest():
            if version < _STOP_FLAG_BY_PARTITION:
                _group_stop(request, version)


def _by_topic(items: Iterable[N]) -> dict[str, list[N]]:
    topics: dict[str, list[N]] = {}
    for item in items:
        topics.setdefault(item.topic_name, []).append(item)
    return topics


def _group_lisr(request: LeaderAndIsrRequest) -> None:
    request.topic_states = [
        LeaderAndIsrTopicState(topic_name=name, partition_states=states)
        for name, states in _by_topic(request.ungrouped_partition_states).items()
    ]


def _complete_metadata(request: UpdateMetadataRequest, version: int) -> None:
    if version < _METADATA_GROUPED:
        request.topic_states = [
            UpdateMetadataTopicState(topic_name=name, partition_states=states)
            for name, states in _by_topic(request.ungrouped_partition_states).items()
        ]
    if version < _METADATA_LISTENERS:
        for broker in request.live_brokers:
            if version < _METADATA_ENDPOINTS:
                broker.endpoints = [
                    UpdateMetadataEndpoint(port=broker.v0_port, host=broker.v0_host)
                ]
            for endpoint in broker.endpoints:  # a listener was called as its protocol then
                endpoint.listener = _PROTOCOL_NAMES[endpoint.security_protocol]


def _group_stop(request: StopReplicaRequest, version: int) -> None:
    if version < _STOP_GROUPED:
        pairs = [(p.topic_name, p.partition_index) for p in request.ungrouped_partitions]
    else:
        pairs = [(each.name, index) for each in request.topics for index in each.partition_indexes]
    topics: dict[str, StopReplicaTopicState] = {}
    for name, index in pairs:
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = StopReplicaTopicState(topic_name=name, partition_states=[])
        topic.partition_states.append(
            StopReplicaPartitionState(
                partition_index=index, delete_partition=request.delete_partitions
            )
        )
    request.topic_states = list(topics.values())


def response_to_wire(
    request: ControlRequest, response: ControlResponse, version: int
) -> ControlResponse:
    """The response in the shape of ``version``."""
    if (
        isinstance(request, LeaderAndIsrRequest)
        and isinstance(response, LeaderAndIsrResponse)
        and version < _LISR_TOPIC_IDS
        and response.error_code == ErrorCode.NONE
    ):
        flat: list[LeaderAndIsrPartitionError] = []
        for topic, state in zip(response.topics, request.topic_states, strict=True):
            for error in topic.partition_errors:
                error.topic_name = state.topic_name
                flat.append(error)
        response.partition_errors = flat
    return response
