"""What the coordinator of the consumer protocol (KIP-848) keeps in ``__consumer_offsets``.

Keys of version 3 to 8, each for another part of a group; values of version 0. As Kafka 4.0 writes
them, but for the deprecated key 4, which it writes no more either from 4.1 on.
"""

from typing import Final, TypeAlias, TypeVar

from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.schema import (
    Message,
    Struct,
    array,
    int8,
    int32,
    int64,
    string,
    uuid,
)

M = TypeVar("M", bound=Message)

GROUP: Final = 3
PARTITIONS: Final = 4
MEMBER: Final = 5
TARGET_EPOCH: Final = 6
TARGET: Final = 7
CURRENT: Final = 8


class ConsumerGroupMetadataKey(Message, versions=(3, 3)):
    group_id: str = string()


class ConsumerGroupMetadataValue(Message, versions=(0, 0), flexible=0):
    """``metadata_hash`` is of the topics that the members read (Kafka 4.1); 0 in older records."""

    epoch: int = int32()
    metadata_hash: int = int64(since=0, tag=0, default=0)


class ConsumerGroupMemberMetadataKey(Message, versions=(5, 5)):
    group_id: str = string()
    member_id: str = string()


class ConsumerGroupMemberMetadataValue(Message, versions=(0, 0), flexible=0):
    instance_id: str | None = string(nullable=True, default=None)
    rack_id: str | None = string(nullable=True, default=None)
    client_id: str = string()
    client_host: str = string()
    subscribed_topic_names: list[str] = array(string)
    subscribed_topic_regex: str | None = string(nullable=True, default=None)
    rebalance_timeout_ms: int = int32(default=-1)
    server_assignor: str | None = string(nullable=True, default=None)


class ConsumerGroupTargetAssignmentMetadataKey(Message, versions=(6, 6)):
    group_id: str = string()


class ConsumerGroupTargetAssignmentMetadataValue(Message, versions=(0, 0), flexible=0):
    assignment_epoch: int = int32()


class TopicPartitions(Struct):
    topic_id: bytes = uuid()
    partitions: list[int] = array(int32)


class ConsumerGroupTargetAssignmentMemberKey(Message, versions=(7, 7)):
    group_id: str = string()
    member_id: str = string()


class ConsumerGroupTargetAssignmentMemberValue(Message, versions=(0, 0), flexible=0):
    topic_partitions: list[TopicPartitions] = array(TopicPartitions)


class ConsumerGroupCurrentMemberAssignmentKey(Message, versions=(8, 8)):
    group_id: str = string()
    member_id: str = string()


class ConsumerGroupCurrentMemberAssignmentValue(Message, versions=(0, 0), flexible=0):
    member_epoch: int = int32()
    previous_member_epoch: int = int32()
    state: int = int8()
    assigned_partitions: list[TopicPartitions] = array(TopicPartitions)
    partitions_pending_revocation: list[TopicPartitions] = array(TopicPartitions)


Key: TypeAlias = (
    ConsumerGroupMetadataKey
    | ConsumerGroupMemberMetadataKey
    | ConsumerGroupTargetAssignmentMetadataKey
    | ConsumerGroupTargetAssignmentMemberKey
    | ConsumerGroupCurrentMemberAssignmentKey
)
Value: TypeAlias = (
    ConsumerGroupMetadataValue
    | ConsumerGroupMemberMetadataValue
    | ConsumerGroupTargetAssignmentMetadataValue
    | ConsumerGroupTargetAssignmentMemberValue
    | ConsumerGroupCurrentMemberAssignmentValue
)

_KINDS: Final[dict[int, tuple[type[Key], type[Value]]]] = {
    GROUP: (ConsumerGroupMetadataKey, ConsumerGroupMetadataValue),
    MEMBER: (ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue),
    TARGET_EPOCH: (
        ConsumerGroupTargetAssignmentMetadataKey,
        ConsumerGroupTargetAssignmentMetadataValue,
    ),
    TARGET: (ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue),
    CURRENT: (ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue),
}


def encode_key(key: Key) -> bytes:
    version = key.MIN_VERSION
    return version.to_bytes(2, "big") + codec.encode(key, version)


def encode_value(value: Value) -> bytes:
    return b"\0\0" + codec.encode(value, 0)


def decode_key(data: bytes) -> Key | None:
    """A key of a consumer group; None for one of another kind.

    Raises KafkaError CORRUPT_MESSAGE for bytes that are no key.
    """
    kind = _KINDS.get(int.from_bytes(data[:2], "big"))
    if len(data) < 2 or kind is None:
        return None
    return _decode(kind[0], data, kind[0].MIN_VERSION)


def decode_value(key: Key, data: bytes) -> Value:
    """The value that belongs to ``key``. Raises KafkaError CORRUPT_MESSAGE if it is none."""
    if data[:2] != b"\0\0":
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, "a value of a consumer group of no known version"
        )
    return _decode(_KINDS[key.MIN_VERSION][1], data, 0)


def _decode(cls: type[M], data: bytes, version: int) -> M:
    try:
        return codec.decode(cls, data, version, 2)
    except MalformedFrame as error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
