"""The stock Java tools, newest release: every tool a person uses on one broker."""

import json
import re
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.clients.messages import sample
from tests.clients.test_confluent import create, produce
from tests.java import lines, run_tool
from tests.java.tools import rows

pytestmark = pytest.mark.java

NEW = "4.3"
TOOLS = "org.apache.kafka.tools"
CONSOLE_PRODUCER = f"{TOOLS}.ConsoleProducer"
CONSOLE_CONSUMER = f"{TOOLS}.consumer.ConsoleConsumer"
TOPICS = f"{TOOLS}.TopicCommand"
GROUPS = f"{TOOLS}.consumer.group.ConsumerGroupCommand"
CONFIGS = "kafka.admin.ConfigCommand"


def server(broker: BrokerProcess) -> tuple[str, str]:
    return "--bootstrap-server", broker.bootstrap


def test_topics_tool_creates_describes_grows_and_deletes(broker: BrokerProcess, topic: str) -> None:
    named = ("--topic", topic)
    created = run_tool(
        *(NEW, TOPICS, *server(broker), "--create", *named, "--partitions", "2"),
        *("--config", "retention.ms=3600000"),
    )
    assert f"Created topic {topic}." in created.stdout
    described = run_tool(NEW, TOPICS, *server(broker), "--describe", *named).stdout
    head, *rows = lines(described)
    assert "PartitionCount: 2" in head and "ReplicationFactor: 1" in head
    assert "retention.ms=3600000" in head
    assert re.search(r"TopicId: [A-Za-z0-9_-]{22}", head)
    assert len(rows) == 2 and "Leader: 1" in rows[0] and "Isr: 1" in rows[0]
    run_tool(NEW, TOPICS, *server(broker), "--alter", *named, "--partitions", "5")
    assert len(lines(run_tool(NEW, TOPICS, *server(broker), "--describe", *named).stdout)) == 6
    fewer = run_tool(
        NEW, TOPICS, *server(broker), "--alter", *named, "--partitions", "3", check=False
    )
    assert fewer.returncode != 0
    assert "5" in fewer.stdout + fewer.stderr and "3" in fewer.stdout + fewer.stderr
    assert topic in lines(run_tool(NEW, TOPICS, *server(broker), "--list").stdout)
    run_tool(NEW, TOPICS, *server(broker), "--delete", *named)
    assert topic not in lines(run_tool(NEW, TOPICS, *server(broker), "--list").stdout)


def test_console_producer_and_consumer_with_keys_and_headers(
    broker: BrokerProcess, topic: str
) -> None:
    create(broker, topic)
    run_tool(
        *(NEW, CONSOLE_PRODUCER, *server(broker), "--topic", topic),
        *("--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"),
        *("--compression-codec", "zstd"),
        stdin="h1:v1,h2:v2\tkey\tvalue\nh:x\tk2\tv2\n",
    )
    got = run_tool(
        *(NEW, CONSOLE_CONSUMER, *server(broker), "--topic", topic, "--from-beginning"),
        *("--max-messages", "2", "--formatter-property", "print.key=true"),
        *("--formatter-property", "print.headers=true"),
    )
    assert lines(got.stdout) == ["h1:v1,h2:v2\tkey\tvalue", "h:x\tk2\tv2"]
    assert "Processed a total of 2 messages" in got.stderr + got.stdout


class Groups:
    """The consumer groups tool for one group."""

    def __init__(self, broker: BrokerProcess, group: str) -> None:
        self.group = group
        self._broker = broker

    def __call__(self, *arguments: str) -> tuple[str, str]:
        """What it printed, and what it complained of."""
        done = run_tool(NEW, GROUPS, *server(self._broker), *arguments, check=False)
        return done.stdout, done.stderr

    def describe(self, *what: str) -> list[dict[str, str]]:
        return [*rows(self("--describe", "--group", self.group, *what)[0])]

    def offsets(self) -> dict[str, tuple[str, str]]:
        """Offset and lag of each partition that has one."""
        return {
            f"{row['TOPIC']}:{row['PARTITION']}": (row["CURRENT-OFFSET"], row["LAG"])
            for row in self.describe()
        }

    def reset(self, *how: str) -> dict[str, str]:
        shown, _ = self("--group", self.group, "--reset-offsets", *how, "--execute")
        return {f"{row['TOPIC']}:{row['PARTITION']}": row["NEW-OFFSET"] for row in rows(shown)}


