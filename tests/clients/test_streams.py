"""Kafka Streams counts words exactly once, though it and its broker are killed in between."""

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

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

    def __init__(self, broker: BrokerProcess, where: Path) -> None:
        config = {
            "bootstrap.servers": broker.bootstrap,
            "state.dir": str(where / "state"),
            **STREAMS_CONFIG,
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
def counting(broker: BrokerProcess, where: Path) -> Iterator[WordCount]:
    words = WordCount(broker, where)
    try:
        yield words
    finally:
        words.kill()


class Counts:
    """What a reader of committed data sees of the counts."""

    def __init__(self, broker: BrokerProcess) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 200,
                "metadata.recovery.strategy": "none",
            }
        )
        self._consumer.subscribe([OUTPUT])

    def reached(self, total: int) -> bool:
        for message in self._consumer.consume(100, 0.1):
            if message.error() is None:
                count = int.from_bytes(message.value(), "big")
                self.seen[message.key().decode(), count] += 1
        return self.seen.total() >= total

    def close(self) -> None:
        self._consumer.close()


def test_word_count_is_exact_through_kills(tmp_path: Path) -> None:
    rng = random.Random(9)
    expected: Counter[str] = Counter()
    with running_broker(tmp_path / "data", BROKER) as broker:
        create(broker, INPUT, partitions=2)
        create(broker, OUTPUT, partitions=2)
        producer = Producer(
            {"bootstrap.servers": broker.bootstrap, "reconnect.backoff.max.ms": 200}
        )
        counts = Counts(broker)

        def say(lines: int) -> None:
            for _ in range(lines):
                line = rng.choices(WORDS, k=4)
                expected.update(line)
                producer.produce(INPUT, " ".join(line))
            assert producer.flush(30) == 0

        with counting(broker, tmp_path) as words:
            say(100)
            wait_for("the first counts", lambda: counts.reached(50), 60)
            say(100)
            words.kill()
            words.start()
            wait_for("all counts so far", lambda: counts.reached(800), 60)
            say(100)
            broker.kill()
            broker.start()
            say(50)
            wait_for("all counts", lambda: counts.reached(expected.total()), 60)
            words.stop()
        assert not counts.reached(expected.total() + 1), "nothing more comes"
        counts.close()
        assert counts.seen == {
            (word, count): 1 for word, times in expected.items() for count in range(1, times + 1)
        }
