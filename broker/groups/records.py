"""Groups and offsets as records of ``__consumer_offsets``, and back."""

from typing import NamedTuple

from kavka.broker.groups.image import GroupImage, MemberImage
from kavka.broker.groups.offsets import CommittedOffset
from kavka.protocol.records import internal_topics as stored
from kavka.protocol.topics import TopicPartition

_NO_TIMESTAMP = -1


class OffsetKey(NamedTuple):
    """A record with this key is a committed offset."""

    group: str
    partition: TopicPartition


class GroupKey(NamedTuple):
    """A record with this key is a group's generation."""

    group: str


def read_key(data: bytes) -> OffsetKey | GroupKey | None:
    """What a record is about; None for what only later versions of Kafka know.

    Raises KafkaError CORRUPT_MESSAGE, as the other readers here do.
    """
    key = stored.decode_group_topic_key(data)
    if isinstance(key, stored.OffsetCommitKey):
        return OffsetKey(key.group, TopicPartition(key.topic, key.partition))
    return None if key is None else GroupKey(key.group)


# -- offsets ----------------------------------------------------------------------------------


def offset_key(group_id: str, partition: TopicPartition) -> bytes:
    return stored.encode_offset_key(group_id, partition.topic, partition.partition)


def offset_value(value: CommittedOffset) -> bytes:
    return stored.encode_offset_value(
        stored.OffsetCommitValue(
            offset=value.offset,
            leader_epoch=value.leader_epoch,
            metadata=value.metadata,
            commit_timestamp=value.commit_timestamp,
            expire_timestamp=value.expire_timestamp,
        )
    )


def read_offset(data: bytes) -> CommittedOffset:
    value = stored.decode_offset_value(data)
    return CommittedOffset(
        value.offset,
        value.leader_epoch,
        value.metadata,
        value.commit_timestamp,
        value.expire_timestamp,
    )


# -- groups -----------------------------------------------------------------------------------


def group_key(group_id: str) -> bytes:
    return stored.encode_group_key(group_id)


def group_value(image: GroupImage) -> bytes:
    timestamp = image.state_timestamp_ms
    return stored.encode_group_value(
        stored.GroupMetadataValue(
            protocol_type=image.protocol_type or "",
            generation=image.generation,
            protocol=image.protocol,
            leader=image.leader,
            current_state_timestamp=_NO_TIMESTAMP if timestamp is None else timestamp,
            members=[
                stored.MemberMetadata(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout=member.rebalance_timeout_ms,
                    session_timeout=member.session_timeout_ms,
                    subscription=member.subscription,
                    assignment=member.assignment,
                )
                for member in image.members
            ],
        )
    )


def read_group(data: bytes) -> GroupImage:
    value = stored.decode_group_value(data)
    timestamp = value.current_state_timestamp
    return GroupImage(
        value.protocol_type or None,
        value.generation,
        value.protocol,
        value.leader,
        None if timestamp == _NO_TIMESTAMP else timestamp,
        tuple(
            MemberImage(
                member.member_id,
                member.group_instance_id,
                member.client_id,
                member.client_host,
                # Records of before 0.10.1 have one time-out for both.
                member.session_timeout
                if member.rebalance_timeout < 0
                else member.rebalance_timeout,
                member.session_timeout,
                member.subscription,
                member.assignment,
            )
            for member in value.members
        ),
    )
