"""Requests that are taken together get the answers, and leave the log, of requests one by one."""

import random
from collections.abc import Iterator
from typing import Final

import pytest

from kavka.broker.connection import Connection
from kavka.broker.embed import EmbeddedBroker
from kavka.broker.produce.lane import ProduceLane
from kavka.protocol import headers
from kavka.protocol.messages.k00_produce import ProduceRequest
from kavka.protocol.messages.k01_fetch import FetchResponse
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from kavka.protocol.messages.k20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from kavka.protocol.records.batch import Record, build_batch
from tests.wire import WireClient, produce_request

SEEDS: Final = 30
PARTITIONS: Final = 3
SETTINGS: Final = {"num.partitions": str(PARTITIONS), "max.connections.per.ip": "1000"}
TAKEN_LIMIT: Final = 64  # requests that are appended together at most
NOW: Final = 1_700_000_000_000


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({**SETTINGS, "log.retention.ms": "-1"}) as broker:
        yield broker


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each run of a lane had."""
    sizes: list[int] = []
    run = ProduceLane.run

    def counted(self: ProduceLane) -> None:
        sizes.append(len(self.taken))
        run(self)

    monkeypatch.setattr(ProduceLane, "run", counted)
    return sizes


def batch(count: int = 2, size: int = 50, **of_producer: int | bool) -> bytearray:
    records = (Record(n, NOW, b"k", bytes(size), ()) for n in range(count))
    return bytearray(build_batch(records, base_offset=0, **of_producer))  # type: ignore[arg-type]


def connect(broker: EmbeddedBroker) -> WireClient:
    return WireClient(int(broker.bootstrap.rpartition(":")[2]), client_id="lane")


class Talk:
    """Request frames and where their answers are expected, all about one topic."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.version = self._random.choice([4, 5, 7, 8, 9, 11])
        self.acks = self._random.choice([1, 1, -1, 0])
        self._sequence: dict[tuple[int, int], int] = {}
        self.frames: list[bytes] = []
        self.answers = 0

    def build(self, topic: str) -> None:
        for number in range(self._random.randint(5, 150)):
            kind = self._random.choice(["plain"] * 12 + ["idempotent"] * 6 + ["odd"])
            partition = self._random.randrange(PARTITIONS)
            acks = self.acks
            if kind == "plain":
                records = batch(self._random.randint(1, 4), self._random.choice([20, 900, 9000]))
            elif kind == "idempotent":
                records = self._of_producer(partition)
            elif acks == 0:
                continue  # its errors end connections
            else:
                records, partition = self._odd(partition)
                if not records:
                    self._ask_for_the_end(topic, number)
                    continue
            if acks == 0 and kind != "plain":
                continue
            request = produce_request(topic, bytes(records), partition, acks)
            self._add(request, self.version, number, 0 if acks == 0 else 1)
        self._ask_for_the_end(topic, 1000)

    def _of_producer(self, partition: int) -> bytearray:
        """The next batch of one of two producers, or one that came before, or too early."""
        producer = self._random.randint(100, 101)
        following = self._sequence.get((producer, partition), 0)
        sequence = following + self._random.choice([0] * 12 + [-2, -4, 2])
        if sequence == following:
            self._sequence[producer, partition] = following + 2
        return batch(producer_id=producer, producer_epoch=0, base_sequence=max(sequence, 0))

    def _odd(self, partition: int) -> tuple[bytearray, int]:
        records = batch()
        match self._random.randrange(5):
            case 0:
                records[-1] ^= 1  # the checksum is wrong
            case 1:
                records = batch(
                    producer_id=7, producer_epoch=0, base_sequence=0, transactional=True
                )
            case 2:
                partition = PARTITIONS + 5
            case 3:
                records = batch(1, 11_000_000)  # more than message.max.bytes
            case _:
                records = bytearray()
        return records, partition

    def _ask_for_the_end(self, topic: str, number: int) -> None:
        asked = [ListOffsetsPartition(partition_index=n, timestamp=-1) for n in range(PARTITIONS)]
        request = ListOffsetsRequest(topics=[ListOffsetsTopic(name=topic, partitions=asked)])
        self._add(request, 1, number, 1)

    def _add(
        self, request: ProduceRequest | ListOffsetsRequest, version: int, number: int, answers: int
    ) -> None:
        key = request.API_KEY
        assert key is not None
        self.frames.append(headers.encode_request(key, version, number, "lane", request))
        self.answers += answers

    def held(self, client: WireClient, together: bool) -> list[bytes]:
        """The answers to all requests, sent at once or one after the other's answer."""
        if together:
            client.socket.sendall(b"".join(self.frames))
            return [client.receive_frame() for _ in range(self.answers)]
        answers = []
        for frame in self.frames:
            client.socket.sendall(frame)
            if self.acks != 0 or frame is self.frames[-1]:
                answers.append(client.receive_frame())
        return answers


