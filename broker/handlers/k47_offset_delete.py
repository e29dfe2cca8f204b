"""OffsetDelete (47): forget a group's offsets for some partitions (KIP-496).

v0 base; never flexible. Topics that a running group subscribes to keep theirs.
"""

from typing import TYPE_CHECKING

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
    pending = Pending()
    results: Results = {}
    known = []
    for topic in body.topics:
        for asked in topic.partitions:
            partition = TopicPartition(topic.name, asked.partition_index)
            if broker.metadata.has_partition(*partition):
                known.append(partition)
            else:
                results[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def deleted(error: ErrorCode, outcome: Results) -> None:
        if error is not ErrorCode.NONE:
            pending.complete(OffsetDeleteResponse(error_code=error))
        else:
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
