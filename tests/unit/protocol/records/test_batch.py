"""Record batches: the vectors byte by byte, equality of build and iterate, hostile bytes."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import batch as b
from kavka.protocol.records.batch import BatchHeader, Record, build_batch, iter_records, read_header

TWO_RECORDS = bytes.fromhex(
    "000000000000000000000045ffffffff02f27fb3c80000000000010000015d3ef798000000015d3ef79805ff"
    "ffffffffffffffffffffffffff0000000210000000026b02760014000a0201027702026801"
)
T = 1_500_000_000_000
LIMIT = 1 << 24


def decode(data: b.Buffer, pos: int = 0) -> list[Record]:
    return list(iter_records(data, pos, read_header(data, pos), LIMIT))


def error_of(data: b.Buffer) -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        decode(data)
    return caught.value.code


def with_payload(payload: bytes, count: int) -> bytes:
    return b.assemble_batch(
        payload,
        base_offset=0,
        attributes=0,
        last_offset_delta=count - 1,
        first_timestamp=T,
        max_timestamp=T,
        records_count=count,
    )


def test_vector_is_read() -> None:
    header = read_header(TWO_RECORDS)
    assert header == BatchHeader(0, 69, -1, 2, 0xF27FB3C8, 0, 1, T, T + 5, -1, -1, -1, 2)
    assert header.size == len(TWO_RECORDS)
    assert b.crc_ok(TWO_RECORDS, 0, len(TWO_RECORDS))
    assert decode(TWO_RECORDS) == [
        Record(0, T, b"k", b"v"),
        Record(1, T + 5, None, b"w", (("h", None),)),
    ]


def test_vector_is_built() -> None:
    records = [Record(0, T, b"k", b"v"), Record(1, T + 5, None, b"w", (("h", None),))]
    assert build_batch(records, base_offset=0) == TWO_RECORDS


def test_derived_fields() -> None:
    data = build_batch(
        [Record(10, 5, None, b""), Record(14, 9, None, None)],
        base_offset=8,
        producer_id=7,
        producer_epoch=1,
        base_sequence=2**31 - 3,
        transactional=True,
        timestamp_type=b.LOG_APPEND_TIME,
        leader_epoch=3,
    )
    header = read_header(data)
    assert (header.last_offset, header.next_offset) == (14, 15)
    assert header.last_sequence == 3  # 2147483645 + 6 goes round through 0
    assert header.is_transactional and not header.is_control and header.has_producer_id
    assert header.timestamp_type == b.LOG_APPEND_TIME and header.codec == 0
    assert header.leader_epoch == 3 and header.delete_horizon is None
    assert [r.timestamp for r in decode(data)] == [9, 9]


@pytest.mark.parametrize(
    ("sequence", "increment", "result"),
    [(0, 1, 1), (2**31 - 1, 1, 0), (2**31 - 2, 1, 2**31 - 1), (2**31 - 1, 5, 4)],
)
def test_sequences_wrap(sequence: int, increment: int, result: int) -> None:
    assert b.advance_sequence(sequence, increment) == result


def test_no_sequence_has_no_last_sequence() -> None:
    assert read_header(TWO_RECORDS).last_sequence == -1


def test_emptied_batch_keeps_its_offsets() -> None:
    data = build_batch([], base_offset=40, last_offset=44, max_timestamp=T, producer_id=1)
    header = read_header(data)
    assert len(data) == b.HEADER_SIZE
    assert (header.records_count, header.first_timestamp, header.max_timestamp) == (0, -1, T)
    assert header.last_offset == 44 and decode(data) == []


def test_delete_horizon_takes_the_place_of_the_first_timestamp() -> None:
    records = [Record(3, T, b"k", None)]
    data = build_batch(records, base_offset=0, last_offset=9, delete_horizon=T + 1000)
    header = read_header(data)
    assert header.delete_horizon == T + 1000 and header.max_timestamp == T
    assert decode(data) == records


def test_stamp_changes_nothing_that_is_summed() -> None:
    data = bytearray(b"xx") + bytearray(TWO_RECORDS)
    b.stamp(data, 2, 1000, 7)
    header = read_header(data, 2)
    assert (header.base_offset, header.leader_epoch) == (1000, 7)
    assert b.crc_ok(data, 2, len(TWO_RECORDS))
    assert [r.offset for r in decode(data, 2)] == [1000, 1001]


def test_log_append_time() -> None:
    data = bytearray(TWO_RECORDS)
    b.set_log_append_time(memoryview(data), 0, len(data), T + 99)
    header = read_header(data)
    assert header.timestamp_type == b.LOG_APPEND_TIME and header.first_timestamp == T
    assert b.crc_ok(data, 0, len(data))
    assert [r.timestamp for r in decode(data)] == [T + 99, T + 99]


def test_crc_notices_every_flipped_bit_behind_it_and_missing_bytes() -> None:
    for at in range(b.CRC_OFFSET, len(TWO_RECORDS)):
        data = bytearray(TWO_RECORDS)
        data[at] ^= 0x10
        assert not b.crc_ok(data, 0, len(data))
    assert not b.crc_ok(TWO_RECORDS[:-1], 0, len(TWO_RECORDS))
    assert not b.crc_ok(TWO_RECORDS, 0, 60)


def test_structural_scan() -> None:
    size = len(TWO_RECORDS)
    for cut in range(size):
        stream = TWO_RECORDS * 2 + TWO_RECORDS[:cut]
        assert list(b.iter_batches(stream)) == [(0, size, 2), (size, size, 2)]


@pytest.mark.parametrize(
    "length_and_magic",
    [(13, 0), (13, 1), (-1, 2), (-(2**31), 0), (48, 2), (69, 3), (69, -1)],
)
def test_structural_scan_refuses(length_and_magic: tuple[int, int]) -> None:
    length, magic = length_and_magic
    data = bytearray(TWO_RECORDS)
    data[8:12] = length.to_bytes(4, "big", signed=True)
    data[16:17] = magic.to_bytes(1, "big", signed=True)
    with pytest.raises(KafkaError) as caught:
        list(b.iter_batches(data))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


def test_short_header() -> None:
    with pytest.raises(KafkaError) as caught:
        read_header(TWO_RECORDS[:60])
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (b"\x0c\x00\x00\x00\x01\x01\x00", 2),  # fewer records than counted
        (b"\x0c\x00\x00\x00\x01\x01\x00" * 2, 1),  # more
        (b"\x0c\x00\x00\x00\x01\x01\x00", -1),
        (b"\x0e\x00\x00\x00\x01\x01\x00\x00", 1),  # body longer than its fields
        (b"\x0a\x00\x00\x00\x01\x01\x00", 1),  # body shorter than its fields
        (b"\x0b\x00\x00\x00\x01\x01\x00", 1),  # negative length
        (b"\x7e\x00\x00\x00\x01\x01\x00", 1),  # length past the batch
        (b"\x0c\x00\x00\x00\x03\x01\x00", 1),  # key length -2
        (b"\x0c\x00\x00\x00\x01\x03\x00", 1),  # value length -2
        (b"\x0c\x00\x00\x00\x10\x01\x00", 1),  # key past the record
        (b"\x0c\x00\x00\x00\x01\x10\x00", 1),  # value past the record
        (b"\x0c\x00\x00\x00\x01\x01\x01", 1),  # -1 headers
        (b"\x0c\x00\x00\x00\x01\x01\x02", 1),  # a header that is not there
        (b"\x0e\x00\x00\x00\x01\x01\x02\x01\x01", 1),  # a header without a key
        (b"\x10\x00\x00\x00\x01\x01\x02\x00\x03", 1),  # header value length -2
        (b"\x10\x00\x00\x00\x01\x01\x02\x04\x01", 1),  # header key past the record
        (b"\x10\x00\x00\x00\x01\x01\x02\x00\x04", 1),  # header value past the record
        (b"\x16\x00\x00\xff\xff\xff\xff\x7f\x01\x01\x00", 1),  # offset delta above 32 bits
        (b"\x18\x00\x00\x80\x80\x80\x80\x80\x00\x01\x01\x00", 1),  # varint of six bytes
        (b"\x20\x00" + b"\xff" * 10 + b"\x00\x00\x01\x01\x00", 1),  # varlong of eleven
        (b"", 1),
    ],
)
def test_records_that_do_not_parse(payload: bytes, count: int) -> None:
    assert error_of(with_payload(payload, count)) is ErrorCode.INVALID_RECORD


def test_a_batch_cut_short_is_corrupt() -> None:
    assert error_of(TWO_RECORDS[:70]) is ErrorCode.CORRUPT_MESSAGE


def test_header_keys_keep_bytes_that_are_not_utf8() -> None:
    data = with_payload(b"\x14\x00\x00\x00\x01\x01\x02\x04\xff\xfe\x01", 1)
    records = decode(data)
    assert build_batch(records, base_offset=0) == data


octets = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=8), octets), max_size=3).map(tuple)


@st.composite
def record_lists(draw: st.DrawFn, min_size: int = 1) -> list[Record]:
    """Records with ascending offsets, gaps included, and timestamps in any order."""
    offset = draw(st.integers(0, 2**40))
    base_time = draw(st.sampled_from([-1, 0, T]))
    out = []
    for _ in range(draw(st.integers(min_size, 8))):
        timestamp = base_time if base_time < 0 else base_time + draw(st.integers(0, 2**40))
        out.append(Record(offset, timestamp, draw(octets), draw(octets), draw(headers)))
        offset += draw(st.integers(1, 1000))
    return out


@settings(max_examples=150, deadline=None)
@given(record_lists(), st.integers(0, 100), st.sampled_from([0, 1, 2, 3, 4]), st.data())
def test_iterating_gives_back_what_was_built(
    records: list[Record], before: int, codec: int, data: st.DataObject
) -> None:
    base_offset = max(0, records[0].offset - before)
    fields: dict[str, Any] = {
        "producer_id": data.draw(st.integers(-1, 2**63 - 1)),
        "producer_epoch": data.draw(st.integers(-1, 2**15 - 1)),
        "base_sequence": data.draw(st.integers(-1, 2**31 - 1)),
        "leader_epoch": data.draw(st.integers(-1, 2**31 - 1)),
    }
    transactional, control = data.draw(st.booleans()), data.draw(st.booleans())
    built = build_batch(
        records,
        base_offset=base_offset,
        codec=codec,
        transactional=transactional,
        control=control,
        **fields,
    )
    header = read_header(built)
    assert b.crc_ok(built, 0, len(built)) and header.size == len(built)
    assert header.base_offset == base_offset and header.last_offset == records[-1].offset
    assert header.codec == codec and header.records_count == len(records)
    assert header.max_timestamp == max(r.timestamp for r in records)
    assert (header.is_transactional, header.is_control) == (transactional, control)
    assert {name: getattr(header, name) for name in fields} == fields
    assert decode(built) == records


@settings(max_examples=200, deadline=None)
@given(record_lists(), st.sampled_from([0, 1, 2, 3, 4]), st.data())
def test_mutated_bytes_raise_nothing_but_kafka_errors(
    records: list[Record], codec: int, data: st.DataObject
) -> None:
    built = bytearray(build_batch(records, base_offset=records[0].offset, codec=codec))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(built) - 1))
        built[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 20))
    mutated = bytes(built[: len(built) - cut])
    try:
        for pos, size, magic in b.iter_batches(mutated):
            assert pos + size <= len(mutated)
            if magic == 2:
                b.crc_ok(mutated, pos, size)
                for record in iter_records(mutated, pos, read_header(mutated, pos), 1 << 20):
                    assert isinstance(record, Record)
    except KafkaError as error:
        assert error.code in (
            ErrorCode.CORRUPT_MESSAGE,
            ErrorCode.INVALID_RECORD,
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        )


def oracle_batches(records: list[Record], codec: int) -> Iterator[bytes]:
    """The same records as two client libraries encode them."""
    from aiokafka.record.default_records import DefaultRecordBatchBuilder as Aio
    from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPython

    for builder_class in (Aio, KafkaPython):
        builder = builder_class(
            magic=2,
            compression_type=codec,
            is_transactional=False,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=1 << 20,
        )
        for number, record in enumerate(records):
            builder.append(
                number, record.timestamp, record.key, record.value, headers=list(record.headers)
            )
        yield bytes(builder.build())


@settings(max_examples=40, deadline=None)
@given(record_lists(), st.sampled_from([0, 1, 2, 3, 4]))
def test_client_libraries_agree(records: list[Record], codec: int) -> None:
    records = [r._replace(offset=n, timestamp=T + n) for n, r in enumerate(records)]
    for theirs in oracle_batches(records, codec):
        assert b.crc_ok(theirs, 0, len(theirs))
        assert decode(theirs) == records
        if codec == 0:
            assert (
                build_batch(records, base_offset=0, leader_epoch=read_header(theirs).leader_epoch)
                == theirs
            )


@settings(max_examples=40, deadline=None)
@given(record_lists(), st.sampled_from([0, 1, 2, 3, 4]))
def test_client_libraries_read_ours(records: list[Record], codec: int) -> None:
    from aiokafka.record.memory_records import MemoryRecords as Aio
    from kafka.record import MemoryRecords as KafkaPython

    built = build_batch(records, base_offset=records[0].offset, codec=codec)
    for reader in (Aio, KafkaPython):
        batch = reader(built).next_batch()
        assert batch.validate_crc()
        read = [
            Record(r.offset, r.timestamp, r.key, r.value, tuple(tuple(h) for h in r.headers))
            for r in batch
        ]
        assert read == records
