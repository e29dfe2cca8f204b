"""What coordinators keep in ``__consumer_offsets`` and ``__transaction_state``.

A stored key or value is an int16 version and then the fields of that version; a null value
deletes the key. In ``__consumer_offsets`` the key's version also says what it is a key of: 0 and
1 an offset, 2 a group. All versions Kafka has written up to 4.0 are read; written are those of
Kafka 2.3, so that its own tools and brokers can take a data directory over.
"""

from typing import Final, TypeAlias, TypeVar

from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.schema import (
    Message,
    Struct,
    array,
    binary,
    int8,
    int16,
    int32,
    int64,
    string,
)

M = TypeVar("M", bound=Message)

OFFSET_KEY_VERSION: Final = 1
GROUP_KEY_VERSION: Final = 2
OFFSET_VALUE_VERSION: Final = 3
OFFSET_VALUE_VERSION_WITH_EXPIRY: Final = 1  # the only one that can hold an expiry of its own
GROUP_VALUE_VERSION: Final = 3
TRANSACTION_KEY_VERSION: Final = 0
TRANSACTION_VALUE_VERSION: Final = 0
TRANSACTION_VALUE_VERSION_OF_KIP_890: Final = 1

NO_EXPIRY: Final = -1


class OffsetCommitKey(Message, versions=(0, 1)):
    group: str = string()
    topic: str = string()
    partition: int = int32()


class OffsetCommitValue(Message, versions=(0, 4), flexible=4):
    """``expire_timestamp`` is set by OffsetCommit 2–4 with a retention of their own, else -1."""

    offset: int = int64()
    leader_epoch: int = int32(since=3, default=-1)
    metadata: str = string()
    commit_timestamp: int = int64()
    expire_timestamp: int = int64(since=1, until=1, default=NO_EXPIRY)


class GroupMetadataKey(Message, versions=(2, 2)):
    group: str = string()


class MemberMetadata(Struct):
    member_id: str = string()
    group_instance_id: str | None = string(since=3, nullable=True, default=None)
    client_id: str = string()
    client_host: str = string()
    rebalance_timeout: int = int32(since=1, default=-1)
    session_timeout: int = int32()
    subscription: bytes = binary()
    assignment: bytes = binary()


class GroupMetadataValue(Message, versions=(0, 4), flexible=4):
    """``current_state_timestamp`` is when the group became Empty, -1 while unknown."""

    protocol_type: str = string()
    generation: int = int32()
    protocol: str | None = string(nullable=True, default=None)
    leader: str | None = string(nullable=True, default=None)
    current_state_timestamp: int = int64(since=2, default=-1)
    members: list[MemberMetadata] = array(MemberMetadata)


class TransactionLogKey(Message, versions=(0, 0)):
    transactional_id: str = string()


class TransactionPartitions(Struct):
    topic: str = string()
    partition_ids: list[int] = array(int32)


class TransactionLogValue(Message, versions=(0, 1), flexible=1):
    """The tagged fields are those of KIP-890's second transaction protocol."""

    producer_id: int = int64()
    previous_producer_id: int = int64(since=1, tag=0, default=-1)
    next_producer_id: int = int64(since=1, tag=1, default=-1)
    producer_epoch: int = int16()
    transaction_timeout_ms: int = int32()
    transaction_status: int = int8()
    transaction_partitions: list[TransactionPartitions] | None = array(
        TransactionPartitions, nullable=True, default=None
    )
    transaction_last_update_timestamp_ms: int = int64()
    transaction_start_timestamp_ms: int = int64()
    client_transaction_version: int = int16(since=1, tag=2)


GroupTopicKey: TypeAlias = OffsetCommitKey | GroupMetadataKey


def _encode(message: Message, version: int) -> bytes:
    return version.to_bytes(2, "big") + codec.encode(message, version)


def _version(data: bytes) -> int:
    if len(data) < 2:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "a stored key or value has no version")
    return int.from_bytes(data[:2], "big", signed=True)


def _decode(cls: type[M], data: bytes) -> M:
    version = _version(data)
    if not cls.MIN_VERSION <= version <= cls.MAX_VERSION:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"{cls.__name__} was stored in unknown version {version}"
        )
    try:
        return codec.decode(cls, data, version, 2)
    except MalformedFrame as error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error


def encode_offset_key(group: str, topic: str, partition: int) -> bytes:
    key = OffsetCommitKey(group=group, topic=topic, partition=partition)
    return _encode(key, OFFSET_KEY_VERSION)


def encode_group_key(group: str) -> bytes:
    return _encode(GroupMetadataKey(group=group), GROUP_KEY_VERSION)


def decode_group_topic_key(data: bytes) -> GroupTopicKey | None:
    """A key of ``__consumer_offsets``; None for those of later protocols, to be passed over.

    Raises KafkaError CORRUPT_MESSAGE for bytes that are no key.
    """
    version = _version(data)
    if 0 <= version <= OFFSET_KEY_VERSION:
        return _decode(OffsetCommitKey, data)
    if version == GROUP_KEY_VERSION:
        return _decode(GroupMetadataKey, data)
    if version < 0:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a stored key has version {version}")
    return None


def encode_offset_value(value: OffsetCommitValue) -> bytes:
    """In version 3; in version 1, which loses the leader epoch, if it has its own expiry."""
    if value.expire_timestamp == NO_EXPIRY:
        return _encode(value, OFFSET_VALUE_VERSION)
    return _encode(value, OFFSET_VALUE_VERSION_WITH_EXPIRY)


def decode_offset_value(data: bytes) -> OffsetCommitValue:
    """Raises KafkaError CORRUPT_MESSAGE for bytes that are no such value."""
    return _decode(OffsetCommitValue, data)


def encode_group_value(value: GroupMetadataValue) -> bytes:
    return _encode(value, GROUP_VALUE_VERSION)


def decode_group_value(data: bytes) -> GroupMetadataValue:
    """Raises KafkaError CORRUPT_MESSAGE for bytes that are no such value."""
    return _decode(GroupMetadataValue, data)


def encode_transaction_key(transactional_id: str) -> bytes:
    return _encode(TransactionLogKey(transactional_id=transactional_id), TRANSACTION_KEY_VERSION)


def decode_transaction_key(data: bytes) -> TransactionLogKey | None:
    """A key of ``__transaction_state``; None for a later version, to be passed over.

    Raises KafkaError CORRUPT_MESSAGE for bytes that are no key.
    """
    if _version(data) > TRANSACTION_KEY_VERSION:
        return None
    return _decode(TransactionLogKey, data)


def encode_transaction_value(value: TransactionLogValue) -> bytes:
    """In version 0, as Kafka 2.3 reads it; in version 1 only if a client has made use of the
    second transaction protocol (KIP-890)."""
    if value.client_transaction_version:
        return _encode(value, TRANSACTION_VALUE_VERSION_OF_KIP_890)
    return _encode(value, TRANSACTION_VALUE_VERSION)


def decode_transaction_value(data: bytes) -> TransactionLogValue:
    """Raises KafkaError CORRUPT_MESSAGE for bytes that are no such value."""
    return _decode(TransactionLogValue, data)
