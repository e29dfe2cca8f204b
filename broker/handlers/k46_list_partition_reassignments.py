"""ListPartitionReassignments (46), on the controller: what is being moved (KIP-455).

v0 flexible from the start. Partitions that are not being moved are left out, also when asked
for by name.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k46_list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 46


async def handle(
    broker: "Broker", request: "Request", body: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    require_cluster(broker, request, Operation.DESCRIBE)
    wanted = None
    if body.topics is not None:
        wanted = [
            TopicPartition(topic.name, index)
            for topic in body.topics
            for index in topic.partition_indexes
        ]
    topics: dict[str, OngoingTopicReassignment] = {}
    moves = await broker.controller.list_reassignments(wanted, timeout_ms=body.timeout_ms)
    for move in moves:
        name, index = move.partition
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = OngoingTopicReassignment(name=name, partitions=[])
        topic.partitions.append(
            OngoingPartitionReassignment(
                partition_index=index,
                replicas=list(move.replicas),
                adding_replicas=list(move.adding),
                removing_replicas=list(move.removing),
            )
        )
    return ListPartitionReassignmentsResponse(topics=list(topics.values()))


def error_response(
    code: ErrorCode, body: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    return ListPartitionReassignmentsResponse(error_code=code)
