"""The consumer protocol of KIP-848, with the clients and tools that speak it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.clients.messages import sample
from tests.clients.test_confluent import create, produce
from tests.clients.test_java_tools import CONSOLE_CONSUMER, GROUPS, NEW, server
from tests.java import lines, run_tool

QUICK = {"group.consumer.heartbeat.interval.ms": "200"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker that has its members heartbeat often."""
    with running_broker(tmp_path_factory.mktemp("quick") / "data", QUICK) as broker:
        yield broker


@contextmanager
def member(broker: BrokerProcess, group: str, topic: str, **config: object) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 200,
            "metadata.recovery.strategy": "none",
            **config,
        }
    )
    consumer.subscribe([topic])
    try:
        yield consumer
    finally:
        consumer.close()


def owned(*consumers: Consumer) -> list[list[int]]:
    for consumer in consumers:
        message = consumer.poll(0.05)
        assert message is None or message.error() is None, message.error()
    return [sorted(p.partition for p in consumer.assignment()) for consumer in consumers]


@pytest.mark.parametrize("assignor", ["uniform", "range"])
def test_partitions_move_one_by_one(quick: BrokerProcess, topic: str, assignor: str) -> None:
    create(quick, topic, partitions=6)
    config = {"group.remote.assignor": assignor}
    with member(quick, topic, topic, **config) as first:
        wait_for("all of them", lambda: owned(first) == [[*range(6)]])
        with member(quick, topic, topic, **config) as second:
            wait_for("a half each", lambda: [len(p) for p in owned(first, second)] == [3, 3])
            assert sorted(p for each in owned(first, second) for p in each) == [*range(6)]
        wait_for("all of them again", lambda: owned(first) == [[*range(6)]])


def test_topics_by_expression(quick: BrokerProcess, topic: str) -> None:
    create(quick, f"{topic}-a")
    with member(quick, topic, f"^{topic}-.*") as consumer:
        wait_for("the topic there is", lambda: owned(consumer) == [[0]])
        create(quick, f"{topic}-b")
        wait_for("the new topic too", lambda: owned(consumer) == [[0, 0]])


def test_a_group_goes_on_after_its_broker_was_killed(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", QUICK) as broker:
        create(broker, "t", partitions=2)
        produce(broker, "t", sample(20))
        with member(broker, "g", "t") as consumer:
            seen: list[int] = []

            def read(count: int) -> bool:
                message = consumer.poll(0.1)
                if message is not None and message.error() is None:
                    seen.append(message.offset())
                return len(seen) >= count

            wait_for("ten messages", lambda: read(10))
            consumer.commit(asynchronous=False)
            broker.kill()
            broker.start()
            wait_for("the rest", lambda: read(20))
            consumer.commit(asynchronous=False)
            assert len(seen) == 20, "nothing was read twice"


@pytest.mark.java
def test_java_consumer_and_groups_tool(quick: BrokerProcess, topic: str) -> None:
    create(quick, topic, partitions=2)
    produce(quick, topic, sample(10))
    got = run_tool(
        *(NEW, CONSOLE_CONSUMER, *server(quick), "--topic", topic, "--group", topic),
        *("--command-property", "group.protocol=consumer", "--from-beginning"),
        *("--max-messages", "10"),
    )
    assert "Processed a total of 10 messages" in got.stderr + got.stdout
    with member(quick, topic, topic, **{"client.id": "present"}) as consumer:
        wait_for("its partitions", lambda: owned(consumer) == [[0, 1]])
        tool = (NEW, GROUPS, *server(quick))
        assert re.search(rf"{topic}\s+Consumer", run_tool(*tool, "--list", "--type").stdout)
        described = run_tool(*tool, "--describe", "--group", topic, "--members", "--verbose")
        header, row = map(str.split, lines(described.stdout))
        assert "present" in row
        assert "ASSIGNMENT" in header or "CURRENT-ASSIGNMENT" in header
        assert f"{topic}(0,1)" in described.stdout or f"{topic}:0,1" in described.stdout
        state = run_tool(*tool, "--describe", "--group", topic, "--state").stdout
        assert "Stable" in state and "uniform" in state
    deleted = run_tool(*tool, "--delete", "--group", topic)
    assert f"Deletion of requested consumer groups ('{topic}') was successful." in deleted.stdout
