"""OffsetDelete (47): forget a group's offsets for some partitions (KIP-496).

v0 base; never flexible. Topics that a running group subscribes to keep theirs.
"""

from typing import TYPE_CHECKING

from kavka.broker.audit import audit, audit_each
from kavka.broker.authorization import Operation, Resource, denied_among, require
from kavka.broker.groups.offset_keeper import Results
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k47_offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 47


def handle(broker: "Broker", request: "Request", body: OffsetDeleteRequest) -> Pending:
    require(broker, request, Operation.DELETE, Resource.GROUP, body.group_id)
    denied = denied_among(
        broker, request, Operation.READ, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    pending = Pending()
    results: Results = {}
    known = []
    for topic in body.topics:
        for asked in topic.partitions:
            partition = TopicPartition(topic.name, asked.partition_index)
            if topic.name in denied:
                results[partition] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif broker.metadata.has_partition(*partition):
                known.append(partition)
            else:
                results[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def deleted(error: ErrorCode, outcome: Results) -> None:
        if error is not ErrorCode.NONE:
            audit(request, "OffsetDelete", f"Group:{body.group_id}", error)
            pending.complete(OffsetDeleteResponse(error_code=error))
        else:
            told = (
                (f"Group:{body.group_id}/{topic}-{index}", code)
                for (topic, index), code in outcome.items()
            )
            audit_each(request, "OffsetDelete", told)
            pending.complete(_response(body, {**results, **outcome}))

    broker.groups.offsets.delete_offsets(body.group_id, known, deleted)
    return pending


def _response(body: OffsetDeleteRequest, results: Results) -> OffsetDeleteResponse:
    return OffsetDeleteResponse(
        topics=[
            OffsetDeleteResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetDeleteResponsePartition(
                        partition_index=asked.partition_index,
                        error_code=results[TopicPartition(topic.name, asked.partition_index)],
                    )
                    for asked in topic.partitions
                ],
            )
            for topic in body.topics
        ]
    )


def error_response(code: ErrorCode, body: OffsetDeleteRequest) -> OffsetDeleteResponse:
    return OffsetDeleteResponse(error_code=code)
