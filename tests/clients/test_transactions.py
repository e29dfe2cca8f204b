"""Transactions with the clients and tools people own: all or nothing, once, through crashes."""

import asyncio
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.clients.test_confluent import create
from tests.java import lines, run_tool

TIMEOUT = 30.0
LASTING = {
    "reconnect.backoff.max.ms": 200,
    # Otherwise librdkafka 2.16 throws a lone broker away when it is gone for a moment, and keeps
    # sending offsets of transactions to what it has thrown away.
    "metadata.recovery.strategy": "none",
}
NEW = "4.3"
TOOLS = "org.apache.kafka.tools"


def transactional(broker: BrokerProcess, name: str, **config: object) -> Producer:
    """A producer that has got its identity."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "transactional.id": name,
            "retry.backoff.ms": 20,
            **LASTING,
            **config,
        }
    )
    producer.init_transactions(TIMEOUT)
    return producer


def reader(broker: BrokerProcess, group: str, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": group,
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **LASTING,
        }
    )


def read_all(
    broker: BrokerProcess, topic: str, partitions: int = 1, isolation: str = "read_committed"
) -> list[str]:
    """Every value that a consumer is shown, up to the end of each partition."""
    consumer = reader(broker, f"reader-of-{topic}", isolation)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    values: list[str] = []
    ended: set[int] = set()
    while len(ended) < partitions:
        message = consumer.poll(TIMEOUT)
        assert message is not None, f"no end of {topic} after {len(values)} messages"
        error = message.error()
        if error is None:
            values.append(message.value().decode())
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(message.partition())
    consumer.close()
    return values


def test_committed_ones_are_read_aborted_ones_are_not(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    producer = transactional(broker, topic)
    expected = []
    for number in range(10):
        producer.begin_transaction()
        values = [f"{number}-{i}" for i in range(5)]
        for value in values:
            producer.produce(topic, value, partition=0)
        if number % 3 == 1:
            producer.flush(TIMEOUT)
            producer.abort_transaction(TIMEOUT)
        else:
            producer.commit_transaction(TIMEOUT)
            expected += values
    assert read_all(broker, topic) == expected
    assert len(read_all(broker, topic, isolation="read_uncommitted")) == 50


def test_nothing_is_read_beyond_an_open_transaction(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    producer = transactional(broker, topic)
    producer.begin_transaction()
    producer.produce(topic, "open", partition=0)
    producer.flush(TIMEOUT)
    plain = Producer({"bootstrap.servers": broker.bootstrap})
    plain.produce(topic, "plain", partition=0)
    plain.flush(TIMEOUT)
    assert read_all(broker, topic) == []
    assert read_all(broker, topic, isolation="read_uncommitted") == ["open", "plain"]
    producer.commit_transaction(TIMEOUT)
    assert read_all(broker, topic) == ["open", "plain"]


def test_a_transaction_over_many_partitions_is_one(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, partitions=20)
    producer = transactional(broker, topic)
    for committed in (True, False, True):
        producer.begin_transaction()
        for partition in range(20):
            producer.produce(topic, f"{committed}-{partition}", partition=partition)
        if committed:
            producer.commit_transaction(TIMEOUT)
        else:
            producer.flush(TIMEOUT)
            producer.abort_transaction(TIMEOUT)
    counts = Counter(read_all(broker, topic, partitions=20))
    assert counts == {f"True-{partition}": 2 for partition in range(20)}


def test_a_zombie_is_fenced(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    zombie = transactional(broker, topic)
    zombie.begin_transaction()
    zombie.produce(topic, "from the zombie", partition=0)
    zombie.flush(TIMEOUT)
    successor = transactional(broker, topic)
    successor.begin_transaction()
    successor.produce(topic, "from its successor", partition=0)
    with pytest.raises(KafkaException) as caught:
        zombie.commit_transaction(TIMEOUT)
    assert caught.value.args[0].fatal()
    assert caught.value.args[0].code() == KafkaError._FENCED
    successor.commit_transaction(TIMEOUT)
    assert read_all(broker, topic) == ["from its successor"]


def test_offsets_are_part_of_the_transaction(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    producer = transactional(broker, topic)
    producer.begin_transaction()
    producer.produce(topic, "one", partition=0)
    producer.commit_transaction(TIMEOUT)
    consumer = reader(broker, f"group-of-{topic}")
    partition = TopicPartition(topic, 0)
    consumer.subscribe([topic])
    wait_for("the message", lambda: (m := consumer.poll(1)) and m.error() is None)

    def commit(offset: int, committed: bool) -> int:
        producer.begin_transaction()
        producer.send_offsets_to_transaction(
            [TopicPartition(topic, 0, offset)], consumer.consumer_group_metadata(), TIMEOUT
        )
        if committed:
            producer.commit_transaction(TIMEOUT)
        else:
            producer.abort_transaction(TIMEOUT)
        return consumer.committed([partition], TIMEOUT)[0].offset

    assert commit(7, False) < 0
    assert commit(8, True) == 8
    assert commit(9, False) == 8
    assert commit(10, True) == 10
    consumer.close()


def test_a_member_of_yesterday_cannot_commit_its_offsets(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    producer = transactional(broker, topic)
    consumer = reader(broker, f"group-of-{topic}")
    consumer.subscribe([topic])
    wait_for("an assignment", lambda: consumer.poll(0.1) or consumer.assignment())
    metadata = consumer.consumer_group_metadata()
    consumer.close()
    producer.begin_transaction()
    with pytest.raises(KafkaException) as caught:
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 1)], metadata, TIMEOUT)
    assert caught.value.args[0].txn_requires_abort()
    producer.abort_transaction(TIMEOUT)


def test_a_transaction_left_alone_is_aborted(tmp_path: Path) -> None:
    settings = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}
    with running_broker(tmp_path / "data", settings) as broker:
        create(broker, "t")
        producer = transactional(broker, "x", **{"transaction.timeout.ms": 1_000})
        producer.begin_transaction()
        producer.produce("t", "left alone", partition=0)
        producer.flush(TIMEOUT)
        plain = Producer({"bootstrap.servers": broker.bootstrap})
        plain.produce("t", "plain", partition=0)
        plain.flush(TIMEOUT)
        wait_for("the abort", lambda: read_all(broker, "t") == ["plain"])
        with pytest.raises(KafkaException) as caught:
            producer.commit_transaction(TIMEOUT)
        assert caught.value.args[0].fatal() or caught.value.args[0].txn_requires_abort()
        assert "timed out and is aborted id=x" in broker.log()


def test_aiokafka(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)

    async def go() -> list[bytes | None]:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic)
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed", partition=0)
        with pytest.raises(ZeroDivisionError):
            async with producer.transaction():
                await producer.send_and_wait(topic, b"aborted", partition=0)
                raise ZeroDivisionError
        async with producer.transaction():
            await producer.send_and_wait(topic, b"the last", partition=0)
        await producer.stop()
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=broker.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        async with asyncio.timeout(TIMEOUT):
            got = [(await consumer.getone()).value for _ in range(2)]
        await consumer.stop()
        return got

    assert asyncio.run(go()) == [b"committed", b"the last"]


def test_kafka_python(broker: BrokerProcess, topic: str) -> None:
    kafka = pytest.importorskip("kafka")
    create(broker, topic)
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic)
    producer.init_transactions()
    for value in (b"committed", b"aborted", b"the last"):
        producer.begin_transaction()
        producer.send(topic, value, partition=0).get(TIMEOUT)
        if value == b"aborted":
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    assert read_all(broker, topic) == ["committed", "the last"]


# -- crashes --------------------------------------------------------------------------------------


class Killer:
    """Kills a broker with -9 and starts it again, beside the test, one time after the other."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._broker = broker
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._strikes: list[Future[None]] = []

    def strike(self) -> None:
        self._strikes.append(self._executor.submit(self._run))

    def _run(self) -> None:
        self._broker.kill()
        self._broker.start()

    def wait(self) -> int:
        """Wait until the broker is there again after the last kill; how many there were."""
        for strike in self._strikes:
            strike.result(TIMEOUT)
        self._executor.shutdown()
        return len(self._strikes)


