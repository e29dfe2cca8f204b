"""Data directories of a real Apache Kafka read and served here, and ours read and served there."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kavka.protocol.topics import TopicPartition as TP
from kavka.storage import checkpoints
from kavka.storage.fs import FileSystem
from kavka.storage.inspect.check import check_directory
from kavka.storage.inspect.decoders import decode_offsets_record, decode_transaction_record
from kavka.storage.inspect.dump import Options
from kavka.storage.inspect.dump_log import LogOptions
from tests.broker_process import BrokerProcess, wait_for
from tests.clients.kafka_node import KafkaNode
from tests.clients.messages import CODECS, Message, sample
from tests.dump_tools import assert_kafka_says_the_same, dump

pytestmark = pytest.mark.java

PLAIN, TRANSACTIONS, COMPACTED = "plain", "transactions", "compacted"
GROUP, TRANSACTIONAL_ID = "readers", "writer"
OURS = "made-here-"  # before the names of topics that our broker fills
OFFSETS_TOPIC, STATE_TOPIC = "__consumer_offsets-0", "__transaction_state-0"
COMMITTED = 17  # the group's offset
ROUNDS, KEYS = 9, 12  # of transactions on the compacted topic that commit, and as many that abort
SETTINGS = {
    # The same in both, so that partitions can be moved over.
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "log.cleaner.backoff.ms": "50",
}
PARTITION_METADATA = "partition.metadata"


class Server(Protocol):
    data_dir: Path

    @property
    def bootstrap(self) -> str: ...


class Written(NamedTuple):
    """A stopped broker's data directory; what is in it is the same for all of them."""

    data_dir: Path
    prefix: str  # of topics


def printable(count: int) -> list[Message]:
    """Messages of all kinds, with values that both dump tools print alike."""
    return [
        message._replace(value=message.value and f"value {number} ".encode() * (number + 1))
        for number, message in enumerate(sample(count))
    ]


def create_topics(server: Server, prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    small = {"segment.bytes": "1048576", "index.interval.bytes": "2048"}
    compacted = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.001",
        "delete.retention.ms": "0",
        "segment.ms": "1",
    }
    topics = [
        NewTopic(prefix + PLAIN, 2, 1, config=small),
        NewTopic(prefix + TRANSACTIONS, 1, 1),
        NewTopic(prefix + COMPACTED, 1, 1, config=compacted),
    ]
    for future in admin.create_topics(topics).values():
        future.result(30)


def expected_plain() -> list[Message]:
    """What is in each partition of the plain topic."""
    return [message for _ in CODECS for message in printable(120)]


def expected_transactions(*, committed_only: bool) -> list[bytes]:
    return [
        f"{number}:{index}".encode()
        for number in range(5)
        if number % 2 == 0 or not committed_only
        for index in range(4)
    ]


def expected_latest() -> dict[bytes | None, bytes | None]:
    """What a reader of the compacted topic knows in the end, deletions left out."""
    return {
        f"k{key}".encode(): f"{2 * ROUNDS - 2}:{key}".encode() for key in range(KEYS) if key % 3
    }


def compact(server: Server, prefix: str) -> None:
    """Many values for few keys, in transactions of both ends; wait until that is compacted."""
    topic = prefix + COMPACTED
    producer = transactional(server)
    offsets: list[int] = []
    for number in range(2 * ROUNDS):
        producer.begin_transaction()
        for key in range(KEYS):
            producer.produce(
                topic,
                key=f"k{key}",
                # Some keys are deleted by every other committed transaction, and by the last one.
                value=f"{number}:{key}" if key % 3 or number % 4 else None,
                partition=0,
                on_delivery=lambda _, item: offsets.append(item.offset()),
            )
        producer.flush(30)
        if number % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    path = str(server.data_dir / checkpoints.CLEANER_OFFSETS)

    def cleaned() -> bool:
        # The last ones may be in the segment that is still written to.
        found = checkpoints.read_offsets(FileSystem(), path)
        return found.get(TP(topic, 0), 0) > offsets[-4 * KEYS]

    wait_for("the compaction", cleaned)


