"""What encoders and decoders promise beside the layout: bounds, versions, views, tags."""

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.config.limits import ELEMENTS_PER_MESSAGE_MAX, STRING_BYTES_MAX
from kavka.protocol import codec, keys
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.messages.k00_produce import (
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from kavka.protocol.messages.k01_fetch import FetchRequest, FetchResponse, ReplicaState
from kavka.protocol.messages.k03_metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kavka.protocol.messages.k09_offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse
from kavka.protocol.messages.k75_describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
)
from kavka.protocol.primitives import read_uvarint, uvarint
from kavka.protocol.schema import (
    Buffer,
    Message,
    Struct,
    array,
    binary,
    boolean,
    float64,
    nested,
    record_data,
    uint16,
    uint32,
    uuid,
)


def all_messages() -> list[type[Message]]:
    found: list[type[Message]] = []
    for key in keys.APIS:
        try:
            found.extend(keys.message_classes(key))
        except KeyError:
            continue
    return found


MESSAGES = all_messages()


def produce(records: Any = b"records", partitions: int = 1) -> ProduceRequest:
    data = [PartitionProduceData(index=i, records=records) for i in range(partitions)]
    topic = TopicProduceData(name="topic", partition_data=data)
    return ProduceRequest(acks=-1, timeout_ms=1500, topic_data=[topic])


def metadata() -> MetadataResponse:
    partition = MetadataResponsePartition(
        partition_index=3, leader_id=1, leader_epoch=9, replica_nodes=[1, 2, 3], isr_nodes=[1, 2]
    )
    topic = MetadataResponseTopic(name="t", topic_id=b"i" * 16, partitions=[partition])
    broker = MetadataResponseBroker(node_id=1, host="h", port=9092, rack="r")
    return MetadataResponse(brokers=[broker], cluster_id="c", controller_id=1, topics=[topic])


def test_every_version_of_every_message_writes_and_reads_its_defaults() -> None:
    for cls in MESSAGES:
        for version in range(cls.MIN_VERSION, cls.MAX_VERSION + 1):
            assert codec.decode(cls, codec.encode(cls(), version), version) == cls(), version


def test_bytes_of_a_classic_and_a_flexible_message() -> None:
    request = HeartbeatRequest(group_id="g", generation_id=7, member_id="m")
    assert codec.encode(request, 3).hex() == "00016700000007" + "00016d" + "ffff"
    assert codec.encode(request, 4).hex() == "026700000007" + "026d" + "00" + "00"


def test_fields_that_a_version_lacks_are_left_out_and_read_as_defaults() -> None:
    full = metadata()
    oldest = codec.decode(MetadataResponse, codec.encode(full, 0), 0)
    assert (oldest.cluster_id, oldest.controller_id, oldest.brokers[0].rack) == (None, -1, None)
    assert oldest.topics[0].topic_id == bytes(16)
    assert oldest.topics[0].partitions[0].leader_epoch == -1
    assert oldest.topics[0].partitions[0].offline_replicas == []
    assert oldest.topics[0].partitions[0].replica_nodes == [1, 2, 3]


def test_lists_that_a_version_lacks_are_not_shared_between_objects() -> None:
    data = codec.encode(FetchRequest(), 4)
    one, other = codec.decode(FetchRequest, data, 4), codec.decode(FetchRequest, data, 4)
    one.forgotten_topics_data.append(None)  # type: ignore[arg-type]
    assert other.forgotten_topics_data == []


def test_null_is_kept_where_a_version_allows_it() -> None:
    everything = codec.decode(MetadataRequest, codec.encode(MetadataRequest(topics=None), 1), 1)
    assert everything.topics is None
    nothing = codec.decode(MetadataRequest, codec.encode(MetadataRequest(topics=[]), 1), 1)
    assert nothing.topics == []


def test_null_is_malformed_where_a_version_forbids_it() -> None:
    with pytest.raises(MalformedFrame, match="topics is null"):
        codec.decode(MetadataRequest, b"\xff\xff\xff\xff", 0)
    with pytest.raises(MalformedFrame, match="group_id is null"):
        codec.decode(OffsetFetchRequest, b"\x00\x01\x00\x00", 6)


def test_a_message_is_read_from_an_offset_and_what_follows_is_ignored() -> None:
    data = b"head" + codec.encode(metadata(), 8) + b"tail"
    for buffer in (data, bytearray(data), memoryview(data)):
        assert codec.decode(MetadataResponse, buffer, 8, 4) == codec.decode(
            MetadataResponse, codec.encode(metadata(), 8), 8
        )


