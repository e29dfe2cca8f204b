"""AlterReplicaLogDirs of a running broker: a partition moves while it is written and read."""

import threading
from pathlib import Path

from confluent_kafka import Producer

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k34_alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopic,
)
from kavka.protocol.messages.k35_describe_log_dirs import (
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)
from tests.broker_process import BrokerProcess, wait_for
from tests.clients.test_confluent import consume, create
from tests.wire import WireClient

TOPIC = "moving"
BEFORE, AFTER = 5_000, 200


def alter(client: WireClient, path: str, topic: str = TOPIC) -> int:
    asked = AlterReplicaLogDirTopic(name=topic, partitions=[0])
    request = AlterReplicaLogDirsRequest(dirs=[AlterReplicaLogDir(path=path, topics=[asked])])
    [result] = client.ask(request, AlterReplicaLogDirsResponse, 1).results
    [partition] = result.partitions
    return partition.error_code


def where(client: WireClient) -> dict[str, bool]:
    """Directory → whether what is there is a future replica."""
    request = DescribeLogDirsRequest(topics=None)
    return {
        directory.log_dir: partition.is_future_key
        for directory in client.ask(request, DescribeLogDirsResponse, 1).results
        for topic in directory.topics
        if topic.name == TOPIC
        for partition in topic.partitions
    }


def test_a_partition_moves_while_it_is_used(tmp_path: Path) -> None:
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    settings = {"log.dirs": ",".join(paths), "log.segment.delete.delay.ms": "0"}
    broker = BrokerProcess(tmp_path / "data", settings).start()
    create(broker, TOPIC, **{"segment.bytes": "1000000"})
    moved = threading.Event()
    acknowledged: list[int] = []
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "linger.ms": 1}
    )

    def send(number: int) -> None:
        producer.produce(
            TOPIC,
            b"%010d" % number + b"x" * 1000,
            partition=0,
            on_delivery=lambda error, message: acknowledged.append(
                -1 if error else int(message.value()[:10])
            ),
        )
        producer.poll(0)

    for number in range(BEFORE):
        send(number)
    assert producer.flush(30) == 0

    def go_on() -> None:
        number = BEFORE
        while not moved.is_set() and number < 50_000:
            send(number)
            if number % 10 == 0:
                producer.flush(30)
            number += 1
        for extra in range(number, number + AFTER):
            send(extra)

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        with WireClient(broker.port) as client:
            [source] = where(client)
            [target] = set(paths) - {source}
            assert alter(client, "/elsewhere") == ErrorCode.LOG_DIR_NOT_FOUND
            assert alter(client, target, "unknown") == ErrorCode.REPLICA_NOT_AVAILABLE
            assert alter(client, source) == ErrorCode.NONE
            assert alter(client, target) == ErrorCode.NONE
            wait_for("the move", lambda: where(client) == {target: False})
            assert alter(client, target) == ErrorCode.NONE
    finally:
        moved.set()
        writer.join(60)
    assert producer.flush(30) == 0
    count = len(acknowledged)
    assert count >= BEFORE + AFTER
    assert sorted(acknowledged) == list(range(count))
    values = [int(message.value[:10]) for message in consume(broker, TOPIC, count) if message.value]
    assert values == list(range(count))
    assert [path.name for path in Path(source).glob(f"{TOPIC}-*")] in ([], [f"{TOPIC}-delete"])
    assert broker.stop() == 0, broker.log()
    broker.start()
    assert len(consume(broker, TOPIC, count)) == count
    assert broker.stop() == 0
