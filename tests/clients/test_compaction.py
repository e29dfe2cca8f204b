"""Compacted topics as a client sees them, in a broker whose cleaner hardly rests."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.clients.messages import CODECS
from tests.clients.test_confluent import create

KEYS = 60
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.bytes": "30000",
    "min.cleanable.dirty.ratio": "0.01",
}
Pair = tuple[bytes, bytes | None]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = {
        "log.cleaner.backoff.ms": "20",
        "log.cleaner.min.cleanable.ratio": "0.1",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.segment.bytes": "20000",
        "log.segment.delete.delay.ms": "0",
    }
    with running_broker(tmp_path_factory.mktemp("compacting") / "data", settings) as process:
        yield process


class Writer:
    """Writes and remembers what the topic must come to."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        self.broker = broker
        self.topic = topic
        self.state: dict[bytes, bytes | None] = {}
        self.written: dict[int, Pair] = {}
        self.failed: list[KafkaError] = []

    def write(self, first: int, count: int, codec: str) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.broker.bootstrap,
                "compression.type": codec,
                "enable.idempotence": codec == "none",
                "linger.ms": 5,
                "batch.num.messages": 50,
            }
        )
        for number in range(first, first + count):
            key = b"key-%d" % (number * 7 % KEYS)
            value = None if number % 11 == 0 else b"%d" % number * 10
            self.state[key] = value
            producer.produce(
                self.topic, key=key, value=value, partition=0, on_delivery=self._delivered
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not self.failed

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed.append(error)
        else:
            offset, key = message.offset(), message.key()
            assert offset is not None and isinstance(key, bytes)
            value = message.value()
            self.written[offset] = (key, value if value is None else bytes(value))


class Reader:
    """A consumer that notes at which offset it saw what."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        self.consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": f"reader-of-{topic}",
                "check.crcs": True,
                "enable.auto.commit": False,
                "fetch.message.max.bytes": 4_000,
                "queued.min.messages": 1,
                "fetch.queue.backoff.ms": 1,
            }
        )
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.seen: list[tuple[int, Pair]] = []

    def read(self, count: int) -> None:
        for _ in range(count):
            message = self.consumer.poll(0.05)
            if message is None:
                break
            assert message.error() is None
            offset, key, value = message.offset(), message.key(), message.value()
            assert offset is not None and isinstance(key, bytes)
            self.seen.append((offset, (key, value if value is None else bytes(value))))

    def read_to(self, end: int) -> dict[int, Pair]:
        wait_for(f"offset {end}", lambda: self.read(200) or (self.seen and self.seen[-1][0] >= end))
        self.consumer.close()
        offsets = [offset for offset, _ in self.seen]
        assert offsets == sorted(set(offsets)), "each record once, in order"
        return dict(self.seen)


def cleaned_to(broker: BrokerProcess, topic: str) -> int:
    """How far the broker says that it has cleaned partition 0."""
    path = broker.data_dir / "cleaner-offset-checkpoint"
    for line in path.read_text().splitlines()[2:] if path.exists() else ():
        name, partition, offset = line.split()
        if (name, partition) == (topic, "0"):
            return int(offset)
    return 0


def closed_bytes(broker: BrokerProcess, partition: str) -> int:
    """Size of all segments but the active one, whose file has room reserved."""
    total = 0
    for path in sorted((broker.data_dir / partition).glob("*.log"))[:-1]:
        with contextlib.suppress(FileNotFoundError):  # swapped at this moment
            total += path.stat().st_size
    return total


def active_base(broker: BrokerProcess, partition: str) -> int:
    """Where the segment begins that is still written to."""
    return max(int(Path(p).stem) for p in (broker.data_dir / partition).glob("*.log"))


def test_a_compacted_topic_comes_to_the_latest_of_each_key(
    broker: BrokerProcess, topic: str
) -> None:
    create(broker, topic, **COMPACTED)
    writer = Writer(broker, topic)
    early = Reader(broker, topic)
    for index, codec in enumerate(CODECS * 2):
        writer.write(index * 500, 500, codec)
        early.read(100)
    # Whatever is cleaned by now, all but the newest segment will be.
    active = active_base(broker, f"{topic}-0")
    wait_for("the cleaner", lambda: cleaned_to(broker, topic) >= active)
    end = max(writer.written)
    late = Reader(broker, topic).read_to(end)
    seen_early = early.read_to(end)

    assert late.items() <= writer.written.items()
    assert seen_early.items() <= writer.written.items()
    assert late.items() <= seen_early.items(), "what is left was seen by who read all the time"
    assert dict(late.values()) == writer.state
    below = [key for offset, (key, _) in late.items() if offset < active]
    assert len(below) == len(set(below)) <= KEYS
    assert len(late) < len(writer.written) / 3
    assert "ERROR" not in broker.log()


def test_the_offsets_topic_shrinks_and_keeps_the_offsets(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, 3)
    groups = [f"{topic}-group-{number}" for number in range(3)]
    consumers = [
        Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group}) for group in groups
    ]
    for round_ in range(400):
        for number, consumer in enumerate(consumers):
            offsets = [TopicPartition(topic, each, round_ * 10 + number) for each in range(3)]
            consumer.commit(offsets=offsets, asynchronous=False)
    for consumer in consumers:
        consumer.close()
    directory = "__consumer_offsets-0"
    active = active_base(broker, directory)
    assert active > 3_000, "that many commits fill segments"
    wait_for("the cleaner", lambda: cleaned_to(broker, "__consumer_offsets") >= active)
    assert closed_bytes(broker, directory) < 50_000  # 3,600 commits take some 400 KB

    def check() -> None:
        for number, group in enumerate(groups):
            consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
            partitions = [TopicPartition(topic, each) for each in range(3)]
            committed = consumer.committed(partitions, timeout=20)
            assert [each.offset for each in committed] == [3_990 + number] * 3
            consumer.close()

    check()
    assert broker.stop() == 0
    broker.start()  # the coordinator loads what the cleaner has left
    check()
    assert "ERROR" not in broker.log()