@pytest.mark.parametrize("version", [3, 9])
def test_record_data_is_a_view_of_the_input(version: int) -> None:
    buffer = bytearray(codec.encode(produce(b"records"), version))
    records = codec.decode(ProduceRequest, buffer, version).topic_data[0].partition_data[0].records
    assert isinstance(records, memoryview)
    buffer[buffer.index(b"records")] = ord("R")
    assert records == b"Records"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_record_data_is_written_from_any_buffer(kind: Any) -> None:
    assert codec.encode(produce(kind(b"records")), 7) == codec.encode(produce(b"records"), 7)


def test_other_data_does_not_alias_the_input() -> None:
    request = HeartbeatRequest(group_id="group", member_id="member")
    buffer = bytearray(codec.encode(request, 0))
    read = codec.decode(HeartbeatRequest, memoryview(buffer), 0)
    buffer[:] = bytes(len(buffer))
    assert read == request


@pytest.mark.parametrize(
    ("message", "version"),
    [(produce(partitions=3), 7), (produce(partitions=3), 9), (metadata(), 8), (metadata(), 12)],
)
def test_every_cut_is_malformed(message: Message, version: int) -> None:
    whole = codec.encode(message, version)
    for size in range(len(whole)):
        with pytest.raises(MalformedFrame):
            codec.decode(type(message), whole[:size], version)


@settings(max_examples=300, deadline=None, database=None)
@given(cls=st.sampled_from(MESSAGES), data=st.data())
def test_random_bytes_decode_or_are_malformed(cls: type[Message], data: st.DataObject) -> None:
    version = data.draw(st.integers(cls.MIN_VERSION, cls.MAX_VERSION))
    # Small bytes make plausible lengths, so that the decoder gets further.
    noise = data.draw(st.lists(st.integers(0, 3) | st.integers(0, 255), max_size=80).map(bytes))
    try:
        message = codec.decode(cls, noise, version)
    except MalformedFrame:
        return
    assert codec.decode(cls, codec.encode(message, version), version) == message


@settings(max_examples=200, deadline=None, database=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), version=st.integers(0, 12))
def test_a_damaged_frame_decodes_or_is_malformed(position: int, value: int, version: int) -> None:
    frame = bytearray(codec.encode(metadata(), version))
    frame[position % len(frame)] = value
    with contextlib.suppress(MalformedFrame):
        codec.decode(MetadataResponse, frame, version)


def test_counts_are_held_against_the_bytes_that_are_left() -> None:
    claim = struct.pack(">i", 0x7FFFFFFF)
    with pytest.raises(MalformedFrame, match="topics has more elements than the frame can hold"):
        codec.decode(MetadataRequest, claim + bytes(100), 0)
    with pytest.raises(MalformedFrame, match="topics has more elements"):
        codec.decode(MetadataRequest, b"\xff\xff\xff\xff\x0f" + bytes(100), 9)


def test_all_arrays_of_a_message_share_one_budget() -> None:
    topics = 500
    partitions = ELEMENTS_PER_MESSAGE_MAX // topics - 1
    record_data = bytes(8)  # partition 0, no records
    topic = b"\0\0" + struct.pack(">i", partitions) + partitions * record_data
    head = struct.pack(">hi", 1, 0)

    def frame(count: int) -> bytes:
        return head + struct.pack(">i", count) + count * topic

    assert len(codec.decode(ProduceRequest, frame(topics), 0).topic_data) == topics
    with pytest.raises(MalformedFrame, match="has more elements than one message may"):
        codec.decode(ProduceRequest, frame(topics + 1), 0)
    with pytest.raises(MalformedFrame, match="topics has more elements than one message may"):
        codec.decode(MetadataRequest, struct.pack(">i", 10**6) + bytes(2 * 10**6), 0)


def test_numbers_count_less() -> None:
    request = OffsetFetchRequest(group_id="g", topics=[])
    request.topics = [
        OffsetFetchRequestTopic(name="t", partition_indexes=[0] * (7 * ELEMENTS_PER_MESSAGE_MAX))
    ]
    data = codec.encode(request, 1)
    assert codec.decode(OffsetFetchRequest, data, 1) == request
    request.topics *= 2
    with pytest.raises(MalformedFrame, match="more elements than one message may"):
        codec.decode(OffsetFetchRequest, codec.encode(request, 1), 1)


