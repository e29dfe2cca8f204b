"""kill -9 in the middle of acknowledged messages: all of them are there afterwards, once."""

import threading
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from tests.broker_process import BrokerProcess
from tests.clients.test_confluent import create

pytestmark = pytest.mark.crash

TOPIC = "kept"
COUNT = 100_000


@pytest.mark.parametrize("flush", ["default", "every-message"])
def test_acknowledged_messages_survive_a_kill(tmp_path: Path, flush: str) -> None:
    broker = BrokerProcess(tmp_path / "data").start()
    config = {"flush.messages": "1"} if flush == "every-message" else {}
    create(broker, TOPIC, **config, **{"segment.bytes": "2000000"})
    acknowledged = produce_while_killed(broker, COUNT)
    assert acknowledged == COUNT
    assert read_all(broker, COUNT) == list(range(COUNT))
    assert "recover" in broker.log(), "the broker says that it recovered"
    assert broker.stop() == 0


def produce_while_killed(broker: BrokerProcess, count: int) -> int:
    """Send ``count`` numbered messages; the broker dies on the way and is started again."""
    acknowledged = 0
    halfway = threading.Event()
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        nonlocal acknowledged
        if error is not None:
            failed.append(error)
            return
        acknowledged += 1
        if acknowledged == count // 2:
            halfway.set()

    def kill_and_restart() -> None:
        halfway.wait(120)
        broker.kill()
        broker.start()

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 1,
            "batch.num.messages": 200,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 20,
            "message.timeout.ms": 120_000,
            "queue.buffering.max.messages": count,
        }
    )
    for value in range(count):
        producer.produce(TOPIC, str(value), partition=0, on_delivery=delivered)
        if value % 100 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
    killer.join(60)
    assert not failed, failed[0]
    return acknowledged


def read_all(broker: BrokerProcess, count: int) -> list[int]:
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "reader", "check.crcs": True}
    )
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=30)
    assert end == count, f"{end} records for {count} messages"
    values: list[int] = []
    while len(values) < end:
        batch = consumer.consume(10_000, timeout=30)
        assert batch, f"{len(values)} of {end} came"
        values += [int(message.value()) for message in batch]
    consumer.close()
    return values


def test_a_torn_batch_is_cut_and_a_corrupt_index_rebuilt(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data").start()
    create(broker, TOPIC, **{"segment.bytes": "100000", "index.interval.bytes": "500"})
    producer = Producer({"bootstrap.servers": broker.bootstrap, "batch.num.messages": 50})
    for value in range(10_000):
        producer.produce(TOPIC, str(value) * 5, partition=0)
    assert producer.flush(60) == 0
    broker.kill()
    directory = tmp_path / "data" / f"{TOPIC}-0"
    logs = sorted(directory.glob("*.log"))
    assert len(logs) > 2
    # A batch that was being written when the power went: its head is there, its end is not.
    last = logs[-1]
    content = last.read_bytes().rstrip(b"\0")
    last.write_bytes(content + content[:70])
    for index in (*directory.glob("*.index"), *directory.glob("*.timeindex")):
        index.write_bytes(b"\xff" * (len(index.read_bytes()) or 24))
    broker.start()
    assert f"{TOPIC}-0" in broker.log() and "cut" in broker.log().lower()
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reader"})
    for offset in range(0, 10_000, 777):
        consumer.assign([TopicPartition(TOPIC, 0, offset)])
        (message,) = consumer.consume(1, timeout=30)
        assert (message.offset(), message.value()) == (offset, (str(offset) * 5).encode())
    consumer.close()
    assert broker.stop() == 0
