"""ElectLeaders (43), on the controller; ElectPreferredLeaders in 2.3 (KIP-183).

v0 preferred leaders only · v1 unclean elections too, top-level error (KIP-460) · v2 flexible.

A partition that is led as it should be is answered with ELECTION_NOT_NEEDED, which 2.3 did not
know: v0 says NONE. When all partitions were asked for, those are left out.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, require_cluster
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k43_elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from kavka.protocol.topics import TopicPartition
from kavka.replication.controller.operations import ElectionType

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 43
_TYPES_SINCE: Final = 1


async def handle(
    broker: "Broker", request: "Request", body: ElectLeadersRequest
) -> ElectLeadersResponse:
    require_cluster(broker, request, Operation.ALTER)
    if body.election_type not in tuple(ElectionType):
        return error_response(ErrorCode.INVALID_REQUEST, body)
    partitions = _asked_for(body)
    outcomes = await broker.controller.elect_leaders(
        ElectionType(body.election_type), partitions, timeout_ms=body.timeout_ms
    )
    topics: dict[str, ReplicaElectionResult] = {}
    for tp, error in sorted(outcomes.items()):
        code = ErrorCode.NONE if error is None else error.code
        message = None if error is None else error.message
        if code is ErrorCode.ELECTION_NOT_NEEDED:
            if partitions is None:
                continue
            if request.version < _TYPES_SINCE:
                code, message = ErrorCode.NONE, None
        _add(topics, tp, code, message)
    told = (
        (f"Topic:{topic.topic}-{partition.partition_id}", partition.error_code)
        for topic in topics.values()
        for partition in topic.partition_result
    )
    audit_each(request, "ElectLeaders", told)
    return ElectLeadersResponse(replica_election_results=list(topics.values()))


def _asked_for(body: ElectLeadersRequest) -> list[TopicPartition] | None:
    if body.topic_partitions is None:
        return None
    return [
        TopicPartition(topic.topic, index)
        for topic in body.topic_partitions
        for index in topic.partitions
    ]


def _add(
    topics: dict[str, ReplicaElectionResult],
    tp: TopicPartition,
    code: ErrorCode,
    message: str | None,
) -> None:
    topic = topics.get(tp.topic)
    if topic is None:
        topic = topics[tp.topic] = ReplicaElectionResult(topic=tp.topic, partition_result=[])
    topic.partition_result.append(
        PartitionResult(partition_id=tp.partition, error_code=code, error_message=message)
    )


def error_response(code: ErrorCode, body: ElectLeadersRequest) -> ElectLeadersResponse:
    """The code for all; on every partition as well, because v0 has no other place for it."""
    topics: dict[str, ReplicaElectionResult] = {}
    for tp in _asked_for(body) or ():
        _add(topics, tp, code, None)
    return ElectLeadersResponse(error_code=code, replica_election_results=list(topics.values()))