def fill(server: Server, prefix: str) -> None:
    """All codecs with and without idempotence, transactions of both ends, committed offsets, and
    a compacted topic."""
    compact(server, prefix)
    for number, codec in enumerate(CODECS):
        produce(
            server,
            prefix + PLAIN,
            printable(120),
            **{"compression.type": codec, "enable.idempotence": number % 2 == 0},
        )
    producer = transactional(server)
    for number in range(5):
        transact(producer, prefix, number)
    consumer = reader(server, GROUP)
    position = TopicPartition(prefix + PLAIN, 1, COMMITTED, metadata="so far")
    consumer.commit(offsets=[position], asynchronous=False)
    consumer.close()


def produce(server: Server, topic: str, messages: list[Message], **config: object) -> None:
    failed: list[KafkaError] = []
    producer = Producer(
        {"bootstrap.servers": server.bootstrap, "linger.ms": 5, "batch.num.messages": 17, **config}
    )
    for message in messages:
        for partition in (0, 1):
            producer.produce(
                topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                timestamp=message.timestamp,
                partition=partition,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
    assert producer.flush(30) == 0
    assert not failed


def transactional(server: Server) -> Producer:
    producer = Producer(
        {"bootstrap.servers": server.bootstrap, "transactional.id": TRANSACTIONAL_ID,
         "log_level": 0}
    )  # fmt: skip
    producer.init_transactions(30)
    return producer


def transact(producer: Producer, prefix: str, number: int) -> None:
    """Even ones commit, odd ones abort."""
    producer.begin_transaction()
    for index in range(4):
        producer.produce(prefix + TRANSACTIONS, value=f"{number}:{index}", partition=0)
    producer.flush(30)
    if number % 2:
        producer.abort_transaction(30)
    else:
        producer.commit_transaction(30)


def reader(server: Server, group: str = "of-the-test", **config: object) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": server.bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
            **config,
        }
    )


def read(server: Server, topic: str, partition: int = 0, **config: object) -> list[Message]:
    """Everything in a partition."""
    consumer = reader(server, **config)
    consumer.assign([TopicPartition(topic, partition, 0)])
    got: list[Message] = []
    while True:
        item = consumer.poll(20)
        assert item is not None, f"{len(got)} messages came, and no end"
        error = item.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            consumer.close()
            return got
        headers = tuple(item.headers() or ())
        got.append(Message(item.key(), item.value(), headers, item.timestamp()[1]))


def values(server: Server, topic: str, isolation: str) -> list[bytes | None]:
    return [message.value for message in read(server, topic, **{"isolation.level": isolation})]


def assert_serves(server: Server, prefix: str) -> None:
    """Everything that :func:`fill` wrote comes out."""
    for partition in (0, 1):
        assert read(server, prefix + PLAIN, partition) == expected_plain()
    topic = prefix + TRANSACTIONS
    assert values(server, topic, "read_committed") == expected_transactions(committed_only=True)
    assert values(server, topic, "read_uncommitted") == expected_transactions(committed_only=False)
    latest = {
        message.key: message.value
        for message in read(server, prefix + COMPACTED, **{"isolation.level": "read_committed"})
    }
    assert {key: value for key, value in latest.items() if value is not None} == expected_latest()
    # Search by time goes through the time index.
    consumer = reader(server)
    (found,) = consumer.offsets_for_times(
        [TopicPartition(prefix + PLAIN, 0, printable(120)[100].timestamp)], timeout=20
    )
    assert found.offset == 100
    consumer.close()


def assert_goes_on(server: Server, prefix: str) -> None:
    """New records follow the old ones, and old transactions and offsets are known."""
    consumer = reader(server, GROUP)
    (committed,) = consumer.committed([TopicPartition(prefix + PLAIN, 1)], timeout=20)
    assert (committed.offset, committed.metadata) == (COMMITTED, "so far")
    consumer.close()
    produce(server, prefix + PLAIN, printable(10))
    assert read(server, prefix + PLAIN, 1) == expected_plain() + printable(10)
    transact(transactional(server), prefix, 6)
    topic = prefix + TRANSACTIONS
    assert values(server, topic, "read_committed")[-4:] == [b"6:0", b"6:1", b"6:2", b"6:3"]


def move_partitions(source: Written, target: Path, *names: str) -> None:
    """Put partitions of one stopped broker into the place of those of another.

    The topics exist in both. Their ids stay as the target has them.
    """
    for name in names:
        for old in (target / name).iterdir():
            if old.name != PARTITION_METADATA:
                old.unlink()
        for new in (source.data_dir / name).iterdir():
            if new.name != PARTITION_METADATA:
                shutil.copy2(new, target / name / new.name)


