"""Record batches of message format 2 (KIP-98): header, records, builder and in-place patches.

A broker carries batches without looking into them: :func:`read_header` reads the 61 bytes in
front with one ``Struct``, :func:`crc_ok` sums the rest, :func:`stamp` writes offset and leader
epoch into the buffer that arrived (both lie outside the checksum). Only compaction, conversion,
internal topics and queries decode records, by :func:`iter_records`.

Layout, all big-endian::

     0 base_offset int64             27 first_timestamp int64
     8 batch_length int32            35 max_timestamp int64
    12 partition_leader_epoch int32  43 producer_id int64
    16 magic int8 = 2                51 producer_epoch int16
    17 crc uint32 (of bytes 21..)    53 base_sequence int32
    21 attributes int16              57 records_count int32
    23 last_offset_delta int32       61 records, as one compressed stream unless codec is 0
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.crc import Buffer, WritableBuffer, crc32c

LOG_OVERHEAD: Final = 12  # base offset and length, which no length field counts
HEADER_SIZE: Final = 61
MAGIC_OFFSET: Final = 16  # the same place in all three message formats
CRC_OFFSET: Final = 17
CRC_START: Final = 21  # the checksum covers everything from here
_MAX_TIMESTAMP_OFFSET: Final = 35
MIN_RECORD_SIZE: Final = 7  # bytes of a record without key, value and headers
MIN_MESSAGE_SIZE: Final = 14  # the smallest legal length field: an empty message of format 0

CODEC_MASK: Final = 0x07
TIMESTAMP_TYPE_MASK: Final = 0x08
TRANSACTIONAL_MASK: Final = 0x10
CONTROL_MASK: Final = 0x20
DELETE_HORIZON_MASK: Final = 0x40  # KIP-534: first_timestamp is the delete horizon

CREATE_TIME: Final = 0
LOG_APPEND_TIME: Final = 1

NO_TIMESTAMP: Final = -1
NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
NO_LEADER_EPOCH: Final = -1
MAX_SEQUENCE: Final = 2**31 - 1
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
_BASE_OFFSET_END: Final = 2**63 - 2**31  # so that no int32 delta leads out of int64

_HEADER: Final = Struct(">qiibIhiqqqhii")
_AFTER_CRC: Final = Struct(">hiqqqhii")
_PREFIX: Final = Struct(">qiibI")
_SIZE_AND_MAGIC: Final = Struct(">ixxxxb")
_INT64: Final = Struct(">q")
_INT32: Final = Struct(">i")
_UINT32: Final = Struct(">I")
_INT16: Final = Struct(">h")

assert _HEADER.size == HEADER_SIZE


def advance_sequence(sequence: int, increment: int) -> int:
    """The sequence ``increment`` records after ``sequence``: 0 comes after 2147483647."""
    if sequence > MAX_SEQUENCE - increment:
        return increment - (MAX_SEQUENCE - sequence) - 1
    return sequence + increment


class BatchHeader(NamedTuple):
    """The fixed fields of a record batch, in wire order, and what follows from them."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records_count: int

    @property
    def size(self) -> int:
        """Total bytes of the batch, including offset and length in front."""
        return self.batch_length + LOG_OVERHEAD

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self) -> int:
        """``CREATE_TIME`` or ``LOG_APPEND_TIME``."""
        return (self.attributes & TIMESTAMP_TYPE_MASK) >> 3

    @property
    def is_transactional(self) -> bool:
        return self.attributes & TRANSACTIONAL_MASK != 0

    @property
    def is_control(self) -> bool:
        return self.attributes & CONTROL_MASK != 0

    @property
    def delete_horizon(self) -> int | None:
        """When tombstones of the batch may go (ms since 1970, KIP-534); None while not set."""
        return self.first_timestamp if self.attributes & DELETE_HORIZON_MASK else None

    @property
    def has_producer_id(self) -> bool:
        return self.producer_id > NO_PRODUCER_ID

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; ``NO_SEQUENCE`` when the batch has none."""
        if self.base_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return advance_sequence(self.base_sequence, self.last_offset_delta)


Header = tuple[str, bytes | None]


class Record(NamedTuple):
    """One record: ``timestamp`` in ms since 1970 (-1 for none), header keys as text.

    Header keys that are not UTF-8 keep their bytes as surrogate escapes, so that a batch rebuilt
    by compaction loses nothing.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


header_fields: Final = _HEADER.unpack_from
"""The fields of a :class:`BatchHeader` as a bare tuple, from 61 bytes that must be there."""


