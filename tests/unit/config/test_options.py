"""The registry against Kafka 2.3's own tables, and values in Kafka's words."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.config.option import ConfigType, Range, render
from kavka.config.options import (
    BROKER_OPTIONS,
    DYNAMIC_ONLY_OPTIONS,
    ConfigError,
    Option,
    base_name,
    option_of,
    synonyms_of,
)
from kavka.config.topic import TOPIC_OPTIONS

KAFKA = [
    line.split("\t")
    for line in (Path(__file__).parent / "kafka_2_3.tsv").read_text().splitlines()
    if not line.startswith("#")
]
BROKER_ROWS = {row[1]: row[2:] for row in KAFKA if row[0] == "broker"}
TOPIC_ROWS = {row[1]: row[2:] for row in KAFKA if row[0] == "topic"}

# What the product, or this broker, has decided otherwise.
OTHER_DEFAULTS = {
    "default.replication.factor": "3",
    "host.name": "127.0.0.1",
    "log.dir": "./kavka-data",
    "log.retention.hours": "72",
    "max.connections.per.ip": "200",
    "message.max.bytes": "10485760",
    "num.partitions": "3",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",  # GSSAPI is not offered
    "sasl.kerberos.ticket.renew.window.factor": "0.8",  # the page writes 0.80
    "sasl.login.refresh.window.factor": "0.8",
    "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
    "ssl.enabled.protocols": "TLSv1.2,TLSv1.3",
    "zookeeper.connect": "null",  # required by Kafka
}
OTHER_TOPIC_DEFAULTS = {"max.message.bytes": "10485760", "retention.ms": "259200000"}
NARROWER = {
    "alter.config.policy.class.name",
    "authorizer.class.name",
    "broker.id",
    "client.quota.callback.class",
    "compression.type",
    "create.topic.policy.class.name",
    "log.message.timestamp.difference.max.ms",
    "offsets.topic.compression.codec",
    "port",
    "principal.builder.class",
    "replica.socket.receive.buffer.bytes",
    "sasl.client.callback.handler.class",
    "sasl.enabled.mechanisms",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.mechanism.inter.broker.protocol",
    "sasl.server.callback.handler.class",
    "security.inter.broker.protocol",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
}
LATER_OR_OWN = {
    "allow.everyone.if.no.acl.found",
    "allowed.principals",
    "compatibility",
    "group.consumer.assignors",
    "group.consumer.heartbeat.interval.ms",
    "group.consumer.max.size",
    "group.consumer.session.timeout.ms",
    "group.max.count",
    "instance.bandwidth.bytes",
    "instance.flavour",
    "max.connection.creation.rate",
    "log.level",
    "profile",
    "public.bandwidth.mbits",
    "quota.burst.seconds",
    "source.allow",
    "source.deny",
    "source.rule.sets",
    "capacity.threshold.percent",
    "capacity.policy",
    "capacity.budget.bytes",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "replica.selector.class",
    "sasl.oauthbearer.clock.skew.seconds",
    "sasl.oauthbearer.expected.audience",
    "sasl.oauthbearer.expected.issuer",
    "sasl.oauthbearer.jwks.endpoint.refresh.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
    "sasl.oauthbearer.jwks.endpoint.url",
    "sasl.oauthbearer.scope.claim.name",
    "sasl.oauthbearer.sub.claim.name",
    "sasl.plain.stored.users",
    "sasl.sessions.end.with.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.truststore.certificates",
    "super.users",
    "zookeeper.digest",
    "zookeeper.ssl.cipher.suites",
    "zookeeper.ssl.client.enable",
    "zookeeper.ssl.enabled.protocols",
    "zookeeper.ssl.endpoint.identification.algorithm",
    "zookeeper.ssl.keystore.location",
    "zookeeper.ssl.keystore.password",
    "zookeeper.ssl.truststore.location",
    "zookeeper.ssl.truststore.password",
}


def shown_validator(option: Option) -> str:
    valid = option.valid
    if valid is None:
        return ""
    if isinstance(valid, Range):
        return (
            f">= {valid.minimum}" if valid.maximum is None else f"{valid.minimum}..{valid.maximum}"
        )
    text = str(valid)
    if text.startswith("a Kafka version"):
        return "Kafka version string"
    if "partitionId" in text:
        return "p:b,... or *"
    words = text.strip("[]")
    return f"list of {words}" if option.type is ConfigType.LIST else words


def test_every_broker_setting_of_kafka_is_known_and_nothing_unexplained_is() -> None:
    assert len(BROKER_ROWS) == 190
    assert set(BROKER_OPTIONS) - set(BROKER_ROWS) == LATER_OR_OWN
    assert set(BROKER_ROWS) - set(BROKER_OPTIONS) == set()


@pytest.mark.parametrize("name", sorted(BROKER_ROWS))
def test_broker_row_equals_kafkas(name: str) -> None:
    kind, default, valid, importance, dynamic = BROKER_ROWS[name]
    option = BROKER_OPTIONS[name]
    assert option.type.name == kind
    assert option.importance.name == importance.upper()
    shown = "null" if option.default is None else option.default_text
    assert shown == OTHER_DEFAULTS.get(name, default)
    if name not in NARROWER:
        assert shown_validator(option) == valid
    if name != "auto.create.topics.enable":  # dynamic here (feature 175)
        assert option.dynamic.value == dynamic


def test_topics_have_kafkas_settings_and_two_later_ones() -> None:
    assert len(TOPIC_ROWS) == 26
    later = {"message.timestamp.before.max.ms", "message.timestamp.after.max.ms"}
    assert set(TOPIC_OPTIONS) == set(TOPIC_ROWS) | later
    assert {o.name for o in TOPIC_OPTIONS.values() if o.since} == later


@pytest.mark.parametrize("name", sorted(TOPIC_ROWS))
def test_topic_row_equals_kafkas(name: str) -> None:
    kind, default, valid, synonym, _ = TOPIC_ROWS[name]
    option = TOPIC_OPTIONS[name]
    assert option.type.name == kind
    assert option.default_text == OTHER_TOPIC_DEFAULTS.get(name, default)
    assert shown_validator(option) == valid
    assert (option.broker_key or "–") == synonym


@pytest.mark.parametrize(
    "option",
    [*BROKER_OPTIONS.values(), *DYNAMIC_ONLY_OPTIONS.values(), *TOPIC_OPTIONS.values()],
    ids=lambda option: option.name,
)
def test_defaults_are_valid_and_every_row_says_what_for(option: Option) -> None:
    assert option.parse(option.default_text) == option.default
    assert option.doc.endswith(".")
    assert option.sensitive is (option.type is ConfigType.PASSWORD)
    assert option.expected


def test_a_topic_setting_has_the_type_of_its_broker_setting() -> None:
    for option in TOPIC_OPTIONS.values():
        if option.broker_key is not None:
            assert BROKER_OPTIONS[option.broker_key].type is option.type, option.name


CODECS = "uncompressed, zstd, lz4, snappy, gzip, producer"


# Pairs of value and Kafka's own message, taken from a 2.3.0 broker.
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("retention.ms", "x", "Not a number of type LONG"),
        ("retention.ms", "1.5", "Not a number of type LONG"),
        ("retention.ms", "1_000", "Not a number of type LONG"),
        ("retention.ms", "", "Not a number of type LONG"),
        ("retention.ms", "٣", "Not a number of type LONG"),
        ("retention.ms", "9223372036854775808", "Not a number of type LONG"),
        ("retention.ms", "9" * 5000, "Not a number of type LONG"),
        ("retention.ms", "-2", "Value must be at least -1"),
        ("segment.bytes", "13", "Value must be at least 14"),
        ("segment.bytes", "99999999999", "Not a number of type INT"),
        ("compression.type", "GZIP", "String must be one of: " + CODECS),
        ("preallocate", "yes", "Expected value to be either true or false"),
        ("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1"),
        ("min.cleanable.dirty.ratio", "x", "Not a number of type DOUBLE"),
        ("message.format.version", "9.9", "Version `9.9` is not a valid version"),
        ("message.format.version", "0.8", "Version `0.8` is not a valid version"),
        ("message.format.version", "1", "Version `1` is not a valid version"),
        ("max.compaction.lag.ms", "0", "Value must be at least 1"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_in_kafkas_words(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TOPIC_OPTIONS[name].parse(text)
    assert caught.value.message == f"Invalid value {text} for configuration {name}: {message}"
    assert caught.value.name == name


def test_a_list_names_the_member_at_fault() -> None:
    with pytest.raises(ConfigError, match=r"^Invalid value x for configuration cleanup\.policy: "):
        TOPIC_OPTIONS["cleanup.policy"].parse("compact,x")
    with pytest.raises(ConfigError) as caught:
        TOPIC_OPTIONS["leader.replication.throttled.replicas"].parse("1:2,x")
    assert caught.value.message == (
        "Invalid value [1:2, x] for configuration leader.replication.throttled.replicas: "
        "leader.replication.throttled.replicas must be the literal '*' or a list of replicas in "
        "the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    )


def test_a_value_is_required_where_there_is_a_range() -> None:
    with pytest.raises(ConfigError, match="Value must be non-null"):
        TOPIC_OPTIONS["retention.ms"].parse(None)
    assert BROKER_OPTIONS["log.retention.ms"].parse(None) is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("retention.ms", " +5 ", 5),
        ("preallocate", "TRUE", True),
        ("cleanup.policy", " compact , delete ", ("compact", "delete")),
        ("cleanup.policy", "", ()),
        ("min.cleanable.dirty.ratio", "0.5d", 0.5),
        ("min.cleanable.dirty.ratio", "1e-1", 0.1),
        ("message.format.version", "0.10.2", "0.10.2"),
        ("message.format.version", "0.10.0-IV1", "0.10.0-IV1"),
        ("message.format.version", "2.3", "2.3"),
        ("leader.replication.throttled.replicas", "*", ("*",)),
        ("leader.replication.throttled.replicas", "1:2,3:4", ("1:2", "3:4")),
        ("leader.replication.throttled.replicas", "", ()),
    ],
)
def test_good_values(name: str, text: str, value: object) -> None:
    assert TOPIC_OPTIONS[name].parse(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (True, "true"),
        (False, "false"),
        (-1, "-1"),
        ("a b", "a b"),
        (("a", "b"), "a,b"),
        ((), ""),
        # Double.toString of a JVM
        (0.5, "0.5"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (123456789.125, "1.23456789125E8"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
        (5e-324, "4.9E-324"),
        (-2e-5, "-2.0E-5"),
    ],
)
def test_values_are_written_as_java_writes_them(value: None, text: str | None) -> None:
    assert render(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_double_reads_back(value: float) -> None:
    text = render(value)
    assert text is not None
    option = BROKER_OPTIONS["log.cleaner.io.max.bytes.per.second"]
    assert option.parse(text) == value
    assert re.fullmatch(r"-?\d+\.\d+(E-?\d+)?", text)


def test_listener_prefixes_lead_to_the_base_setting() -> None:
    assert base_name("listener.name.internal.ssl.keystore.location") == "ssl.keystore.location"
    assert base_name("listener.name.x.scram-sha-256.sasl.jaas.config") == "sasl.jaas.config"
    assert base_name("listener.name.x.sasl.jaas.config") == "sasl.jaas.config"
    assert base_name("ssl.keystore.location") is None
    assert base_name("listener.name.x") is None
    found = option_of("listener.name.x.plain.sasl.jaas.config")
    assert found is not None and found.sensitive
    assert option_of("listener.name.x.nonsense") is None


def test_synonym_groups() -> None:
    assert synonyms_of("log.retention.hours") == (
        "log.retention.ms",
        "log.retention.minutes",
        "log.retention.hours",
    )
    assert synonyms_of("log.flush.interval.ms")[1] == "log.flush.scheduler.interval.ms"
    assert synonyms_of("log.flush.scheduler.interval.ms") == ("log.flush.scheduler.interval.ms",)
    assert synonyms_of("listener.name.a.ssl.protocol") == (
        "listener.name.a.ssl.protocol",
        "ssl.protocol",
    )
    assert synonyms_of("num.partitions") == ("num.partitions",)
