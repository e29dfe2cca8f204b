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
_PARTITION: Final = Struct(">iii")  # one partition, index, size of its records
_FLEXIBLE_HEAD: Final = Struct(">BhiBB")
_FLEXIBLE_PARTITION: Final = Struct(">Bi")

_ONE: Final = Struct(">ih")  # one topic, size of its name
_ANSWER_V3: Final = Struct(">iihqqi")  # one partition, index, error, base offset, time, throttle
_ANSWER_V5: Final = Struct(">iihqqqi")  # + log start offset
_ANSWER_V8: Final = Struct(">iihqqqihi")  # + no record errors, no message
_FLEXIBLE_ANSWER: Final = Struct(">BihqqqBBBBiB")


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
    partitions, index, size = _PARTITION.unpack_from(body, at)
    start = at + _PARTITION.size
    if partitions != 1 or size < 0 or start + size != len(body):
        return None
    topic = body[_HEAD.size : at].tobytes()
    return tuple.__new__(SingleProduce, (acks, timeout_ms, topic, index, body[start:]))


def _parse_flexible(body: memoryview) -> SingleProduce | None:
    transactional, acks, timeout_ms, topics, length = _FLEXIBLE_HEAD.unpack_from(body)
    if transactional or topics != 2 or not 2 <= length < 0x80:
        return None
    at = _FLEXIBLE_HEAD.size + length - 1
    partitions, index = _FLEXIBLE_PARTITION.unpack_from(body, at)
    if partitions != 2:
        return None
    start = at + _FLEXIBLE_PARTITION.size
    size = shift = 0
    while (byte := body[start]) >= 0x80:
        size |= (byte & 0x7F) << shift
        shift += 7
        start += 1
        if shift > 28:
            return None
    size |= byte << shift
    start += 1
    end = start + size - 1
    # Behind the records only the ends of three structs, none with tagged fields.
    if size == 0 or body[end:].tobytes() != b"\0\0\0":
        return None
    topic = body[_FLEXIBLE_HEAD.size : at].tobytes()
    return tuple.__new__(SingleProduce, (acks, timeout_ms, topic, index, body[start:end]))


def answer(
    version: int,
    topic: bytes,
    index: int,
    base_offset: int,
    log_append_time: int,
    log_start_offset: int,
) -> bytes:
    """The body of the response to a request that went well."""
    if version >= FIRST_FLEXIBLE_VERSION:
        return b"%c%c%b%b" % (
            2,
            len(topic) + 1,
            topic,
            _FLEXIBLE_ANSWER.pack(
                2, index, 0, base_offset, log_append_time, log_start_offset, 1, 0, 0, 0, 0, 0
            ),
        )
    head = _ONE.pack(1, len(topic)) + topic
    if version >= 8:
        return head + _ANSWER_V8.pack(
            1, index, 0, base_offset, log_append_time, log_start_offset, 0, -1, 0
        )
    if version >= 5:
        return head + _ANSWER_V5.pack(
            1, index, 0, base_offset, log_append_time, log_start_offset, 0
        )
    return head + _ANSWER_V3.pack(1, index, 0, base_offset, log_append_time, 0)