@pytest.mark.parametrize("version", [0, 9])
def test_tagged_fields_are_counted_too(version: int) -> None:
    cls = HeartbeatRequest if version == 0 else MetadataRequest
    data = codec.encode(cls(), max(version, 4))[:-1] + uvarint(10**6) + bytes(2 * 10**6)
    with pytest.raises(MalformedFrame, match="more tagged fields than one message may have"):
        codec.decode(cls, data, max(version, 4))


def test_strings_have_the_length_of_an_int16_in_every_version() -> None:
    request = HeartbeatRequest(group_id="g" * STRING_BYTES_MAX)
    assert codec.decode(HeartbeatRequest, codec.encode(request, 4), 4) == request
    request.group_id += "g"
    with pytest.raises(MalformedFrame, match="group_id is too long a string"):
        codec.decode(HeartbeatRequest, codec.encode(request, 4), 4)


def test_arrays_and_strings_with_long_compact_lengths() -> None:
    many = produce(partitions=200)
    many.topic_data[0].name = "n" * 300
    again = codec.decode(ProduceRequest, codec.encode(many, 9), 9)
    assert again == many
    topic = metadata()
    topic.topics[0].partitions[0].replica_nodes = list(range(1000))
    assert codec.decode(MetadataResponse, codec.encode(topic, 12), 12).topics == topic.topics


@pytest.mark.parametrize("count", [0, 1, 126, 127, 128, 16_383, 16_384])
def test_lengths_around_the_steps_of_compact_encoding(count: int) -> None:
    response = metadata()
    response.cluster_id = "c" * count
    response.topics[0].partitions[0].replica_nodes = list(range(count))
    response.brokers = [MetadataResponseBroker(node_id=i) for i in range(count)]
    data = codec.encode(response, 9)
    response.topics[0].topic_id = bytes(16)  # not in version 9
    assert codec.decode(MetadataResponse, data, 9) == response


def test_a_tagged_field_is_written_only_when_it_is_not_the_default() -> None:
    bare = codec.encode(ProduceResponse(), 10)
    assert bare.hex() == "01" + "00000000" + "00"
    endpoint = NodeEndpoint(node_id=1, host="h", port=2)
    tagged = codec.encode(ProduceResponse(node_endpoints=[endpoint]), 10)
    value = "02" + "00000001" + "0268" + "00000002" + "00" + "00"
    assert tagged.hex() == "01" + "00000000" + "01" + "00" + f"{len(value) // 2:02x}" + value


def test_a_tagged_struct_of_defaults_counts_as_absent() -> None:
    def response(leader: LeaderIdAndEpoch | None) -> ProduceResponse:
        partition = PartitionProduceResponse(current_leader=leader)
        return ProduceResponse(responses=[TopicProduceResponse(partition_responses=[partition])])

    absent = codec.encode(response(None), 10)
    assert codec.encode(response(LeaderIdAndEpoch()), 10) == absent
    read = codec.decode(ProduceResponse, absent, 10)
    assert read.responses[0].partition_responses[0].current_leader is None
    hint = LeaderIdAndEpoch(leader_id=2, leader_epoch=4)
    read = codec.decode(ProduceResponse, codec.encode(response(hint), 10), 10)
    assert read.responses[0].partition_responses[0].current_leader == hint


def test_tagged_fields_that_nobody_knows_are_skipped() -> None:
    known = codec.encode(HeartbeatResponse(error_code=5), 4)
    unknown = known[:-1] + b"\x02" + b"\x07\x03abc" + b"\xc8\x01\x00"
    assert codec.decode(HeartbeatResponse, unknown, 4) == HeartbeatResponse(error_code=5)
    with pytest.raises(MalformedFrame):
        codec.decode(HeartbeatResponse, unknown[:-2], 4)


def test_very_many_unknown_tags() -> None:
    known = codec.encode(HeartbeatResponse(error_code=5), 4)
    section = uvarint(300) + b"".join(uvarint(tag) + b"\x01x" for tag in range(300))
    message = known[:-1] + section
    assert codec.decode(HeartbeatResponse, message, 4) == HeartbeatResponse(error_code=5)
    with pytest.raises(MalformedFrame):
        codec.decode(HeartbeatResponse, message[:-1], 4)


