"""ListOffsets (2): the first, the last, or the first offset not older than a timestamp.

v0 segment base offsets (what clients up to 0.10.0 use) · v1 one offset and its timestamp
(KIP-79) · v2 isolation level, throttle time · v4 leader epochs (KIP-320) · v5
OFFSET_NOT_AVAILABLE · v6 flexible · v7 -3 the record with the largest timestamp (KIP-734) · v8
-4 the earliest local offset (KIP-405) · v9 -5 the latest offset in remote storage (KIP-1005;
there is none here).
"""

from collections import Counter
from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, Resource, denied_among
from kavka.broker.fetch.followers import nudge
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from kavka.replication.partition import CONSUMER_REPLICA_ID, DEBUGGING_REPLICA_ID, Partition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 2

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3
EARLIEST_LOCAL: Final = -4
LATEST_TIERED: Final = -5

FIRST_WITH_NOT_AVAILABLE: Final = 5

# The first version in which a special timestamp may be asked for.
SINCE: Final = {LATEST: 0, EARLIEST: 0, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9}


def handle(broker: "Broker", request: "Request", body: ListOffsetsRequest) -> ListOffsetsResponse:
    if body.replica_id >= 0:
        nudge(broker, request)
    times = Counter((t.name, p.partition_index) for t in body.topics for p in t.partitions)
    denied = denied_among(
        broker, request, Operation.DESCRIBE, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    response = ListOffsetsResponse()
    for topic in body.topics:
        result = ListOffsetsTopicResponse(name=topic.name)
        for asked in topic.partitions:
            index = asked.partition_index
            try:
                if topic.name in denied:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                if times[topic.name, index] > 1:
                    raise KafkaError(ErrorCode.INVALID_REQUEST)
                partition = broker.replicas.partition(topic.name, index)
                if body.replica_id != DEBUGGING_REPLICA_ID:
                    partition.require_leader(asked.current_leader_epoch)
                answer = (
                    _segment_offsets(partition, body.replica_id, asked)
                    if request.version == 0
                    else _offset(partition, body, asked, request.version)
                )
            except KafkaError as error:
                answer = ListOffsetsPartitionResponse(error_code=error.code)
            answer.partition_index = index
            result.partitions.append(answer)
        response.topics.append(result)
    return response


def _segment_offsets(
    partition: Partition, replica_id: int, asked: ListOffsetsPartition
) -> ListOffsetsPartitionResponse:
    offsets = partition.log.legacy_offsets_before(asked.timestamp, asked.max_num_offsets)
    if replica_id < 0 and offsets and offsets[0] > partition.high_watermark:
        # A consumer is shown the high watermark in the place of what is not replicated yet.
        high = partition.high_watermark
        offsets = [high, *(offset for offset in offsets if offset < high)]
        offsets = offsets[: asked.max_num_offsets]
    return ListOffsetsPartitionResponse(old_style_offsets=offsets)


def _offset(
    partition: Partition, body: ListOffsetsRequest, asked: ListOffsetsPartition, version: int
) -> ListOffsetsPartitionResponse:
    log = partition.log
    bound = partition.fetch_bound(body.replica_id, body.isolation_level)
    timestamp = asked.timestamp
    if timestamp < 0 and version < SINCE.get(timestamp, version + 1):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    settled = partition.is_settled or body.replica_id != CONSUMER_REPLICA_ID
    if timestamp == LATEST:
        if not settled:
            raise _not_available(version)
        return ListOffsetsPartitionResponse(offset=bound, leader_epoch=partition.leader_epoch)
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        earliest = log.leader_epochs.earliest
        epoch = -1
        if earliest is not None and earliest.start_offset <= log.log_start_offset:
            epoch = earliest.epoch
        return ListOffsetsPartitionResponse(offset=log.log_start_offset, leader_epoch=epoch)
    if timestamp == LATEST_TIERED:
        return ListOffsetsPartitionResponse()
    found = (
        log.max_timestamp_offset()
        if timestamp == MAX_TIMESTAMP
        else log.offset_for_timestamp(timestamp)
    )
    if found is None or found.offset >= bound:
        if not settled:
            raise _not_available(version)
        return ListOffsetsPartitionResponse()
    return ListOffsetsPartitionResponse(
        timestamp=found.timestamp, offset=found.offset, leader_epoch=found.leader_epoch
    )


def _not_available(version: int) -> KafkaError:
    """A new leader does not know yet how far consumers were let read by the one before (KIP-207):
    what it could answer might lie below."""
    if version >= FIRST_WITH_NOT_AVAILABLE:
        return KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE)
    return KafkaError(ErrorCode.LEADER_NOT_AVAILABLE)
