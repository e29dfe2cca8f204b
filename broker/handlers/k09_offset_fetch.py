"""OffsetFetch (9): how far a group has come.

v0 reads the metadata store · v1 reads ``__consumer_offsets`` · v2 topics null for all, an error
for the whole · v3 throttle · v4 throttle after the response · v5 leader epoch · v6 flexible ·
v7 require_stable (KIP-447) · v8 several groups · v9 member id and epoch (KIP-848 groups only).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    Operation,
    Resource,
    denied_among,
    is_allowed,
    would_allow,
)
from kavka.broker.groups import legacy_offsets
from kavka.broker.groups.offset_keeper import FetchedOffset
from kavka.broker.groups.offsets import CommittedOffset
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k09_offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 9
_NOTHING = CommittedOffset(offset=-1)  # what is answered when nothing is committed
_FIRST_WITH_ERROR_CODE = 2
_FIRST_WITH_GROUPS = 8
_FIRST_WITH_MEMBERS = 9


def handle(
    broker: "Broker", request: "Request", body: OffsetFetchRequest
) -> OffsetFetchResponse | Pending:
    if request.version >= _FIRST_WITH_GROUPS:
        return OffsetFetchResponse(
            groups=[
                _group(broker, request, group, body.require_stable)
                for group in _distinct(body.groups)
            ]
        )
    asked = _asked(body.topics)
    found: list[FetchedOffset] = []
    error = ErrorCode.GROUP_AUTHORIZATION_FAILED
    if _may_describe(broker, request, body.group_id):
        if request.version == 0:
            denied = _denied(broker, request, asked)
            return legacy_offsets.answer_later(broker, lambda: _read_store(broker, body, denied))
        error, found = _fetch(broker, request, body.group_id, asked, body.require_stable)
    if error is not ErrorCode.NONE and request.version < _FIRST_WITH_ERROR_CODE:
        # These versions have no other place for it.
        found = [FetchedOffset(partition, None, error) for partition in asked or ()]
    return OffsetFetchResponse(error_code=error, topics=_topics(found))


def _may_describe(broker: "Broker", request: "Request", group_id: str) -> bool:
    return is_allowed(broker, request, Operation.DESCRIBE, Resource.GROUP, group_id)


def _denied(
    broker: "Broker", request: "Request", asked: list[TopicPartition] | None
) -> frozenset[str]:
    topics = (partition.topic for partition in asked or ())
    return denied_among(broker, request, Operation.DESCRIBE, Resource.TOPIC, topics)


def _fetch(
    broker: "Broker",
    request: "Request",
    group_id: str,
    asked: list[TopicPartition] | None,
    require_stable: bool,
) -> tuple[ErrorCode, list[FetchedOffset]]:
    """The offsets of a group, as far as the client may see them, or the error for the whole."""
    if broker.authorizer is None:
        return broker.groups.offsets.fetch(group_id, asked, require_stable)
    denied = _denied(broker, request, asked)
    open_to_it = None if asked is None else [each for each in asked if each.topic not in denied]
    error, found = broker.groups.offsets.fetch(group_id, open_to_it, require_stable)
    if error is not ErrorCode.NONE:
        return error, found
    if asked is None:
        describe, topic = Operation.DESCRIBE, Resource.TOPIC
        return error, [
            each
            for each in found
            if would_allow(broker, request, describe, topic, each.partition.topic)
        ]
    refused = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    found.extend(FetchedOffset(each, None, refused) for each in asked if each.topic in denied)
    return error, found


def _distinct(groups: list[OffsetFetchRequestGroup]) -> Iterable[OffsetFetchRequestGroup]:
    """The groups, each that all offsets are asked of only once: see ``k15_describe_groups``."""
    asked_for_all: set[str] = set()
    for group in groups:
        if group.topics is None:
            if group.group_id in asked_for_all:
                continue
            asked_for_all.add(group.group_id)
        yield group


def _asked(
    topics: "Iterable[OffsetFetchRequestTopic | OffsetFetchRequestTopics] | None",
) -> list[TopicPartition] | None:
    if topics is None:
        return None
    return [
        TopicPartition(topic.name, index) for topic in topics for index in topic.partition_indexes
    ]


def _group(
    broker: "Broker", request: "Request", group: OffsetFetchRequestGroup, require_stable: bool
) -> OffsetFetchResponseGroup:
    group_id = group.group_id
    if not _may_describe(broker, request, group_id):
        refused = ErrorCode.GROUP_AUTHORIZATION_FAILED
        return OffsetFetchResponseGroup(group_id=group_id, error_code=refused)
    if request.version >= _FIRST_WITH_MEMBERS:
        stale = broker.groups.offsets.may_fetch(group_id, group.member_id, group.member_epoch)
        if stale is not ErrorCode.NONE:
            return OffsetFetchResponseGroup(group_id=group_id, error_code=stale)
    error, found = _fetch(broker, request, group_id, _asked(group.topics), require_stable)
    answer = OffsetFetchResponseGroup(group_id=group.group_id, error_code=error)
    topics: dict[str, OffsetFetchResponseTopics] = {}
    for partition, value, code in found:
        topic = topics.get(partition.topic)
        if topic is None:
            topic = topics[partition.topic] = OffsetFetchResponseTopics(name=partition.topic)
            answer.topics.append(topic)
        value = value or _NOTHING
        topic.partitions.append(
            OffsetFetchResponsePartitions(
                partition_index=partition.partition,
                committed_offset=value.offset,
                committed_leader_epoch=value.leader_epoch,
                metadata=value.metadata,
                error_code=code,
            )
        )
    return answer


def _topics(found: Iterable[FetchedOffset]) -> list[OffsetFetchResponseTopic]:
    topics: dict[str, OffsetFetchResponseTopic] = {}
    for partition, value, code in found:
        topic = topics.get(partition.topic)
        if topic is None:
            topic = topics[partition.topic] = OffsetFetchResponseTopic(name=partition.topic)
        value = value or _NOTHING
        topic.partitions.append(
            OffsetFetchResponsePartition(
                partition_index=partition.partition,
                committed_offset=value.offset,
                committed_leader_epoch=value.leader_epoch,
                metadata=value.metadata,
                error_code=code,
            )
        )
    return list(topics.values())


async def _read_store(
    broker: "Broker", body: OffsetFetchRequest, denied: frozenset[str]
) -> OffsetFetchResponse:
    found = []
    for partition in dict.fromkeys(_asked(body.topics) or ()):
        value: CommittedOffset | None = None
        code = ErrorCode.NONE
        if partition.topic in denied:
            found.append(FetchedOffset(partition, None, ErrorCode.TOPIC_AUTHORIZATION_FAILED))
            continue
        try:
            if broker.metadata.has_partition(*partition):
                offset = await legacy_offsets.read(broker.store, body.group_id, partition)
                value = None if offset is None else CommittedOffset(offset)
            if value is None:
                # Clients of v0 read this as "nothing committed".
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        except KafkaError as error:
            code = error.code
        found.append(FetchedOffset(partition, value, code))
    return OffsetFetchResponse(topics=_topics(found))
