"""A broker on a file system of 64 MB that producers fill to the brim.

As root on a tmpfs of its own; where no file system can be mounted, with a budget of 64 MB
instead (and without the tests for which the file system itself must be full).
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import BrokerProcess, wait_for
from tests.clients.test_confluent import create
from tests.wire import WireClient

SIZE = 64 << 20
VALUE = b"x" * 10_000
SETTINGS = {
    "num.partitions": "1",
    "log.segment.bytes": "4194304",
    "offsets.topic.num.partitions": "1",
    "log.segment.delete.delay.ms": "60000",
}


class SmallDisk:
    """Where the data lies, and the settings that make it small."""

    def __init__(self, path: Path, mounted: bool) -> None:
        self.path = path
        self.mounted = mounted
        self.brokers: list[BrokerProcess] = []

    def broker(self, **settings: str) -> BrokerProcess:
        budget = {} if self.mounted else {"capacity.budget.bytes": str(SIZE)}
        given = {name.replace("_", "."): value for name, value in settings.items()}
        broker = BrokerProcess(self.path, {**SETTINGS, **budget, **given})
        self.brokers.append(broker)
        return broker


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    small = SmallDisk(path, mounted)
    try:
        yield small
    finally:
        for broker in small.brokers:
            if broker.process is not None:  # the test has failed
                broker.kill()
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def real_disk(disk: SmallDisk) -> SmallDisk:
    if not disk.mounted:
        pytest.skip("no file system can be mounted here")
    return disk


class Sent:
    """What became of messages, each of which begins with its number."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, int] = {}  # number → offset
        self.errors: list[KafkaError] = []


def send(
    broker: BrokerProcess,
    topic: str,
    count: int,
    *,
    first: int = 0,
    value: bytes = VALUE,
    **config: object,
) -> Sent:
    """Send ``count`` messages, of 10 KB if not told otherwise; end early when one is refused."""
    sent = Sent()
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "linger.ms": 2,
            "message.timeout.ms": 20_000,
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 100,
            "queue.buffering.max.messages": 50,
            **config,
        }
    )

    def delivered(number: int, error: KafkaError | None, offset: int) -> None:
        if error is None:
            sent.acknowledged[number] = offset
        else:
            sent.errors.append(error)

    for number in range(first, first + count):
        while not sent.errors:
            try:
                producer.produce(
                    topic,
                    b"%010d" % number + value,
                    partition=0,
                    on_delivery=lambda error, message, number=number: delivered(
                        number, error, message.offset()
                    ),
                )
                break
            except BufferError:
                producer.poll(0.05)
        if sent.errors:
            break
        producer.poll(0)
    assert producer.flush(30) == 0
    return sent