def test_consumer_groups_tool_on_a_group_at_work(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, partitions=2)
    groups = Groups(broker, f"{topic}-group")
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": groups.group, "client.id": "one"}
    )
    consumer.subscribe([topic])
    wait_for("an assignment", lambda: consumer.poll(0.1) is None and consumer.assignment())
    assert re.search(rf"{groups.group}\s+Stable", groups("--list", "--state")[0])
    assert re.search(rf"{groups.group}\s+Classic", groups("--list", "--type")[0])
    state, _ = groups("--describe", "--group", groups.group, "--state")
    assert re.search(rf"{groups.group}\s.*\srange\s+Stable\s+1", state)
    (member,) = groups.describe("--members", "--verbose")
    assert member["CLIENT-ID"] == "one" and member["#PARTITIONS"] == "2"
    assert f"{topic}:0,1" in member.values()
    place = ("--group", groups.group, "--topic", topic)
    refused = groups(*place, "--reset-offsets", "--to-earliest", "--execute")
    assert "can only be reset if the group" in "".join(refused)
    consumer.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
    assert "actively subscribed to it" in "".join(groups(*place, "--delete-offsets"))
    refused = groups("--delete", "--group", groups.group)
    assert "The group is not empty." in "".join(refused)
    consumer.close()


def test_consumer_groups_tool_on_a_group_at_rest(
    broker: BrokerProcess, topic: str, tmp_path: Path
) -> None:
    create(broker, topic, **{"retention.ms": "-1"})
    produce(broker, topic, sample(10))
    groups = Groups(broker, f"{topic}-group")
    place = f"{topic}:0"
    run_tool(
        *(NEW, CONSOLE_CONSUMER, *server(broker), "--topic", topic, "--from-beginning"),
        *("--group", groups.group, "--max-messages", "10"),
    )
    _, said = groups("--describe", "--group", groups.group)
    assert f"Consumer group '{groups.group}' has no active members." in said
    assert groups.offsets() == {place: ("10", "0")}
    assert "Empty" in groups("--describe", "--group", groups.group, "--state")[0]
    one, every = ("--topic", topic), ("--all-topics",)
    assert groups.reset(*one, "--to-offset", "4") == {place: "4"}
    assert groups.offsets() == {place: ("4", "6")}
    file = tmp_path / "offsets.csv"
    file.write_text(f"{topic},0,7\n")
    for expected, how in {
        "0": (*every, "--to-earliest"),
        "3": (*one, "--shift-by", "3"),
        "2": (*one, "--shift-by", "-1"),
        "5": (*one, "--to-datetime", "2020-09-13T12:26:40.005"),
        "10": (*every, "--to-latest"),
        "7": ("--from-file", str(file)),
    }.items():
        assert groups.reset(*how) == {place: expected}, how
        assert groups.offsets()[place][0] == expected
    assert groups.reset(*every, "--to-current") == {place: "7"}
    assert groups.reset(*one, "--by-duration", "P1D") == {place: "10"}  # all are older
    exported, _ = groups(
        *("--group", groups.group, "--reset-offsets", *every, "--to-current"),
        *("--dry-run", "--export"),
    )
    assert exported.strip().replace('"', "") == f"{topic},0,10"
    deleted, _ = groups("--group", groups.group, *one, "--delete-offsets")
    assert "Successful" in deleted
    # A group without members and offsets is none, until somebody commits again.
    assert "does not exist" in "".join(groups("--describe", "--group", groups.group))
    groups.reset(*one, "--to-earliest")
    named = ("--delete", "--group", groups.group)
    gone = f"Deletion of requested consumer groups ('{groups.group}') was successful."
    assert gone in groups(*named)[0]
    assert "The group id does not exist." in "".join(groups(*named))


