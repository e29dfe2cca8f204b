"""Requests of several partitions are read, done and answered as by the declared schema."""

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.embed import EmbeddedBroker
from kavka.broker.handlers import k00_produce
from kavka.broker.produce import several
from kavka.protocol import codec, headers
from kavka.protocol.errors import KafkaError
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from kavka.protocol.primitives import MEND
from kavka.protocol.records.batch import Record, build_batch
from kavka.storage.append import AppendInfo
from tests.wire import WireClient

FIRST: Final = 3
NEWEST: Final = 12
PARTITIONS: Final = 3
NOW: Final = 1_700_000_000_000

int16 = st.integers(-(2**15), 2**15 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
names = st.sampled_from(["a", "тема", "t" * 126, "t" * 127, "t" * 200, ""])
some_records = st.binary(max_size=300) | st.sampled_from([bytes(126), bytes(127), bytes(20_000)])


def topics(records: st.SearchStrategy[bytes | None]) -> st.SearchStrategy[list[TopicProduceData]]:
    partition = st.builds(PartitionProduceData, index=int32, records=records)
    one = st.builds(TopicProduceData, name=names, partition_data=st.lists(partition, max_size=3))
    return st.lists(one, max_size=3)


requests = st.builds(
    ProduceRequest,
    transactional_id=st.none() | st.just("id"),
    acks=int16,
    timeout_ms=int32,
    topic_data=topics(st.none() | some_records),
)
ordinary = st.builds(ProduceRequest, acks=int16, timeout_ms=int32, topic_data=topics(some_records))


def check(request: ProduceRequest, parsed: several.SeveralProduce) -> None:
    assert request.transactional_id is None
    assert (parsed.acks, parsed.timeout_ms) == (request.acks, request.timeout_ms)
    read = [(topic.decode(errors=MEND), partitions) for topic, partitions in parsed.topics]
    assert read == [
        (topic.name, [(each.index, each.records) for each in topic.partition_data])
        for topic in request.topic_data
    ]


@settings(max_examples=300, deadline=None)
@given(requests, st.integers(0, NEWEST))
def test_what_it_reads_is_what_was_sent(request: ProduceRequest, version: int) -> None:
    parsed = several.parse(memoryview(bytearray(codec.encode(request, version))), version)
    if parsed is not None:
        check(request, parsed)


@settings(max_examples=100, deadline=None)
@given(ordinary, st.integers(FIRST, NEWEST))
def test_it_reads_every_ordinary_request(request: ProduceRequest, version: int) -> None:
    parsed = several.parse(memoryview(bytearray(codec.encode(request, version))), version)
    assert parsed is not None
    check(request, parsed)


@settings(max_examples=500, deadline=None)
@given(ordinary, st.integers(FIRST, NEWEST), st.data())
def test_damaged_requests_are_left_to_the_codec_or_read_alike(
    request: ProduceRequest, version: int, data: st.DataObject
) -> None:
    body = bytearray(codec.encode(request, version))
    at = data.draw(st.integers(0, min(len(body), 60) - 1))
    body[at] = data.draw(st.integers(0, 255))
    body = body[: len(body) - data.draw(st.integers(0, 3))]
    parsed = several.parse(memoryview(body), version)
    if parsed is not None:
        check(codec.decode(ProduceRequest, memoryview(body), version), parsed)


@pytest.mark.parametrize("end", [1, 2, 3])
def test_tagged_fields_are_left_to_the_codec(end: int) -> None:
    data = [PartitionProduceData(index=1, records=b"records")]
    topic = TopicProduceData(name="t", partition_data=data)
    body = codec.encode(ProduceRequest(topic_data=[topic]), 9)
    assert several.parse(memoryview(body), 9) is not None
    tagged = body[:-end] + b"\1\0\0" + body[len(body) - end + 1 :]
    assert codec.decode(ProduceRequest, tagged, 9).topic_data == [topic]
    assert several.parse(memoryview(tagged), 9) is None


@pytest.mark.parametrize("version", [8, 9])
def test_bytes_behind_a_request_are_left_to_the_codec(version: int) -> None:
    data = [PartitionProduceData(index=1, records=b"records")]
    body = codec.encode(
        ProduceRequest(topic_data=[TopicProduceData(name="t", partition_data=data)]), version
    )
    assert several.parse(memoryview(body), version) is not None
    assert several.parse(memoryview(body + b"\0"), version) is None


@settings(max_examples=200, deadline=None)
@given(ordinary, st.integers(FIRST, NEWEST), st.data())
def test_its_answer_is_the_declared_one(
    request: ProduceRequest, version: int, data: st.DataObject
) -> None:
    parsed = several.parse(memoryview(bytearray(codec.encode(request, version))), version)
    assert parsed is not None
    response, infos = ProduceResponse(), []
    for topic in request.topic_data:
        results = []
        for each in topic.partition_data:
            base, time, start = data.draw(st.tuples(int64, int64, int64))
            infos.append(AppendInfo(base, base, time, start, 0))
            results.append(
                PartitionProduceResponse(
                    index=each.index,
                    base_offset=base,
                    log_append_time_ms=time,
                    log_start_offset=start,
                )
            )
        response.responses.append(
            TopicProduceResponse(name=topic.name, partition_responses=results)
        )
    assert several.answer(version, parsed.topics, infos) == codec.encode(response, version)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"log.retention.ms": "-1"}) as broker:
        yield broker


