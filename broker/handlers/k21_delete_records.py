"""DeleteRecords (21): raise the log start offset; the segments below it go at the next cleaning.

v0 base (KIP-107) · v1 throttle after the response · v2 flexible. Offset -1 means the high
watermark.
"""

from typing import TYPE_CHECKING

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, Resource, denied_among
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k21_delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from kavka.protocol.topics import INTERNAL_TOPICS

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 21
INVALID_LOW_WATERMARK = -1


def handle(
    broker: "Broker", request: "Request", body: DeleteRecordsRequest
) -> DeleteRecordsResponse:
    denied = denied_among(
        broker, request, Operation.DELETE, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    response = DeleteRecordsResponse()
    for topic in body.topics:
        result = DeleteRecordsTopicResult(name=topic.name)
        for asked in topic.partitions:
            answer = DeleteRecordsPartitionResult(
                partition_index=asked.partition_index, low_watermark=INVALID_LOW_WATERMARK
            )
            try:
                if topic.name in denied:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                if topic.name in INTERNAL_TOPICS:
                    raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
                partition = broker.replicas.partition(topic.name, asked.partition_index)
                partition.require_leader()
                answer.low_watermark = partition.delete_records_before(asked.offset)
                broker.waiting.notify(partition)
            except KafkaError as error:
                answer.error_code = error.code
            result.partitions.append(answer)
        response.topics.append(result)
    audit_each(
        request,
        "DeleteRecords",
        (
            (f"Topic:{topic.name}-{answer.partition_index}", answer.error_code)
            for topic in response.topics
            for answer in topic.partitions
        ),
    )
    return response
