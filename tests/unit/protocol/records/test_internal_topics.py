"""Records of the internal topics: the vectors, all versions read, bad bytes refused."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import internal_topics as t

T = 1_500_000_000_000


def versioned(version: int, hexadecimal: str) -> bytes:
    return version.to_bytes(2, "big") + bytes.fromhex(hexadecimal.replace(" ", ""))


# -- vectors ----------------------------------------------------------------------------------


def test_offset_key() -> None:
    data = bytes.fromhex("000100016700017400000003")
    assert t.encode_offset_key("g", "t", 3) == data
    expected = t.OffsetCommitKey(group="g", topic="t", partition=3)
    assert t.decode_group_topic_key(data) == expected
    assert t.decode_group_topic_key(b"\0\0" + data[2:]) == expected


def test_offset_value() -> None:
    data = bytes.fromhex("0003000000000000002affffffff00016d0000015d3ef79800")
    value = t.OffsetCommitValue(offset=42, metadata="m", commit_timestamp=T)
    assert t.encode_offset_value(value) == data
    assert t.decode_offset_value(data) == value


def test_group_key() -> None:
    data = bytes.fromhex("0002000167")
    assert t.encode_group_key("g") == data
    assert t.decode_group_topic_key(data) == t.GroupMetadataKey(group="g")


def test_transaction_key_and_value() -> None:
    key = bytes.fromhex("000000027478")
    assert t.encode_transaction_key("tx") == key
    assert t.decode_transaction_key(key) == t.TransactionLogKey(transactional_id="tx")
    data = bytes.fromhex(
        "000000000000000003e800000000ea60010000000100017400000001000000000000015d3ef79801"
        "0000015d3ef79800"
    )
    value = t.TransactionLogValue(
        producer_id=1000,
        producer_epoch=0,
        transaction_timeout_ms=60000,
        transaction_status=1,
        transaction_partitions=[t.TransactionPartitions(topic="t", partition_ids=[0])],
        transaction_last_update_timestamp_ms=T + 1,
        transaction_start_timestamp_ms=T,
    )
    assert t.encode_transaction_value(value) == data
    assert t.decode_transaction_value(data) == value


# -- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "leader_epoch", "expire_timestamp"),
    [
        (versioned(0, "000000000000002a 00016d 0000015d3ef79800"), -1, -1),
        (versioned(1, "000000000000002a 00016d 0000015d3ef79800 0000015d3ef79801"), -1, T + 1),
        (versioned(2, "000000000000002a 00016d 0000015d3ef79800"), -1, -1),
        (versioned(3, "000000000000002a 00000007 00016d 0000015d3ef79800"), 7, -1),
        (versioned(4, "000000000000002a 00000007 026d 0000015d3ef79800 00"), 7, -1),
        # 4.x adds a topic id as a tag
        (versioned(4, f"000000000000002a 00000007 026d 0000015d3ef79800 010010{'ab' * 16}"), 7, -1),
    ],
)
def test_offset_values_of_all_versions(
    data: bytes, leader_epoch: int, expire_timestamp: int
) -> None:
    assert t.decode_offset_value(data) == t.OffsetCommitValue(
        offset=42,
        leader_epoch=leader_epoch,
        metadata="m",
        commit_timestamp=T,
        expire_timestamp=expire_timestamp,
    )


def test_an_expiry_of_its_own_is_written_in_version_1() -> None:
    value = t.OffsetCommitValue(offset=42, metadata="m", commit_timestamp=T, expire_timestamp=T + 1)
    data = t.encode_offset_value(value)
    assert data == versioned(1, "000000000000002a 00016d 0000015d3ef79800 0000015d3ef79801")


def member(**fields: object) -> t.MemberMetadata:
    return t.MemberMetadata(
        member_id="m",
        client_id="c",
        client_host="h",
        session_timeout=9,
        subscription=b"s",
        **fields,  # type: ignore[arg-type]
    )


COMMON = "000163 00000001 000170 00016d"


@pytest.mark.parametrize(
    ("data", "state_timestamp", "expected"),
    [
        (
            versioned(0, f"{COMMON} 00000001 00016d 000163 000168 00000009 0000000173 00000000"),
            -1,
            member(),
        ),
        (
            versioned(
                1, f"{COMMON} 00000001 00016d 000163 000168 00000008 00000009 0000000173 00000000"
            ),
            -1,
            member(rebalance_timeout=8),
        ),
        (
            versioned(
                2,
                f"{COMMON} 0000015d3ef79800 00000001 00016d 000163 000168 00000008 00000009 "
                "0000000173 00000000",
            ),
            T,
            member(rebalance_timeout=8),
        ),
        (
            versioned(
                3,
                f"{COMMON} 0000015d3ef79800 00000001 00016d 000169 000163 000168 00000008 "
                "00000009 0000000173 00000000",
            ),
            T,
            member(rebalance_timeout=8, group_instance_id="i"),
        ),
        (
            versioned(
                4,
                "0263 00000001 0270 026d 0000015d3ef79800 02 026d 0269 0263 0268 00000008 "
                "00000009 0273 01 00 00",
            ),
            T,
            member(rebalance_timeout=8, group_instance_id="i"),
        ),
    ],
)
def test_group_values_of_all_versions(
    data: bytes, state_timestamp: int, expected: t.MemberMetadata
) -> None:
    value = t.decode_group_value(data)
    assert value == t.GroupMetadataValue(
        protocol_type="c",
        generation=1,
        protocol="p",
        leader="m",
        current_state_timestamp=state_timestamp,
        members=[expected],
    )
    if data[1] == 3:
        assert t.encode_group_value(value) == data


def test_an_empty_group_has_no_protocol_and_no_leader() -> None:
    value = t.GroupMetadataValue(protocol_type="consumer", generation=3)
    data = t.encode_group_value(value)
    assert data == versioned(3, "0008636f6e73756d6572 00000003 ffff ffff ffffffffffffffff 00000000")
    assert t.decode_group_value(data) == value


def test_transaction_value_of_kafka_4() -> None:
    value = t.TransactionLogValue(
        producer_id=5, next_producer_id=6, transaction_status=4, client_transaction_version=2
    )
    data = b"\0\1" + codec.encode(value, 1)
    assert t.decode_transaction_value(data) == value


def test_an_empty_transaction_has_null_partitions() -> None:
    data = t.encode_transaction_value(t.TransactionLogValue(producer_id=5))
    assert data[17:21] == b"\xff\xff\xff\xff"
    assert t.decode_transaction_value(data).transaction_partitions is None


def test_keys_of_later_protocols_are_passed_over() -> None:
    assert t.decode_group_topic_key(versioned(3, "0267 00")) is None
    assert t.decode_transaction_key(versioned(1, "0267 00")) is None


# -- bad bytes --------------------------------------------------------------------------------

DECODERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (t.decode_group_topic_key, t.encode_offset_key("group", "topic", 1)),
    (t.decode_group_topic_key, t.encode_group_key("group")),
    (t.decode_offset_value, t.encode_offset_value(t.OffsetCommitValue(metadata="abc"))),
    (
        t.decode_group_value,
        t.encode_group_value(t.GroupMetadataValue(leader="m", members=[member()])),
    ),
    (t.decode_transaction_key, t.encode_transaction_key("id")),
    (
        t.decode_transaction_value,
        t.encode_transaction_value(
            t.TransactionLogValue(transaction_partitions=[t.TransactionPartitions(topic="t")])
        ),
    ),
]


@pytest.mark.parametrize(("decode", "good"), DECODERS)
def test_cut_off_everywhere(decode: Callable[[bytes], object], good: bytes) -> None:
    decode(good)
    for end in range(len(good)):
        with pytest.raises(KafkaError) as caught:
            decode(good[:end])
        assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize(("decode", "good"), DECODERS)
def test_negative_versions(decode: Callable[[bytes], object], good: bytes) -> None:
    with pytest.raises(KafkaError):
        decode(b"\xff\xff" + good[2:])


@pytest.mark.parametrize(
    "decode", [t.decode_offset_value, t.decode_group_value, t.decode_transaction_value]
)
def test_values_of_unknown_versions_are_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(KafkaError, match="unknown version 5"):
        decode(b"\0\5" + bytes(100))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(DECODERS), st.data())
def test_mutated_bytes(case: tuple[Callable[[bytes], object], bytes], data: st.DataObject) -> None:
    decode, good = case
    mutated = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(mutated))
    except KafkaError as error:
        assert error.code is ErrorCode.CORRUPT_MESSAGE