def read(broker: BrokerProcess, topic: str, *, commit: bool = True) -> dict[int, int]:
    """Number → offset of all messages in partition 0."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "reader", "check.crcs": True}
    )
    partition = TopicPartition(topic, 0)
    first, end = consumer.get_watermark_offsets(partition, timeout=20)
    consumer.assign([TopicPartition(topic, 0, first)])
    found: dict[int, int] = {}
    at = first
    while at < end:
        batch = consumer.consume(min(end - at, 1000), timeout=20)
        assert batch, f"nothing came at {at} of {end}"
        for message in batch:
            assert message.error() is None, message.error()
            found[int(message.value()[:10])] = message.offset()
            at = message.offset() + 1
    if commit:  # which goes on, whatever producers are told
        consumer.commit(offsets=[TopicPartition(topic, 0, end)], asynchronous=False)
    consumer.close()
    return found


def set_broker(broker: BrokerProcess, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)


def delete(broker: BrokerProcess, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_topics([topic])[topic].result(20)


def is_alive(broker: BrokerProcess) -> bool:
    return broker.process is not None and broker.process.poll() is None


def test_producers_are_refused_until_a_topic_is_deleted(disk: SmallDisk) -> None:
    broker = disk.broker().start()
    create(broker, "small")
    create(broker, "big")
    assert not send(broker, "small", 10).errors
    sent = send(broker, "big", 10_000)
    assert {error.code() for error in sent.errors} == {KafkaError.POLICY_VIOLATION}
    assert len(sent.acknowledged) * 10_010 > 0.7 * SIZE
    assert read(broker, "big").items() >= sent.acknowledged.items(), "nothing acknowledged is lost"
    # Who is refused is refused again, and others go on reading.
    again = send(broker, "small", 1, first=100)
    assert {error.code() for error in again.errors} == {KafkaError.POLICY_VIOLATION}
    assert read(broker, "small").keys() == set(range(10))
    with WireClient(broker.port) as client:
        batch = build_batch([Record(0, 1_700_000_000_000, None, b"value", ())], base_offset=0)
        for version in (3, 7, 8):
            [topic] = client.produce("small", batch, version=version).responses
            [result] = topic.partition_responses
            assert result.error_code == KafkaError.POLICY_VIOLATION
            if version >= 8:
                for part in (str(disk.path), "% full", "capacity.threshold.percent=95"):
                    assert result.error_message and part in result.error_message
    assert "capacity threshold reached" in broker.log().lower()

    delete(broker, "big")
    wait_for("producing to go on", lambda: not send(broker, "small", 1, first=200).errors)
    assert 200 in read(broker, "small")
    assert is_alive(broker)
    assert broker.stop() == 0
    broker.start()
    assert read(broker, "small").keys() == {*range(10), 200}
    assert broker.stop() == 0


def test_the_oldest_records_make_room(disk: SmallDisk) -> None:
    broker = disk.broker(capacity_policy="time_base").start()
    create(broker, "old")
    create(broker, "new")
    first = send(broker, "old", 1000)
    sent = send(broker, "new", 15_000, acks=1)
    assert not first.errors and not sent.errors, "producing never fails"
    assert len(sent.acknowledged) == 15_000
    found = read(broker, "new")
    assert found.items() <= sent.acknowledged.items()
    numbers = sorted(found)
    assert numbers == list(range(numbers[0], 15_000)), "the newest are all there"
    assert len(numbers) * 10_010 > 0.5 * SIZE
    assert "Records deleted by capacity.policy=time_base topic=old partition=0" in broker.log()
    assert "AutomaticDeletion done resource=Topic:old partition=0 first_offset=0" in broker.log()
    assert is_alive(broker)
    assert broker.stop() == 0


def test_the_policy_is_switched_while_the_disk_is_full(disk: SmallDisk) -> None:
    broker = disk.broker().start()
    create(broker, "orders")
    sent = send(broker, "orders", 10_000)
    assert sent.errors
    set_broker(broker, "capacity.policy", "time_base")
    began = time.monotonic()
    wait_for("producing to go on", lambda: not send(broker, "orders", 1, first=20_000).errors)
    assert time.monotonic() - began < 10
    after = send(broker, "orders", 3000, first=30_000)
    assert not after.errors
    set_broker(broker, "capacity.policy", "produce_reject")
    refused = wait_for("a refusal", lambda: send(broker, "orders", 5000, first=50_000).errors)
    assert refused[0].code() == KafkaError.POLICY_VIOLATION
    assert broker.stop() == 0


def test_a_full_file_system_without_the_guard(real_disk: SmallDisk) -> None:
    broker = real_disk.broker(capacity_threshold_percent="100").start()
    create(broker, "small")
    create(broker, "big")
    assert not send(broker, "small", 10).errors
    sent = send(broker, "big", 10_000, **{"message.timeout.ms": 3000})
    assert sent.errors
    assert len(sent.acknowledged) * 10_010 > 0.7 * SIZE
    assert read(broker, "big", commit=False).items() >= sent.acknowledged.items()
    assert is_alive(broker)
    assert "offline" not in broker.log()
    # To the last page.
    few: dict[str, object] = {"message.timeout.ms": 1000, "batch.num.messages": 1}
    crumbs = send(broker, "small", 20_000, first=1000, value=b"x" * 1000, **few)
    assert crumbs.errors
    assert read(broker, "small", commit=False).items() >= crumbs.acknowledged.items()
    wait_for("a line in the log", lambda: "volume of a log directory is full" in broker.log())

    delete(broker, "big")
    wait_for("producing to go on", lambda: not send(broker, "small", 1, first=200).errors)
    kept = {*range(10), *crumbs.acknowledged, 200}
    assert set(read(broker, "small")) == kept
    assert "offline" not in broker.log()
    assert broker.stop() == 0
    broker.start()
    assert set(read(broker, "small")) == kept
    assert broker.stop() == 0
