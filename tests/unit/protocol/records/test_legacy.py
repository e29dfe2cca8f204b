"""Message sets of formats 0 and 1: vectors, wrappers' offsets and times, other clients' sets."""

import contextlib
import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import Buffer, Record, iter_batches
from kavka.protocol.records.legacy import (
    Message,
    as_record,
    build_message_set,
    expand,
    read_message,
    read_records,
)

T = 1_500_000_000_000
LIMIT = 1 << 20
HELLO_0 = bytes.fromhex("00000000000000000000001387a77ab20000ffffffff0000000568656c6c6f")
HELLO_1 = bytes.fromhex(
    "00000000000000000000001c3b3ff06701000000015d3ef79800000000016b0000000568656c6c6f"
)
INNER_1 = bytes.fromhex(
    "0000000000000000000000183cd489db01000000015d3ef79800000000016b00000001610000000000000001"
    "00000017cfc6ce2c01000000015d3ef79805ffffffff0000000162"
)


def read_all(data: Buffer, limit: int = LIMIT) -> list[Record]:
    return [
        record
        for pos, size, magic in iter_batches(data)
        for record in read_records(data, pos, size, magic, limit)
    ]


def message(value: bytes | None, **fields: Any) -> bytes:
    """An entry with fields of the test's choosing."""
    import struct
    import zlib

    given = {"offset": 0, "magic": 1, "attributes": 0, "timestamp": T, "key": None, **fields}
    body = struct.pack(">bb", given["magic"], given["attributes"])
    if given["magic"]:
        body += struct.pack(">q", given["timestamp"])
    for octets in (given["key"], value):
        body += struct.pack(">i", -1 if octets is None else len(octets)) + (octets or b"")
    crc = zlib.crc32(body)
    return struct.pack(">qiI", given["offset"], len(body) + 4, crc) + body


def error_of(data: bytes) -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        read_all(data)
    return caught.value.code


def test_vector_of_magic_0() -> None:
    assert read_message(HELLO_0, 0, len(HELLO_0)) == Message(0, 0, 0, -1, None, b"hello")
    assert build_message_set([Record(0, T, None, b"hello")], 0) == HELLO_0


def test_vector_of_magic_1() -> None:
    assert read_message(HELLO_1, 0, len(HELLO_1)) == Message(0, 1, 0, T, b"k", b"hello")
    assert build_message_set([Record(0, T, b"k", b"hello")], 1) == HELLO_1


def test_vector_of_an_inner_set() -> None:
    inner = [Record(0, T, b"k", b"a"), Record(1, T + 5, None, b"b")]
    assert build_message_set(inner, 1) == INNER_1
    wrapper = message(gzip.compress(INNER_1), offset=11, attributes=1, timestamp=T + 5)
    assert read_all(wrapper) == [Record(10, T, b"k", b"a"), Record(11, T + 5, None, b"b")]


@pytest.mark.parametrize("codec", [1, 2, 3])
def test_wrapper_of_magic_1(codec: int) -> None:
    records = [Record(10, T + 5, b"k", b"a"), Record(12, T, None, b"b")]
    data = build_message_set(records, 1, codec=codec)
    ((pos, size, magic),) = iter_batches(data)
    wrapper = read_message(data, pos, size)
    assert (magic, wrapper.codec, wrapper.offset, wrapper.key) == (1, codec, 12, None)
    assert wrapper.timestamp == T + 5  # the largest inside
    assert read_all(data) == records
    assert wrapper.value is not None
    if codec == 1:
        inner = read_all(gzip.decompress(wrapper.value))
        assert [r.offset for r in inner] == [0, 2]  # relative, gap kept


