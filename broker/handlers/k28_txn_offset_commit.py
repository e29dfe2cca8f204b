"""TxnOffsetCommit (28): keep how far a group has come, if the transaction commits.

v0 base · v1 throttle after the response · v2 leader epoch (KIP-320) · v3 flexible; member,
generation and instance id (KIP-447) · v4 TRANSACTION_ABORTABLE (KIP-890). Goes to the group's
coordinator, after AddOffsetsToTxn to the transaction's.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, denied_among, require
from kavka.broker.groups.journal import TransactionalProducer, commit_error
from kavka.broker.groups.offset_keeper import Commit, Results
from kavka.broker.groups.offsets import CommittedOffset
from kavka.broker.request import Pending
from kavka.broker.transactions.messages import ProducerIdentity
from kavka.broker.transactions.verification import verify_append
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k28_txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 28
_FIRST_THAT_KNOWS_LOADING = 2
_FIRST_WITH_ABORTABLE = 4


def handle(
    broker: "Broker", request: "Request", body: TxnOffsetCommitRequest
) -> TxnOffsetCommitResponse | Pending:
    require(broker, request, Operation.WRITE, Resource.TRANSACTIONAL_ID, body.transactional_id)
    require(broker, request, Operation.READ, Resource.GROUP, body.group_id)
    denied = denied_among(
        broker, request, Operation.READ, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    now_ms = broker.clock.wall_ms()
    results: Results = {}
    offsets: list[tuple[TopicPartition, CommittedOffset]] = []
    for topic in body.topics:
        for asked in topic.partitions:
            partition = TopicPartition(topic.name, asked.partition_index)
            if topic.name in denied:
                results[partition] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
                continue
            if not broker.metadata.has_partition(*partition):
                results[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                continue
            value = CommittedOffset(
                asked.committed_offset,
                asked.committed_leader_epoch,
                asked.committed_metadata or "",
                now_ms,
            )
            offsets.append((partition, value))
    if not offsets:
        return _response(body, results)
    error = _verify(broker, request.version, body)
    if error is not ErrorCode.NONE:
        return _response(body, {**results, **dict.fromkeys((p for p, _ in offsets), error)})
    pending = Pending()

    def committed(outcome: Results) -> None:
        codes = {partition: _code(code, request.version) for partition, code in outcome.items()}
        pending.complete(_response(body, {**results, **codes}))

    broker.groups.offsets.commit(
        Commit(
            body.group_id,
            body.member_id,
            body.group_instance_id,
            body.generation_id,
            offsets,
            TransactionalProducer(body.producer_id, body.producer_epoch),
        ),
        committed,
    )
    return pending


def _verify(broker: "Broker", version: int, body: TxnOffsetCommitRequest) -> ErrorCode:
    """Whether the group's partition is in the transaction, as far as that can be said here."""
    if broker.groups.status(body.group_id) is not ErrorCode.NONE:
        return ErrorCode.NONE  # the commit itself says what is wrong
    index = broker.groups.partition_of(body.group_id)
    partition = broker.replicas.find(GROUP_METADATA_TOPIC, index)
    if partition is None:
        return ErrorCode.NONE
    code = verify_append(
        broker.transactions,
        partition,
        body.transactional_id,
        ProducerIdentity(body.producer_id, body.producer_epoch),
        knows_abortable=version >= _FIRST_WITH_ABORTABLE,
    )
    return commit_error(code)


def _code(code: ErrorCode, version: int) -> ErrorCode:
    # Producers of before 2.0 may die of the other one (KAFKA-7296).
    if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and version < _FIRST_THAT_KNOWS_LOADING:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    return code


def _response(body: TxnOffsetCommitRequest, results: Results) -> TxnOffsetCommitResponse:
    return TxnOffsetCommitResponse(
        topics=[
            TxnOffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    TxnOffsetCommitResponsePartition(
                        partition_index=asked.partition_index,
                        error_code=results[TopicPartition(topic.name, asked.partition_index)],
                    )
                    for asked in topic.partitions
                ],
            )
            for topic in body.topics
        ]
    )


def error_response(code: ErrorCode, body: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse:
    partitions = (
        TopicPartition(topic.name, asked.partition_index)
        for topic in body.topics
        for asked in topic.partitions
    )
    return _response(body, dict.fromkeys(partitions, code))
