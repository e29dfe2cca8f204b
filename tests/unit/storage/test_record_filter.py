"""Taking records out of batches."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import legacy
from kavka.protocol.records.batch import (
    DELETE_HORIZON_MASK,
    LOG_APPEND_TIME,
    Record,
    build_batch,
    crc_ok,
    iter_batches,
    iter_records,
    read_header,
)
from kavka.storage.record_filter import emptied_batch, filter_batch, filter_message_set, spans

LIMIT: Final = 1 << 20
CODECS: Final = (0, 1, 2, 3, 4)

RECORDS: Final = st.builds(
    Record,
    st.just(0),
    st.one_of(st.integers(-1, 2**42), st.sampled_from((2**63 - 1, -(2**63)))),
    st.none() | st.binary(max_size=200),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=2).map(
        tuple
    ),
)


@given(
    st.lists(st.tuples(RECORDS, st.integers(0, 3), st.booleans()), min_size=1, max_size=12),
    st.sampled_from(CODECS),
    st.booleans(),
    st.integers(0, 2**40),
)
@settings(max_examples=150, deadline=None)
def test_what_is_kept_is_as_it_was(
    drawn: list[tuple[Record, int, bool]], codec: int, append_time: bool, base_offset: int
) -> None:
    records, wanted = [], {}
    offset = base_offset
    for record, gap, keep in drawn:
        offset += gap
        records.append(record._replace(offset=offset))
        wanted[offset] = keep
        offset += 1
    data = b"before" + build_batch(
        records,
        base_offset=base_offset,
        codec=codec,
        timestamp_type=LOG_APPEND_TIME if append_time else 0,
        producer_id=7,
        producer_epoch=3,
        base_sequence=11,
        leader_epoch=5,
        transactional=True,
        last_offset=offset + 2,
        max_timestamp=77 if append_time else None,
    )
    header = read_header(data, 6)
    before = [*iter_records(data, 6, header, LIMIT)]
    seen = []

    def keep(offset: int, key: bytes | None, has_value: bool) -> bool:
        seen.append((offset, key, has_value))
        return wanted[offset]

    left = filter_batch(data, 6, header, keep)
    assert seen == [(each.offset, each.key, each.value is not None) for each in before]
    kept = [each for each in before if wanted[each.offset]]
    assert left.records == len(kept)
    if not kept:
        assert not left.data
        return
    after = read_header(left.data)
    assert crc_ok(left.data, 0, len(left.data))
    assert [*iter_records(left.data, 0, after, LIMIT)] == kept
    assert left.last_offset == after.last_offset == header.last_offset
    largest = 77 if append_time else max(-1, *(each.timestamp for each in kept))
    assert left.max_timestamp == after.max_timestamp == largest
    same = ("base_offset", "leader_epoch", "attributes", "producer_id", "producer_epoch")
    for name in (*same, "base_sequence", "first_timestamp"):
        assert getattr(after, name) == getattr(header, name)
    if len(kept) == len(before):
        assert bytes(left.data) == data[6:]


def test_a_delete_horizon_stays() -> None:
    records = [Record(number, 1_000 + number, b"k", None) for number in range(3)]
    data = build_batch(records, base_offset=0, delete_horizon=5_000)
    left = filter_batch(data, 0, read_header(data), lambda offset, *_: offset == 1)
    after = read_header(left.data)
    assert after.attributes & DELETE_HORIZON_MASK
    assert after.delete_horizon == 5_000
    assert [*iter_records(left.data, 0, after, LIMIT)] == [records[1]]


def test_an_emptied_batch_still_says_whose_it_was() -> None:
    data = build_batch(
        [Record(5, 100, b"k", b"v"), Record(9, 200, b"k", b"v")],
        base_offset=5,
        codec=4,
        producer_id=7,
        producer_epoch=3,
        base_sequence=11,
        leader_epoch=2,
        transactional=True,
    )
    header = read_header(data)
    empty = emptied_batch(header)
    after = read_header(empty)
    assert len(empty) == 61
    assert crc_ok(empty, 0, 61)
    assert [*iter_records(empty, 0, after, LIMIT)] == []
    assert after.first_timestamp == -1
    assert after.codec == 0
    same = ("base_offset", "leader_epoch", "last_offset", "last_sequence", "max_timestamp")
    for name in (*same, "producer_id", "producer_epoch", "base_sequence", "is_transactional"):
        assert getattr(after, name) == getattr(header, name)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_what_is_no_record_is_refused(cut: int) -> None:
    data = build_batch([Record(0, 5, b"key", b"value", (("h", b"x"),))] * 2, base_offset=0)
    header = read_header(data)
    payload = data[61:]
    for broken in (payload[:-cut], payload + bytes(cut), b"\xff" * 12 + payload):
        with pytest.raises(KafkaError) as caught:
            [*spans(broken, header)]
        assert caught.value.code == ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2, 3])
def test_old_message_sets_are_thinned_out_too(magic: int, codec: int) -> None:
    records = [
        Record(offset, 100 + offset if magic else -1, b"k%d" % offset, b"v")
        for offset in range(3, 9)
    ]
    data = legacy.build_message_set(records, magic, codec=codec)
    kept: list[Record] = []
    for position, size, found in iter_batches(data):
        left = filter_message_set(data, position, size, found, lambda offset, *_: offset in (4, 6))
        if left.records:
            [(at, length, after)] = iter_batches(left.data)
            assert after == magic
            inside = [*legacy.read_records(left.data, at, length, after, LIMIT)]
            assert left.last_offset == inside[-1].offset
            assert left.max_timestamp == inside[-1].timestamp
            kept += inside
    assert kept == [records[1], records[3]]


def test_an_old_message_set_that_loses_nothing_stays_as_it_is() -> None:
    data = legacy.build_message_set(
        [Record(3, 5, b"k", b"v"), Record(7, 6, b"l", None)], 1, codec=1
    )
    [(position, size, magic)] = iter_batches(data)
    assert bytes(filter_message_set(data, position, size, magic, lambda *_: True).data) == data
    assert filter_message_set(data, position, size, magic, lambda *_: False).records == 0
