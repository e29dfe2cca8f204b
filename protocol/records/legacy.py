"""Message sets of formats 0 and 1: what clients before Kafka 0.11 write and read.

A set is a concatenation of ``offset int64, size int32, message``. A message is crc (CRC-32 over
everything from the magic on), magic, attributes, in format 1 a timestamp, then key and value with
int32 lengths. A compressed set travels as the value of one *wrapper* message that has the offset
of the last message inside; the messages within have absolute offsets in format 0 and relative
ones in format 1 (absolute = wrapper's − last inner + inner).
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    CODEC_MASK,
    LOG_APPEND_TIME,
    LOG_OVERHEAD,
    MIN_MESSAGE_SIZE,
    NO_TIMESTAMP,
    TIMESTAMP_TYPE_MASK,
    Record,
    iter_batches,
    iter_records,
    read_header,
)
from kavka.protocol.records.compression import compress, decompress
from kavka.protocol.records.crc import Buffer

_ENTRY: Final = Struct(">qiIbb")  # offset, size, crc, magic, attributes
_PREFIX: Final = Struct(">qiI")
_FORMAT_AND_TIME: Final = Struct(">bbq")
_FORMAT: Final = Struct(">bb")
_INT64: Final = Struct(">q")
_INT32: Final = Struct(">i")
_MAGIC_OFFSET: Final = 16
_ATTRIBUTES_OFFSET: Final = 17
_KEY_OFFSET: Final = (18, 26)  # from the start of the entry, by magic
_MIN_MESSAGE_SIZE: Final = (14, 22)
_NULL: Final = b"\xff\xff\xff\xff"


class Message(NamedTuple):
    """One entry of a message set; ``timestamp`` is -1 in format 0, as ``key`` is in a wrapper."""

    offset: int
    magic: int
    attributes: int
    timestamp: int
    key: bytes | None
    value: bytes | None

    @property
    def codec(self) -> int:
        """Codec of the set in ``value`` when this is a wrapper, else 0."""
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self) -> int:
        return (self.attributes & TIMESTAMP_TYPE_MASK) >> 3


def _corrupt(message: str) -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, message)


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)


def _octets(view: memoryview, at: int, end: int) -> tuple[bytes | None, int]:
    """An int32 length (-1 for null) and as many bytes, which must not pass ``end``."""
    if at + 4 > end:
        raise _corrupt("a message ends inside a length")
    (length,) = _INT32.unpack_from(view, at)
    at += 4
    if length == -1:
        return None, at
    if not 0 <= length <= end - at:
        raise _corrupt("a key or value passes its message's end")
    return bytes(view[at : at + length]), at + length


def read_message(buf: Buffer, pos: int, size: int) -> Message:
    """Read the entry of ``size`` bytes (as ``iter_batches`` gives it) and verify its checksum.

    Raises KafkaError CORRUPT_MESSAGE.
    """
    view = memoryview(buf)[pos : pos + size]
    if len(view) < size or size < LOG_OVERHEAD + MIN_MESSAGE_SIZE:
        raise _corrupt("a message is smaller than the smallest legal one")
    offset, length, crc, magic, attributes = _ENTRY.unpack_from(view)
    if magic not in (0, 1) or length != size - LOG_OVERHEAD or length < _MIN_MESSAGE_SIZE[magic]:
        raise _corrupt(f"no message of format 0 or 1 (magic {magic}, size {length})")
    if crc32(view[_MAGIC_OFFSET:]) != crc:
        raise _corrupt(f"the message is corrupt (stored crc = {crc})")
    timestamp: int = _INT64.unpack_from(view, 18)[0] if magic else NO_TIMESTAMP
    key, at = _octets(view, _KEY_OFFSET[magic], size)
    value, at = _octets(view, at, size)
    if at != size:
        raise _corrupt("a message's size does not match its fields")
    return Message(offset, magic, attributes, timestamp, key, value)


def _last_inner(inner_set: bytes, magic: int) -> int:
    """Check the structure of a decompressed set; the position of its last message."""
    last = -1
    end = 0
    for pos, size, found in iter_batches(inner_set):
        if found != magic:
            raise _invalid(f"a message of format {found} lies in a set of format {magic}")
        if inner_set[pos + _ATTRIBUTES_OFFSET] & CODEC_MASK:
            raise _invalid("a compressed message set lies in another")
        last = pos
        end = pos + size
    if last < 0:
        raise _invalid("a compressed message set is empty")
    if end != len(inner_set):
        raise _invalid("a compressed message set ends inside a message")
    return last


def expand(message: Message, limit: int) -> Iterator[Message]:
    """The messages inside a wrapper with their absolute offsets; a plain message gives itself.

    The wrapper's timestamp type goes to all, and its timestamp too if that is LogAppendTime.
    ``limit`` bounds the decompressed bytes. Raises KafkaError CORRUPT_MESSAGE, INVALID_RECORD or
    UNSUPPORTED_COMPRESSION_TYPE.
    """
    codec = message.attributes & CODEC_MASK
    if codec == 0:
        yield message
        return
    if message.value is None:
        raise _invalid("a compressed message set has no value")
    inner_set = decompress(codec, message.value, limit, message.magic)
    last = _last_inner(inner_set, message.magic)
    if message.magic == 0:
        for pos, size, _ in iter_batches(inner_set):
            yield read_message(inner_set, pos, size)
        return
    # Some librdkafka versions produce wrappers of offset 0 whatever is inside.
    base = message.offset - _INT64.unpack_from(inner_set, last)[0] if message.offset else 0
    type_bit = message.attributes & TIMESTAMP_TYPE_MASK
    for pos, size, _ in iter_batches(inner_set):
        inner = read_message(inner_set, pos, size)
        offset = base + inner.offset
        if base < 0 or not 0 <= offset < 2**63:
            raise _invalid("a compressed message set has impossible offsets")
        yield inner._replace(
            offset=offset,
            attributes=type_bit,
            timestamp=message.timestamp if type_bit else inner.timestamp,
        )


def as_record(message: Message) -> Record:
    """The record a plain message is."""
    return Record(message.offset, message.timestamp, message.key, message.value)


def read_records(buf: Buffer, pos: int, size: int, magic: int, limit: int) -> Iterator[Record]:
    """Decode one batch or entry of whatever format, as ``iter_batches`` gives it.

    Raises KafkaError as ``batch.iter_records`` and :func:`expand` do.
    """
    if magic >= 2:
        yield from iter_records(buf, pos, read_header(buf, pos), limit)
        return
    for message in expand(read_message(buf, pos, size), limit):
        yield as_record(message)


def _encode(out: bytearray, record: Record, offset: int, magic: int, attributes: int) -> None:
    _, timestamp, key, value, _ = record
    body = bytearray(
        _FORMAT_AND_TIME.pack(magic, attributes, timestamp)
        if magic
        else _FORMAT.pack(magic, attributes)
    )
    for octets in (key, value):
        if octets is None:
            body += _NULL
        else:
            body += _INT32.pack(len(octets))
            body += octets
    out += _PREFIX.pack(offset, len(body) + 4, crc32(body))
    out += body


def build_message_set(
    records: Iterable[Record],
    magic: int,
    *,
    codec: int = 0,
    timestamp_type: int = 0,
    level: int | None = None,
) -> bytes:
    """Encode ``records`` in format 0 or 1; headers are lost, format 0 loses timestamps too.

    With a codec the result is one wrapper (nothing, without records). Under LogAppendTime all
    timestamps must be the same: the time the set was appended.
    """
    attributes = TIMESTAMP_TYPE_MASK if magic and timestamp_type == LOG_APPEND_TIME else 0
    out = bytearray()
    if codec == 0:
        for record in records:
            _encode(out, record, record.offset, magic, attributes)
        return bytes(out)
    base: int | None = None
    last_offset = 0
    max_timestamp = NO_TIMESTAMP
    for record in records:
        last_offset = record.offset
        if base is None:
            base = last_offset if magic else 0
        max_timestamp = max(max_timestamp, record.timestamp)
        _encode(out, record, last_offset - base, magic, attributes)
    if base is None:
        return b""
    wrapper = Record(last_offset, max_timestamp, None, compress(codec, out, level, magic))
    out = bytearray()
    _encode(out, wrapper, last_offset, magic, codec | attributes)
    return bytes(out)
