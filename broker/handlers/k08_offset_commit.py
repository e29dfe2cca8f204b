"""OffsetCommit (8): keep how far a group has come.

v0 keeps it in the metadata store · v1 generation, member and a timestamp per partition; kept in
``__consumer_offsets`` · v2 retention time, no timestamps · v3 throttle · v4 throttle after the
response · v5 no retention time (KIP-211) · v6 leader epoch (KIP-320) · v7 instance id (KIP-345) ·
v8 flexible · v9 UNSTABLE and KIP-848 codes.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, denied_among, is_allowed
from kavka.broker.groups import legacy_offsets
from kavka.broker.groups.offset_keeper import Commit, Results
from kavka.broker.groups.offsets import NO_EXPIRY, CommittedOffset
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k08_offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 8
_DEFAULT = -1  # "now", and "as the broker is set"
_NEVER = 2**63 - 1  # as late as a record can say


def handle(
    broker: "Broker", request: "Request", body: OffsetCommitRequest
) -> OffsetCommitResponse | Pending:
    if not is_allowed(broker, request, Operation.READ, Resource.GROUP, body.group_id):
        refused = ErrorCode.GROUP_AUTHORIZATION_FAILED
        return _response(body, {partition: refused for partition, _ in _partitions(body)})
    denied = denied_among(
        broker, request, Operation.READ, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    results: Results = {}
    if request.version == 0:
        return legacy_offsets.answer_later(broker, lambda: _keep_in_store(broker, body, denied))
    now_ms = broker.clock.wall_ms()
    expiry = NO_EXPIRY
    if body.retention_time_ms != _DEFAULT:
        expiry = min(now_ms + body.retention_time_ms, _NEVER)
    offsets = []
    for partition, asked in _partitions(body):
        if partition.topic in denied:
            results[partition] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        elif broker.metadata.has_partition(*partition):
            offsets.append((partition, _value(asked, now_ms, expiry)))
        else:
            results[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not offsets:
        return _response(body, results)
    pending = Pending()

    def committed(outcome: Results) -> None:
        pending.complete(_response(body, {**results, **outcome}))

    broker.groups.offsets.commit(
        Commit(
            body.group_id,
            body.member_id,
            body.group_instance_id,
            body.generation_id_or_member_epoch,
            offsets,
        ),
        committed,
    )
    return pending


def _partitions(
    body: OffsetCommitRequest,
) -> list[tuple[TopicPartition, OffsetCommitRequestPartition]]:
    return [
        (TopicPartition(topic.name, asked.partition_index), asked)
        for topic in body.topics
        for asked in topic.partitions
    ]


def _value(asked: OffsetCommitRequestPartition, now_ms: int, expiry: int) -> CommittedOffset:
    return CommittedOffset(
        asked.committed_offset,
        asked.committed_leader_epoch,
        asked.committed_metadata or "",
        now_ms if asked.commit_timestamp == _DEFAULT else asked.commit_timestamp,
        expiry,
    )


def _response(body: OffsetCommitRequest, results: Results) -> OffsetCommitResponse:
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetCommitResponsePartition(
                        partition_index=asked.partition_index,
                        error_code=results[TopicPartition(topic.name, asked.partition_index)],
                    )
                    for asked in topic.partitions
                ],
            )
            for topic in body.topics
        ]
    )


async def _keep_in_store(
    broker: "Broker", body: OffsetCommitRequest, denied: frozenset[str]
) -> OffsetCommitResponse:
    results: Results = {}
    # Every write takes its time: of two for one partition only the later is done.
    for partition, asked in dict(_partitions(body)).items():
        if partition.topic in denied:
            results[partition] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            continue
        if not broker.metadata.has_partition(*partition):
            results[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            continue
        metadata = asked.committed_metadata or ""
        if len(metadata) > broker.groups.settings.max_offset_metadata_size:
            results[partition] = ErrorCode.OFFSET_METADATA_TOO_LARGE
            continue
        try:
            await legacy_offsets.write(
                broker.store, body.group_id, partition, asked.committed_offset
            )
            results[partition] = ErrorCode.NONE
        except KafkaError as error:
            results[partition] = error.code
    return _response(body, results)
