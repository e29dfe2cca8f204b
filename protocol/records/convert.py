"""Work on records that changes their bytes: conversion between message formats, recompression.

Plain functions without state, slow by nature: the caller runs them off the event loop.
"""

from collections.abc import Iterable, Iterator, Sequence

from kavka.config.limits import CONVERTED_RECORDS_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import batch as v2
from kavka.protocol.records.batch import (
    CODEC_MASK,
    CREATE_TIME,
    LOG_APPEND_TIME,
    MIN_RECORD_SIZE,
    NO_TIMESTAMP,
    BatchHeader,
    Record,
    iter_batches,
    read_header,
    records_payload,
)
from kavka.protocol.records.compression import ZSTD, compress
from kavka.protocol.records.crc import Buffer
from kavka.protocol.records.legacy import (
    as_record,
    build_message_set,
    expand,
    read_message,
    read_records,
)
from kavka.protocol.records.validate import (
    AppendRules,
    RecordChecks,
    ValidatedAppend,
    check_records,
    code_for,
    invalid,
    settle_timestamp,
    too_large,
    too_many_records,
)


def recompress(
    buf: Buffer, pos: int, header: BatchHeader, codec: int, limit: int, level: int | None = None
) -> bytes:
    """The batch at ``pos`` with its records compressed by ``codec`` and all else as it was.

    Raises KafkaError when it cannot be decompressed within ``limit`` bytes.
    """
    return _assemble(records_payload(buf, pos, header, limit), header, codec, level)


def _assemble(payload: bytes, header: BatchHeader, codec: int, level: int | None) -> bytes:
    return v2.assemble_batch(
        compress(codec, payload, level),
        base_offset=header.base_offset,
        attributes=header.attributes & ~CODEC_MASK | codec,
        last_offset_delta=header.last_offset_delta,
        first_timestamp=header.first_timestamp,
        max_timestamp=header.max_timestamp,
        records_count=header.records_count,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        leader_epoch=header.leader_epoch,
    )


def _outer_codec(buf: Buffer) -> int:
    """The codec of the last compressed set, 0 if there is none: which Kafka keeps for all."""
    codec = 0
    for pos, size, magic in iter_batches(buf):
        outer = read_header(buf, pos) if magic == 2 else read_message(buf, pos, size)
        codec = outer.codec or codec
    return codec


def _all_records(buf: Buffer, limit: int) -> Iterator[Record]:
    """The records of all sets and batches; ``limit`` is one for what all of them unpack to."""
    count = 0
    for pos, size, magic in iter_batches(buf):
        for record in read_records(buf, pos, size, magic, limit):
            count += 1
            if count > CONVERTED_RECORDS_MAX:
                raise too_many_records()
            limit -= MIN_RECORD_SIZE + len(record.key or b"") + len(record.value or b"")
            if limit < 0:
                raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "the message sets unpack to too much")
            yield record


def _renumbered(records: Iterable[Record], timestamp: int | None = None) -> Iterator[Record]:
    """The records at offsets 0, 1, 2…, all with ``timestamp`` if one is given."""
    for offset, record in enumerate(records):
        if timestamp is None:
            yield record._replace(offset=offset)
        else:
            yield record._replace(offset=offset, timestamp=timestamp)


def up_convert(
    buf: Buffer,
    *,
    limit: int,
    codec: int | None = None,
    timestamp_type: int = CREATE_TIME,
    now_ms: int = NO_TIMESTAMP,
    level: int | None = None,
) -> bytes:
    """All messages of the sets in ``buf`` as one record batch with offsets 0, 1, 2…

    Messages of format 0 have timestamp -1; under LogAppendTime all have ``now_ms``. ``codec``
    None keeps that of the sets. ``buf`` must hold at least one message. Raises KafkaError as
    ``legacy.read_records`` does.
    """
    return _one_batch(
        _all_records(buf, limit),
        _outer_codec(buf) if codec is None else codec,
        timestamp_type,
        now_ms,
        level,
    )


def _one_batch(
    records: Iterable[Record], codec: int, timestamp_type: int, now_ms: int, level: int | None
) -> bytes:
    return v2.build_batch(
        _renumbered(records, now_ms if timestamp_type == LOG_APPEND_TIME else None),
        base_offset=0,
        codec=codec,
        timestamp_type=timestamp_type,
        level=level,
    )


def convert_append(
    data: memoryview, rules: AppendRules, now_ms: int, produce_version: int
) -> ValidatedAppend:
    """Finish what ``validate.validate`` marked with ``needs_conversion``: same arguments.

    Looks at every record, rebuilds what must be stored differently from how it was sent, and
    checks the size again. Raises what ``validate`` raises.
    """
    try:
        entries = list(iter_batches(data))
        if all(magic >= 2 for _, _, magic in entries):
            batches = _convert_batches(
                [data[p : p + size] for p, size, _ in entries], rules, now_ms
            )
        else:
            batches = [_convert_message_sets(data, entries, rules, now_ms)]
    except KafkaError as error:
        error.code = code_for(produce_version, error.code)
        raise
    append_time = rules.timestamp_type == LOG_APPEND_TIME
    return ValidatedAppend(batches, now_ms if append_time else NO_TIMESTAMP)


