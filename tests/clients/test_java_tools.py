"""The stock Java tools, newest release: every tool a person uses on one broker."""

import json
import re
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, running_broker
from tests.clients.messages import sample
from tests.clients.test_confluent import create, produce
from tests.java import lines, run_tool

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


def test_consumer_groups_tool(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    produce(broker, topic, sample(10))
    group = f"{topic}-group"
    run_tool(
        *(NEW, CONSOLE_CONSUMER, *server(broker), "--topic", topic, "--from-beginning"),
        *("--group", group, "--max-messages", "10"),
    )
    assert group in lines(run_tool(NEW, GROUPS, *server(broker), "--list").stdout)
    described = run_tool(NEW, GROUPS, *server(broker), "--describe", "--group", group)
    assert f"Consumer group '{group}' has no active members." in described.stderr
    header, row = map(str.split, lines(described.stdout))
    assert "CURRENT-OFFSET" in header and "LAG" in header
    assert dict(zip(header, row, strict=False))["CURRENT-OFFSET"] == "10"
    assert dict(zip(header, row, strict=False))["LAG"] == "0"
    state = run_tool(NEW, GROUPS, *server(broker), "--describe", "--group", group, "--state")
    assert "Empty" in state.stdout
    run_tool(
        *(NEW, GROUPS, *server(broker), "--group", group, "--topic", topic),
        *("--reset-offsets", "--to-offset", "4", "--execute"),
    )
    described = run_tool(NEW, GROUPS, *server(broker), "--describe", "--group", group)
    assert re.search(rf"{topic}\s+0\s+4\s+10\s+6", described.stdout)
    deleted_offsets = run_tool(
        NEW, GROUPS, *server(broker), "--group", group, "--topic", topic, "--delete-offsets"
    )
    assert "Successful" in deleted_offsets.stdout
    run_tool(
        *(NEW, GROUPS, *server(broker), "--group", group, "--topic", topic),
        *("--reset-offsets", "--to-earliest", "--execute"),
    )
    deleted = run_tool(NEW, GROUPS, *server(broker), "--delete", "--group", group)
    assert f"Deletion of requested consumer groups ('{group}') was successful." in deleted.stdout


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
    )
    events = [json.loads(line) for line in lines(produced.stdout)]
    (summary,) = (event for event in events if event["name"] == "tool_data")
    assert summary["sent"] == summary["acked"] == 100
    consumed = run_tool(
        *(NEW, f"{TOOLS}.VerifiableConsumer", *server(broker), "--topic", topic),
        *("--group-id", topic, "--max-messages", "100", "--verbose"),
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
