"""What is measured, by librdkafka as the client, the same against every broker."""

import statistics
import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.processes import Broker, cpu_seconds, resident_mb, until

SIZE = 1024


class Throughput(NamedTuple):
    """One bulk run."""

    messages_per_second: float
    cpu_ms_per_mb: float  # of the broker process


class Latency(NamedTuple):
    """Produce to acknowledgement at a fixed rate, milliseconds."""

    p50: float
    p99: float


def create(broker: Broker, topic: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def start_to_first_message(broker: Broker) -> float:
    """Seconds from starting the process to the first acknowledged message, client ready before."""
    started = time.monotonic()
    broker.start()

    def created() -> bool:
        try:
            create(broker, "first")
        except KafkaException:
            return False
        return True

    until(created)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0})
    producer.produce("first", b"hello")
    assert producer.flush(30) == 0
    return time.monotonic() - started


def produce(broker: Broker, topic: str, count: int, **config: Any) -> Throughput:
    """Send ``count`` messages of 1 KB as fast as the client can."""
    create(broker, topic)
    failed: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "queue.buffering.max.kbytes": 1 << 19,
            "queue.buffering.max.messages": 400_000,
            **config,
        }
    )
    value = b"x" * SIZE
    cpu = cpu_seconds(broker.pid)
    started = time.monotonic()
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=0, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    assert producer.flush(120) == 0
    assert not failed, failed[0]
    return _throughput(broker, count, cpu, started)


def consume(broker: Broker, topic: str, count: int) -> Throughput:
    """Read ``count`` messages of 1 KB from the beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"bench-{topic}",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 1 << 17,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    cpu = cpu_seconds(broker.pid)
    started = time.monotonic()
    got = 0
    while got < count:
        batch = consumer.consume(10_000, timeout=30)
        if not batch:
            raise TimeoutError(f"{got} of {count} messages came")
        got += len(batch)
    result = _throughput(broker, count, cpu, started)
    consumer.close()
    return result


def _throughput(broker: Broker, count: int, cpu: float, started: float) -> Throughput:
    seconds = time.monotonic() - started
    used = cpu_seconds(broker.pid) - cpu
    return Throughput(count / seconds, used * 1000 / (count * SIZE / 1e6))


def latency(broker: Broker, topic: str, count: int, per_second: int) -> Latency:
    """Produce to acknowledgement, one message at a time at a fixed rate.

    A message's time runs from when it was due, so that a stall counts for all it delayed.
    """
    create(broker, topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "acks": 1})
    producer.produce(topic, b"warm")
    producer.flush(30)
    taken: list[float] = []
    start = time.monotonic()
    for i in range(count):
        due = start + i / per_second
        while (left := due - time.monotonic()) > 0:
            producer.poll(left)
        producer.produce(
            topic,
            b"x" * SIZE,
            partition=0,
            on_delivery=lambda _e, _m, due=due: taken.append(time.monotonic() - due),
        )
    assert producer.flush(60) == 0
    percentiles = statistics.quantiles(taken, n=100)
    return Latency(percentiles[49] * 1000, percentiles[98] * 1000)


def memory(broker: Broker) -> float:
    """Resident megabytes of the broker now."""
    return resident_mb(broker.pid)
