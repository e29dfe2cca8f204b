"""OffsetForLeaderEpoch (23): where the records of a leader epoch end (KIP-101, KIP-279, KIP-320).

v0 end offset · v1 the epoch it belongs to · v2 current leader epoch, throttle time · v3 replica
id · v4 flexible. Followers and consumers use it to find out whether their position still exists.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    CLUSTER_NAME,
    Operation,
    Resource,
    denied_among,
    would_allow,
)
from kavka.broker.fetch.followers import nudge
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k23_offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)
from kavka.replication.partition import DEBUGGING_REPLICA_ID

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 23


def handle(
    broker: "Broker", request: "Request", body: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    if request.version >= 3 and body.replica_id >= 0:
        nudge(broker, request)
    any_replica = request.version >= 3 and body.replica_id == DEBUGGING_REPLICA_ID
    denied: frozenset[str] = frozenset()
    if not would_allow(broker, request, Operation.CLUSTER_ACTION, Resource.CLUSTER, CLUSTER_NAME):
        topics = (topic.topic for topic in body.topics)
        denied = denied_among(broker, request, Operation.DESCRIBE, Resource.TOPIC, topics)
    response = OffsetForLeaderEpochResponse()
    for topic in body.topics:
        result = OffsetForLeaderTopicResult(topic=topic.topic)
        for asked in topic.partitions:
            answer = EpochEndOffset(partition=asked.partition)
            try:
                if topic.topic in denied:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                partition = broker.replicas.partition(topic.topic, asked.partition)
                if not any_replica:
                    partition.require_leader(asked.current_leader_epoch)
                epoch, end_offset = partition.log.end_offset_for_epoch(asked.leader_epoch)
                answer.leader_epoch, answer.end_offset = epoch, end_offset
            except KafkaError as error:
                answer.error_code = error.code
            result.partitions.append(answer)
        response.topics.append(result)
    return response