def read_header(buf: Buffer, pos: int = 0) -> BatchHeader:
    """Read the header at ``pos``; the caller has seen that the magic there is 2.

    Raises KafkaError CORRUPT_MESSAGE when fewer than 61 bytes are left.
    """
    try:
        return tuple.__new__(BatchHeader, _HEADER.unpack_from(buf, pos))
    except StructError:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"a record batch needs {HEADER_SIZE} bytes of header"
        ) from None


def crc_ok(buf: Buffer, pos: int, size: int) -> bool:
    """Whether the batch of ``size`` bytes at ``pos`` is whole and its checksum holds."""
    if size < HEADER_SIZE or pos + size > len(buf):
        return False
    stored: int = _UINT32.unpack_from(buf, pos + CRC_OFFSET)[0]
    return crc32c(memoryview(buf)[pos + CRC_START : pos + size]) == stored


def iter_batches(buf: Buffer) -> Iterator[tuple[int, int, int]]:
    """Walk a concatenation of batches and message-set entries: (position, size, magic) of each.

    Structure only: sizes and magic are checked, checksums are not. An incomplete entry at the end
    is legal (fetches cut anywhere) and not reported. Raises KafkaError CORRUPT_MESSAGE for a size
    no entry can have or an unknown magic.
    """
    pos = 0
    end = len(buf)
    unpack = _SIZE_AND_MAGIC.unpack_from
    while end - pos > MAGIC_OFFSET:
        length, magic = unpack(buf, pos + 8)
        if not 0 <= magic <= 2:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"unknown message format {magic}")
        if length < MIN_MESSAGE_SIZE or (magic == 2 and length < HEADER_SIZE - LOG_OVERHEAD):
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"size {length} is below the smallest legal one"
            )
        size = length + LOG_OVERHEAD
        if size > end - pos:
            return
        yield pos, size, magic
        pos += size


def records_payload(buf: Buffer, pos: int, header: BatchHeader, limit: int) -> bytes:
    """The batch's records as they are without compression: a copy of at most ``limit`` bytes.

    Raises KafkaError CORRUPT_MESSAGE for a stream that cannot be decompressed or is larger.
    """
    stop = pos + header.size
    if header.batch_length < HEADER_SIZE - LOG_OVERHEAD or stop > len(buf):
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "the record batch is not complete")
    body = memoryview(buf)[pos + HEADER_SIZE : stop]
    codec = header.attributes & CODEC_MASK
    if codec == 0:
        return bytes(body)
    from kavka.protocol.records.compression import decompress  # codecs: only when met

    return decompress(codec, body, limit)