def partitions(prefix: str) -> list[str]:
    return [
        *(f"{prefix}{PLAIN}-0", f"{prefix}{PLAIN}-1"),
        *(f"{prefix}{TRANSACTIONS}-0", f"{prefix}{COMPACTED}-0"),
    ]


# -- the directories ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    """A real Kafka, filled and stopped; with empty topics for our partitions, too."""
    kafka = KafkaNode(tmp_path_factory.mktemp("kafka"), SETTINGS).start()
    try:
        create_topics(kafka, "")
        create_topics(kafka, OURS)
        fill(kafka, "")
        kafka.stop()
        yield kafka
    finally:
        kafka.stop()


@pytest.fixture(scope="module")
def kafkas(node: KafkaNode, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A copy of what that Kafka has left."""
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(node.data_dir, copy)
    return Written(copy, "")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What our broker has left, filled in the same way."""
    broker = BrokerProcess(tmp_path_factory.mktemp("ours") / "data", SETTINGS).start()
    try:
        create_topics(broker, OURS)
        fill(broker, OURS)
    finally:
        assert broker.stop() == 0, broker.log()
    return Written(broker.data_dir, OURS)


# -- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["kafkas", "ours"])
def test_check_finds_no_problem(whose: str, request: pytest.FixtureRequest) -> None:
    written: Written = request.getfixturevalue(whose)
    findings: list[str] = []
    report = check_directory(
        FileSystem(), str(written.data_dir), lambda f: findings.append(str(f)), deep=True
    )
    assert findings == []
    assert report.partitions >= 5 and report.batches > 50
    assert report.problems == 0


@pytest.mark.parametrize("whose", ["kafkas", "ours"])
def test_both_dump_tools_say_the_same(whose: str, request: pytest.FixtureRequest) -> None:
    written: Written = request.getfixturevalue(whose)
    for names, option, decoder in (
        (partitions(written.prefix), "--print-data-log", None),
        ([OFFSETS_TOPIC], "--offsets-decoder", decode_offsets_record),
        ([STATE_TOPIC], "--transaction-log-decoder", decode_transaction_record),
    ):
        paths = [
            str(path)
            for name in names
            for path in sorted((written.data_dir / name).iterdir())
            if path.name[0].isdigit()
        ]
        shown = Options(LogOptions(deep=True, data=True, decoder=decoder))
        assert_kafka_says_the_same(paths, option, shown)


@pytest.mark.parametrize("whose", ["kafkas", "ours"])
def test_something_was_compacted(whose: str, request: pytest.FixtureRequest) -> None:
    written: Written = request.getfixturevalue(whose)
    directory = written.data_dir / f"{written.prefix}{COMPACTED}-0"
    lines, _, _ = dump(*directory.glob("*.log"), options=Options(LogOptions(deep=True)))
    kept = sum(line.startswith("| offset") for line in lines)
    assert len(expected_latest()) <= kept < KEYS * ROUNDS


# -- serving --------------------------------------------------------------------------------


def test_our_broker_serves_kafkas_partitions(kafkas: Written, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", SETTINGS).start()
    create_topics(broker, "")
    transactional(broker)  # so that both internal topics exist
    reader(broker, GROUP).committed([TopicPartition(PLAIN, 0)], timeout=20)
    assert broker.stop() == 0, broker.log()
    move_partitions(kafkas, broker.data_dir, *partitions(""), OFFSETS_TOPIC, STATE_TOPIC)
    broker.start()
    try:
        assert_serves(broker, "")
        assert_goes_on(broker, "")
    finally:
        assert broker.stop() == 0, broker.log()
    findings: list[str] = []
    check_directory(FileSystem(), str(broker.data_dir), lambda f: findings.append(str(f)))
    assert findings == []


def test_kafka_serves_our_partitions(node: KafkaNode, kafkas: Written, ours: Written) -> None:
    move_partitions(ours, node.data_dir, *partitions(OURS), OFFSETS_TOPIC, STATE_TOPIC)
    node.start()
    try:
        assert_serves(node, OURS)
        assert_goes_on(node, OURS)
    finally:
        node.stop()
