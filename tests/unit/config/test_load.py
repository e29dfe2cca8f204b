"""From file, environment and command line to a configuration, or to one sentence."""

from pathlib import Path

import pytest

from kavka.config.load import load, secrets_among, without_effect
from kavka.config.options import ConfigError

# The settings in the server.properties that Kafka 2.3 ships.
SHIPPED = """\
broker.id=0
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kafka-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
zookeeper.connect=localhost:2181
zookeeper.connection.timeout.ms=6000
group.initial.rebalance.delay.ms=0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "server.properties"


def complaint(path: Path | None = None, env: dict[str, str] | None = None, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, env, sets)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_nothing_given() -> None:
    assert load().static == {}


def test_kafkas_own_file_is_understood(file: Path) -> None:
    file.write_text(SHIPPED)
    config = load(file)
    assert config.broker_id == 0
    assert config.log_dirs == ["/tmp/kafka-logs"]
    assert config.get_int("group.initial.rebalance.delay.ms") == 0
    assert without_effect(config) == ["num.io.threads", "num.network.threads"]


def test_later_sources_win(file: Path) -> None:
    file.write_text("num.partitions=4\nlog.dir=/file\nbroker.rack=a\n")
    config = load(
        str(file),
        {"KAVKA_CFG_NUM_PARTITIONS": "5", "KAVKA_CFG_LOG_DIR": "/env", "PATH": "/bin"},
        ["num.partitions=6", " log.level = DEBUG", "sasl.jaas.config=a=b"],
    )
    assert config.get_int("num.partitions") == 6
    assert config.log_dirs == ["/env"]
    assert config.get_str("broker.rack") == "a"
    assert config.get_str("log.level") == "DEBUG"
    assert config.get_str("sasl.jaas.config") == "a=b"


def test_a_value_that_is_overridden_need_not_be_good(file: Path) -> None:
    file.write_text("num.partitions=many\n")
    assert load(file, None, ["num.partitions=2"]).get_int("num.partitions") == 2


def test_settings_of_a_listener(file: Path) -> None:
    file.write_text("listener.name.public.ssl.keystore.location=/k\n")
    assert load(file).listener_value("PUBLIC", "ssl.keystore.location") == "/k"
    file.write_text("listener.name.public.ssl.keystore.place=/k\n")
    assert "is no setting of this broker" in complaint(file)


def test_unknown_names_get_near_ones(file: Path) -> None:
    file.write_text("# x\nlog.retention.hour=3\n")
    said = complaint(file)
    assert said.startswith(f"log.retention.hour ({file}, line 2) is no setting of this broker")
    assert "did you mean log.retention.hours" in said
    assert "remove it" in complaint(None, None, "zzzz=1")
    assert "write broker.id instead" in complaint(None, None, "node.id=1")
    assert "ZooKeeper or in its own store" in complaint(None, None, "process.roles=broker")
    assert "only set while the broker runs" in complaint(
        None, None, "leader.replication.throttled.rate=1"
    )
    assert "KAVKA_CFG_LOG_DIRS" in complaint(None, {"KAVKA_CFG_LOG_DIRZ": "1"})


def test_bad_values_name_place_and_what_is_valid(file: Path) -> None:
    file.write_text("\nnum.partitions=0\n")
    assert complaint(file) == (
        "Invalid value 0 for configuration num.partitions: Value must be at least 1; it must be a "
        f"whole number of at least 1 ({file}, line 2)"
    )
    assert complaint(None, {"KAVKA_CFG_COMPRESSION_TYPE": "zip"}) == (
        "Invalid value zip for configuration compression.type: String must be one of: "
        "uncompressed, zstd, lz4, snappy, gzip, producer "
        "(environment variable KAVKA_CFG_COMPRESSION_TYPE)"
    )
    assert "it must be true or false" in complaint(None, None, "delete.topic.enable=yes")


def test_values_that_exclude_each_other_name_a_place() -> None:
    assert complaint(None, None, "log.retention.ms=0") == (
        "log.retention.ms must be unlimited (-1) or, equal or greater than 1 (--set)"
    )
    # The culprit was not given by anybody: no place to name.
    assert "at least 1MB per cleaner thread" in complaint(None, None, "log.cleaner.threads=200")


@pytest.mark.parametrize("text", ["x", "=1", " =1"])
def test_assignments_need_a_name_and_a_value(text: str) -> None:
    assert "must have the form name=value" in complaint(None, None, text)


def test_files_that_cannot_be_read(file: Path) -> None:
    assert "No such file or directory; check --config" in complaint(file)
    file.write_text("a=\\u00zz\n")
    assert complaint(file).startswith(f"{file} is no properties file: line 1: ")


@pytest.mark.parametrize(
    "assignment",
    [
        "authorizer.class.name=com.example.Authorizer",
        "principal.builder.class=a.B",
    ],
)
def test_what_would_be_ignored_at_the_users_peril_is_refused(assignment: str) -> None:
    assert "unset" in complaint(None, None, assignment)


@pytest.mark.parametrize(
    "name",
    [
        "kafka.security.auth.SimpleAclAuthorizer",
        "kafka.security.authorizer.AclAuthorizer",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ],
)
def test_authorizers_of_kafkas_own_are_known(name: str) -> None:
    config = load(None, {}, [f"authorizer.class.name={name}"])
    assert config.get_str("authorizer.class.name") == name


@pytest.mark.parametrize(
    "assignment",
    ["super.users=alice", "super.users=User:a,b;c", "allow.everyone.if.no.acl.found=yes"],
)
def test_malformed_settings_of_the_authorizer_are_refused(assignment: str) -> None:
    assert assignment.partition("=")[0] in complaint(None, None, assignment)


def test_secrets_among_arguments_are_named() -> None:
    given = [
        "num.partitions=3",
        "listener.name.x.plain.sasl.jaas.config=a b;",
        "ssl.key.password=x",
    ]
    assert secrets_among(given) == [
        "listener.name.x.plain.sasl.jaas.config",
        "ssl.key.password",
    ]
