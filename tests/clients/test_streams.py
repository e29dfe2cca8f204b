"""Kafka Streams counts words exactly once, though it and its broker are killed in between."""

import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.clients.test_confluent import create
from tests.java import command

pytestmark = pytest.mark.java

STREAMS = "streams-4.3"
WORD_COUNT = "org.apache.kafka.streams.examples.wordcount.WordCountDemo"
INPUT = "streams-plaintext-input"
OUTPUT = "streams-wordcount-output"
WORDS = ["jackdaw", "raven", "crow", "rook", "magpie"]
# A killed instance leaves a transaction open that only its time-out ends, and a member that only
# the end of its session removes.
BROKER = {
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
    "group.initial.rebalance.delay.ms": "0",
}
STREAMS_CONFIG = {
    "processing.guarantee": "exactly_once_v2",
    "commit.interval.ms": "50",
    "producer.transaction.timeout.ms": "3000",
    "consumer.session.timeout.ms": "6000",
    "consumer.heartbeat.interval.ms": "500",
    "reconnect.backoff.max.ms": "200",
    "num.standby.replicas": "0",
}


class WordCount:
    """A process that counts words until it is killed or stopped."""

    def __init__(self, broker: BrokerProcess, where: Path, config: Mapping[str, str]) -> None:
        config = {
            "bootstrap.servers": broker.bootstrap,
            "state.dir": str(where / "state"),
            **STREAMS_CONFIG,
            **config,
        }
        properties = where / "streams.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
        self._log = (where / "streams.log").open("a")
        self._line = command(STREAMS, WORD_COUNT, str(properties))
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._line, stdout=self._log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


@contextmanager
def counting(
    broker: BrokerProcess, where: Path, config: Mapping[str, str] = MappingProxyType({})
) -> Iterator[WordCount]:
    words = WordCount(broker, where, config)
    try:
        yield words
    finally:
        words.kill()


class Counts:
    """What a reader of committed data sees of the counts."""

    def __init__(self, broker: BrokerProcess, partitions: int) -> None:
        self._broker = broker
        self._places = [TopicPartition(OUTPUT, p, 0) for p in range(partitions)]
        self.seen: Counter[tuple[str, int]] = Counter()
        self._consumer = self._reader()

    def _reader(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self._broker.bootstrap,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "reconnect.backoff.max.ms": 200,
                "metadata.recovery.strategy": "none",
            }
        )
        # Not as a member of a group, which may be shown again what it has not committed.
        consumer.assign(self._places)
        return consumer

    def read_anew(self) -> None:
        """Forget what was seen, and read all of it with a new reader.

        One that reads while leaders are killed may drop a record between its fetch and its
        application: the answer about where the last epoch ended is compared with a position to
        which it has moved on meanwhile, which looks as if the log had been cut there.
        """
        self.close()
        self.seen.clear()
        self._consumer = self._reader()

    def reached(self, total: int) -> bool:
        for message in self._consumer.consume(100, 0.1):
            if message.error() is None:
                count = int.from_bytes(message.value(), "big")
                self.seen[message.key().decode(), count] += 1
        return self.seen.total() >= total

    def missing(self, said: Counter[str]) -> list[tuple[str, int]]:
        """The counts that have not been seen, though the words were said so often."""
        return [each for each in sorted(_exact(said)) if each not in self.seen]

    def close(self) -> None:
        self._consumer.close()


class Speaker:
    """Says words, and remembers them."""

    def __init__(self, broker: BrokerProcess, rng: random.Random) -> None:
        self.said: Counter[str] = Counter()
        self._rng = rng
        self._producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap,
                "enable.idempotence": True,
                "reconnect.backoff.max.ms": 200,
            }
        )

    def say(self, lines: int) -> None:
        """So many lines of four words."""
        for _ in range(lines):
            line = self._rng.choices(WORDS, k=4)
            self.said.update(line)
            self._producer.produce(INPUT, " ".join(line), on_delivery=self._delivered)
        assert self._producer.flush(30) == 0

    @staticmethod
    def _delivered(error: KafkaError | None, _: Message) -> None:
        assert error is None, error


def judge(counts: Counts, said: Counter[str]) -> None:
    """Every count of every word has come once, and nothing more comes."""
    assert not counts.reached(said.total() + 1)
    counts.close()
    assert counts.seen == _exact(said)


def _exact(said: Counter[str]) -> dict[tuple[str, int], int]:
    return {(word, count): 1 for word, times in said.items() for count in range(1, times + 1)}


def test_word_count_is_exact_through_kills(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", BROKER) as broker:
        create(broker, INPUT, partitions=2)
        create(broker, OUTPUT, partitions=2)
        counts, speaker = Counts(broker, 2), Speaker(broker, random.Random(9))
        with counting(broker, tmp_path) as words:
            speaker.say(100)
            wait_for("the first counts", lambda: counts.reached(50), 60)
            speaker.say(100)
            words.kill()
            words.start()
            wait_for("all counts so far", lambda: counts.reached(800), 60)
            speaker.say(100)
            broker.kill()
            broker.start()
            speaker.say(50)
            wait_for("all counts", lambda: counts.reached(speaker.said.total()), 60)
            words.stop()
        judge(counts, speaker.said)
