"""AlterReplicaLogDirs (34): move replicas between the log directories of this broker (KIP-113).

v0 base · v1 throttle after the response · v2 flexible. The answer says that a move has begun, not
that it is done: DescribeLogDirs shows how far it is. Naming the directory where a replica is
already succeeds, and calls a move off.
"""

from typing import TYPE_CHECKING

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, require_cluster
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k34_alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 34


def handle(
    broker: "Broker", request: "Request", body: AlterReplicaLogDirsRequest
) -> AlterReplicaLogDirsResponse:
    require_cluster(broker, request, Operation.ALTER)
    response = AlterReplicaLogDirsResponse()
    for directory in body.dirs:
        for topic in directory.topics:
            result = AlterReplicaLogDirTopicResult(topic_name=topic.name)
            for index in topic.partitions:
                result.partitions.append(
                    AlterReplicaLogDirPartitionResult(
                        partition_index=index,
                        error_code=_outcome(broker, directory.path, topic.name, index),
                    )
                )
            response.results.append(result)
            told = (
                (f"Topic:{topic.name}-{answer.partition_index}", answer.error_code)
                for answer in result.partitions
            )
            audit_each(request, "AlterReplicaLogDirs", told)
    return response


def _outcome(broker: "Broker", path: str, topic: str, index: int) -> ErrorCode:
    try:
        broker.logs.move(TopicPartition(topic, index), path)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


def error_response(
    code: ErrorCode, body: AlterReplicaLogDirsRequest
) -> AlterReplicaLogDirsResponse:
    return AlterReplicaLogDirsResponse(
        results=[
            AlterReplicaLogDirTopicResult(
                topic_name=topic.name,
                partitions=[
                    AlterReplicaLogDirPartitionResult(partition_index=index, error_code=code)
                    for index in topic.partitions
                ],
            )
            for directory in body.dirs
            for topic in directory.topics
        ]
    )
