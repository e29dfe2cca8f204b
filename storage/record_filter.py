"""Taking records out of a batch without touching those that stay.

Compaction looks at key, offset and whether there is a value. The records of a v2 batch count
offsets and timestamps from the batch's own, which stay as they are, so what is kept is copied byte
for byte: ten times as fast as decoding and encoding it, and nothing can get lost. The first
timestamp in the header need not be any record's then; it is only what deltas are counted from.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from kavka.config.limits import DECOMPRESSED_BATCH_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    INT64_MAX,
    INT64_MIN,
    NO_TIMESTAMP,
    TIMESTAMP_TYPE_MASK,
    BatchHeader,
    assemble_batch,
    build_batch,
    long_varint,
    records_payload,
    wrap_int64,
)
from kavka.protocol.records.crc import Buffer

Keep = Callable[[int, bytes | None, bool], bool]
"""Whether to keep a record: by offset, key, and whether it has a value."""

_NOTHING: Final = b""
_NO_VALUE: Final = 1  # the varint of size -1


class Filtered(NamedTuple):
    """What is left of a batch."""

    data: Buffer  # empty when nothing is
    records: int
    last_offset: int
    max_timestamp: int


RecordSpan = tuple[int, int, int, int, bytes | None, bool]
"""Where a record stands in a batch's decompressed records (start, end), then its offset,
timestamp, key, and whether it has a value. No NamedTuple: there may be ten million of them."""


def spans(payload: bytes, header: BatchHeader) -> Iterator[RecordSpan]:
    """The records in the ``payload`` of a v2 batch, read as far as it takes.

    Raises KafkaError INVALID_RECORD for bytes that cannot be records.
    """
    base_offset, first_timestamp = header.base_offset, header.first_timestamp
    size = len(payload)
    at = 0
    try:
        for _ in range(header.records_count):
            start = at
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                following = payload[at]
                if following < 0x80:  # two bytes, the usual size, without a call
                    raw += (following - 1) << 7
                    at += 1
                else:
                    raw, at = long_varint(payload, at, raw, 5)
            end = at + (raw >> 1)
            if raw & 1 or end > size:
                raise _invalid("a record does not fit into its batch")
            at += 1  # attributes
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 10)
            timestamp = first_timestamp + ((raw >> 1) ^ -(raw & 1))
            if not INT64_MIN <= timestamp <= INT64_MAX:
                timestamp = wrap_int64(timestamp)
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                following = payload[at]
                if following < 0x80:
                    raw += (following - 1) << 7
                    at += 1
                else:
                    raw, at = long_varint(payload, at, raw, 5)
            offset = base_offset + ((raw >> 1) ^ -(raw & 1))
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 5)
            key = None
            if not raw & 1:
                stop = at + (raw >> 1)
                key = payload[at:stop]
                at = stop
            elif raw != 1:
                raise _invalid("a key has a negative size")
            if at >= end:
                raise _invalid("a key passes its record's end")
            has_value = payload[at] != _NO_VALUE
            at = end
            yield start, end, offset, timestamp, key, has_value
    except IndexError:
        raise _invalid("a record ends too early") from None
    if at != size:
        raise _invalid("bytes are left after a batch's last record")


def filter_batch(data: Buffer, position: int, header: BatchHeader, keep: Keep) -> Filtered:
    """The v2 batch at ``position`` with only the records that ``keep`` wants.

    Base and last offset, sequences, epochs and codec stay. Raises KafkaError CORRUPT_MESSAGE or
    INVALID_RECORD for a batch that cannot be read.
    """
    payload = records_payload(data, position, header, DECOMPRESSED_BATCH_BYTES_MAX)
    kept = [
        (start, end, timestamp)
        for start, end, offset, timestamp, key, has_value in spans(payload, header)
        if keep(offset, key, has_value)
    ]
    last_offset, max_timestamp = header.last_offset, header.max_timestamp
    if not kept:
        return Filtered(_NOTHING, 0, last_offset, max_timestamp)
    if len(kept) == header.records_count:
        whole = memoryview(data)[position : position + header.size]
        return Filtered(whole, len(kept), last_offset, max_timestamp)
    if not header.attributes & TIMESTAMP_TYPE_MASK:
        max_timestamp = max(NO_TIMESTAMP, max(timestamp for _, _, timestamp in kept))
    body: Buffer = b"".join([payload[start:end] for start, end, _ in kept])
    if header.codec:
        from kavka.protocol.records.compression import compress

        body = compress(header.codec, body)
    batch = assemble_batch(
        body,
        base_offset=header.base_offset,
        attributes=header.attributes,
        last_offset_delta=header.last_offset_delta,
        first_timestamp=header.first_timestamp,
        max_timestamp=max_timestamp,
        records_count=len(kept),
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        leader_epoch=header.leader_epoch,
    )
    return Filtered(batch, len(kept), last_offset, max_timestamp)


def emptied_batch(header: BatchHeader) -> bytes:
    """The header alone: it says what a producer's last sequence was."""
    return build_batch(
        (),
        base_offset=header.base_offset,
        timestamp_type=header.timestamp_type,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        leader_epoch=header.leader_epoch,
        transactional=header.is_transactional,
        control=header.is_control,
        last_offset=header.last_offset,
        max_timestamp=header.max_timestamp,
    )


def filter_message_set(data: Buffer, position: int, size: int, magic: int, keep: Keep) -> Filtered:
    """The same for an entry of message format 0 or 1, which a log copied from Kafka may have.

    A wrapper gets the offset of the last message that stays in it, as in Kafka.
    """
    from kavka.protocol.records import legacy

    entry = legacy.read_message(data, position, size)
    records = [*legacy.read_records(data, position, size, magic, DECOMPRESSED_BATCH_BYTES_MAX)]
    kept = [each for each in records if keep(each.offset, each.key, each.value is not None)]
    if not kept:
        return Filtered(_NOTHING, 0, entry.offset, entry.timestamp)
    if len(kept) == len(records):
        whole = memoryview(data)[position : position + size]
        return Filtered(whole, len(kept), entry.offset, entry.timestamp)
    rebuilt = legacy.build_message_set(
        kept, magic, codec=entry.codec, timestamp_type=entry.timestamp_type
    )
    max_timestamp = max(each.timestamp for each in kept)
    return Filtered(rebuilt, len(kept), kept[-1].offset, max_timestamp)


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)