def long_varint(data: bytes, at: int, first: int, max_bytes: int) -> tuple[int, int]:
    """Finish a varint whose ``first`` byte has its high bit set; (raw value, next position).

    For parsers that take the usual single byte inline; raw means not yet un-zigzagged.
    ``max_bytes`` is 5 for a varint and 10 for a varlong. Raises KafkaError INVALID_RECORD.
    """
    byte = data[at]
    at += 1
    value = first & 0x7F | (byte & 0x7F) << 7
    if byte < 0x80:
        return value, at
    for shift in range(14, max_bytes * 7, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> (32 if max_bytes == 5 else 64):
                break
            return value, at
    raise KafkaError(ErrorCode.INVALID_RECORD, "a varint is too long")


def wrap_int64(value: int) -> int:
    """``value`` as Java's long arithmetic has it, in which timestamps and deltas wrap."""
    return (value - INT64_MIN) % 2**64 + INT64_MIN


def _parse_headers(data: bytes, at: int, end: int, count: int) -> tuple[tuple[Header, ...], int]:
    if count > (end - at) >> 1:  # a header takes two bytes at least
        raise KafkaError(ErrorCode.INVALID_RECORD, f"a record cannot hold {count} headers")
    headers: list[Header] = []
    for _ in range(count):
        raw = data[at]
        at += 1
        if raw >= 0x80:
            raw, at = long_varint(data, at, raw, 5)
        if raw & 1:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a header has no key")
        stop = at + (raw >> 1)
        if stop > end:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a header key passes the record's end")
        name = data[at:stop].decode("utf-8", "surrogateescape")
        at = stop
        raw = data[at]
        at += 1
        if raw >= 0x80:
            raw, at = long_varint(data, at, raw, 5)
        if raw & 1:
            if raw != 1:
                raise KafkaError(ErrorCode.INVALID_RECORD, "a header value has a negative size")
            headers.append((name, None))
            continue
        stop = at + (raw >> 1)
        if stop > end:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a header value passes the record's end")
        headers.append((name, data[at:stop]))
        at = stop
    return tuple(headers), at


def _parse_record(
    data: bytes, at: int, end: int, base_offset: int, first_timestamp: int
) -> tuple[Record, int]:
    """Parse the record body in ``data[at:end]``: inline varints, for this is the slow loop."""
    at += 1  # the record's attributes are unused
    raw = data[at]
    at += 1
    if raw >= 0x80:
        raw, at = long_varint(data, at, raw, 10)
    timestamp = first_timestamp + ((raw >> 1) ^ -(raw & 1))
    if not INT64_MIN <= timestamp <= INT64_MAX:
        timestamp = wrap_int64(timestamp)
    raw = data[at]
    at += 1
    if raw >= 0x80:
        raw, at = long_varint(data, at, raw, 5)
    offset = base_offset + ((raw >> 1) ^ -(raw & 1))
    raw = data[at]
    at += 1
    if raw >= 0x80:
        raw, at = long_varint(data, at, raw, 5)
    if raw & 1:
        if raw != 1:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a key has a negative size")
        key = None
    else:
        stop = at + (raw >> 1)
        if stop > end:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a key passes the record's end")
        key = data[at:stop]
        at = stop
    raw = data[at]
    at += 1
    if raw >= 0x80:
        raw, at = long_varint(data, at, raw, 5)
    if raw & 1:
        if raw != 1:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a value has a negative size")
        value = None
    else:
        stop = at + (raw >> 1)
        if stop > end:
            raise KafkaError(ErrorCode.INVALID_RECORD, "a value passes the record's end")
        value = data[at:stop]
        at = stop
    raw = data[at]
    at += 1
    if raw == 0:
        return Record(offset, timestamp, key, value), at
    if raw >= 0x80:
        raw, at = long_varint(data, at, raw, 5)
    if raw & 1:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a record has a negative number of headers")
    headers, at = _parse_headers(data, at, end, raw >> 1)
    return Record(offset, timestamp, key, value, headers), at


def iter_records(buf: Buffer, pos: int, header: BatchHeader, limit: int) -> Iterator[Record]:
    """Decode the records of the batch at ``pos``; ``limit`` bounds the decompressed bytes.

    Raises KafkaError: CORRUPT_MESSAGE for a stream that cannot be decompressed (or not within
    ``limit``), INVALID_RECORD for records that do not parse, or fewer or more bytes than the
    header's count calls for.
    """
    yield from parse_records(records_payload(buf, pos, header, limit), header)


def parse_records(data: bytes, header: BatchHeader) -> Iterator[Record]:
    """Decode a batch's records from its payload, already decompressed.

    Raises KafkaError INVALID_RECORD as :func:`iter_records` does.
    """
    size = len(data)
    base_offset = header.base_offset
    first_timestamp = header.first_timestamp
    append_time = (
        header.max_timestamp if header.attributes & TIMESTAMP_TYPE_MASK else None
    )  # then every record has the batch's time
    if header.records_count < 0 or not 0 <= base_offset < _BASE_OFFSET_END:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a batch's record count or offset is impossible")
    at = 0
    try:
        for _ in range(header.records_count):
            raw = data[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(data, at, raw, 5)
            end = at + (raw >> 1)
            if raw & 1 or end > size:
                raise KafkaError(ErrorCode.INVALID_RECORD, "a record does not fit into its batch")
            record, at = _parse_record(data, at, end, base_offset, first_timestamp)
            if at != end:
                raise KafkaError(
                    ErrorCode.INVALID_RECORD, "a record's length does not match its fields"
                )
            yield record if append_time is None else record._replace(timestamp=append_time)
    except IndexError:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a record ends too early") from None
    if at != size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "bytes are left after a batch's last record")


def _put_varint(out: bytearray, value: int) -> None:
    """Append a zig-zag varint (or varlong: the encoding is the same)."""
    raw = value << 1 if value >= 0 else ((-value) << 1) - 1
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)


def _encode_record(out: bytearray, record: Record, offset_delta: int, time_delta: int) -> None:
    body = bytearray(1)  # attributes
    _put_varint(body, time_delta)
    _put_varint(body, offset_delta)
    _, _, key, value, headers = record
    if key is None:
        body.append(1)
    else:
        _put_varint(body, len(key))
        body += key
    if value is None:
        body.append(1)
    else:
        _put_varint(body, len(value))
        body += value
    _put_varint(body, len(headers))
    for name, content in headers:
        encoded = name.encode("utf-8", "surrogateescape")
        _put_varint(body, len(encoded))
        body += encoded
        if content is None:
            body.append(1)
        else:
            _put_varint(body, len(content))
            body += content
    _put_varint(out, len(body))
    out += body


