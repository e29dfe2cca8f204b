"""TxnOffsetCommit (28): keep how far a group has come, if the transaction commits.

v0 base · v1 throttle after the response · v2 leader epoch (KIP-320) · v3 flexible; member,
generation and instance id (KIP-447) · v4 TRANSACTION_ABORTABLE (KIP-890) · v5 the coordinator of
the group adds its partition to the transaction. Goes to the group's coordinator, up to v4 after
AddOffsetsToTxn to the transaction's.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, denied_among, require
from kavka.broker.coordination.journal import TransactionalProducer
from kavka.broker.groups.errors import commit_error
from kavka.broker.groups.offset_keeper import Commit, Results
from kavka.broker.groups.offsets import CommittedOffset
from kavka.broker.request import Pending
from kavka.broker.transactions.inclusion import is_open, refusal
from kavka.broker.transactions.messages import ProducerIdentity
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
_FIRST_WITH_ADDING = 5

_asking: set[asyncio.Task[None]] = set()


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
    pending = Pending()

    def committed(outcome: Results) -> None:
        codes = {partition: _code(code, request.version) for partition, code in outcome.items()}
        pending.complete(_response(body, {**results, **codes}))

    def commit(code: ErrorCode) -> None:
        if code is not ErrorCode.NONE:
            committed(dict.fromkeys((partition for partition, _ in offsets), code))
            return
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

    _when_included(broker, request.version, body, commit)
    return pending


def _when_included(
    broker: "Broker",
    version: int,
    body: TxnOffsetCommitRequest,
    then: Callable[[ErrorCode], None],
) -> None:
    """Go on when it is settled whether the group's partition is in the transaction; now, as far
    as that can be said here."""
    if broker.groups.status(body.group_id) is not ErrorCode.NONE:
        then(ErrorCode.NONE)  # the commit itself says what is wrong
        return
    target = TopicPartition(GROUP_METADATA_TOPIC, broker.groups.partition_of(body.group_id))
    partition = broker.replicas.find(*target)
    identity = ProducerIdentity(body.producer_id, body.producer_epoch)
    if partition is None or is_open(partition, identity):
        then(ErrorCode.NONE)
        return
    add = version >= _FIRST_WITH_ADDING

    def settled(code: ErrorCode) -> None:
        knows_abortable = version >= _FIRST_WITH_ABORTABLE
        then(commit_error(refusal(code, knows_abortable=knows_abortable, bumping=add)))

    if not add:
        codes = broker.inclusion.verify_now(body.transactional_id, identity, (target,))
        if codes is not None:
            settled(codes[target])
            return

    async def ask() -> None:
        codes = await broker.inclusion.ask(body.transactional_id, identity, (partition,), add=add)
        settled(codes[target])

    task = broker.loop.create_task(ask())
    _asking.add(task)
    task.add_done_callback(_asking.discard)


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
