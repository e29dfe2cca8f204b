"""AlterReplicaLogDirs (34): move replicas between the log directories of this broker (KIP-113).

v0 base · v1 throttle after the response · v2 flexible. Naming the directory where a replica is
already succeeds. Moving one to another directory is not offered yet: it is answered with
KAFKA_STORAGE_ERROR, and nothing is changed.
"""

from typing import TYPE_CHECKING

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k34_alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 34


def handle(
    broker: "Broker", request: "Request", body: AlterReplicaLogDirsRequest
) -> AlterReplicaLogDirsResponse:
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
    return response


def _outcome(broker: "Broker", path: str, topic: str, index: int) -> ErrorCode:
    if not broker.logs.has_directory(path):
        return ErrorCode.LOG_DIR_NOT_FOUND
    partition = broker.replicas.find(topic, index)
    if partition is None:
        return ErrorCode.REPLICA_NOT_AVAILABLE
    try:
        broker.replicas.partition(topic, index)
    except KafkaError as error:
        return error.code
    if broker.logs.directory_of(partition.topic_partition) == path:
        return ErrorCode.NONE
    return ErrorCode.KAFKA_STORAGE_ERROR