def create(client: WireClient, prefix: str) -> list[str]:
    """Create topics that differ in when their records count as kept."""
    usual, synced = f"{prefix}-usual", f"{prefix}-synced"
    client.create_topics(usual, partitions=PARTITIONS)
    # Answers wait for the disk.
    client.create_topics(synced, partitions=PARTITIONS, flush_messages="1")
    return [usual, synced]


def build(names: list[str], seed: int) -> list[bytes]:
    """Request frames for partitions of the topics: mostly good, with all that can be refused."""
    rng = random.Random(seed)
    following: dict[tuple[str, int], int] = {}
    frames = []

    def of_partition(topic: str) -> PartitionProduceData:
        index = rng.randrange(PARTITIONS)
        records = (Record(n, NOW, None, bytes(rng.randrange(300)), ()) for n in range(2))
        kind = rng.choice(["plain"] * 8 + ["idempotent"] * 8 + ["torn", "elsewhere", "open"])
        if kind == "idempotent":  # the next one, or one that came before, or too early
            expected = following.get((topic, index), 0)
            sequence = max(expected + rng.choice([0] * 9 + [-2, -4, 2]), 0)
            if sequence == expected:
                following[topic, index] = expected + 2
            batch = build_batch(
                records, base_offset=0, producer_id=7, producer_epoch=0, base_sequence=sequence
            )
        elif kind == "open":
            batch = build_batch(
                records,
                base_offset=0,
                producer_id=8,
                producer_epoch=0,
                base_sequence=0,
                transactional=True,
            )
        else:
            batch = build_batch(records, base_offset=0)
        if kind == "torn":
            batch = batch[:-1] + bytes([batch[-1] ^ 1])
        if kind == "elsewhere":
            index += PARTITIONS
        return PartitionProduceData(index=index, records=batch)

    for number in range(60):
        data = [
            TopicProduceData(
                name=name, partition_data=[of_partition(name) for _ in range(rng.randint(1, 4))]
            )
            for name in names[: rng.choice([1, 2, 2])]
        ]
        request = ProduceRequest(acks=rng.choice([1, 1, -1, 9]), timeout_ms=30_000, topic_data=data)
        version = rng.randint(FIRST, NEWEST)
        frames.append(headers.encode_request(0, version, number, "several", request))
    return frames


def held(client: WireClient, names: list[str], seed: int) -> tuple[list[bytes], list[bytes]]:
    """The answers to all requests, sent at once, and the records that are there then."""
    frames = build(names, seed)
    client.socket.sendall(b"".join(frames))
    answers = [client.receive_frame() for _ in frames]
    log = [
        bytes(client.fetch(name, 0, partition=index).responses[0].partitions[0].records or b"")
        for name in names
        for index in range(PARTITIONS)
    ]
    return answers, log


@pytest.mark.parametrize("seed", range(4))
def test_it_is_as_by_the_general_way(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    taken: list[tuple[object, ...]] = []
    waiting = []  # though nothing was refused
    append_several, answer_several = k00_produce._append_several, k00_produce._answer_several

    def append(*args: Any) -> object:
        taken.append(args)
        return append_several(*args)

    def answer(*args: Any) -> object:
        if not any(isinstance(outcome, KafkaError) for outcome in args[-1]):
            waiting.append(args)
        return answer_several(*args)

    monkeypatch.setattr(k00_produce, "_append_several", append)
    monkeypatch.setattr(k00_produce, "_answer_several", answer)
    with WireClient(int(broker.bootstrap.rpartition(":")[2]), client_id="several") as client:
        short = held(client, create(client, f"short{seed}"), seed)
        assert len(taken) > 10
        assert waiting
        monkeypatch.setattr(several, "parse", lambda body, version: None)
        taken.clear()
        general = held(client, create(client, f"longs{seed}"), seed)
        assert not taken
    assert [one.replace(b"short", b"longs") for one in short[0]] == general[0]
    assert short[1] == general[1]