def _convert_batches(
    views: Sequence[memoryview], rules: AppendRules, now_ms: int
) -> list[tuple[BatchHeader, memoryview]]:
    """Record batches whose headers are already known to be right, within one limit for all."""
    if sum(read_header(view).records_count for view in views) > CONVERTED_RECORDS_MAX:
        raise too_many_records()
    room = rules.decompressed_limit
    batches: list[tuple[BatchHeader, memoryview]] = []
    for view in views:
        payload = records_payload(view, 0, read_header(view), room)
        room -= len(payload)
        batches.append(_convert_batch(view, payload, rules, now_ms))
    return batches


def _convert_batch(
    data: memoryview, payload: bytes, rules: AppendRules, now_ms: int
) -> tuple[BatchHeader, memoryview]:
    header = read_header(data)
    facts = check_records(payload, header, rules, now_ms)
    codec = header.codec if rules.codec is None else rules.codec
    if facts.sequential and codec == header.codec:
        return settle_timestamp(data, header, facts.max_timestamp, rules, now_ms)
    if facts.sequential:
        rebuilt = _assemble(payload, header, codec, rules.level)
    else:
        rebuilt = v2.build_batch(
            _renumbered(v2.parse_records(payload, header)),
            base_offset=0,
            codec=codec,
            level=rules.level,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
            transactional=header.is_transactional,
        )
    data = _writable(rebuilt, rules)
    return settle_timestamp(data, read_header(data), facts.max_timestamp, rules, now_ms)


def _writable(rebuilt: bytes, rules: AppendRules) -> memoryview:
    if len(rebuilt) > rules.max_message_bytes:
        raise too_large(len(rebuilt), rules)
    return memoryview(bytearray(rebuilt))


def _checked(records: Iterable[Record], checks: RecordChecks) -> Iterator[Record]:
    for index, record in enumerate(records):
        checks.check(index, record.timestamp, record.key is not None)
        yield record
    checks.finish()


def _convert_message_sets(
    data: memoryview, entries: list[tuple[int, int, int]], rules: AppendRules, now_ms: int
) -> tuple[BatchHeader, memoryview]:
    """Message sets, and record batches among them, as one record batch."""
    for pos, size, magic in entries:
        if size > rules.max_message_bytes:
            raise too_large(size, rules)
        if magic == 2:
            if read_header(data, pos).has_producer_id:
                raise invalid("an idempotent batch was sent among message sets")
        elif read_message(data, pos, size).timestamp_type == LOG_APPEND_TIME:
            raise KafkaError(
                ErrorCode.INVALID_TIMESTAMP,
                "producers should not set the timestamp type to LogAppendTime",
            )
    rebuilt = _one_batch(
        _checked(_all_records(data, rules.decompressed_limit), RecordChecks(rules, now_ms)),
        _outer_codec(data) if rules.codec is None else rules.codec,
        rules.timestamp_type,
        now_ms,
        rules.level,
    )
    view = _writable(rebuilt, rules)
    return read_header(view), view


def needs_down_conversion(buf: Buffer, magic: int) -> bool:
    """Whether a fetch that reads formats up to ``magic`` cannot be given these batches as is."""
    return any(found > magic for _, _, found in iter_batches(buf))


def down_convert(buf: Buffer, magic: int, fetch_offset: int, limit: int) -> bytes:
    """Whole batches from a log in format 0 or 1, for a fetch from ``fetch_offset``.

    Batches of ``magic`` or below stay as they are. Control batches, headers and (in format 0)
    timestamps are lost, codecs and offsets kept; uncompressed records below ``fetch_offset`` are
    left out, which librdkafka relies on. An empty result while ``buf`` was not: nothing here can
    be shown to such a client; the caller goes on with the batches that follow.

    Raises KafkaError UNSUPPORTED_COMPRESSION_TYPE for a zstd batch, which no old client reads,
    and what reading records raises (``limit`` bounds each batch's decompressed bytes).
    """
    parts: list[Buffer] = []
    view = memoryview(buf)
    for pos, size, found in iter_batches(buf):
        if found <= magic:
            parts.append(view[pos : pos + size])
        elif found == 2:
            parts.append(_down_convert_batch(buf, pos, magic, fetch_offset, limit))
        else:
            parts.append(_down_convert_message(buf, pos, size, fetch_offset, limit))
    return b"".join(parts)


def _down_convert_batch(buf: Buffer, pos: int, magic: int, fetch_offset: int, limit: int) -> bytes:
    header = read_header(buf, pos)
    if header.is_control:
        return b""
    if header.records_count > CONVERTED_RECORDS_MAX:
        raise too_many_records()
    codec = header.codec
    if codec == ZSTD:
        raise KafkaError(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
            "batches compressed by zstd cannot be converted to message formats 0 and 1",
        )
    records = v2.iter_records(buf, pos, header, limit)
    return build_message_set(
        records if codec else _from_offset(records, fetch_offset),
        magic,
        codec=codec,
        timestamp_type=header.timestamp_type,
    )


def _down_convert_message(buf: Buffer, pos: int, size: int, fetch_offset: int, limit: int) -> bytes:
    """A message of format 1 in format 0."""
    message = read_message(buf, pos, size)
    records: Iterable[Record] = map(as_record, expand(message, limit))
    if message.codec == 0:
        records = _from_offset(records, fetch_offset)
    return build_message_set(records, 0, codec=message.codec)


def _from_offset(records: Iterable[Record], offset: int) -> Iterator[Record]:
    return (record for record in records if record.offset >= offset)
