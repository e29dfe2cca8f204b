"""librdkafka as the client: bulk produce and consume, the same against every broker."""

import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.brokers import Broker
from bench.measure import cpu_seconds

SIZE = 1024


class Throughput(NamedTuple):
    """One bulk run."""

    messages_per_second: float
    cpu_ms_per_mb: float  # of the broker process


def create(broker: Broker, topic: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def produce(
    broker: Broker, topic: str, count: int, partitions: int = 1, **config: Any
) -> Throughput:
    """Send ``count`` messages of 1 KB as fast as the client can, to the partitions in turn."""
    create(broker, topic, partitions)
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
    for number in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=number % partitions, on_delivery=delivered)
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
