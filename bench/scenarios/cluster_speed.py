"""Three brokers, acks=all: throughput of 1 KB messages and CPU of all brokers per MB.

Three replicas of each partition, leaders on all three brokers, librdkafka as the client with its
default batching (5 ms, 1 MB) and with batches of 16 KB; Apache Kafka as three KRaft nodes in the
same run. What was acknowledged is counted by the ends of the partitions. "Per MB" is of what the
client has sent; every byte of it is written three times.
"""

import time
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.clusters import Measured, all_clusters
from bench.run import Run

SIZE: Final = 1024
CHUNK: Final = 200  # messages handed over at a time, so that the client is not the limit
QUEUED: Final = 100_000
PATIENCE: Final = 60  # seconds


class Case(NamedTuple):
    """One row."""

    label: str
    partitions: int
    count: int
    config: dict[str, Any]


SMALL: Final = {"batch.size": 16_384}
SINGLE: Final = {"batch.num.messages": 1, "max.in.flight.requests.per.connection": 5}
CASES: Final = (
    Case("default batches, 6 partitions", 6, 400_000, {}),
    Case("16 KB batches, 6 partitions", 6, 200_000, SMALL),
    Case("default batches, 1 partition", 1, 400_000, {}),
    Case("16 KB batches, 1 partition", 1, 200_000, SMALL),
    Case("default batches, 300 partitions", 300, 400_000, {}),
    Case("one message a request, 6 partitions", 6, 20_000, SINGLE),
)


def run(run: Run) -> None:
    with all_clusters(run.contenders) as clusters:
        for number, case in enumerate(CASES):
            count = int(case.count * run.options.scale) // CHUNK * CHUNK
            for round_number in range(run.rounds + 1):
                print(f"  {case.label}, round {round_number} of {run.rounds}", flush=True)
                for cluster in clusters:
                    topic = f"speed-{number}-{round_number}"
                    result = produce(cluster, topic, case, count)
                    if result is None:
                        run.figures.note(
                            f"{cluster.name} did not take {count} messages in {PATIENCE} s in a "
                            f"round of {case.label}, which is left out."
                        )
                    elif round_number:  # the first round warms up compilers and caches
                        rate, cpu = result
                        run.figures.add(f"{case.label}: messages/s", cluster.name, rate)
                        run.figures.add(f"{case.label}: CPU ms per MB", cluster.name, cpu)


def produce(cluster: Measured, topic: str, case: Case, count: int) -> tuple[float, float] | None:
    """Messages per second, and CPU of all brokers in ms per MB; None when it took too long."""
    cluster.create(topic, case.partitions)
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "acks": "all",
            "queue.buffering.max.kbytes": 1 << 19,
            "queue.buffering.max.messages": 2 * QUEUED,
            "log_level": 0,
            **case.config,
        }
    )
    producer.produce(topic, b"first", partition=0)  # connections and metadata are there
    assert producer.flush(30) == 0
    chunk = [{"value": b"x" * SIZE}] * CHUNK
    cpu, started = cluster.cpu_seconds(), time.monotonic()
    for number in range(count // CHUNK):
        while len(producer) > QUEUED:
            producer.poll(0.005)
        queued = producer.produce_batch(topic, chunk, partition=number % case.partitions)
        assert queued == CHUNK
    if producer.flush(PATIENCE):
        producer.purge()
        return None
    seconds, used = time.monotonic() - started, cluster.cpu_seconds() - cpu
    assert acknowledged(cluster, topic, case.partitions) >= count + 1
    return count / seconds, used * 1000 / (count * SIZE / 1e6)


def acknowledged(cluster: Measured, topic: str, partitions: int) -> int:
    """Messages below the high watermarks."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "bench"})
    try:
        return sum(
            consumer.get_watermark_offsets(TopicPartition(topic, index), timeout=30)[1]
            for index in range(partitions)
        )
    finally:
        consumer.close()
