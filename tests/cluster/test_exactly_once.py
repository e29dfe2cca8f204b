"""Consume, transform, produce on three brokers, of which one after the other is killed."""

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from confluent_kafka import Producer, TopicPartition

from tests.clients.test_transactions import (
    TIMEOUT,
    assert_nothing_hangs,
    copy_exactly_once,
    read_all,
)
from tests.cluster.kafka_cluster import Cluster
from tests.cluster.zookeeper import needs_zookeeper

pytestmark = [pytest.mark.cluster, pytest.mark.crash, needs_zookeeper]

COUNT = 600


class KillerOfLeaders:
    """Kills, by turns, who coordinates the copier, who coordinates its group, who leads its output
    and who controls; beside the test, one time after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._strikes: list[Future[None]] = []

    def strike(self) -> None:
        self._strikes.append(self._executor.submit(self._run, len(self._strikes)))

    def _run(self, turn: int) -> None:
        cluster = self._cluster
        victims = (
            lambda: cluster.coordinator("copier", transactional=True),
            lambda: cluster.coordinator("copiers"),
            lambda: cluster.leader("output"),
            cluster.controller,
        )
        victim = victims[turn % len(victims)]()
        victim.kill()
        victim.start()

    def wait(self) -> int:
        for strike in self._strikes:
            strike.result(120)
        self._executor.shutdown()
        return len(self._strikes)


def test_each_record_is_copied_once_whoever_dies(cluster: Cluster) -> None:
    for topic in ("input", "output"):
        cluster.create(topic, partitions=2, min_insync_replicas="2")
    plain = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    for number in range(COUNT):
        plain.produce("input", str(number), partition=number % 2)
    assert plain.flush(TIMEOUT) == 0
    killer = KillerOfLeaders(cluster)
    copied = copy_exactly_once(cluster, killer, COUNT)
    assert killer.wait() >= 4
    assert copied >= COUNT
    output = [int(value) for value in read_all(cluster, "output", 2)]
    assert Counter(output) == dict.fromkeys(range(COUNT), 1)
    for parity in (0, 1):
        mine = [value for value in output if value % 2 == parity]
        assert mine == sorted(mine), "order within a partition"
    assert_nothing_hangs(cluster, [TopicPartition("output", p) for p in (0, 1)])