def test_known_and_unknown_tags_together() -> None:
    request = FetchRequest(replica_state=ReplicaState(replica_id=3, replica_epoch=4))
    whole = codec.encode(request, 15)
    section = whole[-16:]
    assert section[:3].hex() == "01010d", "one field, tag 1, 13 bytes"
    mixed = whole[:-16] + b"\x02" + section[1:] + b"\x63\x02xy"
    assert codec.decode(FetchRequest, mixed, 15) == request


def test_a_tagged_field_must_be_as_long_as_it_says() -> None:
    whole = codec.encode(FetchRequest(replica_state=ReplicaState(replica_id=3)), 15)
    for size in (12, 14):
        bad = bytearray(whole + bytes(4))
        bad[len(whole) - 14] = size
        with pytest.raises(MalformedFrame, match="a tagged field is not as long as it says"):
            codec.decode(FetchRequest, bad, 15)


def test_nullable_struct() -> None:
    request = DescribeTopicPartitionsRequest(cursor=Cursor(topic_name="t", partition_index=4))
    assert codec.decode(type(request), codec.encode(request, 0), 0) == request
    request.cursor = None
    data = codec.encode(request, 0)
    assert data[-2:].hex() == "ff00"
    assert codec.decode(type(request), data, 0) == request


def test_text_that_is_not_utf8_is_mended() -> None:
    data = b"\x00\x02g\xff" + bytes(4) + b"\x00\x00"
    assert codec.decode(HeartbeatRequest, data, 0).group_id == "g?"


class Inner(Struct):
    low: int = uint16()
    high: int = uint32()


class Mixed(Message, versions=(0, 1), flexible=1):
    """What no message of Kafka has together."""

    blob: bytes = binary()
    records: Buffer | None = record_data(nullable=True)
    flags: list[bool] = array(boolean)
    ids: list[bytes] = array(uuid)
    ratios: list[float] = array(float64)
    blobs: list[bytes] = array(binary)
    inner: Inner = nested(Inner)
    late: Inner = nested(Inner, since=1)


@pytest.mark.parametrize("version", [0, 1])
def test_kinds_that_kafka_does_not_combine(version: int) -> None:
    message = Mixed(
        blob=b"blob",
        records=b"records",
        flags=[True, False, True],
        ids=[b"i" * 16, bytes(16)],
        ratios=[0.5, -1.0],
        blobs=[b"", b"b"],
        inner=Inner(low=0xFFFF, high=0xFFFFFFFF),
    )
    buffer = bytearray(codec.encode(message, version))
    read = codec.decode(Mixed, buffer, version)
    assert read == message
    assert type(read.blob) is bytes
    assert type(read.records) is memoryview
    assert [type(flag) for flag in read.flags] == [bool] * 3
    other = codec.decode(Mixed, buffer, version)
    other.late.low = 7
    assert read.late == Inner()


@pytest.mark.parametrize(
    ("message", "version", "problem"),
    [
        (HeartbeatRequest(group_id=None), 0, "group_id is null"),  # type: ignore[arg-type]
        (HeartbeatRequest(generation_id=1 << 31), 0, "generation_id does not fit an int32"),
        (HeartbeatRequest(generation_id="1"), 0, "generation_id is a str"),  # type: ignore[arg-type]
        (HeartbeatRequest(group_id="é" * 16384), 0, "group_id is longer than 32767 bytes"),
        (HeartbeatRequest(group_id="\ud800"), 4, "group_id holds a lone surrogate"),
        (produce("text"), 7, r"topic_data\[0\].partition_data\[0\].records is a str"),
        (MetadataRequest(topics=None), 0, "topics is null"),
        (MetadataRequest(topics=["t"]), 1, r"topics\[0\] is not a struct"),  # type: ignore[list-item]
    ],
)
def test_a_value_that_does_not_fit_is_named(message: Message, version: int, problem: str) -> None:
    name = f"{type(message).__name__} v{version} cannot be encoded: "
    with pytest.raises(ValueError, match=name + problem):
        codec.encode(message, version)


def test_versions_nobody_declared_are_refused() -> None:
    for call in (codec.encoder, codec.decoder):
        with pytest.raises(KafkaError) as caught:
            call(FetchResponse, 99)
        assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION


@given(st.integers(0, 0xFFFFFFFF))
def test_varints_round_trip(value: int) -> None:
    data = uvarint(value)
    assert read_uvarint(b"x" + data + b"y", 1) == (value, 1 + len(data))


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\x1f"])
def test_varints_beyond_32_bits_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        read_uvarint(data, 0)
