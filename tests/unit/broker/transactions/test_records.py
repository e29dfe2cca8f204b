"""Transactional ids as Kafka keeps them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.broker.transactions import records
from kavka.broker.transactions.loading import Replay
from kavka.broker.transactions.messages import TransactionImage
from kavka.broker.transactions.state import TransactionState
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import TopicPartition

P = TopicPartition
STORABLE = [
    state
    for state in TransactionState
    if state not in (TransactionState.DEAD, TransactionState.PREPARE_EPOCH_FENCE)
]


def string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def test_bytes_are_those_of_kafka_2_3() -> None:
    image = TransactionImage(
        4711,
        3,
        60_000,
        TransactionState.PREPARE_COMMIT,
        frozenset({P("b", 2), P("a", 1), P("b", 0)}),
        1_500_000_000_001,
        1_500_000_000_000,
    )
    assert records.transaction_key("txn") == b"\0\0" + string("txn")
    assert records.transaction_value(image) == (
        struct.pack(">hqhib", 0, 4711, 3, 60_000, 2)
        + struct.pack(">i", 2)
        + (string("a") + struct.pack(">ii", 1, 1))
        + (string("b") + struct.pack(">iii", 2, 0, 2))
        + struct.pack(">qq", 1_500_000_000_001, 1_500_000_000_000)
    )


def test_what_only_newer_brokers_read_is_written_only_for_newer_clients() -> None:
    image = TransactionImage(1, 0, 1, TransactionState.COMPLETE_COMMIT, frozenset(), 5)
    assert records.transaction_value(image)[:2] == b"\0\0"
    assert records.transaction_value(image._replace(client_version=2))[:2] == b"\0\1"


def test_an_empty_one_has_no_list_of_partitions_a_complete_one_an_empty_list() -> None:
    image = TransactionImage(1, 0, 1, TransactionState.EMPTY, frozenset(), 5)
    head = struct.calcsize(">hqhib")
    assert records.transaction_value(image)[head : head + 4] == b"\xff\xff\xff\xff"
    image = image._replace(state=TransactionState.COMPLETE_ABORT)
    assert records.transaction_value(image)[head : head + 4] == b"\0\0\0\0"


def _storable(image: TransactionImage) -> TransactionImage:
    if image.state is TransactionState.EMPTY:
        image = image._replace(partitions=frozenset())
    # Only version 1 has a place for these.
    return image if image.client_version else image._replace(previous_id=-1, next_id=-1)


PARTITIONS = st.builds(P, st.sampled_from(["a", "b", "__consumer_offsets"]), st.integers(0, 9))
IMAGES = st.builds(
    TransactionImage,
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**15 - 1),
    st.integers(1, 2**31 - 1),
    st.sampled_from(STORABLE),
    st.frozensets(PARTITIONS),
    st.integers(0, 2**62),
    st.integers(-1, 2**62),
    st.integers(-1, 2**62),
    st.integers(-1, 2**62),
    st.sampled_from([0, 2]),
).map(_storable)


@given(IMAGES, st.text(min_size=1, max_size=20))
def test_what_is_stored_is_read_back(image: TransactionImage, name: str) -> None:
    assert records.read_value(records.transaction_value(image)) == image
    assert records.read_key(records.transaction_key(name)) == name


@pytest.mark.parametrize("status", [6, 7, 8, -1])
def test_a_state_that_is_never_stored_is_refused(status: int) -> None:
    image = TransactionImage(1, 0, 1, TransactionState.ONGOING, frozenset({P("a", 0)}), 5)
    data = bytearray(records.transaction_value(image))
    data[struct.calcsize(">hqhi")] = status & 0xFF
    with pytest.raises(KafkaError) as caught:
        records.read_value(bytes(data))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


def batch(first: int, *pairs: tuple[bytes | None, bytes | None]) -> bytes:
    numbered = [Record(first + i, 0, key, value) for i, (key, value) in enumerate(pairs)]
    return build_batch(numbered, base_offset=first)


def test_replay_keeps_the_last_word_on_each_id() -> None:
    one = TransactionImage(1, 0, 1, TransactionState.EMPTY, frozenset(), 5)
    other = one._replace(producer_id=2)
    data = b"".join(
        [
            batch(
                0,
                (records.transaction_key("a"), records.transaction_value(one)),
                (records.transaction_key("b"), records.transaction_value(one)),
            ),
            batch(2, (records.transaction_key("a"), records.transaction_value(other))),
            batch(3, (records.transaction_key("b"), None)),
            batch(4, (b"\0\x09later", b"?"), (None, b"")),
            batch(6, (b"", b""), (records.transaction_key("b"), b"nonsense")),
            build_end_txn_marker(
                EndTxnMarker(ControlType.COMMIT, 1),
                producer_id=1,
                producer_epoch=0,
                timestamp=0,
                base_offset=8,
            ),
        ]
    )
    replay = Replay()
    assert replay.feed(memoryview(data)) == 9
    assert replay.images == {"a": other}
    assert replay.unknown_records == 4
    assert replay.feed(memoryview(b"")) == -1


def test_a_damaged_batch_is_refused() -> None:
    image = TransactionImage(1, 0, 1, TransactionState.EMPTY, frozenset(), 5)
    data = bytearray(batch(0, (records.transaction_key("a"), records.transaction_value(image))))
    data[-1] ^= 1
    with pytest.raises(KafkaError) as caught:
        Replay().feed(memoryview(data))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE
