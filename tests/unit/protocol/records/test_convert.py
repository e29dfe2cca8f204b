"""Conversion up at produce, down at fetch, and recompression."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import batch as b
from kavka.protocol.records.batch import Buffer, Record, build_batch, iter_batches, read_header
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.records.convert import (
    convert_append,
    down_convert,
    needs_down_conversion,
    recompress,
    up_convert,
)
from kavka.protocol.records.legacy import build_message_set, read_message, read_records
from kavka.protocol.records.validate import (
    AppendRules,
    RecordsRejected,
    ValidatedAppend,
    validate,
)

T = 1_500_000_000_000
LIMIT = 1 << 24
OLD_CODECS = [0, 1, 2, 3]


def read_all(data: Buffer) -> list[Record]:
    return [
        record
        for pos, size, magic in iter_batches(data)
        for record in read_records(data, pos, size, magic, LIMIT)
    ]


def records(count: int = 3, start: int = 0) -> list[Record]:
    return [Record(start + n, T + n, b"k%d" % n, b"v%d" % n) for n in range(count)]


def untimed(listed: list[Record]) -> list[Record]:
    return [r._replace(timestamp=-1) for r in listed]


def append(data: bytes, version: int = 2, **fields: Any) -> ValidatedAppend:
    rules = AppendRules(**{"max_message_bytes": 1 << 20, **fields})
    view = memoryview(bytearray(data))
    result = validate(view, rules, T, version)
    assert result.needs_conversion
    return convert_append(view, rules, T, version)


def refused(data: bytes, version: int = 2, **fields: Any) -> KafkaError:
    with pytest.raises(KafkaError) as caught:
        append(data, version, **fields)
    return caught.value


# -- up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", OLD_CODECS)
def test_message_sets_become_one_batch(magic: int, codec: int) -> None:
    result = append(build_message_set(records(), magic, codec=codec))
    ((header, view),) = result.batches
    assert b.crc_ok(view, 0, len(view)) and not view.readonly and result.log_append_time == -1
    assert (header.codec, header.producer_id, header.base_sequence) == (codec, -1, -1)
    assert (header.base_offset, header.last_offset_delta, header.records_count) == (0, 2, 3)
    assert read_all(view) == (records() if magic else untimed(records()))
    assert header.max_timestamp == (T + 2 if magic else -1)


def test_offsets_the_client_sent_do_not_matter() -> None:
    result = append(build_message_set(records(start=70), 0))
    assert [r.offset for r in read_all(result.batches[0][1])] == [0, 1, 2]


def test_several_sets_and_formats_become_one_batch_too() -> None:
    first = build_message_set(records(2), 0)
    second = build_message_set(records(2), 1, codec=1)
    third = build_batch(records(2), base_offset=0)
    result = append(first + second + third + first[:20])
    ((header, view),) = result.batches
    assert header.codec == 1 and header.records_count == 6
    assert [r.timestamp for r in read_all(view)] == [-1, -1, T, T + 1, T, T + 1]
    idempotent = build_batch(records(2), base_offset=0, producer_id=1, base_sequence=0)
    assert refused(first + idempotent).code is ErrorCode.CORRUPT_MESSAGE


def test_log_append_time_and_forced_codec() -> None:
    result = append(
        build_message_set(records(), 0), timestamp_type=b.LOG_APPEND_TIME, codec=4, compacted=True
    )
    ((header, view),) = result.batches
    assert (header.codec, header.timestamp_type, header.max_timestamp) == (4, 1, T)
    assert result.log_append_time == T
    assert read_all(view) == [r._replace(timestamp=T) for r in records()]


@pytest.mark.parametrize("codec", OLD_CODECS)
def test_topic_rules_hold_for_old_formats(codec: int) -> None:
    listed = records()
    listed[1] = listed[1]._replace(key=None, timestamp=T - 5000)
    data = build_message_set(listed, 1, codec=codec)
    error = refused(data, compacted=True)
    assert isinstance(error, RecordsRejected)
    assert error.code is ErrorCode.CORRUPT_MESSAGE
    assert [e.batch_index for e in error.record_errors] == [1]
    assert refused(data, before_max_ms=4999).code is ErrorCode.INVALID_TIMESTAMP
    assert append(data, before_max_ms=5000).batches
    # format 0 has no timestamp to be wrong
    assert append(build_message_set(listed, 0, codec=codec), before_max_ms=1).batches
    assert refused(data, max_message_bytes=30).code is ErrorCode.MESSAGE_TOO_LARGE


def test_the_converted_batch_is_measured() -> None:
    data = build_message_set([Record(0, T, None, b"")], 0)
    assert refused(data, max_message_bytes=len(data)).code is ErrorCode.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("magic", [0, 1])
def test_bad_message_sets(magic: int) -> None:
    data = bytearray(build_message_set(records(), magic))
    data[-1] ^= 1
    assert refused(bytes(data)).code is ErrorCode.CORRUPT_MESSAGE
    append_time = build_message_set(records(1), 1, timestamp_type=b.LOG_APPEND_TIME)
    assert refused(append_time).code is ErrorCode.INVALID_TIMESTAMP


def test_bombs_in_old_formats_stop() -> None:
    one = build_message_set([Record(0, T, None, bytes(100_000))], 1, codec=1)
    assert append(one, decompressed_limit=110_000).batches
    assert refused(one, decompressed_limit=90_000).code is ErrorCode.CORRUPT_MESSAGE
    # the limit is for all sets of a request together
    assert refused(one * 2, decompressed_limit=110_000).code is ErrorCode.CORRUPT_MESSAGE


def test_up_convert_alone() -> None:
    data = build_message_set(records(), 1, codec=2)
    assert up_convert(data, limit=LIMIT) == build_batch(records(), base_offset=0, codec=2)
    assert up_convert(data, limit=LIMIT, codec=0) == build_batch(records(), base_offset=0)


# -- down -------------------------------------------------------------------------------------


def with_headers(listed: list[Record]) -> list[Record]:
    return [r._replace(headers=(("h", b"x"),)) for r in listed]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", OLD_CODECS)
def test_down(magic: int, codec: int) -> None:
    listed = records(start=100)
    data = build_batch(with_headers(listed), base_offset=98, codec=codec)
    converted = down_convert(data, magic, 0, LIMIT)
    assert {m for _, _, m in iter_batches(converted)} == {magic}
    assert read_all(converted) == (listed if magic else untimed(listed))
    entries = list(iter_batches(converted))
    assert len(entries) == (1 if codec else 3)
    assert read_message(converted, *entries[0][:2]).codec == codec


@pytest.mark.parametrize("magic", [0, 1])
def test_plain_records_below_the_fetch_offset_are_left_out(magic: int) -> None:
    plain = build_batch(records(start=100), base_offset=100)
    packed = build_batch(records(start=103), base_offset=103, codec=1)
    converted = down_convert(plain + packed, magic, 102, LIMIT)
    assert [r.offset for r in read_all(converted)] == [102, 103, 104, 105]
    converted = down_convert(plain + packed, magic, 104, LIMIT)
    assert [r.offset for r in read_all(converted)] == [103, 104, 105]


def test_log_append_time_survives_in_format_1() -> None:
    for codec in OLD_CODECS:
        data = build_batch(
            records(), base_offset=0, codec=codec, timestamp_type=1, max_timestamp=T + 9
        )
        converted = down_convert(data, 1, 0, LIMIT)
        pos, size, _ = next(iter_batches(converted))
        outer = read_message(converted, pos, size)
        assert (outer.timestamp_type, outer.timestamp) == (1, T + 9)
        assert [r.timestamp for r in read_all(converted)] == [T + 9] * 3


def test_control_batches_are_dropped_and_nothing_may_be_left() -> None:
    marker = build_end_txn_marker(
        EndTxnMarker(ControlType.COMMIT, 0), producer_id=1, producer_epoch=0, timestamp=T
    )
    assert down_convert(marker, 1, 0, LIMIT) == b""
    data = build_batch(records(1), base_offset=0, transactional=True, producer_id=1)
    assert read_all(down_convert(data + marker, 1, 0, LIMIT)) == records(1)
    emptied = build_batch([], base_offset=0, last_offset=4)
    assert down_convert(emptied, 1, 0, LIMIT) == b""


@pytest.mark.parametrize("magic", [0, 1])
def test_zstd_cannot_go_down(magic: int) -> None:
    with pytest.raises(KafkaError) as caught:
        down_convert(build_batch(records(), base_offset=0, codec=4), magic, 0, LIMIT)
    assert caught.value.code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


def test_what_is_old_enough_stays_and_tails_are_dropped() -> None:
    old = build_message_set(records(2), 1, codec=1)
    older = build_message_set(records(2, 2), 0)
    new = build_batch(records(2, 4), base_offset=4)
    log = old + older + new + new[:30]
    assert down_convert(log, 1, 0, LIMIT) == old + older + build_message_set(records(2, 4), 1)
    assert down_convert(log, 2, 0, LIMIT) == old + older + new
    converted = down_convert(log, 0, 0, LIMIT)
    assert [r.offset for r in read_all(converted)] == list(range(6))
    assert {m for _, _, m in iter_batches(converted)} == {0}
    plain = build_message_set(records(3), 1)
    assert [r.offset for r in read_all(down_convert(plain, 0, 1, LIMIT))] == [1, 2]


@pytest.mark.parametrize(("magic", "expected"), [(0, True), (1, True), (2, False)])
def test_needs_down_conversion(magic: int, expected: bool) -> None:
    data = build_message_set(records(), 0) + build_batch(records(), base_offset=0)
    assert needs_down_conversion(data, magic) is expected
    assert not needs_down_conversion(build_message_set(records(), 0), 0)


@pytest.mark.parametrize("magic", [0, 1, 2])
def test_records_to_be_looked_at_are_counted(magic: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("convert", "validate"):
        monkeypatch.setattr(f"kavka.protocol.records.{module}.CONVERTED_RECORDS_MAX", 6)

    def data(count: int) -> bytes:
        if magic == 2:
            return build_batch(records(count), base_offset=0, codec=1)
        return build_message_set(records(count), magic, codec=1)

    rules = {"codec": 0}  # so that all have to be unpacked
    assert append(data(6), **rules).batches
    assert append(data(3) + data(3), **rules).batches
    for too_many in (data(7), data(3) + data(4)):
        assert refused(too_many, **rules).code is ErrorCode.MESSAGE_TOO_LARGE
    plain = build_message_set(records(7), min(magic, 1))
    assert refused(plain, **rules).code is ErrorCode.MESSAGE_TOO_LARGE
    if magic:
        with pytest.raises(KafkaError) as caught:
            down_convert(build_batch(records(7), base_offset=0, codec=1), 0, 0, 1000)
        assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE


def test_all_batches_of_an_append_share_the_limit() -> None:
    batch = build_batch(records(3), base_offset=0, codec=1)
    size = len(b.records_payload(batch, 0, read_header(batch), 1000))
    assert append(batch * 2, codec=0, decompressed_limit=2 * size).batches
    error = refused(batch * 2, codec=0, decompressed_limit=2 * size - 1)
    assert error.code is ErrorCode.CORRUPT_MESSAGE


def test_limit_of_a_conversion() -> None:
    data = build_batch([Record(0, T, None, bytes(100_000))], base_offset=0, codec=1)
    with pytest.raises(KafkaError) as caught:
        down_convert(data, 1, 0, 1000)
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


# -- recompression ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("target", [0, 1, 2, 3, 4])
def test_recompress(source: int, target: int) -> None:
    listed = with_headers(records(start=50))
    data = b"xx" + build_batch(
        listed,
        base_offset=48,
        last_offset=60,
        codec=source,
        producer_id=4,
        producer_epoch=1,
        base_sequence=2,
        leader_epoch=7,
        transactional=True,
    )
    result = recompress(data, 2, read_header(data, 2), target, LIMIT)
    header = read_header(result)
    assert header.codec == target and b.crc_ok(result, 0, len(result))
    changed = {"batch_length": 0, "crc": 0, "attributes": 0}
    assert header._replace(**changed) == read_header(data, 2)._replace(**changed)
    assert header.is_transactional and read_all(result) == listed


# -- properties -------------------------------------------------------------------------------

octets = st.none() | st.binary(max_size=40)


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    count = draw(st.integers(1, 6))
    times = st.integers(-1, 2**63 - 1)
    return [Record(n, draw(times), draw(octets), draw(octets)) for n in range(count)]


@settings(max_examples=150, deadline=None)
@given(
    record_lists(),
    st.sampled_from([0, 1]),
    st.sampled_from(OLD_CODECS),
    st.integers(0, 2**60),
)
def test_up_then_down_keeps_records(
    listed: list[Record], magic: int, codec: int, base_offset: int
) -> None:
    sent = build_message_set(listed, magic, codec=codec)
    ((_, view),) = append(sent).batches
    b.stamp(view, 0, base_offset, 3)
    expected = [r._replace(offset=base_offset + r.offset) for r in listed]
    if magic == 0:
        expected = untimed(expected)
    assert read_all(view) == expected
    assert read_all(down_convert(view, magic, base_offset, LIMIT)) == expected
    if codec == 0:
        assert down_convert(view, magic, 0, LIMIT) == build_message_set(expected, magic)


@settings(max_examples=200, deadline=None)
@given(
    record_lists(),
    st.sampled_from([0, 1, 2]),
    st.sampled_from(OLD_CODECS),
    st.booleans(),
    st.data(),
)
def test_mutated_bytes_raise_nothing_but_kafka_errors(
    listed: list[Record], magic: int, codec: int, reseal: bool, data: st.DataObject
) -> None:
    import zlib

    if magic == 2:
        built = bytearray(build_batch(listed, base_offset=0, codec=codec))
    else:
        built = bytearray(build_message_set(listed, magic, codec=codec))
    for _ in range(data.draw(st.integers(1, 3))):
        built[data.draw(st.integers(0, len(built) - 1))] = data.draw(st.integers(0, 255))
    if reseal and magic == 2:
        built[17:21] = b.crc32c(memoryview(built)[21:]).to_bytes(4, "big")
    elif reseal and codec:
        built[12:16] = zlib.crc32(built[16:]).to_bytes(4, "big")
    for attempt in (
        lambda: append_if_needed(built),
        lambda: down_convert(built, 1, 0, 1 << 16),
        lambda: down_convert(built, 0, 0, 1 << 16),
        lambda: up_convert(built, limit=1 << 16) if any(iter_batches(built)) else None,
    ):
        with contextlib.suppress(KafkaError):
            attempt()


def append_if_needed(data: bytearray) -> None:
    rules = AppendRules(max_message_bytes=1 << 20, compacted=True, decompressed_limit=1 << 16)
    view = memoryview(bytearray(data))
    if validate(view, rules, T, 2).needs_conversion:
        convert_append(view, rules, T, 2)
