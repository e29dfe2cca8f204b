"""Produce requests of several partitions, read and answered by hand.

What a producer that writes to many partitions sends: any number of topics and partitions, without
a transactional id or tagged fields. Everything else takes the compiled codec; a property test
holds the two to the same result. One partition has a shorter way yet, :mod:`.single`.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from kavka.broker.produce.single import FIRST_FLEXIBLE_VERSION, FIRST_VERSION
from kavka.protocol.errors import MalformedFrame
from kavka.protocol.primitives import read_uvarint, uvarint
from kavka.storage.append import AppendInfo

_HEAD: Final = Struct(">hhii")  # no transactional id, acks, timeout, topics
_COUNT: Final = Struct(">i")
_LENGTH: Final = Struct(">h")
_PARTITION: Final = Struct(">ii")  # index, size of the records
_FLEXIBLE_HEAD: Final = Struct(">Bhi")  # no transactional id, acks, timeout

_RESULT_V3: Final = Struct(">ihqq")  # index, no error, base offset, log append time
_RESULT_V5: Final = Struct(">ihqqq")  # + log start offset
_RESULT_V8: Final = Struct(">ihqqq6s")  # + no record errors, no message
_FLEXIBLE_RESULT: Final = Struct(">ihqqq3s")  # the same, and the end of a struct
_NO_ERRORS: Final = b"\0\0\0\0\xff\xff"
_FLEXIBLE_NO_ERRORS: Final = b"\1\0\0"
_NO_THROTTLE: Final = bytes(4)


class TopicRecords(NamedTuple):
    """One topic's partitions: index and records of each."""

    topic: bytes
    partitions: list[tuple[int, memoryview]]


class SeveralProduce(NamedTuple):
    """The records of all partitions and what was asked with them."""

    acks: int
    timeout_ms: int
    topics: list[TopicRecords]


def parse(body: memoryview, version: int) -> SeveralProduce | None:
    """The request if it is an ordinary one; None when the general codec has to look at it."""
    try:
        if version >= FIRST_FLEXIBLE_VERSION:
            return _parse_flexible(body)
        if version >= FIRST_VERSION:
            return _parse_classic(body)
    except (StructError, IndexError, MalformedFrame):
        pass  # too short: the codec says what is wrong with it
    return None


def _parse_classic(body: memoryview) -> SeveralProduce | None:
    transactional, acks, timeout_ms, count = _HEAD.unpack_from(body)
    if transactional != -1 or count < 0:
        return None
    topics: list[TopicRecords] = []
    unpack = _PARTITION.unpack_from
    at = _HEAD.size
    for _ in range(count):
        start = at + _LENGTH.size
        length = _LENGTH.unpack_from(body, at)[0]
        at = start + length
        count = _COUNT.unpack_from(body, at)[0]
        if length < 0 or count < 0:
            return None
        topic = body[start:at].tobytes()
        at += _COUNT.size
        partitions: list[tuple[int, memoryview]] = []
        for _ in range(count):
            index, size = unpack(body, at)
            if size < 0:
                return None
            start = at + 8
            at = start + size
            partitions.append((index, body[start:at]))
        topics.append(TopicRecords(topic, partitions))
    return SeveralProduce(acks, timeout_ms, topics) if at == len(body) else None


def _parse_flexible(body: memoryview) -> SeveralProduce | None:
    transactional, acks, timeout_ms = _FLEXIBLE_HEAD.unpack_from(body)
    count, at = read_uvarint(body, _FLEXIBLE_HEAD.size)
    if transactional or not count:
        return None
    topics: list[TopicRecords] = []
    unpack = _COUNT.unpack_from
    for _ in range(count - 1):
        length, start = read_uvarint(body, at)
        at = start + length - 1
        topic = body[start:at].tobytes()
        count, at = read_uvarint(body, at)
        if not length or not count:
            return None
        partitions: list[tuple[int, memoryview]] = []
        for _ in range(count - 1):
            index = unpack(body, at)[0]
            size, start = read_uvarint(body, at + 4)
            at = start + size - 1
            if not size or body[at]:  # tagged fields
                return None
            partitions.append((index, body[start:at]))
            at += 1
        if body[at]:
            return None
        at += 1
        topics.append(TopicRecords(topic, partitions))
    if body[at] or at + 1 != len(body):
        return None
    return SeveralProduce(acks, timeout_ms, topics)


def answer(version: int, topics: Sequence[TopicRecords], infos: Iterable[AppendInfo]) -> bytes:
    """The body of the response to a request that went well, for all partitions in their order."""
    flexible = version >= FIRST_FLEXIBLE_VERSION
    left = iter(infos)
    parts = [uvarint(len(topics) + 1) if flexible else _COUNT.pack(len(topics))]
    for topic, partitions in topics:
        if flexible:
            parts += uvarint(len(topic) + 1), topic, uvarint(len(partitions) + 1)
        else:
            parts += _LENGTH.pack(len(topic)), topic, _COUNT.pack(len(partitions))
        for (index, _), info in zip(partitions, left, strict=False):
            base, time, start = info.first_offset, info.log_append_time, info.log_start_offset
            if flexible:
                result = _FLEXIBLE_RESULT.pack(index, 0, base, time, start, _FLEXIBLE_NO_ERRORS)
            elif version >= 8:
                result = _RESULT_V8.pack(index, 0, base, time, start, _NO_ERRORS)
            elif version >= 5:
                result = _RESULT_V5.pack(index, 0, base, time, start)
            else:
                result = _RESULT_V3.pack(index, 0, base, time)
            parts.append(result)
        if flexible:
            parts.append(b"\0")
    parts.append(_NO_THROTTLE)
    if flexible:
        parts.append(b"\0")
    return b"".join(parts)
