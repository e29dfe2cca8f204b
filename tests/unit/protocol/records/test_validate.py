"""What a leader refuses, with which code for which era, and what it never looks at."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.config.broker import BrokerConfig
from kavka.config.topic import resolve
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import batch as b
from kavka.protocol.records import validate as v
from kavka.protocol.records.batch import Record, build_batch, iter_records, read_header
from kavka.protocol.records.convert import convert_append
from kavka.protocol.records.legacy import build_message_set
from kavka.protocol.records.validate import (
    AppendRules,
    RecordsRejected,
    ValidatedAppend,
    check_records,
    validate,
    validate_closely,
)

NOW = 1_500_000_000_000
CODECS = [0, 1, 2, 3, 4]


def rules(**changes: Any) -> AppendRules:
    return AppendRules(**{"max_message_bytes": 1 << 20, **changes})


def records(count: int = 3, **changes: Any) -> list[Record]:
    return [
        Record(n, NOW + n, b"k%d" % n, b"value %d" % n)._replace(**changes) for n in range(count)
    ]


def one(**fields: Any) -> bytearray:
    return bytearray(build_batch(records(), **{"base_offset": 0, **fields}))


def reseal(data: bytearray) -> bytearray:
    data[17:21] = b.crc32c(memoryview(data)[21:]).to_bytes(4, "big")
    return data


def patched(at: int, new: bytes, **fields: Any) -> bytearray:
    data = one(**fields)
    data[at : at + len(new)] = new
    return reseal(data)


def check(
    data: bytes | bytearray, topic: AppendRules | None = None, version: int = 8
) -> ValidatedAppend:
    """Validate, and convert where that is asked for, as the produce handler does."""
    topic = topic or rules()
    view = memoryview(bytearray(data))
    result = validate(view, topic, NOW, version)
    if not result.needs_conversion:
        return result
    assert result.batches == []
    return convert_append(view, topic, NOW, version)


def refused(
    data: bytes | bytearray, topic: AppendRules | None = None, version: int = 8
) -> KafkaError:
    with pytest.raises(KafkaError) as caught:
        check(data, topic, version)
    return caught.value


def stored(result: ValidatedAppend) -> list[Record]:
    out: list[Record] = []
    for header, view in result.batches:
        assert read_header(view) == header and header.size == len(view)
        assert b.crc_ok(view, 0, len(view)) and not view.readonly
        out += iter_records(view, 0, header, 1 << 24)
    return out


@pytest.mark.parametrize("codec", CODECS)
def test_an_ordinary_batch_is_handed_on_as_it_came(codec: int) -> None:
    data = one(codec=codec)
    view = memoryview(bytearray(data))
    result = validate(view, rules(), NOW, 7)
    ((header, batch),) = result.batches
    assert batch is view and batch == data and header == read_header(data)
    assert result.log_append_time == -1 and not result.needs_conversion


def test_records_are_not_looked_at_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("looked at records")

    monkeypatch.setattr(v, "check_records", never)
    garbage = b.assemble_batch(
        b"\xff" * 50,
        base_offset=0,
        attributes=0,
        last_offset_delta=1,
        first_timestamp=NOW,
        max_timestamp=NOW,
        records_count=2,
    )
    assert len(check(garbage, rules(after_max_ms=1000)).batches) == 1


# -- Produce's own rules (versions 3 and up) --------------------------------------------------


@pytest.mark.parametrize(
    ("version", "code"), [(3, ErrorCode.CORRUPT_MESSAGE), (8, ErrorCode.INVALID_RECORD)]
)
def test_exactly_one_batch_of_format_2(version: int, code: ErrorCode) -> None:
    message_set = build_message_set(records(), 1)
    for data in (b"", one()[:-1], one() + one(), message_set, message_set + one()):
        assert refused(data, version=version).code is code


def test_a_partial_tail_is_dropped() -> None:
    result = check(one() + one()[:50], version=7)
    assert stored(result) == records()


@pytest.mark.parametrize("version", [0, 1, 2])
def test_old_versions_may_send_nothing_or_several(version: int) -> None:
    assert check(b"", version=version).batches == []
    assert len(check(one() + one(), version=version).batches) == 2


@pytest.mark.parametrize("version", [3, 6])
def test_zstd_needs_produce_7(version: int) -> None:
    data = one(codec=4)
    assert refused(data, version=version).code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    assert stored(check(data, version=7)) == records()


# -- structure, checksum, size ----------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 7, 8])
def test_structure(version: int) -> None:
    bad_magic = patched(16, b"\x03")
    bad_size = patched(8, (13).to_bytes(4, "big"))
    too_short = patched(8, (48).to_bytes(4, "big"))
    for data in (bad_magic, bad_size, too_short):
        assert refused(data, version=version).code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("version", [2, 7, 8])
def test_checksum(version: int) -> None:
    data = one()
    data[-1] ^= 1
    assert refused(data, version=version).code is ErrorCode.CORRUPT_MESSAGE


def test_size_is_that_of_the_whole_batch_and_seen_before_the_checksum() -> None:
    data = one()
    assert check(data, rules(max_message_bytes=len(data))).batches
    data[-1] ^= 1
    code = refused(data, rules(max_message_bytes=len(data) - 1)).code
    assert code is ErrorCode.MESSAGE_TOO_LARGE


@pytest.mark.parametrize(
    "data",
    [
        one(base_offset=0)[:7] + b"\x01" + one()[8:],  # base offset 1, not in the checksum
        patched(57, (2).to_bytes(4, "big")),  # two records, last delta 2
        patched(57, (4).to_bytes(4, "big")),
        patched(57, (0).to_bytes(4, "big")),
        patched(57, (-3).to_bytes(4, "big", signed=True)),
        patched(23, (-1).to_bytes(4, "big", signed=True)),
        patched(23, (-1).to_bytes(4, "big", signed=True) + one()[27:57] + bytes(4)),  # empty
        one(producer_id=5, producer_epoch=0, base_sequence=-1),
        one(control=True),
        one(control=True, transactional=True, producer_id=5, base_sequence=0),
        patched(23, (49_999).to_bytes(4, "big") + one()[27:57] + (50_000).to_bytes(4, "big")),
    ],
)
def test_headers_no_producer_may_send(data: bytearray) -> None:
    for version in range(3, 8):
        assert refused(data, version=version).code is ErrorCode.CORRUPT_MESSAGE
    for version in range(8, 12):
        assert refused(data, version=version).code is ErrorCode.INVALID_RECORD


def test_compressed_records_cannot_be_more_than_would_ever_be_unpacked() -> None:
    count = 1000
    data = patched(57, count.to_bytes(4, "big"), codec=4)
    data[23:27] = (count - 1).to_bytes(4, "big")
    reseal(data)
    assert refused(data, rules(decompressed_limit=6999)).code is ErrorCode.INVALID_RECORD
    assert check(data, rules(decompressed_limit=7000)).batches


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_unknown_codecs(codec: int) -> None:
    data = patched(21, codec.to_bytes(2, "big"))
    assert refused(data, version=8).code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    assert refused(data, version=2).code is ErrorCode.CORRUPT_MESSAGE


def test_idempotent_and_transactional_batches_pass() -> None:
    data = one(producer_id=5, producer_epoch=1, base_sequence=0, transactional=True)
    assert check(data).batches[0][0].is_transactional


# -- timestamps -------------------------------------------------------------------------------


@pytest.mark.parametrize("timestamp_type", [b.CREATE_TIME, b.LOG_APPEND_TIME])
def test_log_append_time_is_not_the_producers_to_say(timestamp_type: int) -> None:
    data = one(timestamp_type=b.LOG_APPEND_TIME)
    error = refused(data, rules(timestamp_type=timestamp_type))
    assert error.code is ErrorCode.INVALID_TIMESTAMP


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time_topic(codec: int) -> None:
    data = bytearray(build_batch(records(timestamp=5), base_offset=0, codec=codec))
    result = check(data, rules(timestamp_type=b.LOG_APPEND_TIME, before_max_ms=1, after_max_ms=1))
    assert result.log_append_time == NOW
    assert result.batches[0][0].timestamp_type == b.LOG_APPEND_TIME
    assert stored(result) == records(timestamp=NOW)
    assert result.batches[0][1][61:] == data[61:]  # the records themselves were not touched


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", [2, 7, 8])
def test_bounds_on_timestamps(codec: int, version: int) -> None:
    topic = rules(before_max_ms=1000, after_max_ms=500)
    times = [NOW - 1001, NOW - 1000, -1, NOW + 500, NOW + 501]
    data = build_batch(
        [Record(n, t, None, b"") for n, t in enumerate(times)], base_offset=0, codec=codec
    )
    error = refused(data, topic, version)
    assert error.code is ErrorCode.INVALID_TIMESTAMP
    assert isinstance(error, RecordsRejected)
    assert [e.batch_index for e in error.record_errors] == [0, 4]
    good = [Record(n, t, None, b"") for n, t in enumerate(times[1:4])]
    assert stored(check(build_batch(good, base_offset=0, codec=codec), topic, version)) == good


def test_a_bound_on_the_future_needs_no_look_at_the_records() -> None:
    topic = rules(after_max_ms=1000)
    header = read_header(one())
    assert not topic.must_look_at_records(header, NOW)
    assert topic.must_look_at_records(header, NOW - 1000)
    error = refused(one(), rules(after_max_ms=1))
    assert error.code is ErrorCode.INVALID_TIMESTAMP
    assert isinstance(error, RecordsRejected)
    assert [e.batch_index for e in error.record_errors] == [2]


def test_a_wrong_maximum_is_corrected_where_records_are_looked_at() -> None:
    data = bytearray(build_batch(records(), base_offset=0, max_timestamp=NOW + 10_000))
    result = check(data, rules(after_max_ms=5000))
    assert result.batches[0][0].max_timestamp == NOW + 2
    assert stored(result) == records()


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_compacted_topics_want_keys(codec: int) -> None:
    mixed = records(4)
    mixed[1] = mixed[1]._replace(key=None)
    mixed[3] = mixed[3]._replace(key=None)
    data = build_batch(mixed, base_offset=0, codec=codec)
    assert stored(check(data)) == mixed
    compacted = rules(compacted=True)
    for version, code in ((7, ErrorCode.CORRUPT_MESSAGE), (8, ErrorCode.INVALID_RECORD)):
        error = refused(data, compacted, version)
        assert error.code is code
        assert isinstance(error, RecordsRejected)
        assert [e.batch_index for e in error.record_errors] == [1, 3]
    good = records(key=b"")
    assert stored(check(build_batch(good, base_offset=0, codec=codec), compacted)) == good


def test_record_errors_are_bounded() -> None:
    many = [Record(n, NOW, None, b"") for n in range(v.MAX_RECORD_ERRORS * 3)]
    error = refused(build_batch(many, base_offset=0), rules(compacted=True))
    assert isinstance(error, RecordsRejected)
    assert len(error.record_errors) == v.MAX_RECORD_ERRORS
    assert str(len(many)) in str(error)


@pytest.mark.parametrize(("count", "inline"), [(v.INLINE_WALK_RECORDS, True), (201, False)])
def test_long_walks_leave_the_event_loop(count: int, inline: bool) -> None:
    data = memoryview(bytearray(build_batch(records(count), base_offset=0)))
    assert validate(data, rules(compacted=True), NOW, 8).needs_conversion is not inline


def test_compacted_topics_refuse_records_that_do_not_parse() -> None:
    data = patched(61, b"\x0b")  # the first record's length becomes negative
    assert check(data).batches
    assert refused(data, rules(compacted=True)).code is ErrorCode.INVALID_RECORD


# -- compression.type -------------------------------------------------------------------------


@pytest.mark.parametrize("target", CODECS)
@pytest.mark.parametrize("source", CODECS)
def test_forced_codec(source: int, target: int) -> None:
    data = one(codec=source, producer_id=9, producer_epoch=2, base_sequence=4, transactional=True)
    result = check(data, rules(codec=target))
    ((header, view),) = result.batches
    assert header.codec == target
    assert header._replace(crc=0, batch_length=0, attributes=0) == read_header(data)._replace(
        crc=0, batch_length=0, attributes=0
    )
    assert header.is_transactional
    assert stored(result) == records()
    assert (view == data) is (source == target)


def test_a_forced_codec_keeps_the_rules_of_time() -> None:
    result = check(one(codec=1), rules(codec=0, timestamp_type=b.LOG_APPEND_TIME))
    assert stored(result) == records(timestamp=NOW)
    assert result.log_append_time == NOW


def test_recompressed_batches_are_measured_again() -> None:
    data = build_batch([Record(0, NOW, None, b"a" * 5000)], base_offset=0, codec=1)
    error = refused(data, rules(codec=0, max_message_bytes=1000))
    assert error.code is ErrorCode.MESSAGE_TOO_LARGE


def test_a_bomb_stops_at_the_limit() -> None:
    data = build_batch([Record(0, NOW, b"k", bytes(5_000_000))], base_offset=0, codec=4)
    for topic in (rules(codec=1, decompressed_limit=10_000), rules(compacted=True)):
        topic.decompressed_limit = 10_000
        assert refused(data, topic).code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("codec", CODECS)
def test_offsets_that_are_not_0_1_2_are_rebuilt_where_seen(codec: int) -> None:
    gapped = [r._replace(offset=r.offset * 2) for r in records()]
    data = build_batch(gapped, base_offset=0, codec=codec, producer_id=3, base_sequence=0)
    odd = bytearray(data)
    odd[23:27] = (2).to_bytes(4, "big")  # what header and count agree on
    reseal(odd)
    result = check(odd, rules(compacted=True))
    assert stored(result) == records()
    header = result.batches[0][0]
    assert (header.producer_id, header.base_sequence, header.codec) == (3, 0, codec)


# -- settings ---------------------------------------------------------------------------------


def test_rules_of_a_topics_settings() -> None:
    broker = BrokerConfig()
    plain = AppendRules.of(resolve({}, broker))
    assert plain.codec is None and not plain.compacted
    assert plain.timestamp_type == b.CREATE_TIME and plain.max_message_bytes == 10485760
    assert not plain.must_look_at_records(read_header(one()), 0)
    special = AppendRules.of(
        resolve(
            {
                "cleanup.policy": "compact,delete",
                "compression.type": "zstd",
                "message.timestamp.type": "LogAppendTime",
                "message.timestamp.difference.max.ms": "7",
                "max.message.bytes": "99",
            },
            broker,
        )
    )
    assert special.compacted and special.codec == 4
    assert special.timestamp_type == b.LOG_APPEND_TIME
    assert (special.before_max_ms, special.after_max_ms, special.max_message_bytes) == (7, 7, 99)
    assert AppendRules.of(resolve({"compression.type": "uncompressed"}, broker)).codec == 0


# -- properties -------------------------------------------------------------------------------


octets = st.none() | st.binary(max_size=30)
headers = st.lists(st.tuples(st.text(max_size=5), octets), max_size=3).map(tuple)
record_lists = st.lists(
    st.builds(Record, st.just(0), st.integers(-1, 2**63 - 1), octets, octets, headers),
    min_size=1,
    max_size=6,
).map(lambda rs: [r._replace(offset=n) for n, r in enumerate(rs)])


@settings(max_examples=150, deadline=None)
@given(record_lists)
def test_the_walk_sees_what_iterating_sees(listed: list[Record]) -> None:
    data = build_batch(listed, base_offset=0)
    header = read_header(data)
    facts = check_records(data[61:], header, rules(), NOW)
    assert facts == (max(r.timestamp for r in listed), True)
    assert list(iter_records(data, 0, header, 1 << 20)) == listed


@settings(max_examples=200, deadline=None)
@given(record_lists, st.data())
def test_the_walk_refuses_what_iterating_refuses(listed: list[Record], data: st.DataObject) -> None:
    payload = bytearray(build_batch(listed, base_offset=0)[61:])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    header = read_header(build_batch(listed, base_offset=0))
    outcomes = []
    for attempt in (
        lambda: list(b.parse_records(bytes(payload), header)) and None,
        lambda: check_records(bytes(payload), header, rules(), NOW) and None,
    ):
        try:
            outcomes.append(attempt())
        except KafkaError as error:
            outcomes.append(error.code)
    assert outcomes[0] == outcomes[1]


@settings(max_examples=200, deadline=None)
@given(
    record_lists,
    st.sampled_from(CODECS),
    st.sampled_from([None, *CODECS]),
    st.booleans(),
    st.integers(0, 9),
    st.data(),
)
def test_mutated_requests_raise_nothing_but_kafka_errors(
    listed: list[Record],
    codec: int,
    forced: int | None,
    compacted: bool,
    version: int,
    data: st.DataObject,
) -> None:
    built = bytearray(build_batch(listed, base_offset=0, codec=codec))
    for _ in range(data.draw(st.integers(0, 3))):
        built[data.draw(st.integers(8, len(built) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        reseal(built)
    topic = rules(codec=forced, compacted=compacted, decompressed_limit=1 << 16)
    try:
        check(built, topic, version)
    except KafkaError as error:
        if version < 8:
            assert error.code is not ErrorCode.INVALID_RECORD


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(CODECS),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "max_message_bytes": st.just(80),
            "compacted": st.just(True),
            "timestamp_type": st.just(b.LOG_APPEND_TIME),
            "before_max_ms": st.just(1),
            "after_max_ms": st.sampled_from([0, 1, 2]),
            "codec": st.sampled_from(CODECS),
        },
    ),
    st.integers(3, 9),
)
def test_what_the_quick_look_lets_through_the_close_one_does_too(
    codec: int, changes: list[tuple[int, int]], seal: bool, settings: dict[str, Any], version: int
) -> None:
    data = one(codec=codec)
    for at, value in changes:
        data[at] = value
    if seal:
        reseal(data)
    before = bytes(data)
    topic = rules(**settings)
    header = topic.ordinary(memoryview(data), NOW, version)
    if header is not None:
        (closely,) = validate_closely(memoryview(data), topic, NOW, version).batches
        assert closely == (header, memoryview(data))
        assert bytes(data) == before
        assert type(closely[0]) is type(header)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("producer", [{}, {"producer_id": 1, "producer_epoch": 0}])
def test_the_quick_look_settles_the_ordinary_batch(codec: int, producer: dict[str, int]) -> None:
    fields = {**producer, **({"base_sequence": 0} if producer else {})}
    data = one(codec=codec, **fields)
    assert rules().ordinary(memoryview(data), NOW, 8) == read_header(data)
