"""The short way of Produce reads and writes exactly what the declared schema does."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.produce import single
from kavka.protocol import codec
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from kavka.protocol.primitives import MEND

versions = st.integers(0, 11)
int16 = st.integers(-(2**15), 2**15 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
topics = st.sampled_from(["a", "тема", "t" * 126, "t" * 127, "t" * 200, ""])
partitions = st.builds(
    PartitionProduceData,
    index=int32,
    records=st.none() | st.binary(max_size=300) | st.just(bytes(20_000)),
)
requests = st.builds(
    ProduceRequest,
    transactional_id=st.none() | st.just("id"),
    acks=int16,
    timeout_ms=int32,
    topic_data=st.lists(
        st.builds(TopicProduceData, name=topics, partition_data=st.lists(partitions, max_size=2)),
        max_size=2,
    ),
)
ordinary = st.builds(
    ProduceRequest,
    acks=int16,
    timeout_ms=int32,
    topic_data=st.builds(
        TopicProduceData,
        name=st.sampled_from(["a", "тема", "t" * 126]),
        partition_data=st.builds(
            PartitionProduceData, index=int32, records=st.binary(max_size=20_000)
        ).map(lambda partition: [partition]),
    ).map(lambda topic: [topic]),
)


def check(request: ProduceRequest, version: int, parsed: single.SingleProduce) -> None:
    (topic,) = request.topic_data
    (partition,) = topic.partition_data
    assert request.transactional_id is None
    assert parsed.acks == request.acks
    assert parsed.timeout_ms == request.timeout_ms
    assert parsed.topic.decode() == topic.name
    assert parsed.partition == partition.index
    assert parsed.records == partition.records


@settings(max_examples=300, deadline=None)
@given(requests, versions)
def test_what_it_reads_is_what_was_sent(request: ProduceRequest, version: int) -> None:
    parsed = single.parse(memoryview(bytearray(codec.encode(request, version))), version)
    if parsed is not None:
        check(request, version, parsed)


@settings(max_examples=100, deadline=None)
@given(ordinary, st.integers(single.FIRST_VERSION, 11))
def test_it_reads_every_ordinary_request(request: ProduceRequest, version: int) -> None:
    parsed = single.parse(memoryview(bytearray(codec.encode(request, version))), version)
    assert parsed is not None
    check(request, version, parsed)


@settings(max_examples=300, deadline=None)
@given(ordinary, st.integers(single.FIRST_VERSION, 11), st.data())
def test_damaged_requests_are_left_to_the_codec_or_read_alike(
    request: ProduceRequest, version: int, data: st.DataObject
) -> None:
    body = bytearray(codec.encode(request, version))
    at = data.draw(st.integers(0, min(len(body), 60) - 1))
    body[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    body = body[: len(body) - cut]
    parsed = single.parse(memoryview(body), version)
    if parsed is not None:
        decoded = codec.decode(ProduceRequest, memoryview(body), version)
        (topic,) = decoded.topic_data
        (partition,) = topic.partition_data
        assert parsed.topic.decode(errors=MEND) == topic.name
        assert (parsed.acks, parsed.timeout_ms, parsed.partition) == (
            decoded.acks,
            decoded.timeout_ms,
            partition.index,
        )
        assert parsed.records == partition.records


@settings(max_examples=200, deadline=None)
@given(
    st.integers(single.FIRST_VERSION, 11),
    st.sampled_from(["a", "тема", "t" * 126]),
    int32,
    int64,
    int64,
    int64,
)
def test_its_answer_is_the_declared_one(
    version: int, topic: str, index: int, base: int, time: int, start: int
) -> None:
    result = PartitionProduceResponse(
        index=index, base_offset=base, log_append_time_ms=time, log_start_offset=start
    )
    response = ProduceResponse(
        responses=[TopicProduceResponse(name=topic, partition_responses=[result])]
    )
    expected = codec.encode(response, version)
    assert single.answer(version, topic.encode(), index, base, time, start) == expected
