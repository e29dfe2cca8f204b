"""DeleteRecords (21): raise the log start offset; the segments below it go at the next cleaning.

v0 base (KIP-107) · v1 throttle after the response · v2 flexible. Offset -1 means the high
watermark.

The leader deletes at once, the followers when they hear of it. The answer waits until every live
replica has, as clients of another leader must not see again what is said to be gone.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, Resource, denied_among
from kavka.broker.parking import park
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k21_delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from kavka.protocol.topics import INTERNAL_TOPICS
from kavka.replication.metadata import MetadataCache
from kavka.replication.partition import Partition
from kavka.replication.waiting import Waiter

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 21
INVALID_LOW_WATERMARK = -1


def handle(
    broker: "Broker", request: "Request", body: DeleteRecordsRequest
) -> DeleteRecordsResponse | Pending:
    denied = denied_among(
        broker, request, Operation.DELETE, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    response = DeleteRecordsResponse()
    deletions: list[Deletion] = []
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
                target = partition.delete_records_before(asked.offset)
                broker.waiting.notify(partition)
                deletion = Deletion(partition, target, answer)
                if not deletion.is_done(broker.metadata):
                    deletions.append(deletion)
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
    if not deletions:
        return response
    pending = Pending()
    waiter = DeletionWaiter(deletions, response, broker.metadata, pending)
    keys = [*(deletion.partition for deletion in deletions), broker.metadata]
    park(broker, waiter, keys, body.timeout_ms, pending)
    return pending


class Deletion:
    """What was deleted of one partition here, and may be there still on followers."""

    __slots__ = ("_answer", "_target", "partition")

    def __init__(
        self, partition: Partition, target: int, answer: DeleteRecordsPartitionResult
    ) -> None:
        self.partition = partition
        self._target = target
        self._answer = answer

    def is_done(self, metadata: MetadataCache) -> bool:
        """Whether all live replicas have deleted it, or it cannot be known here any more."""
        answer = self._answer
        try:
            self.partition.require_leader()
            self.partition.require_online()
        except KafkaError as error:
            answer.error_code = error.code
            answer.low_watermark = INVALID_LOW_WATERMARK
            return True
        answer.low_watermark = self.partition.low_watermark(metadata.brokers)
        return answer.low_watermark >= self._target

    def time_out(self) -> None:
        """Not in time; the followers will do it nevertheless."""
        self._answer.error_code = ErrorCode.REQUEST_TIMED_OUT


class DeletionWaiter(Waiter):
    """A request that waits for followers; one that dies meanwhile is waited for no longer."""

    __slots__ = ("_deletions", "_metadata", "_pending", "_response")

    def __init__(
        self,
        deletions: list[Deletion],
        response: DeleteRecordsResponse,
        metadata: MetadataCache,
        pending: Pending,
    ) -> None:
        super().__init__()
        self._deletions = deletions
        self._response = response
        self._metadata = metadata
        self._pending = pending

    def try_complete(self, key: Hashable) -> bool:
        self._deletions = [each for each in self._deletions if not each.is_done(self._metadata)]
        if self._deletions:
            return False
        self._pending.complete(self._response)
        return True

    def expire(self) -> None:
        for deletion in self._deletions:
            deletion.time_out()
        self._pending.complete(self._response)