@pytest.mark.parametrize("codec", [1, 2, 3])
def test_wrapper_of_magic_0(codec: int) -> None:
    records = [Record(10, -1, b"k", b"a"), Record(12, -1, None, b"b")]
    data = build_message_set(records, 0, codec=codec)
    ((pos, size, _),) = iter_batches(data)
    wrapper = read_message(data, pos, size)
    assert wrapper.offset == 12 and read_all(data) == records
    assert wrapper.value is not None
    if codec == 3:
        assert wrapper.value[6] == 0x1A  # the checksum old clients expect
    if codec == 1:
        inner = read_all(gzip.decompress(wrapper.value))
        assert [r.offset for r in inner] == [10, 12]  # absolute


def test_log_append_time_of_the_wrapper_goes_to_all() -> None:
    wrapper = message(gzip.compress(INNER_1), offset=11, attributes=9, timestamp=T + 99)
    (outer,) = [read_message(wrapper, p, s) for p, s, _ in iter_batches(wrapper)]
    assert [(m.timestamp, m.timestamp_type) for m in expand(outer, LIMIT)] == [(T + 99, 1)] * 2


def test_wrappers_of_offset_0_start_at_0() -> None:
    """Some librdkafka versions produce them so."""
    assert [r.offset for r in read_all(message(gzip.compress(INNER_1), attributes=1))] == [0, 1]


def test_nothing_to_compress_is_nothing() -> None:
    assert build_message_set([], 1, codec=1) == b""


BAD_INNER_CRC = bytearray(INNER_1)
BAD_INNER_CRC[-1] ^= 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (HELLO_1[:-1] + b"p", ErrorCode.CORRUPT_MESSAGE),  # checksum
        (message(None, attributes=1), ErrorCode.INVALID_RECORD),
        (message(gzip.compress(b""), attributes=1), ErrorCode.INVALID_RECORD),
        (message(gzip.compress(HELLO_0), attributes=1), ErrorCode.INVALID_RECORD),  # magic
        (message(gzip.compress(INNER_1 + b"x"), attributes=1), ErrorCode.INVALID_RECORD),
        (message(gzip.compress(INNER_1[:-1]), attributes=1), ErrorCode.INVALID_RECORD),
        (
            message(gzip.compress(message(gzip.compress(INNER_1), attributes=1)), attributes=1),
            ErrorCode.INVALID_RECORD,
        ),
        (
            message(gzip.compress(message(b"", offset=5)), attributes=1, offset=4),
            ErrorCode.INVALID_RECORD,
        ),
        (
            message(gzip.compress(message(b"", offset=-5)), attributes=1, offset=0),
            ErrorCode.INVALID_RECORD,
        ),
        (message(gzip.compress(bytes(BAD_INNER_CRC)), attributes=1), ErrorCode.CORRUPT_MESSAGE),
        (message(b"no gzip", attributes=1), ErrorCode.CORRUPT_MESSAGE),
        (message(gzip.compress(bytes(LIMIT + 1)), attributes=1), ErrorCode.CORRUPT_MESSAGE),
        (message(b"", attributes=4), ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        (message(b"", attributes=4, magic=0), ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
    ],
)
def test_refused(data: bytes, code: ErrorCode) -> None:
    assert error_of(data) is code


def resized(data: bytes, at: int, length: int) -> bytes:
    """An entry whose int32 at ``at`` lies, with a checksum that does not."""
    import zlib

    body = bytearray(data[16:])
    body[at - 16 : at - 12] = length.to_bytes(4, "big", signed=True)
    return data[:12] + zlib.crc32(body).to_bytes(4, "big") + bytes(body)


@pytest.mark.parametrize("length", [-2, 2, 100, 2**31 - 1, -(2**31)])
def test_lengths_that_lie(length: int) -> None:
    for data, at in ((HELLO_1, 26), (HELLO_1, 31), (HELLO_0, 22)):
        assert error_of(resized(data, at, length)) is ErrorCode.CORRUPT_MESSAGE


