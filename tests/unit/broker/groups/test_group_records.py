"""Groups and offsets as records, whatever Kafka wrote them, and subscriptions of consumers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.broker.groups import records
from kavka.broker.groups.image import GroupImage, MemberImage
from kavka.broker.groups.loading import Replay
from kavka.broker.groups.offsets import NO_EXPIRY, CommittedOffset
from kavka.broker.groups.subscription import subscribed_topics
from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import Record, assemble_batch, build_batch
from kavka.protocol.records.legacy import build_message_set
from kavka.protocol.topics import TopicPartition
from tests.unit.broker.groups.harness import T0

texts = st.text(max_size=20)
int64 = st.integers(0, 2**63 - 1)
int32 = st.integers(0, 2**31 - 1)

members = st.builds(
    MemberImage,
    member_id=texts,
    instance_id=st.none() | texts,
    client_id=texts,
    client_host=texts,
    rebalance_timeout_ms=int32,
    session_timeout_ms=int32,
    subscription=st.binary(max_size=20),
    assignment=st.binary(max_size=20),
)
images = st.builds(
    GroupImage,
    protocol_type=st.none() | st.text(min_size=1, max_size=9),
    generation=int32,
    protocol=st.none() | texts,
    leader=st.none() | texts,
    state_timestamp_ms=st.none() | int64,
    members=st.lists(members, max_size=3).map(tuple),
)


@given(images)
def test_groups_come_back_as_they_were_written(image: GroupImage) -> None:
    assert records.read_group(records.group_value(image)) == image


@given(st.builds(CommittedOffset, int64, int32, texts, int64, st.just(NO_EXPIRY)))
def test_offsets_come_back_as_they_were_written(value: CommittedOffset) -> None:
    assert records.read_offset(records.offset_value(value)) == value


def test_an_offset_with_an_expiry_loses_its_epoch() -> None:
    value = CommittedOffset(1, 7, "m", 2, 3)
    assert records.read_offset(records.offset_value(value)) == value._replace(leader_epoch=-1)


def test_keys_tell_what_a_record_is() -> None:
    partition = TopicPartition("t", 3)
    assert records.read_key(records.offset_key("g", partition)) == ("g", partition)
    assert records.read_key(records.group_key("g")) == records.GroupKey("g")
    assert records.read_key(b"\x00\x03\x00\x01g") is None
    with pytest.raises(KafkaError):
        records.read_key(b"\x00")


def test_a_group_stored_before_there_were_rebalance_timeouts() -> None:
    # Value v0: consumer, generation 3, range, leader m; one member m of client c on /h, 6000 ms.
    value = bytes.fromhex(
        "0000 0008636f6e73756d6572 00000003 000572616e6765 00016d 00000001 "
        "00016d 000163 00022f68 00001770 00000001aa 00000002bbcc"
    )
    image = records.read_group(value)
    assert image == GroupImage(
        "consumer",
        3,
        "range",
        "m",
        None,
        (MemberImage("m", None, "c", "/h", 6_000, 6_000, b"\xaa", b"\xbb\xcc"),),
    )


@pytest.mark.parametrize(("magic", "codec"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_message_sets_of_before_0_11_are_read(magic: int, codec: int) -> None:
    written = [
        Record(4, 5, records.offset_key("g", T0), records.offset_value(CommittedOffset(1))),
        Record(5, 5, records.offset_key("g", T0), records.offset_value(CommittedOffset(2))),
    ]
    replay = Replay()
    assert replay.feed(memoryview(build_message_set(written, magic=magic, codec=codec))) == 6
    assert replay.groups["g"].offsets.get(T0) == CommittedOffset(2)


def test_nonsense_in_a_sound_batch_is_passed_over() -> None:
    written = [
        Record(0, 5, records.offset_key("g", T0), records.offset_value(CommittedOffset(1))),
        Record(1, 5, b"", b""),
        Record(2, 5, b"\0\1\0\5g", b""),
        Record(3, 5, records.offset_key("h", T0), b"\0\3nonsense"),
        Record(4, 5, records.group_key("h"), b"nonsense"),
    ]
    broken = assemble_batch(
        b"no records at all",
        base_offset=5,
        attributes=0,
        last_offset_delta=0,
        first_timestamp=5,
        max_timestamp=5,
        records_count=1,
    )
    replay = Replay()
    assert replay.feed(memoryview(build_batch(written, base_offset=0) + broken)) == 6
    assert replay.groups["g"].offsets.get(T0) == CommittedOffset(1)
    assert not replay.groups["h"].exists
    assert replay.unknown_records == 5


# -- subscriptions ----------------------------------------------------------------------------


def test_the_topics_of_a_subscription_of_whatever_version() -> None:
    topics = bytes.fromhex("00000002 000174 0004d182d0b0")
    for version in (0, 1, 3, 9):
        metadata = version.to_bytes(2, "big") + topics + b"whatever comes later"
        assert subscribed_topics(metadata) == {"t", "та"}
    assert subscribed_topics(bytes.fromhex("0000 00000000")) == frozenset()


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "0000",
        "0000ffffffff",  # null topics
        "00000000ffff",  # more topics than bytes
        "000000000001",
        "0000000000010005aa",
        "000000000001ffff",  # a null topic
        "0000000000010001ff",  # not UTF-8
    ],
)
def test_what_is_no_subscription(metadata: str) -> None:
    assert subscribed_topics(bytes.fromhex(metadata)) is None
    assert subscribed_topics(b"any text") is None


@given(st.binary(max_size=40))
def test_a_subscription_is_read_or_not_but_never_fails(metadata: bytes) -> None:
    subscribed_topics(metadata)