def log_of(client: WireClient, topic: str) -> list[bytes]:
    answers: list[FetchResponse] = [
        client.fetch(topic, 0, partition=index) for index in range(PARTITIONS)
    ]
    return [bytes(answer.responses[0].partitions[0].records or b"") for answer in answers]


def test_together_is_as_one_by_one(
    broker: EmbeddedBroker, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(broker) as client:
        names = (f"{how}{n:04}" for how in ("together", "onebyone") for n in range(SEEDS))
        client.create_topics(*names, partitions=PARTITIONS)
    for seed in range(SEEDS):
        with connect(broker) as client:
            together = Talk(seed)
            together.build(f"together{seed:04}")
            answers = together.held(client, True)
            log = log_of(client, f"together{seed:04}")
        with monkeypatch.context() as patch, connect(broker) as client:
            patch.setattr(Connection, "takes_lanes", False)
            one_by_one = Talk(seed)
            one_by_one.build(f"onebyone{seed:04}")
            expected = one_by_one.held(client, False)
            expected_log = log_of(client, f"onebyone{seed:04}")
        expected = [answer.replace(b"onebyone", b"together") for answer in expected]
        assert answers == expected, f"seed {seed}, version {together.version}"
        assert log == expected_log, f"seed {seed}"
    assert sum(runs) > 500
    assert sum(size > 1 for size in runs) > 50


def test_more_than_a_lane_takes_at_once(broker: EmbeddedBroker, runs: list[int]) -> None:
    with connect(broker) as client:
        talk = Talk(0)
        topic = "many"
        client.create_topics(topic, partitions=PARTITIONS)
        talk.acks = 1
        for number in range(3 * TAKEN_LIMIT):
            talk._add(produce_request(topic, bytes(batch(1)), 0, 1), 7, number, 1)
        talk.held(client, True)
        assert client.fetch(topic, 0).responses[0].partitions[0].high_watermark == 3 * TAKEN_LIMIT
    assert max(runs) == TAKEN_LIMIT


def test_what_came_before_nonsense_is_served(broker: EmbeddedBroker) -> None:
    with connect(broker) as client:
        topic = "before"
        client.create_topics(topic, partitions=PARTITIONS)
        client.produce(topic, bytes(batch(1)), acks=1)
        request = produce_request(topic, bytes(batch(1)), 0, 1)
        frame = headers.encode_request(0, 7, 5, "wire", request)
        client.socket.sendall(frame * 2 + b"\x7f\xff\xff\xff" + frame)
        while client.receive_frame():
            pass
    with connect(broker) as client:
        assert client.fetch(topic, 0).responses[0].partitions[0].high_watermark == 3


def test_a_topic_that_is_made_anew_is_another(broker: EmbeddedBroker) -> None:
    with connect(broker) as client, connect(broker) as other:
        topic = "anew"
        client.create_topics(topic, partitions=PARTITIONS)
        for _ in range(2):
            client.produce(topic, bytes(batch(1)), acks=1)
        gone = DeleteTopicsRequest(topic_names=[topic], timeout_ms=10_000)
        assert not other.ask(gone, DeleteTopicsResponse, 1).responses[0].error_code
        other.create_topics(topic, partitions=PARTITIONS)
        answer = client.produce(topic, bytes(batch(1)), acks=1)
        assert answer.responses[0].partition_responses[0].base_offset == 0
