"""Writes without pause, remembers what was acknowledged, and judges what is there in the end."""

import threading
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from kavka.protocol.records.batch import iter_batches, read_header
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member


class Writer:
    """An idempotent producer with acks=all, in a thread; each partition gets 0, 1, 2, …

    ``rate`` is how many records a second all partitions get, ``size`` how many bytes a value has
    at least. ``slowest`` is the longest time in seconds in which nothing at all was acknowledged.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        partitions: int = 3,
        rate: int = 2000,
        size: int = 1,
        **settings: object,
    ) -> None:
        self.cluster = cluster
        self.topic = topic
        self.partitions = partitions
        self.acknowledged: dict[int, set[int]] = {index: set() for index in range(partitions)}
        self.failed: list[KafkaError] = []
        self.slowest = 0.0
        self._rate = rate
        self._size = size
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 120_000,
                "retry.backoff.ms": 50,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 200,
                "topic.metadata.refresh.fast.interval.ms": 50,
                "socket.timeout.ms": 5_000,
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )
        self._thread = threading.Thread(target=self._write, daemon=True)

    @property
    def count(self) -> int:
        """Records acknowledged so far."""
        return sum(map(len, self.acknowledged.values()))

    def start(self) -> "Writer":
        self._thread.start()
        wait_for("the first acknowledged records", lambda: self.count > 100)
        self.slowest = 0.0
        return self

    def progress(self, timeout: float = 30.0) -> float:
        """Wait for an acknowledgement in every partition; seconds that it took."""
        before = {index: len(seen) for index, seen in self.acknowledged.items()}
        began = time.monotonic()
        wait_for(
            "progress in every partition",
            lambda: all(len(self.acknowledged[i]) > n for i, n in before.items()),
            timeout,
        )
        return time.monotonic() - began

    def stop(self) -> None:
        """Write no more, and wait until everything is acknowledged."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(120) == 0, "records are not delivered"
        assert not self.failed, self.failed[:3]

    def _write(self) -> None:
        number, began = 0, time.monotonic()
        while not self._stop.is_set():
            for index in range(self.partitions):
                self._produce(index, number)
            number += 1
            self._producer.poll(0)
            ahead = number * self.partitions / self._rate - (time.monotonic() - began)
            if ahead > 0:
                self._producer.poll(min(ahead, 0.05))

    def _produce(self, index: int, number: int) -> None:
        def told(error: KafkaError | None, _: object) -> None:
            if error is not None:
                self.failed.append(error)
                return
            now = time.monotonic()
            self.slowest = max(self.slowest, now - self._last)
            self._last = now
            self.acknowledged[index].add(number)

        while not self._stop.is_set():
            try:
                value = f"{number:0{self._size}}".encode()
                self._producer.produce(self.topic, value, partition=index, on_delivery=told)
            except BufferError:  # nothing gets through at the moment
                self._producer.poll(0.05)
            else:
                return


def judge(writer: Writer) -> None:
    """Every acknowledged record is there, once, and in the order in which it was written."""
    consumer = Consumer(
        {
            "bootstrap.servers": writer.cluster.bootstrap,
            "group.id": "judge",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    for index in range(writer.partitions):
        target = TopicPartition(writer.topic, index, 0)
        low, high = wait_for("the ends of a partition", lambda t=target: _ends(consumer, t))
        assert low == 0
        consumer.assign([target])
        seen: list[int] = []

        def more(seen: list[int] = seen, high: int = high) -> bool:
            seen.extend(int(m.value()) for m in consumer.consume(10_000, 0.2) if m.error() is None)
            return len(seen) >= high

        wait_for(f"{high} records of partition {index}", more, 60)
        assert seen == sorted(set(seen)), f"partition {index}: repeated or out of order"
        lost = writer.acknowledged[index] - set(seen)
        assert not lost, f"partition {index}: lost {len(lost)}, the first is {min(lost)}"
    consumer.close()


def _ends(consumer: Consumer, target: TopicPartition) -> tuple[int, int] | None:
    try:
        return consumer.get_watermark_offsets(target, timeout=5)
    except KafkaException:
        return None  # leadership goes back to where it belongs, after all that


def compare_replicas(
    cluster: Cluster, topic: str, partitions: int = 3, replicas: int | None = None
) -> int:
    """All replicas of a topic (one on each broker, if it is not said how many there are) are the
    same bytes, when all are in sync; the number of bytes."""
    replicas = replicas or len(cluster.members)
    cluster.wait_for_isr(topic, replicas, 60)
    total = 0
    for index in range(partitions):

        def copies(index: int = index) -> list[bytes]:
            found = (log_directory(member, topic, index) for member in cluster.members.values())
            return [log_bytes(directory) for directory in found if directory is not None]

        def equal() -> bool:
            found = copies()
            return len(found) == replicas and len(set(found)) == 1

        wait_for(f"equal copies of {topic}-{index}", equal)
        total += len(copies()[0])
    return total


def log_directory(member: Member, topic: str, index: int) -> Path | None:
    """Where a member has a partition, in which of its log directories it ever is; None if it
    has none."""
    name = f"{topic}-{index}"
    found = [*member.data_dir.glob(name), *member.data_dir.glob(f"*/{name}")]
    assert len(found) <= 1, found
    return found[0] if found else None


def log_bytes(directory: Path) -> bytes:
    """The batches of a log, without what is only reserved behind the last."""
    found = b""
    for path in sorted(directory.glob("*.log")):
        data = path.read_bytes()
        end = 0
        for position, size, _ in iter_batches(data.rstrip(b"\0") + bytes(16)):
            assert read_header(memoryview(data), position).size == size
            end = position + size
        found += data[:end]
    return found
