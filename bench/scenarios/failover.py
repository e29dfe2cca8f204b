"""Failover: how long a leader's partitions are without answers when it is killed, or stopped.

An idempotent librdkafka producer sends a message to each of six partitions (three replicas,
min.insync.replicas=2) every 10 ms, a consumer reads them. The pause is the longest time between two
acknowledgements (of the producer) or two messages (of the consumer) in any partition: of those that
the broker led, and of those that it followed too, whose messages wait for it as long as it counts
as in sync. A broker that is killed is missed when its ZooKeeper session has timed out; a controlled
shutdown hands over first. Each broker has its turn, the controller too.

Then the same beside a topic of 300 partitions that nobody uses, where it is always the controller
that goes: who comes after it has to learn everything first. The time until everything is led again
is that until one of the others names living leaders, and in-sync replicas, of all partitions.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bench.clusters import kavka_cluster
from bench.run import Run
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k43_elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
)
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.wire import WireClient

TOPIC: Final = "failover"
BESIDE: Final = "beside"
PARTITIONS: Final = 6
INTERVAL: Final = 0.01  # seconds between messages to a partition
HOW: Final = ("killed", "stopped")


def run(run: Run) -> None:
    with loaded_cluster() as (cluster, load):
        for number in range(run.rounds * len(cluster.members)):
            for how in HOW:
                disturb(run, cluster, load, cluster[number % len(cluster.members) + 1], how)
    with loaded_cluster(beside=300) as (cluster, load):
        for _ in range(run.rounds):
            for how in HOW:
                disturb(run, cluster, load, cluster.controller(), how)
    session = cluster.settings["zookeeper.session.timeout.ms"]
    run.figures.note(
        f"zookeeper.session.timeout.ms={session}, tickTime=200 (ZooKeeper ends a session up to "
        "one tick later; the broker's last sign of life is up to a third of the timeout older "
        "than its death)."
    )


@contextlib.contextmanager
def loaded_cluster(beside: int = 0) -> Iterator[tuple[Cluster, "Load"]]:
    """Three brokers, and clients that use all partitions of a topic. No message may get lost.

    ``beside`` it there is another topic, with so many partitions.
    """
    with kavka_cluster() as cluster:
        for topic, partitions in ((TOPIC, PARTITIONS), (BESIDE, beside)):
            if partitions:
                cluster.create(topic, partitions, 3, min_insync_replicas="2")
                cluster.wait_for_isr(topic, 3, 60)
        load = Load(cluster, f"beside {beside} partitions: " if beside else "")
        try:
            yield cluster, load
        finally:
            load.stop()


def disturb(run: Run, cluster: Cluster, load: "Load", victim: Member, how: str) -> None:
    """Take one broker away and bring it back; note what clients saw of it."""
    was_controller = cluster.controller() is victim
    before = leaders(cluster)
    led = [i for i in range(PARTITIONS) if before[TOPIC, i] == victim.broker_id]
    followed = [i for i in range(PARTITIONS) if i not in led]
    assert led, f"broker {victim.broker_id} leads nothing"
    began = time.monotonic()
    if how == "killed":
        victim.kill()
    else:
        assert victim.stop() == 0, victim.log()
        run.figures.add(f"{load.about}controlled shutdown, s", "kavka", time.monotonic() - began)
    wait_until_led_without(victim, next(each for each in cluster.running))
    what = f"{load.about}{'the controller' if was_controller else 'another broker'} {how}"
    seen = {"until all is led again": time.monotonic() - began}
    load.wait_for_messages_sent_after(time.monotonic())
    seen["pause of the producer"] = load.produced.pause(led, began)
    seen["pause of the consumer"] = load.consumed.pause(led, began)
    seen["pause where it followed"] = load.produced.pause(followed, began)
    for pause, seconds in seen.items():
        run.figures.add(f"{what}: {pause}, s", "kavka", seconds)
    shown = ", ".join(f"{seconds:.2f} s" for seconds in seen.values())
    print(f"  {time.strftime('%H:%M:%S')} {victim.broker_id}, {what}: {shown}", flush=True)
    victim.start()
    cluster.wait_for_isr(TOPIC, 3, 60)
    elect_preferred(cluster)
    wait_for("the leaders as before", lambda: leaders(cluster) == before)
    load.wait_for_messages_sent_after(time.monotonic())


def leaders(cluster: Cluster) -> dict[tuple[str, int], int]:
    """Who leads what, of our topics."""
    topics = cluster.metadata().topics
    return {
        (name, index): partition.leader
        for name in (TOPIC, BESIDE)
        if name in topics
        for index, partition in topics[name].partitions.items()
    }


def wait_until_led_without(gone: Member, asked: Member) -> None:
    """Until a broker's metadata have nothing of one that is gone, and a leader for everything."""
    with WireClient(asked.port) as client:

        def led() -> bool:
            answer = client.ask(MetadataRequest(topics=None), MetadataResponse, 1)
            return all(
                partition.leader_id >= 0
                and gone.broker_id not in (partition.leader_id, *partition.isr_nodes)
                for topic in answer.topics
                for partition in topic.partitions
            )

        wait_for("leaders of everything", led, 60)


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

    def pause(self, partitions: Iterable[int], since: float) -> float:
        """The longest time without a message in any of the partitions, ending after ``since``."""
        return max(
            after - before
            for partition in partitions
            for before, after in zip(self.at[partition], self.at[partition][1:], strict=False)
            if after > since
        )


class Load:
    """A producer and a consumer in threads. Times travel in the messages."""

    def __init__(self, cluster: Cluster, about: str) -> None:
        self.about = about  # stands in front of what is measured
        self.produced = Seen()
        self.consumed = Seen()
        self.failed: list[object] = []
        self._cluster = cluster
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._produce, self._consume)]
        for thread in self._threads:
            thread.start()
        self.wait_for_messages_sent_after(time.monotonic())

    def wait_for_messages_sent_after(self, since: float) -> None:
        """Until both the producer and the consumer are past ``since`` in all partitions."""

        def silent() -> list[str]:
            both = ("producer", self.produced), ("consumer", self.consumed)
            return [
                f"the {who} of partition {index}"
                for who, seen in both
                for index, newest in enumerate(seen.newest)
                if newest <= since
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
