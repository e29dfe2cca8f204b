"""Java clients copy and count exactly once on three brokers, of which one after the other dies.

``KAVKA_KILLS`` says how often somebody is killed; from the fifth time on the clients too.
"""

import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition

from tests.broker_process import wait_for
from tests.clients import test_streams as streams
from tests.clients.test_transactions import assert_nothing_hangs, transactions_tool
from tests.cluster.copier import (
    COMMITTED,
    EVERYTHING,
    GROUP,
    INPUT,
    OUTPUT,
    PARTITIONS,
    Copier,
    copying,
    history,
    original,
)
from tests.cluster.kafka_cluster import Cluster, Member, timed
from tests.cluster.zookeeper import needs_zookeeper
from tests.histories.check import check
from tests.histories.history import Outcome, Send

pytestmark = [pytest.mark.cluster, pytest.mark.java, pytest.mark.crash, needs_zookeeper]

KILLS = int(os.environ.get("KAVKA_KILLS", "4"))
SEED = int(os.environ.get("KAVKA_FAULT_SEED", "11"))
CLASSIC = "session.timeout.ms=6000 heartbeat.interval.ms=500"
CONSUMER = os.environ.get("KAVKA_CONSUMER", CLASSIC).split()
COPIERS = 2
REPLICATED = {"replication.factor": "3"}


class Feeder:
    """Writes what is to be copied and what is to be counted, a little all the time, so that
    whoever is killed is killed amid transactions."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.sent: list[Send] = []
        self.speaker = streams.Speaker(cluster, rng)
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "enable.idempotence": True,
                "reconnect.backoff.max.ms": 200,
            }
        )
        self._enough = threading.Event()
        self._executor = ThreadPoolExecutor(1)
        self._work = self._executor.submit(self._write)

    def __enter__(self) -> "Feeder":
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()

    def stop(self) -> None:
        self._enough.set()
        self._work.result(60)
        self._executor.shutdown()

    def _write(self) -> None:
        numbers = itertools.count()
        while not self._enough.wait(0.05):
            for number in itertools.islice(numbers, 6):
                self._producer.produce(
                    INPUT, str(number), partition=number % PARTITIONS, on_delivery=self._delivered
                )
            assert self._producer.flush(60) == 0
            self.speaker.say(1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        value = message.value().decode()
        self.sent.append(Send((INPUT, message.partition()), value, message.offset()))


def judge(copier: Copier, sent: list[Send]) -> None:
    committed, everything = copier.shown(COMMITTED), copier.shown(EVERYTHING)
    copies = Counter(original(line.value) for line in committed)
    assert copies == dict.fromkeys(range(len(sent)), 1)
    told = history(copier.told, sent)
    assert {op.outcome for op in told.ops if op.transactional} >= {Outcome.OK, Outcome.FAIL}
    assert check(told) == []
    # Who reads everything is shown what was acknowledged, aborted or not.
    places = {(line.partition, line.offset): line.value for line in everything}
    for op in told.ops:
        for send in op.sends:
            if send.offset is not None and send.partition[0] == OUTPUT:
                assert places[send.partition[1], send.offset] == send.value
    assert len(everything) > len(committed)


def test_copies_and_counts_are_exact_whoever_dies(cluster: Cluster, tmp_path: Path) -> None:
    for topic in (INPUT, OUTPUT, streams.INPUT, streams.OUTPUT):
        cluster.create(topic, PARTITIONS, min_insync_replicas="2")
    rng = random.Random(SEED)
    counts = streams.Counts(cluster, PARTITIONS)
    with (
        Feeder(cluster, random.Random(SEED)) as feeder,
        copying(cluster, tmp_path, COPIERS, *CONSUMER) as copier,
        streams.counting(cluster, tmp_path, REPLICATED) as words,
    ):
        said = feeder.speaker.said
        victims: list[Callable[[], Member | Copier | streams.WordCount]] = [
            lambda: cluster.coordinator(f"{GROUP}-0", transactional=True),
            lambda: cluster.coordinator(GROUP),
            lambda: cluster.leader(OUTPUT, rng.randrange(PARTITIONS)),
            cluster.controller,
            lambda: rng.choice([copier, words]),
        ]

        def goes_on() -> None:
            copies, counted = len(feeder.sent) + 1, said.total() + 1
            wait_for("copies", lambda: copier.has_copied(copies), 60)
            wait_for("counts", lambda: counts.reached(counted), 60)

        for turn in range(KILLS):
            print(f"kill {turn}: all went on after {timed(goes_on):.1f} s")
            victim = victims[turn % len(victims)]()
            victim.kill()
            victim.start()
        goes_on()
        feeder.stop()
        wait_for("all copies", lambda: copier.has_copied(len(feeder.sent)), 60)
        counts.read_anew()
        try:
            wait_for("all counts", lambda: counts.reached(said.total()), 60)
        finally:
            print(f"words said {said}, counts not seen: {counts.missing(said)}")
        copier.finish()
        words.stop()
    judge(copier, feeder.sent)
    streams.judge(counts, said)
    topics = cluster.metadata().topics
    everywhere = [TopicPartition(name, p) for name in topics for p in topics[name].partitions]
    assert_nothing_hangs(cluster, everywhere)
    # Every broker has replicas of all partitions.
    hanging = ("find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0")
    assert not transactions_tool(cluster, *hanging)