def test_shorter_than_its_format() -> None:
    short = message(b"")[:8] + (21).to_bytes(4, "big") + message(b"")[12:-1]
    assert error_of(short) is ErrorCode.CORRUPT_MESSAGE
    with pytest.raises(KafkaError):
        read_message(HELLO_1, 0, 20)


octets = st.none() | st.binary(max_size=40)


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    offset = draw(st.integers(0, 2**40))
    out = []
    for _ in range(draw(st.integers(1, 6))):
        out.append(Record(offset, draw(st.integers(-1, 2**60)), draw(octets), draw(octets)))
        offset += draw(st.integers(1, 100))
    return out


@settings(max_examples=150, deadline=None)
@given(record_lists(), st.sampled_from([0, 1]), st.sampled_from([0, 1, 2, 3]))
def test_reading_gives_back_what_was_built(records: list[Record], magic: int, codec: int) -> None:
    data = build_message_set(records, magic, codec=codec)
    if magic == 0:
        records = [r._replace(timestamp=-1) for r in records]
    assert read_all(data) == records


@settings(max_examples=200, deadline=None)
@given(record_lists(), st.sampled_from([0, 1]), st.sampled_from([0, 1, 2, 3]), st.data())
def test_mutated_sets_raise_nothing_but_kafka_errors(
    records: list[Record], magic: int, codec: int, data: st.DataObject
) -> None:
    import zlib

    built = bytearray(build_message_set(records, magic, codec=codec))
    for _ in range(data.draw(st.integers(1, 3))):
        built[data.draw(st.integers(8, len(built) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()) and codec:  # so that what is inside is looked at
        built[12:16] = zlib.crc32(built[16:]).to_bytes(4, "big")
    with contextlib.suppress(KafkaError):
        assert all(isinstance(r, Record) for r in read_all(bytes(built), 1 << 16))


def builders(magic: int, codec: int, records: list[Record]) -> Iterator[bytes]:
    from aiokafka.record.legacy_records import LegacyRecordBatchBuilder as Aio
    from kafka.record.legacy_records import LegacyRecordBatchBuilder as KafkaPython

    for builder_class in (Aio, KafkaPython):
        builder = builder_class(magic, codec, 1 << 20)
        for record in records:
            builder.append(record.offset, record.timestamp, record.key, record.value)
        yield bytes(builder.build())


# Neither library speaks LZ4 with brokers before 0.10, whose header checksum was the wrong one.
FORMATS_OF_LIBRARIES = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]


@settings(max_examples=40, deadline=None)
@given(record_lists(), st.sampled_from(FORMATS_OF_LIBRARIES))
def test_client_libraries_agree(records: list[Record], chosen: tuple[int, int]) -> None:
    from aiokafka.record.memory_records import MemoryRecords as Aio
    from kafka.record import MemoryRecords as KafkaPython

    magic, codec = chosen
    # Client libraries know neither negative timestamps nor offsets that do not start at 0.
    records = [r._replace(offset=n, timestamp=max(1, r.timestamp)) for n, r in enumerate(records)]
    expected = records if magic else [r._replace(timestamp=-1) for r in records]
    for theirs in builders(magic, codec, records):
        assert read_all(theirs) == expected
        if codec == 0:
            assert build_message_set(records, magic) == theirs
    moved = [r._replace(offset=r.offset + 500) for r in expected]
    ours = build_message_set(moved, magic, codec=codec)
    for reader in (Aio, KafkaPython):
        read = []
        batches = reader(ours)
        while batches.has_next():
            batch = batches.next_batch()
            assert batch.validate_crc()
            read += [
                Record(r.offset, -1 if r.timestamp is None else r.timestamp, r.key, r.value)
                for r in batch
            ]
        assert read == moved


def test_a_plain_message_expands_to_itself() -> None:
    plain = read_message(HELLO_1, 0, len(HELLO_1))
    assert list(expand(plain, 0)) == [plain]
    assert as_record(plain) == Record(0, T, b"k", b"hello")