def retried(what: Callable[[], None]) -> bool:
    """Do it, again as long as the client says so; False when the transaction must be aborted."""
    for _ in range(200):
        try:
            what()
        except KafkaException as failure:
            error = failure.args[0]
            assert not error.fatal(), error
            if error.txn_requires_abort():
                return False
            assert error.retriable(), error
        else:
            return True
    raise AssertionError("tried in vain")


def abort(producer: Producer) -> None:
    """Abort what has been sent.

    Of partitions that the coordinator never came to hear of because it died, librdkafka takes
    "there is no transaction" for a fatal error, so they are sent first.
    """
    producer.flush(TIMEOUT)
    assert retried(lambda: producer.abort_transaction(TIMEOUT))


@pytest.mark.crash
def test_all_or_nothing_through_kills(tmp_path: Path) -> None:
    """Transactions over five partitions while the broker dies again and again."""
    broker = BrokerProcess(tmp_path / "data").start()
    killer = Killer(broker)
    partitions = 5
    create(broker, "t", partitions=partitions)
    producer = transactional(broker, "x")
    rng = random.Random(6)
    fate: dict[int, bool] = {}
    for number in range(300):
        strikes = number % 40 == 20
        moment = rng.choice(["begin", "middle", "end"]) if strikes else ""
        if moment == "begin":
            killer.strike()
        producer.begin_transaction()
        for partition in range(partitions):
            producer.produce("t", str(number), partition=partition)
        if moment == "middle":
            killer.strike()
        wants = rng.random() < 0.8
        if moment == "end":
            producer.flush(TIMEOUT)
            killer.strike()
        fate[number] = wants and retried(lambda: producer.commit_transaction(TIMEOUT))
        if not fate[number]:
            abort(producer)
    assert killer.wait() == 7
    seen = Counter(int(value) for value in read_all(broker, "t", partitions))
    assert seen == {number: partitions for number, committed in fate.items() if committed}
    everything = Counter(
        int(value) for value in read_all(broker, "t", partitions, "read_uncommitted")
    )
    assert everything.keys() >= seen.keys()
    assert_nothing_hangs(broker, [TopicPartition("t", p) for p in range(partitions)])
    assert broker.stop() == 0


