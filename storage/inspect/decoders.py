"""Records of the internal topics as JSON, spelled as Kafka's dump tool does.

Fields have their camel-case names and the order of their schema; bytes are Base64; a tagged
field appears when it is set. Records of the later group protocols (KIP-848, KIP-932) are named by
their type only.
"""

import base64
import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from kavka.protocol import codec
from kavka.protocol.errors import KafkaError, MalformedFrame
from kavka.protocol.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from kavka.protocol.records import internal_topics
from kavka.protocol.records.batch import Record
from kavka.protocol.records.internal_topics import (
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
    TransactionLogKey,
    TransactionLogValue,
)
from kavka.protocol.schema import Field, Message, Struct, int32, int64, string, uuid

_CONSUMER: Final = "consumer"  # the protocol type whose opaque bytes are known


class Decoded(NamedTuple):
    """Texts of a record's key and value; None leaves the part out."""

    key: str | None
    payload: str | None


RecordDecoder: TypeAlias = Callable[[Record], Decoded]


class _OffsetCommitValue4(Message, versions=(4, 4), flexible=4):
    """The newest form, with the topic id that Kafka 4.2 adds."""

    offset: int = int64()
    leader_epoch: int = int32(default=-1)
    metadata: str = string()
    commit_timestamp: int = int64()
    topic_id: bytes = uuid(tag=0)


def decode_offsets_record(record: Record) -> Decoded:
    """A record of ``__consumer_offsets``."""
    return _decode(record, _group_value_type)


def decode_transaction_record(record: Record) -> Decoded:
    """A record of ``__transaction_state``."""
    return _decode(record, _transaction_value_type)


class _Types(NamedTuple):
    key: type[Message]
    values: Callable[[int], type[Message]]  # by version


def _group_value_type(key_version: int) -> _Types | None:
    if 0 <= key_version <= internal_topics.OFFSET_KEY_VERSION:
        return _Types(
            OffsetCommitKey, lambda v: _OffsetCommitValue4 if v == 4 else OffsetCommitValue
        )
    if key_version == internal_topics.GROUP_KEY_VERSION:
        return _Types(GroupMetadataKey, lambda _: GroupMetadataValue)
    return None


def _transaction_value_type(key_version: int) -> _Types | None:
    if key_version == internal_topics.TRANSACTION_KEY_VERSION:
        return _Types(TransactionLogKey, lambda _: TransactionLogValue)
    return None


def _decode(record: Record, types_of: Callable[[int], _Types | None]) -> Decoded:
    if record.key is None:
        return Decoded(f"Error at offset {record.offset}, skipping. It has no key.", None)
    try:
        version = _version(record.key)
        types = types_of(version)
        if types is None:
            return Decoded(
                f"Unknown record type {version} at offset {record.offset}, skipping.", None
            )
        key = {"type": str(version), "data": _read(types.key, record.key, version)}
        if record.value is None:
            return Decoded(_dumps(key), "<DELETE>")
        version = _version(record.value)
        cls = types.values(version)
        value = {"version": str(version), "data": _read(cls, record.value, version)}
    except (MalformedFrame, KafkaError) as error:
        return Decoded(f"Error at offset {record.offset}, skipping. {error}", None)
    return Decoded(_dumps(key), _dumps(value))


def _version(data: bytes) -> int:
    if len(data) < 2:
        raise MalformedFrame("There is no version.")
    return int.from_bytes(data[:2], "big", signed=True)


def _read(cls: type[Message], data: bytes, version: int) -> dict[str, Any]:
    if not cls.MIN_VERSION <= version <= cls.MAX_VERSION:
        raise MalformedFrame(f"Version {version} is unknown.")
    shown = as_json(codec.decode(cls, data, version, 2), version)
    if cls is GroupMetadataValue and shown["protocolType"] == _CONSUMER:
        for member in shown["members"]:
            _open(member, "subscription", ConsumerProtocolSubscription)
            _open(member, "assignment", ConsumerProtocolAssignment)
    return shown


def _open(member: dict[str, Any], field: str, cls: type[Message]) -> None:
    """Show what is in the bytes of a field, if they are what they should be."""
    data = base64.b64decode(member[field])
    try:
        # A version later than those known begins with the fields of the last one that is.
        version = min(_version(data), cls.MAX_VERSION)
        member[field] = as_json(codec.decode(cls, data, version, 2), version)
    except MalformedFrame:
        pass  # a client may put there what it likes: the bytes are shown as they are


def as_json(message: Struct, version: int) -> dict[str, Any]:
    """A message, as far as ``version`` has its fields, by their names in Kafka's schemas."""
    shown = {}
    for field in message.FIELDS:
        value = getattr(message, field.name)
        if field.present(version) and (field.tag is None or value != field.default):
            shown[_camel_case(field.name)] = _value(value, field, version)
    return shown


def _value(value: Any, field: Field, version: int) -> Any:
    if value is None:
        return None
    if isinstance(value, Struct):
        return as_json(value, version)
    if isinstance(value, list):
        element = field.element
        return [
            _value(each, element, version) if isinstance(element, Field) else as_json(each, version)
            for each in value
        ]
    if field.kind == "uuid":
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode()
    return value


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
