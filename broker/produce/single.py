"""The ordinary Produce request, of one partition, read and answered by hand.

Nearly every request that matters for speed names one topic and one partition, without a
transactional id. Its fields are read here with two ``Struct`` calls and its answer is written with
one; everything else takes the compiled codec. A property test holds the two to the same result.
"""

from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from kavka.protocol.records.batch import TRANSACTIONAL_MASK

FIRST_VERSION: Final = 3
_MAGIC_AT: Final = 16
_ATTRIBUTES_AT: Final = 22  # the low byte of a record batch's attributes
FIRST_FLEXIBLE_VERSION: Final = 9

_HEAD: Final = Struct(">hhiih")  # no transactional id, acks, timeout, one topic, size of its name
_PARTITION: Final = Struct(">ii")  # one partition, index
_SIZE: Final = Struct(">i")
_FLEXIBLE_HEAD: Final = Struct(">BhiBB")
_FLEXIBLE_PARTITION: Final = Struct(">Bi")

_ONE: Final = Struct(">ih")  # one topic, size of its name
_RESULT: Final = Struct(">iih")  # one partition, index, no error
_FLEXIBLE_RESULT: Final = Struct(">Bih")
_OFFSETS_V3: Final = Struct(">qq")  # base offset, log append time
_OFFSETS: Final = Struct(">qqq")  # + log start offset
_REST_V3: Final = bytes(4)  # no throttle time
_REST_V8: Final = b"\0\0\0\0\xff\xff\0\0\0\0"  # no record errors, no message, no throttle time
_FLEXIBLE_REST: Final = b"\1\0\0\0\0\0\0\0\0"  # the same, and three ends of structs


class SingleProduce(NamedTuple):
    """One partition's records and what was asked with them."""

    acks: int
    timeout_ms: int
    topic: bytes
    partition: int
    records: memoryview


def is_transactional(records: memoryview) -> bool:
    """Whether the first batch says that it belongs to a transaction."""
    return (
        len(records) > _ATTRIBUTES_AT
        and records[_ATTRIBUTES_AT] & TRANSACTIONAL_MASK != 0
        and records[_MAGIC_AT] == 2
    )


def parse(body: memoryview, version: int) -> SingleProduce | None:
    """The request if it is an ordinary one; None when the general codec has to look at it."""
    try:
        if version >= FIRST_FLEXIBLE_VERSION:
            return _parse_flexible(body)
        if version >= FIRST_VERSION:
            return _parse_classic(body)
    except (StructError, IndexError):
        pass  # too short: the codec says what is wrong with it
    return None


def _parse_classic(body: memoryview) -> SingleProduce | None:
    transactional, acks, timeout_ms, topics, length = _HEAD.unpack_from(body)
    if transactional != -1 or topics != 1 or length <= 0:
        return None
    at = _HEAD.size + length
    partitions, index = _PARTITION.unpack_from(body, at)
    if partitions != 1:
        return None
    records = classic_records(body, at + _PARTITION.size)
    if records is None:
        return None
    topic = body[_HEAD.size : at].tobytes()
    return tuple.__new__(SingleProduce, (acks, timeout_ms, topic, index, records))


def _parse_flexible(body: memoryview) -> SingleProduce | None:
    transactional, acks, timeout_ms, topics, length = _FLEXIBLE_HEAD.unpack_from(body)
    if transactional or topics != 2 or not 2 <= length < 0x80:
        return None
    at = _FLEXIBLE_HEAD.size + length - 1
    partitions, index = _FLEXIBLE_PARTITION.unpack_from(body, at)
    if partitions != 2:
        return None
    records = flexible_records(body, at + _FLEXIBLE_PARTITION.size)
    if records is None:
        return None
    topic = body[_FLEXIBLE_HEAD.size : at].tobytes()
    return tuple.__new__(SingleProduce, (acks, timeout_ms, topic, index, records))


def classic_records(data: memoryview, at: int) -> memoryview | None:
    """The records whose size stands at ``at``, if they end the request.

    Raises struct.error when there is no size.
    """
    start = at + 4
    size = _SIZE.unpack_from(data, at)[0]
    if size < 0 or start + size != len(data):
        return None
    return data[start:]


def flexible_records(data: memoryview, at: int) -> memoryview | None:
    """:func:`classic_records` of a flexible version. Raises IndexError when there is no size."""
    size = shift = 0
    while (byte := data[at]) >= 0x80:
        size |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if shift > 28:
            return None
    size |= byte << shift
    at += 1
    end = at + size - 1
    # Behind the records only the ends of three structs, none with tagged fields.
    if size == 0 or data[end:].tobytes() != b"\0\0\0":
        return None
    return data[at:end]


def name_length_at(version: int) -> tuple[int, int]:
    """Where in the body the last byte of the length of the topic's name stands, and how far
    behind it, less the value of that byte, the size of the records does."""
    if version >= FIRST_FLEXIBLE_VERSION:
        return _FLEXIBLE_HEAD.size - 1, _FLEXIBLE_PARTITION.size
    return _HEAD.size - 1, _PARTITION.size + 1


def size_at(version: int, topic: bytes) -> int:
    """Where in the body the size of the records stands."""
    if version >= FIRST_FLEXIBLE_VERSION:
        return _FLEXIBLE_HEAD.size + len(topic) + _FLEXIBLE_PARTITION.size
    return _HEAD.size + len(topic) + _PARTITION.size


def answer(
    version: int,
    topic: bytes,
    index: int,
    base_offset: int,
    log_append_time: int,
    log_start_offset: int,
) -> bytes:
    """The body of the response to a request that went well."""
    front, back = around_offsets(version, topic, index)
    if version >= 5:
        return front + _OFFSETS.pack(base_offset, log_append_time, log_start_offset) + back
    return front + _OFFSETS_V3.pack(base_offset, log_append_time) + back


def around_offsets(version: int, topic: bytes, index: int) -> tuple[bytes, bytes]:
    """What stands before and behind the offsets in the body of such a response."""
    if version >= FIRST_FLEXIBLE_VERSION:
        front = b"%c%c%b%b" % (2, len(topic) + 1, topic, _FLEXIBLE_RESULT.pack(2, index, 0))
        return front, _FLEXIBLE_REST
    front = _ONE.pack(1, len(topic)) + topic + _RESULT.pack(1, index, 0)
    return front, _REST_V8 if version >= 8 else _REST_V3
