"""Updates of a consumer group as records of ``__consumer_offsets``, and back."""

from collections.abc import Iterable, Iterator

from kavka.broker.coordination.journal import KeyValue
from kavka.broker.groups.consumer.member import Member, MemberState, Slot, Slots, by_topic
from kavka.broker.groups.consumer.state import (
    Current,
    DropMember,
    GroupData,
    SetCurrent,
    SetGroup,
    SetMember,
    SetTarget,
    SetTargetEpoch,
    Update,
)
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import consumer_groups as stored


def record_of(group_id: str, update: Update) -> KeyValue:
    """The record that says so."""
    key, value = _stored(group_id, update)
    return stored.encode_key(key), None if value is None else stored.encode_value(value)


def _stored(group_id: str, update: Update) -> tuple[stored.Key, stored.Value | None]:
    match update:
        case SetGroup(epoch, topics_hash):
            return (
                stored.ConsumerGroupMetadataKey(group_id=group_id),
                stored.ConsumerGroupMetadataValue(epoch=epoch, metadata_hash=topics_hash),
            )
        case SetMember(member):
            return (
                stored.ConsumerGroupMemberMetadataKey(
                    group_id=group_id, member_id=member.member_id
                ),
                _told(member),
            )
        case DropMember(member_id):
            key = stored.ConsumerGroupMemberMetadataKey(group_id=group_id, member_id=member_id)
            return key, None
        case SetTarget(member_id, slots):
            target_key = stored.ConsumerGroupTargetAssignmentMemberKey(
                group_id=group_id, member_id=member_id
            )
            if slots is None:
                return target_key, None
            return target_key, stored.ConsumerGroupTargetAssignmentMemberValue(
                topic_partitions=_stored_slots(slots)
            )
        case SetTargetEpoch(epoch):
            return (
                stored.ConsumerGroupTargetAssignmentMetadataKey(group_id=group_id),
                stored.ConsumerGroupTargetAssignmentMetadataValue(assignment_epoch=epoch),
            )
        case SetCurrent(member_id, current):
            return (
                stored.ConsumerGroupCurrentMemberAssignmentKey(
                    group_id=group_id, member_id=member_id
                ),
                None if current is None else _current(current),
            )


def _told(member: Member) -> stored.ConsumerGroupMemberMetadataValue:
    return stored.ConsumerGroupMemberMetadataValue(
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topics),
        subscribed_topic_regex=member.regex,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        server_assignor=member.assignor,
    )


def _current(current: Current) -> stored.ConsumerGroupCurrentMemberAssignmentValue:
    return stored.ConsumerGroupCurrentMemberAssignmentValue(
        member_epoch=current.epoch,
        previous_member_epoch=current.previous_epoch,
        state=current.state,
        assigned_partitions=_stored_slots(current.assigned),
        partitions_pending_revocation=_stored_slots(current.revoking),
    )


def _stored_slots(slots: Slots) -> list[stored.TopicPartitions]:
    return [
        stored.TopicPartitions(topic_id=topic_id, partitions=partitions)
        for topic_id, partitions in by_topic(slots).items()
    ]


def _slots(topics: Iterable[stored.TopicPartitions]) -> Slots:
    return frozenset(
        Slot(topic.topic_id, partition) for topic in topics for partition in topic.partitions
    )


def read_update(key: stored.Key, data: bytes | None) -> Update | None:
    """What a record says of its group; None if it says that the whole group (or its target) is
    gone. Raises KafkaError CORRUPT_MESSAGE."""
    value = None if data is None else stored.decode_value(key, data)
    match key, value:
        case _, stored.ConsumerGroupMetadataValue():
            return SetGroup(value.epoch, value.metadata_hash)
        case _, stored.ConsumerGroupTargetAssignmentMetadataValue():
            return SetTargetEpoch(value.assignment_epoch)
        case stored.ConsumerGroupMemberMetadataKey(), None:
            return DropMember(key.member_id)
        case (
            stored.ConsumerGroupMemberMetadataKey(),
            stored.ConsumerGroupMemberMetadataValue(),
        ):
            return SetMember(_member(key.member_id, value))
        case stored.ConsumerGroupTargetAssignmentMemberKey(), None:
            return SetTarget(key.member_id, None)
        case _, stored.ConsumerGroupTargetAssignmentMemberValue():
            assert isinstance(key, stored.ConsumerGroupTargetAssignmentMemberKey)
            return SetTarget(key.member_id, _slots(value.topic_partitions))
        case stored.ConsumerGroupCurrentMemberAssignmentKey(), None:
            return SetCurrent(key.member_id, None)
        case _, stored.ConsumerGroupCurrentMemberAssignmentValue():
            assert isinstance(key, stored.ConsumerGroupCurrentMemberAssignmentKey)
            return SetCurrent(key.member_id, _read_current(value))
    return None


def _member(member_id: str, value: stored.ConsumerGroupMemberMetadataValue) -> Member:
    return Member(
        member_id,
        value.instance_id,
        value.rack_id,
        value.client_id,
        value.client_host,
        frozenset(value.subscribed_topic_names),
        value.subscribed_topic_regex,
        value.server_assignor,
        value.rebalance_timeout_ms,
    )


def _read_current(value: stored.ConsumerGroupCurrentMemberAssignmentValue) -> Current:
    try:
        state = MemberState(value.state)
    except ValueError as error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a member in state {value.state}") from error
    return Current(
        value.member_epoch,
        value.previous_member_epoch,
        state,
        _slots(value.assigned_partitions),
        _slots(value.partitions_pending_revocation),
    )


def tombstones(group_id: str, data: GroupData) -> Iterator[bytes]:
    """The keys of all records of a group without members."""
    assert not data.members
    yield stored.encode_key(stored.ConsumerGroupTargetAssignmentMetadataKey(group_id=group_id))
    yield stored.encode_key(stored.ConsumerGroupMetadataKey(group_id=group_id))