def assemble_batch(
    payload: Buffer,
    *,
    base_offset: int,
    attributes: int,
    last_offset_delta: int,
    first_timestamp: int,
    max_timestamp: int,
    records_count: int,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    leader_epoch: int = NO_LEADER_EPOCH,
) -> bytes:
    """Put a header with the right length and checksum in front of an encoded ``payload``.

    The payload is already compressed by the codec that ``attributes`` names.
    """
    summed = _AFTER_CRC.pack(
        attributes,
        last_offset_delta,
        first_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        records_count,
    )
    length = HEADER_SIZE - LOG_OVERHEAD + len(payload)
    crc = crc32c(payload, crc32c(summed))
    return b"".join((_PREFIX.pack(base_offset, length, leader_epoch, 2, crc), summed, payload))


def build_batch(
    records: Iterable[Record],
    *,
    base_offset: int,
    codec: int = 0,
    level: int | None = None,
    timestamp_type: int = CREATE_TIME,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    leader_epoch: int = NO_LEADER_EPOCH,
    transactional: bool = False,
    control: bool = False,
    last_offset: int | None = None,
    max_timestamp: int | None = None,
    delete_horizon: int | None = None,
) -> bytes:
    """Encode ``records`` (absolute offsets, none below ``base_offset``) as one batch.

    ``last_offset`` and ``max_timestamp`` default to the last record's offset and the largest
    timestamp; compaction passes those of the batch it thins out, and may leave no record at all
    (then ``last_offset`` must be given, and first_timestamp is -1). With ``LOG_APPEND_TIME`` all
    records carry ``max_timestamp`` when read. ``level`` is the codec's own, None its default.
    """
    payload = bytearray()
    count = 0
    first_timestamp = delete_horizon
    latest_timestamp = NO_TIMESTAMP
    offset = base_offset - 1
    for record in records:
        offset = record.offset
        timestamp = record.timestamp
        assert offset >= base_offset, "a record lies before its batch"
        if first_timestamp is None:
            first_timestamp = timestamp
        if timestamp > latest_timestamp:
            latest_timestamp = timestamp
        delta = timestamp - first_timestamp
        if not INT64_MIN <= delta <= INT64_MAX:
            delta = wrap_int64(delta)
        _encode_record(payload, record, offset - base_offset, delta)
        count += 1
    if last_offset is None:
        assert count, "a batch without records needs its last offset"
        last_offset = offset
    assert last_offset >= offset, "a record lies behind its batch"
    body: Buffer = payload
    if codec:
        from kavka.protocol.records.compression import compress

        body = compress(codec, payload, level)
    return assemble_batch(
        body,
        base_offset=base_offset,
        attributes=(
            codec
            | timestamp_type << 3
            | (TRANSACTIONAL_MASK if transactional else 0)
            | (CONTROL_MASK if control else 0)
            | (DELETE_HORIZON_MASK if delete_horizon is not None else 0)
        ),
        last_offset_delta=last_offset - base_offset,
        first_timestamp=NO_TIMESTAMP if first_timestamp is None else first_timestamp,
        max_timestamp=latest_timestamp if max_timestamp is None else max_timestamp,
        records_count=count,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        leader_epoch=leader_epoch,
    )


def stamp(buf: WritableBuffer, pos: int, base_offset: int, leader_epoch: int) -> None:
    """Write the offset and leader epoch the leader gives to the batch at ``pos``."""
    _INT64.pack_into(buf, pos, base_offset)
    _INT32.pack_into(buf, pos + LOG_OVERHEAD, leader_epoch)


def _reseal(buf: WritableBuffer, pos: int, size: int, attributes: int, max_timestamp: int) -> None:
    _INT16.pack_into(buf, pos + CRC_START, attributes)
    _INT64.pack_into(buf, pos + _MAX_TIMESTAMP_OFFSET, max_timestamp)
    _UINT32.pack_into(buf, pos + CRC_OFFSET, crc32c(memoryview(buf)[pos + CRC_START : pos + size]))


def set_log_append_time(buf: WritableBuffer, pos: int, size: int, now_ms: int) -> None:
    """Make the batch at ``pos`` one of LogAppendTime ``now_ms`` and renew its checksum.

    First timestamp and deltas stay: readers of such a batch look at the max timestamp only.
    """
    (attributes,) = _INT16.unpack_from(buf, pos + CRC_START)
    _reseal(buf, pos, size, attributes | TIMESTAMP_TYPE_MASK, now_ms)


def set_max_timestamp(buf: WritableBuffer, pos: int, size: int, max_timestamp: int) -> None:
    """Correct the largest timestamp of a CreateTime batch and renew its checksum."""
    (attributes,) = _INT16.unpack_from(buf, pos + CRC_START)
    _reseal(buf, pos, size, attributes, max_timestamp)
