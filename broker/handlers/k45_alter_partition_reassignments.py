"""AlterPartitionReassignments (45), on the controller: move partitions, or cancel it (KIP-455).

v0 flexible from the start. The answer says what has been begun; it does not wait for the end.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, require_cluster
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k45_alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 45


async def handle(
    broker: "Broker", request: "Request", body: AlterPartitionReassignmentsRequest
) -> AlterPartitionReassignmentsResponse:
    require_cluster(broker, request, Operation.ALTER)
    targets = {
        TopicPartition(topic.name, partition.partition_index): partition.replicas
        for topic in body.topics
        for partition in topic.partitions
    }
    outcomes = await broker.controller.alter_reassignments(targets, timeout_ms=body.timeout_ms)
    told = (
        (f"Topic:{tp.topic}-{tp.partition}", ErrorCode.NONE if error is None else error.code)
        for tp, error in outcomes.items()
    )
    audit_each(request, "AlterPartitionReassignments", told)
    topics: dict[str, ReassignableTopicResponse] = {}
    for tp, error in outcomes.items():
        topic = topics.get(tp.topic)
        if topic is None:
            topic = topics[tp.topic] = ReassignableTopicResponse(name=tp.topic, partitions=[])
        result = ReassignablePartitionResponse(partition_index=tp.partition)
        if error is not None:
            result.error_code, result.error_message = error.code, error.message
        topic.partitions.append(result)
    return AlterPartitionReassignmentsResponse(responses=list(topics.values()))


def error_response(
    code: ErrorCode, body: AlterPartitionReassignmentsRequest
) -> AlterPartitionReassignmentsResponse:
    return AlterPartitionReassignmentsResponse(error_code=code)
