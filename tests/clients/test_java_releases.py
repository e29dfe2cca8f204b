"""The manual's own console dialogue with the tools of every release from 0.10 to 4.x."""

import pytest

from tests.broker_process import BrokerProcess
from tests.clients.messages import Message
from tests.clients.test_confluent import create, produce
from tests.java import RELEASES, lines, run_tool

pytestmark = pytest.mark.java

MESSAGES = ["Hello", "DMS", "Kafka!"]


def console_producer(release: str, broker: BrokerProcess, topic: str) -> None:
    modern = release.startswith("4")
    run_tool(
        release,
        "org.apache.kafka.tools.ConsoleProducer" if modern else "kafka.tools.ConsoleProducer",
        *("--bootstrap-server" if modern else "--broker-list", broker.bootstrap),
        *("--topic", topic),
        stdin="".join(f"{message}\n" for message in MESSAGES),
    )


def console_consumer(
    release: str, broker: BrokerProcess, topic: str, *arguments: str, count: int = 3
) -> tuple[list[str], str]:
    """The messages it printed, and everything it said."""
    modern = release.startswith("4")
    done = run_tool(
        release,
        "org.apache.kafka.tools.consumer.ConsoleConsumer"
        if modern
        else "kafka.tools.ConsoleConsumer",
        *("--bootstrap-server", broker.bootstrap, "--topic", topic, "--from-beginning"),
        *("--max-messages", str(count), *arguments),
    )
    return [line for line in lines(done.stdout) if "Processed" not in line], (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize("release", RELEASES)
def test_console_dialogue(broker: BrokerProcess, topic: str, release: str) -> None:
    create(broker, topic)
    console_producer(release, broker, topic)
    printed, said = console_consumer(release, broker, topic)
    assert printed == MESSAGES
    assert "Processed a total of 3 messages" in said


@pytest.mark.parametrize("release", RELEASES[1:])
def test_each_release_reads_what_another_wrote(
    broker: BrokerProcess, topic: str, release: str
) -> None:
    create(broker, topic)
    console_producer(release, broker, topic)
    produce(broker, topic, [Message(None, b"from librdkafka", (("h", b"1"),), 1_600_000_000_000)])
    printed, _ = console_consumer(RELEASES[0], broker, topic, count=4)
    assert printed == [*MESSAGES, "from librdkafka"]
    printed, _ = console_consumer(release, broker, topic, count=4)
    assert printed == [*MESSAGES, "from librdkafka"]


def groups_tool(release: str, broker: BrokerProcess, *arguments: str) -> str:
    modern = release.startswith("4")
    return run_tool(
        release,
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
        if modern
        else "kafka.admin.ConsumerGroupCommand",
        *("--bootstrap-server", broker.bootstrap, *arguments),
    ).stdout


@pytest.mark.parametrize("release", ("2.3", "1.1"))
def test_group_dialogue_of_the_manual(broker: BrokerProcess, topic: str, release: str) -> None:
    create(broker, topic)
    console_producer(release, broker, topic)
    group = f"{topic}-group"
    console_consumer(release, broker, topic, "--group", group)
    assert group in lines(groups_tool(release, broker, "--list"))
    described = groups_tool(release, broker, "--describe", "--group", group)
    for column in ("TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"):
        assert column in described
    deleted = groups_tool(release, broker, "--delete", "--group", group)
    assert f"Deletion of requested consumer groups ('{group}') was successful." in deleted
    assert group not in lines(groups_tool(release, broker, "--list"))


def test_topics_tool_of_2_3(broker: BrokerProcess, topic: str) -> None:
    server = ("--bootstrap-server", broker.bootstrap)
    tool = ("2.3", "kafka.admin.TopicCommand")
    run_tool(
        *(*tool, *server, "--create", "--topic", topic),
        *("--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=3600000"),
    )
    described = run_tool(*tool, *server, "--describe", "--topic", topic).stdout
    assert "PartitionCount:3" in described and "ReplicationFactor:1" in described
    assert "retention.ms=3600000" in described
    run_tool(*tool, *server, "--alter", "--topic", topic, "--partitions", "4")
    assert "PartitionCount:4" in run_tool(*tool, *server, "--describe", "--topic", topic).stdout
    run_tool(*tool, *server, "--delete", "--topic", topic)
    assert topic not in lines(run_tool(*tool, *server, "--list").stdout)