def test_configs_tool(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    entity = ("--entity-type", "topics", "--entity-name", topic)
    run_tool(
        *(NEW, CONFIGS, *server(broker), "--alter", *entity),
        *("--add-config", "retention.ms=1234567,cleanup.policy=[compact,delete]"),
    )
    described = run_tool(NEW, CONFIGS, *server(broker), "--describe", *entity).stdout
    assert "retention.ms=1234567" in described and "DYNAMIC_TOPIC_CONFIG" in described
    assert "cleanup.policy=compact,delete" in described
    run_tool(NEW, CONFIGS, *server(broker), "--alter", *entity, "--delete-config", "retention.ms")
    described = run_tool(NEW, CONFIGS, *server(broker), "--describe", *entity).stdout
    assert "retention.ms" not in described
    refused = run_tool(
        *(NEW, CONFIGS, *server(broker), "--alter", *entity),
        *("--add-config", "retention.ms=often"),
        check=False,
    )
    assert refused.returncode != 0 and "retention.ms" in refused.stdout + refused.stderr
    everything = run_tool(
        *(NEW, CONFIGS, *server(broker), "--describe", "--all"),
        *("--entity-type", "brokers", "--entity-name", "1"),
    ).stdout
    assert "message.max.bytes=10485760" in everything
    assert "log.retention.hours=72" in everything


def test_broker_configs_change_while_running(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data") as broker:
        entity = ("--entity-type", "brokers", "--entity-name", "1")
        run_tool(
            *(NEW, CONFIGS, *server(broker), "--alter", *entity),
            *("--add-config", "log.retention.ms=7654321"),
        )
        described = run_tool(NEW, CONFIGS, *server(broker), "--describe", *entity).stdout
        assert "log.retention.ms=7654321" in described
        assert "DYNAMIC_BROKER_CONFIG" in described
        assert broker.stop() == 0
        broker.start()
        described = run_tool(NEW, CONFIGS, *server(broker), "--describe", *entity).stdout
        assert "log.retention.ms=7654321" in described


def test_get_offsets_and_delete_records(broker: BrokerProcess, topic: str, tmp_path: Path) -> None:
    create(broker, topic)
    produce(broker, topic, sample(20))
    offsets = f"{TOOLS}.GetOffsetShell"

    def at(time: str) -> str:
        return run_tool(
            NEW, offsets, *server(broker), "--topic", topic, "--time", time
        ).stdout.strip()

    assert at("latest") == f"{topic}:0:20"
    assert at("earliest") == f"{topic}:0:0"
    assert at("max-timestamp") == f"{topic}:0:19"
    assert at(str(sample(20)[7].timestamp)) == f"{topic}:0:7"
    plan = tmp_path / "delete.json"
    entry = {"topic": topic, "partition": 0, "offset": 12}
    plan.write_text(json.dumps({"partitions": [entry], "version": 1}))
    deleted = run_tool(
        *(NEW, f"{TOOLS}.DeleteRecordsCommand", *server(broker)),
        *("--offset-json-file", str(plan)),
    )
    assert re.search(r"low_watermark:\s*12", deleted.stdout)
    assert at("earliest") == f"{topic}:0:12"


def test_performance_tools(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, partitions=3)
    produced = run_tool(
        *(NEW, f"{TOOLS}.ProducerPerformance", "--topic", topic, "--num-records", "5000"),
        *("--record-size", "200", "--throughput", "-1"),
        *("--producer-props", f"bootstrap.servers={broker.bootstrap}"),
    )
    assert "5000 records sent" in produced.stdout
    consumed = run_tool(
        *(NEW, f"{TOOLS}.ConsumerPerformance", *server(broker), "--topic", topic),
        *("--num-records", "5000", "--timeout", "30000"),
    )
    last = lines(consumed.stdout)[-1].split(",")
    assert int(float(last[4])) == 5000


def test_api_versions_tool_knows_every_key(broker: BrokerProcess) -> None:
    shown = run_tool(NEW, f"{TOOLS}.BrokerApiVersionsCommand", *server(broker)).stdout
    assert "(id: 1 rack: null isFenced: false)" in shown
    assert "Produce(0): 0 to 12" in shown
    assert "Fetch(1): 4 to 17" in shown or "Fetch(1): 0 to 17" in shown


def test_log_dirs_tool(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    produce(broker, topic, sample(50))
    shown = run_tool(
        NEW, f"{TOOLS}.LogDirsCommand", *server(broker), "--describe", "--topic-list", topic
    ).stdout
    (described,) = (line for line in shown.splitlines() if line.startswith("{"))
    (directory,) = json.loads(described)["brokers"][0]["logDirs"]
    assert directory["error"] is None
    assert directory["logDir"] == str(broker.data_dir)
    (partition,) = directory["partitions"]
    log = broker.data_dir / f"{topic}-0"
    assert partition["partition"] == f"{topic}-0"
    assert 0 < partition["size"] <= sum(file.stat().st_size for file in log.glob("*.log"))


def test_verifiable_producer_and_consumer(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    produced = run_tool(
        *(NEW, f"{TOOLS}.VerifiableProducer", *server(broker), "--topic", topic),
        *("--max-messages", "100", "--acks", "-1"),
        alone=True,
    )
    events = [json.loads(line) for line in lines(produced.stdout)]
    (summary,) = (event for event in events if event["name"] == "tool_data")
    assert summary["sent"] == summary["acked"] == 100
    consumed = run_tool(
        *(NEW, f"{TOOLS}.VerifiableConsumer", *server(broker), "--topic", topic),
        *("--group-id", topic, "--max-messages", "100", "--verbose"),
        alone=True,
    )
    events = [json.loads(line) for line in lines(consumed.stdout)]
    values = [event["value"] for event in events if event["name"] == "record_data"]
    assert values == [str(i) for i in range(100)]


@pytest.mark.parametrize(
    ("release", "dump"),
    [(NEW, f"{TOOLS}.DumpLogSegments"), ("2.3", "kafka.tools.DumpLogSegments")],
)
def test_dump_tool_reads_our_files(tmp_path: Path, release: str, dump: str) -> None:
    with running_broker(tmp_path / "data") as broker:
        create(broker, "dumped", **{"segment.bytes": "400000", "index.interval.bytes": "1000"})
        produce(broker, "dumped", sample(400), **{"batch.num.messages": 10})
    directory = tmp_path / "data" / "dumped-0"
    logs = sorted(directory.glob("*.log"))
    assert len(logs) > 3, "the test wants several segments"
    offsets = []
    for log in logs:
        shown = run_tool(release, dump, "--deep-iteration", "--files", str(log)).stdout
        assert "corrupt" not in shown.lower()
        offsets += [int(match) for match in re.findall(r"(?m)^\W*\|? ?offset: (\d+)", shown)]
    assert offsets == list(range(400))
    for index in sorted(directory.glob("*index")):
        shown = run_tool(release, dump, "--files", str(index)).stdout
        assert "Mismatch" not in shown and "Non-secutive" not in shown, shown
        assert "Found timestamp mismatch" not in shown and "out of order" not in shown, shown


def test_features_tool(broker: BrokerProcess) -> None:
    tool = (NEW, f"{TOOLS}.FeatureCommand", *server(broker))
    described = run_tool(*tool, "describe").stdout
    assert re.search(r"Feature: transaction.version\s.*FinalizedVersionLevel: 2", described)
    upgraded = run_tool(*tool, "upgrade", "--feature", "transaction.version=1", check=False)
    assert upgraded.returncode != 0
    assert "UPDATE_FEATURES" in upgraded.stdout + upgraded.stderr
