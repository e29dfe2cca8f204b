"""Failover: how long a leader's partitions are without answers when it is killed, or stopped.

An idempotent librdkafka producer sends a message to each of six partitions (three replicas,
min.insync.replicas=2) every 10 ms, a consumer reads them. The pause is the longest time between two
acknowledgements (of the producer) or two messages (of the consumer) in any partition that the
broker led. A broker that is killed is missed when its ZooKeeper session has timed out; a controlled
shutdown hands over first. Each broker has its turn, the controller too.
"""

import threading
import time
from typing import Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bench.clusters import kavka_cluster
from bench.run import Run
from kavka.protocol.messages.k43_elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
)
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.wire import WireClient

TOPIC: Final = "failover"
PARTITIONS: Final = 6
INTERVAL: Final = 0.01  # seconds between messages to a partition


def run(run: Run) -> None:
    with kavka_cluster() as cluster:
        cluster.create(TOPIC, PARTITIONS, 3, min_insync_replicas="2")
        cluster.wait_for_isr(TOPIC, 3)
        load = Load(cluster)
        try:
            for number in range(run.rounds * len(cluster.members)):
                victim = cluster[number % len(cluster.members) + 1]
                for how in ("killed", "stopped"):
                    disturb(run, cluster, load, victim, how)
        finally:
            load.stop()
    session = cluster.settings["zookeeper.session.timeout.ms"]
    run.figures.note(
        f"zookeeper.session.timeout.ms={session}, tickTime=200 (ZooKeeper ends a session up to "
        "one tick later; the broker's last sign of life is up to a third of the timeout older "
        "than its death)."
    )


def disturb(run: Run, cluster: Cluster, load: "Load", victim: Member, how: str) -> None:
    """Take one broker away and bring it back; note what clients saw of it."""
    was_controller = cluster.controller() is victim
    topic = cluster.metadata().topics[TOPIC]
    led = [index for index, each in topic.partitions.items() if each.leader == victim.broker_id]
    assert led, f"broker {victim.broker_id} leads nothing"
    began = time.monotonic()
    if how == "killed":
        victim.kill()
    else:
        assert victim.stop() == 0, victim.log()
        run.figures.add("controlled shutdown takes, s", "kavka", time.monotonic() - began)
    load.wait_for_messages_sent_after(time.monotonic(), range(PARTITIONS))
    who = "the controller" if was_controller else "another broker"
    produce, consume = load.produced.pause(led, began), load.consumed.pause(led, began)
    print(f"  {victim.broker_id} ({who}) {how}: {produce:.2f} s, {consume:.2f} s", flush=True)
    run.figures.add(f"{who} {how}: pause of the producer, s", "kavka", produce)
    run.figures.add(f"{who} {how}: pause of the consumer, s", "kavka", consume)
    victim.start()
    cluster.wait_for_isr(TOPIC, 3, 60)
    elect_preferred(cluster)
    wait_for(
        "the leaders as before",
        lambda: all(cluster.leader(TOPIC, index) is victim for index in led),
    )
    load.wait_for_messages_sent_after(time.monotonic(), range(PARTITIONS))


def elect_preferred(cluster: Cluster) -> None:
    """Have leaders where they were at first."""
    request = ElectLeadersRequest(topic_partitions=None, timeout_ms=10_000)
    with WireClient(cluster.controller().port) as client:
        client.ask(request, ElectLeadersResponse, 1)


class Seen:
    """When messages of each partition were seen, and when those had been sent."""

    def __init__(self) -> None:
        self.at: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self.newest = [0.0] * PARTITIONS  # when the latest of them was sent

    def add(self, partition: int, sent: float) -> None:
        self.at[partition].append(time.monotonic())
        self.newest[partition] = max(self.newest[partition], sent)

    def pause(self, partitions: list[int], since: float) -> float:
        """The longest time without a message in any of the partitions, ending after ``since``."""
        return max(
            after - before
            for partition in partitions
            for before, after in zip(self.at[partition], self.at[partition][1:], strict=False)
            if after > since
        )


class Load:
    """A producer and a consumer in threads. Times travel in the messages."""

    def __init__(self, cluster: Cluster) -> None:
        self.produced = Seen()
        self.consumed = Seen()
        self.failed: list[object] = []
        self._cluster = cluster
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._produce, self._consume)]
        for thread in self._threads:
            thread.start()
        self.wait_for_messages_sent_after(time.monotonic(), range(PARTITIONS))

    def wait_for_messages_sent_after(self, since: float, partitions: range) -> None:
        """Until both the producer and the consumer are past ``since`` in all partitions."""

        def silent() -> list[str]:
            both = ("producer", self.produced), ("consumer", self.consumed)
            return [
                f"the {who} of partition {index}"
                for who, seen in both
                for index in partitions
                if seen.newest[index] <= since
            ]

        try:
            wait_for("messages", lambda: not silent(), 60)
        except AssertionError:
            raise AssertionError(f"still without messages: {', '.join(silent())}") from None

    def stop(self) -> None:
        """End both; every message must have been acknowledged."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.failed, self.failed[0]

    def _produce(self) -> None:
        config = {
            "bootstrap.servers": self._cluster.bootstrap,
            "enable.idempotence": True,  # which implies acks=all
            "log_level": 0,
        }
        producer = Producer(config)
        due = time.monotonic()
        while not self._over.is_set():
            sent = time.monotonic()
            for partition in range(PARTITIONS):
                producer.produce(
                    TOPIC,
                    b"%.6f" % sent,
                    partition=partition,
                    on_delivery=lambda error, message, partition=partition, sent=sent: (
                        self.failed.append(error) if error else self.produced.add(partition, sent)
                    ),
                )
            due += INTERVAL
            while (left := due - time.monotonic()) > 0:
                producer.poll(left)
            producer.poll(0)
        if producer.flush(60):
            self.failed.append("messages are left")

    def _consume(self) -> None:
        config = {
            "bootstrap.servers": self._cluster.bootstrap,
            "group.id": "failover",
            "enable.auto.commit": False,
            "log_level": 0,
        }
        consumer = Consumer(config)
        consumer.assign([TopicPartition(TOPIC, index, 0) for index in range(PARTITIONS)])
        while not self._over.is_set():
            for message in consumer.consume(1000, 0.01):
                if message.error() is None:
                    partition, value = message.partition(), message.value()
                    assert partition is not None and value is not None
                    self.consumed.add(partition, float(value))
                elif message.error().fatal():
                    raise KafkaException(message.error())
        consumer.close()