@pytest.mark.crash
def test_consume_transform_produce_exactly_once_through_kills(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data").start()
    killer = Killer(broker)
    count = 1_000
    create(broker, "input", partitions=2)
    create(broker, "output", partitions=2)
    plain = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(count):
        plain.produce("input", str(number), partition=number % 2)
    assert plain.flush(TIMEOUT) == 0
    copied = copy_exactly_once(broker, killer, count)
    assert killer.wait() >= 4
    assert copied >= count
    output = [int(value) for value in read_all(broker, "output", 2)]
    assert Counter(output) == dict.fromkeys(range(count), 1)
    for parity in (0, 1):
        mine = [value for value in output if value % 2 == parity]
        assert mine == sorted(mine), "order within a partition"
    assert_nothing_hangs(broker, [TopicPartition("output", 0), TopicPartition("output", 1)])
    assert broker.stop() == 0


def copy_exactly_once(broker: BrokerProcess, killer: Killer, count: int) -> int:
    """Copy input to output in transactions, with kills; gives how many copies were begun."""
    producer = transactional(broker, "copier")
    consumer = reader(broker, "copiers")
    consumer.subscribe(["input"])
    rng = random.Random(6)
    copied = begun = strikes = 0
    positions = {0: 0, 1: 0}
    while copied < count:
        batch = [m for m in consumer.consume(50, timeout=0.5) if m.error() is None]
        if not batch:
            continue
        if begun >= (strikes + 1) * count // 6:
            strikes += 1
            killer.strike()
        begun += len(batch)
        if copy_batch(producer, consumer, batch, fails=rng.random() < 0.1):
            copied += len(batch)
            for message in batch:
                positions[message.partition()] = message.offset() + 1
        else:
            # What was read does not count: go back to what is committed.
            for index in {partition.partition for partition in consumer.assignment()}:
                consumer.seek(TopicPartition("input", index, positions[index]))
    consumer.close()
    return begun


def copy_batch(
    producer: Producer, consumer: Consumer, batch: Iterable[Message], fails: bool
) -> bool:
    producer.begin_transaction()
    ends: dict[int, int] = {}
    for message in batch:
        producer.produce("output", message.value(), partition=message.partition())
        ends[message.partition()] = message.offset() + 1
    offsets = [TopicPartition("input", partition, end) for partition, end in ends.items()]
    metadata = consumer.consumer_group_metadata()
    if (
        not fails
        and retried(lambda: producer.send_offsets_to_transaction(offsets, metadata, TIMEOUT))
        and retried(lambda: producer.commit_transaction(TIMEOUT))
    ):
        return True
    abort(producer)
    return False


def assert_nothing_hangs(broker: BrokerProcess, partitions: list[TopicPartition]) -> None:
    """The last stable offset of each partition comes to its end. (The end of a transaction is
    answered before its markers are in all logs.)"""
    readers = {
        each: reader(broker, "ends", each) for each in ("read_committed", "read_uncommitted")
    }

    def is_open(partition: TopicPartition) -> bool:
        try:
            return len({r.get_watermark_offsets(partition, TIMEOUT) for r in readers.values()}) > 1
        except KafkaException:  # its leader of before, who was killed, does not lead it any more
            return True

    def open_ones() -> list[TopicPartition]:
        return [partition for partition in partitions if is_open(partition)]

    try:
        wait_for("the last stable offsets", lambda: not open_ones(), 10)
    except AssertionError as late:
        raise AssertionError(f"{late}: behind are {open_ones()}") from None


# -- Java -----------------------------------------------------------------------------------------


@pytest.mark.java
@pytest.mark.parametrize(
    ("release", "tool"),
    [
        (NEW, f"{TOOLS}.ProducerPerformance"),
        ("2.3", f"{TOOLS}.ProducerPerformance"),
    ],
)
def test_java_producers(broker: BrokerProcess, topic: str, release: str, tool: str) -> None:
    create(broker, topic, partitions=3)
    produced = run_tool(
        *(release, tool, "--topic", topic, "--num-records", "3000", "--record-size", "100"),
        *("--throughput", "-1", "--transactional-id", topic, "--transaction-duration-ms", "20"),
        *("--producer-props", f"bootstrap.servers={broker.bootstrap}"),
    )
    assert "3000 records sent" in produced.stdout
    assert len(read_all(broker, topic, partitions=3)) == 3000
    assert_nothing_hangs(broker, [TopicPartition(topic, p) for p in range(3)])
    (described,) = transactions_tool(broker, "describe", "--transactional-id", topic)
    # By the second protocol of KIP-890, which only the new release speaks, ends bring epochs.
    assert (int(described["ProducerEpoch"]) > 0) == (release == NEW)


@pytest.mark.java
def test_console_consumer_reads_committed_only(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    producer = transactional(broker, topic)
    for value, committed in (("one", True), ("no", False), ("two", True)):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush(TIMEOUT)
        (producer.commit_transaction if committed else producer.abort_transaction)(TIMEOUT)
    for release, tool in (
        (NEW, f"{TOOLS}.consumer.ConsoleConsumer"),
        ("2.3", "kafka.tools.ConsoleConsumer"),
    ):
        got = run_tool(
            *(release, tool, "--bootstrap-server", broker.bootstrap, "--topic", topic),
            *("--from-beginning", "--max-messages", "2", "--isolation-level", "read_committed"),
        )
        assert lines(got.stdout) == ["one", "two"]


def transactions_tool(broker: BrokerProcess, *arguments: str) -> list[dict[str, str]]:
    """Rows of the kafka-transactions tool by column name."""
    shown = run_tool(
        NEW, f"{TOOLS}.TransactionsCommand", "--bootstrap-server", broker.bootstrap, *arguments
    ).stdout
    head, *rows = [re.split(r"\s*\t\s*|\s{2,}", line.strip()) for line in lines(shown)]
    return [dict(zip(head, row, strict=False)) for row in rows]


@pytest.mark.java
def test_transactions_tool(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    producer = transactional(broker, topic)
    producer.begin_transaction()
    producer.produce(topic, "hanging", partition=0)
    producer.flush(TIMEOUT)
    (listed,) = (
        row for row in transactions_tool(broker, "list") if row["TransactionalId"] == topic
    )
    assert listed["TransactionState"] == "Ongoing"
    (described,) = transactions_tool(broker, "describe", "--transactional-id", topic)
    assert described["CoordinatorId"] == "1"
    assert described["ProducerId"] == listed["ProducerId"]
    assert described["TopicPartitions"] == f"{topic}-0"
    place = ("--topic", topic, "--partition", "0")
    (writer,) = transactions_tool(broker, "describe-producers", *place)
    assert writer["ProducerId"] == listed["ProducerId"]
    assert writer["CurrentTransactionStartOffset"] == "0"
    run_tool(
        *(NEW, f"{TOOLS}.TransactionsCommand", "--bootstrap-server", broker.bootstrap),
        *("abort", *place, "--start-offset", "0"),
    )
    (writer,) = transactions_tool(broker, "describe-producers", *place)
    assert writer["CurrentTransactionStartOffset"] == "None"
    assert_nothing_hangs(broker, [TopicPartition(topic, 0)])


@pytest.mark.java
def test_a_hanging_transaction_is_found_and_ended(tmp_path: Path) -> None:
    """One that no coordinator knows: here because the coordinator's log has been lost."""
    broker = BrokerProcess(tmp_path / "data").start()
    create(broker, "t")
    producer = transactional(broker, "the-id")
    producer.begin_transaction()
    producer.produce("t", "hanging", partition=0)
    producer.flush(TIMEOUT)
    broker.kill()
    for log in broker.data_dir.glob("__transaction_state-*"):
        shutil.rmtree(log)
    broker.start()
    find = ("find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0")
    (hanging,) = transactions_tool(broker, *find)
    assert hanging["Topic"] == "t" and hanging["StartOffset"] == "0"
    run_tool(
        *(NEW, f"{TOOLS}.TransactionsCommand", "--bootstrap-server", broker.bootstrap),
        *("abort", "--topic", "t", "--partition", "0", "--start-offset", "0"),
    )
    assert transactions_tool(broker, *find) == []
    assert_nothing_hangs(broker, [TopicPartition("t", 0)])
    assert broker.stop() == 0


@pytest.mark.java
def test_kafkas_own_tool_reads_our_transaction_log(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", {"transaction.state.log.num.partitions": "1"}) as broker:
        create(broker, "t")
        producer = transactional(broker, "the-id")
        producer.begin_transaction()
        producer.produce("t", "value", partition=0)
        producer.commit_transaction(TIMEOUT)
    (log,) = (tmp_path / "data" / "__transaction_state-0").glob("*.log")
    for release, tool in (
        (NEW, f"{TOOLS}.DumpLogSegments"),
        ("2.3", "kafka.tools.DumpLogSegments"),
    ):
        shown = run_tool(release, tool, "--transaction-log-decoder", "--files", str(log)).stdout
        assert "the-id" in shown
        states = re.findall(r"state[:=](\w+)|\"transactionStatus\":(\d)", shown)
        names = [name or number for name, number in states]
        assert names in (
            ["Empty", "Ongoing", "PrepareCommit", "CompleteCommit"],
            ["0", "1", "2", "4"],
        ), shown
    (log,) = (tmp_path / "data" / "t-0").glob("*.log")
    shown = run_tool("2.3", "kafka.tools.DumpLogSegments", "--files", str(log)).stdout
    assert re.search(r"isTransactional: true isControl: true", shown), shown
