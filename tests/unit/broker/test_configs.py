"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

Expectations of versions up to 2.3's were taken from a running 2.3.0 broker with the same settings.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from kavka.broker import configs as subject
from kavka.broker import loggers
from kavka.broker.configs import Configs
from kavka.broker.handlers import (
    k32_describe_configs,
    k33_alter_configs,
    k44_incremental_alter_configs,
)
from kavka.config import limits
from kavka.config.broker import BrokerConfig
from kavka.config.options import BROKER_OPTIONS, ConfigType
from kavka.protocol import codec
from kavka.protocol.messages import k32_describe_configs as m32
from kavka.protocol.messages import k33_alter_configs as m33
from kavka.protocol.messages import k44_incremental_alter_configs as m44
from kavka.replication.store.base import StoreUnavailable

TOPIC, BROKER, LOGGER = 2, 4, 8
SET, DELETE, APPEND, SUBTRACT = range(4)
STATIC = {"log.retention.hours": "24", "log.segment.bytes": "1048576", "super.users": "User:a"}


class Store:
    """The overrides of all entities, in memory."""

    def __init__(self) -> None:
        self.entities: dict[tuple[str, str], dict[str, str]] = {}
        self.subscribers: list[tuple[str, Callable[[str, Mapping[str, str]], None]]] = []
        self.broken = False

    def subscribe(
        self, entity_type: str, subscriber: Callable[[str, Mapping[str, str]], None]
    ) -> None:
        self.subscribers.append((entity_type, subscriber))

    async def read(self, entity_type: str, name: str) -> dict[str, str]:
        if self.broken:
            raise StoreUnavailable("nobody there")
        return dict(self.entities.get((entity_type, name), {}))

    async def alter(self, entity_type: str, name: str, overrides: Mapping[str, str]) -> None:
        if self.broken:
            raise StoreUnavailable("nobody there")
        self.entities[entity_type, name] = dict(overrides)
        for kind, subscriber in self.subscribers:
            if kind == entity_type:
                subscriber(name, overrides)


def asked(version: int) -> Any:
    """As much of a request as the handlers touch."""
    connection = SimpleNamespace(
        principal="User:ANONYMOUS",
        client_host="/127.0.0.1",
        client_id="",
        endpoint=SimpleNamespace(name="PLAINTEXT"),
    )
    return SimpleNamespace(version=version, connection=connection)


class Harness:
    """Broker 7 with topics t1 and t2, and its three handlers."""

    def __init__(self, static: Mapping[str, str] = STATIC) -> None:
        self.store = Store()
        self.config = BrokerConfig(static)
        metadata = SimpleNamespace(topics={"t1": None, "t2": None})
        configs = Configs(self.config, 7, metadata, self.store)  # type: ignore[arg-type]
        self.broker: Any = SimpleNamespace(config=self.config, configs=configs, authorizer=None)

    def describe(
        self,
        *resources: tuple[int, str, list[str] | None],
        synonyms: bool = True,
        docs: bool = False,
    ) -> list[m32.DescribeConfigsResult]:
        body = m32.DescribeConfigsRequest(
            resources=[
                m32.DescribeConfigsResource(
                    resource_type=kind, resource_name=name, configuration_keys=keys
                )
                for kind, name, keys in resources
            ],
            include_synonyms=synonyms,
            include_documentation=docs,
        )
        request = asked(4)
        return asyncio.run(k32_describe_configs.handle(self.broker, request, body)).results

    def shown(
        self, kind: int, name: str, *keys: str
    ) -> dict[str, m32.DescribeConfigsResourceResult]:
        (result,) = self.describe((kind, name, list(keys) or None))
        assert (result.error_code, result.error_message) == (0, None)
        return {config.name: config for config in result.configs}

    def synonyms(self, kind: int, name: str, key: str) -> list[tuple[str, str | None, int]]:
        return [(s.name, s.value, s.source) for s in self.shown(kind, name, key)[key].synonyms]

    def alter(
        self,
        kind: int,
        name: str,
        overrides: list[tuple[str, str | None]],
        *,
        version: int = 1,
        validate_only: bool = False,
    ) -> tuple[int, str | None]:
        body = m33.AlterConfigsRequest(
            resources=[
                m33.AlterConfigsResource(
                    resource_type=kind,
                    resource_name=name,
                    configs=[m33.AlterableConfig(name=n, value=v) for n, v in overrides],
                )
            ],
            validate_only=validate_only,
        )
        request = asked(version)
        (answer,) = asyncio.run(k33_alter_configs.handle(self.broker, request, body)).responses
        assert (answer.resource_type, answer.resource_name) == (kind, name)
        return answer.error_code, answer.error_message

    def change(
        self,
        kind: int,
        name: str,
        *changes: tuple[str, int, str | None],
        version: int = 0,
        validate_only: bool = False,
    ) -> tuple[int, str | None]:
        body = m44.IncrementalAlterConfigsRequest(
            resources=[
                m44.AlterConfigsResource(
                    resource_type=kind,
                    resource_name=name,
                    configs=[
                        m44.AlterableConfig(name=n, config_operation=op, value=v)
                        for n, op, v in changes
                    ],
                )
            ],
            validate_only=validate_only,
        )
        request = asked(version)
        (answer,) = asyncio.run(
            k44_incremental_alter_configs.handle(self.broker, request, body)
        ).responses
        assert (answer.resource_type, answer.resource_name) == (kind, name)
        return answer.error_code, answer.error_message

    def overrides(self, topic: str = "t1") -> dict[str, str]:
        return self.store.entities.get(("topics", topic), {})


@pytest.fixture
def broker() -> Harness:
    return Harness()


# -- describe ------------------------------------------------------------------------------


def test_a_topic_shows_all_its_settings(broker: Harness) -> None:
    broker.alter(TOPIC, "t1", [("retention.ms", "1000"), ("cleanup.policy", " compact ")])
    configs = broker.shown(TOPIC, "t1")
    assert len(configs) == 28
    assert all(not c.read_only and not c.is_sensitive for c in configs.values())
    assert (configs["cleanup.policy"].value, configs["cleanup.policy"].config_source) == (
        "compact",
        1,
    )
    assert broker.synonyms(TOPIC, "t1", "cleanup.policy") == [
        ("cleanup.policy", "compact", 1),
        ("log.cleanup.policy", "delete", 5),
    ]
    assert configs["segment.bytes"].config_source == 4
    assert broker.synonyms(TOPIC, "t1", "segment.bytes") == [
        ("log.segment.bytes", "1048576", 4),
        ("log.segment.bytes", "1073741824", 5),
    ]
    # No value under the broker's own name of it: nothing to show, although hours are set.
    assert broker.synonyms(TOPIC, "t1", "retention.ms") == [("retention.ms", "1000", 1)]
    assert broker.synonyms(TOPIC, "t2", "retention.ms") == []
    assert broker.shown(TOPIC, "t2")["retention.ms"].value == "86400000"
    assert broker.shown(TOPIC, "t2")["retention.ms"].config_source == 5
    assert broker.synonyms(TOPIC, "t1", "flush.ms") == []
    assert broker.synonyms(TOPIC, "t1", "leader.replication.throttled.replicas") == []
    assert configs["leader.replication.throttled.replicas"].value == ""
    assert configs["min.cleanable.dirty.ratio"].value == "0.5"


def test_is_default_of_version_0(broker: Harness) -> None:
    broker.alter(TOPIC, "t1", [("retention.ms", "1000")])
    configs = broker.shown(TOPIC, "t1")
    assert not configs["retention.ms"].is_default
    assert not configs["segment.bytes"].is_default  # static
    assert configs["flush.ms"].is_default


def test_only_what_was_asked_for(broker: Harness) -> None:
    assert set(broker.shown(TOPIC, "t1", "retention.ms", "bogus")) == {"retention.ms"}
    assert broker.describe((TOPIC, "t1", []))[0].configs == []
    (plain,) = broker.describe((TOPIC, "t1", ["segment.bytes"]), synonyms=False)
    assert plain.configs[0].synonyms == []
    assert plain.configs[0].documentation is None
    assert plain.configs[0].config_type == 3
    (full,) = broker.describe((TOPIC, "t1", ["segment.bytes"]), docs=True)
    assert full.configs[0].documentation


def test_this_broker(broker: Harness) -> None:
    configs = broker.shown(BROKER, "7")
    typed = [each for each in BROKER_OPTIONS.values() if each.type is not ConfigType.UNKNOWN]
    assert len(configs) == len(typed) + 1  # super.users, as it is set
    hours = configs["log.retention.hours"]
    assert (hours.value, hours.config_source, hours.read_only) == ("24", 4, False)
    assert broker.synonyms(BROKER, "7", "log.retention.hours") == [
        ("log.retention.hours", "24", 4),
        ("log.retention.hours", "72", 5),
    ]
    assert configs["log.retention.ms"].value is None
    assert configs["log.retention.ms"].config_source == 5
    assert broker.synonyms(BROKER, "7", "log.retention.ms") == []
    assert configs["log.flush.scheduler.interval.ms"].read_only
    assert configs["num.partitions"].read_only
    assert configs["num.partitions"].value == "3"
    assert configs["log.cleaner.io.max.bytes.per.second"].value == "1.7976931348623157E308"
    users = configs["super.users"]
    assert (users.value, users.is_sensitive, users.read_only) == (None, True, True)
    assert broker.synonyms(BROKER, "7", "super.users") == [("super.users", None, 4)]
    password = configs["ssl.key.password"]
    assert (password.value, password.is_sensitive, password.config_type) == (None, True, 9)


def test_passwords_are_never_shown() -> None:
    broker = Harness({"ssl.key.password": "secret", "listener.name.x.ssl.key.password": "secret"})
    configs = broker.shown(BROKER, "7")
    for name in ("ssl.key.password", "listener.name.x.ssl.key.password"):
        assert configs[name].value is None
        assert configs[name].is_sensitive
        assert {s.value for s in configs[name].synonyms} == {None}
    assert [s.name for s in configs["listener.name.x.ssl.key.password"].synonyms] == [
        "listener.name.x.ssl.key.password",
        "ssl.key.password",
    ]


def test_compatibility_hides_later_settings() -> None:
    broker = Harness({**STATIC, "compatibility": "2.3.0"})
    assert len(broker.shown(TOPIC, "t1")) == 26
    assert len(broker.shown(BROKER, "7")) == 191  # as a 2.3.0 broker does


def test_dynamic_layers_in_order(broker: Harness) -> None:
    broker.alter(
        BROKER,
        "7",
        [
            ("log.retention.ms", "7200000"),
            ("leader.replication.throttled.rate", "55"),
            ("foo.bar", "z"),
        ],
    )
    broker.alter(BROKER, "", [("log.retention.ms", "3600000"), ("log.roll.ms", "999999")])
    assert broker.synonyms(BROKER, "7", "log.retention.ms") == [
        ("log.retention.ms", "7200000", 2),
        ("log.retention.ms", "3600000", 3),
        ("log.retention.hours", "24", 4),
        ("log.retention.hours", "72", 5),
    ]
    configs = broker.shown(BROKER, "7")
    assert (configs["log.retention.ms"].value, configs["log.retention.ms"].config_source) == (
        "7200000",
        2,
    )
    foo = configs["foo.bar"]
    assert (foo.value, foo.is_sensitive, foo.read_only, foo.config_source) == (None, True, True, 2)
    assert configs["leader.replication.throttled.rate"].value == "55"
    assert broker.synonyms(BROKER, "7", "log.roll.ms") == [
        ("log.roll.ms", "999999", 3),
        ("log.roll.hours", "168", 5),
    ]
    defaults = broker.shown(BROKER, "")
    assert {name: c.value for name, c in defaults.items()} == {
        "log.retention.ms": "3600000",
        "log.roll.ms": "999999",
    }
    assert broker.synonyms(BROKER, "", "log.retention.ms") == [("log.retention.ms", "3600000", 3)]
    topic = broker.shown(TOPIC, "t2", "retention.ms")["retention.ms"]
    assert (topic.value, topic.config_source) == ("7200000", 2)


def test_resources_fail_one_by_one(broker: Harness) -> None:
    results = broker.describe(
        (TOPIC, "nope", None),
        (TOPIC, "a b", None),
        (TOPIC, "", None),
        (BROKER, "8", None),
        (BROKER, "x", None),
        (BROKER, "", None),
        (TOPIC, "t1", ["retention.ms"]),
    )
    assert [r.error_code for r in results] == [3, 17, 17, 42, 42, 0, 0]
    assert results[3].error_message == (
        "Unexpected broker id, expected 7 or empty string, but received 8"
    )
    assert results[4].error_message == "Broker id must be an integer, but it is: x"
    assert results[2].error_message
    assert [(r.resource_type, r.resource_name) for r in results[:2]] == [(2, "nope"), (2, "a b")]
    assert len(results[6].configs) == 1


@pytest.mark.parametrize(("kind", "word"), [(3, "UNKNOWN"), (16, "CLIENT_METRICS"), (32, "GROUP")])
def test_a_strange_type_fails_the_whole_request(broker: Harness, kind: int, word: str) -> None:
    results = broker.describe((kind, "x", None), (TOPIC, "t1", None))
    assert [(r.error_code, r.error_message) for r in results] == [
        (42, f"Unexpected resource type {word} for resource x")
    ] * 2
    assert broker.alter(kind, "x", []) == (42, f"Unexpected resource type {word}")
    assert broker.change(kind, "x") == (42, f"Unexpected resource type {word}")


# -- alter ---------------------------------------------------------------------------------


def test_altering_replaces_all_overrides(broker: Harness) -> None:
    assert broker.alter(TOPIC, "t1", [("retention.ms", "1"), ("segment.ms", "2")]) == (0, None)
    assert broker.overrides() == {"retention.ms": "1", "segment.ms": "2"}
    assert broker.alter(TOPIC, "t1", [("flush.ms", "3")]) == (0, None)
    assert broker.overrides() == {"flush.ms": "3"}
    assert broker.alter(TOPIC, "t1", []) == (0, None)
    assert broker.overrides() == {}


def test_validating_only_writes_nothing(broker: Harness) -> None:
    assert broker.alter(TOPIC, "t1", [("retention.ms", "1")], validate_only=True) == (0, None)
    assert broker.alter(BROKER, "7", [("log.roll.ms", "9")], validate_only=True) == (0, None)
    assert broker.change(TOPIC, "t1", ("retention.ms", SET, "1"), validate_only=True) == (0, None)
    assert broker.alter(TOPIC, "t1", [("retention.ms", "x")], validate_only=True)[0] == 42
    assert broker.store.entities == {}


BAD_TOPIC_VALUE = (
    "Invalid config value for resource ConfigResource(type=TOPIC, name='t1'): "
    "Invalid value x for configuration retention.ms: Not a number of type LONG"
)


@pytest.mark.parametrize(
    ("name", "overrides", "code_of_2_3", "later_code", "message"),
    [
        ("t1", [("retention.ms", "x")], 42, 40, BAD_TOPIC_VALUE),
        ("t1", [("foo", "x")], 40, 40, "Unknown topic config name: foo"),
        ("a b", [], 17, 17, None),
        ("", [], 17, 17, None),
        ("t1", [("retention.ms", None)], 42, 42, "Null value not supported for : retention.ms"),
    ],
)
def test_codes_of_topics_by_version(
    broker: Harness,
    name: str,
    overrides: list[tuple[str, str | None]],
    code_of_2_3: int,
    later_code: int,
    message: str | None,
) -> None:
    for version, code in ((0, code_of_2_3), (1, code_of_2_3), (2, later_code)):
        answer = broker.alter(TOPIC, name, overrides, version=version)
        assert answer[0] == code
        assert message is None or answer[1] == message
    changes = [(key, SET, value) for key, value in overrides]
    for version, code in ((0, code_of_2_3), (1, later_code)):
        answer = broker.change(TOPIC, name, *changes, version=version)
        assert answer[0] == code
        assert message is None or answer[1] == message


def test_a_missing_topic_by_version(broker: Harness) -> None:
    old = (-1, 'Topic "nope" does not exist.')
    new = (3, "The topic 'nope' does not exist.")
    some: list[tuple[str, str | None]] = [("retention.ms", "1")]
    assert broker.alter(TOPIC, "nope", some, version=1) == old
    assert broker.alter(TOPIC, "nope", some, version=2) == new
    assert broker.change(TOPIC, "nope", ("retention.ms", SET, "1"), version=0) == old
    assert broker.change(TOPIC, "nope", ("retention.ms", SET, "1"), version=1) == new


def test_a_setting_twice(broker: Harness) -> None:
    twice: list[tuple[str, str | None]] = [("retention.ms", "5"), ("retention.ms", "6")]
    assert broker.alter(TOPIC, "t1", twice, version=1) == (0, None)
    assert broker.overrides() == {"retention.ms": "6"}
    error = (42, "Error due to duplicate config keys : retention.ms")
    assert broker.alter(TOPIC, "t1", twice, version=2) == error
    for version in (0, 1):
        assert (
            broker.change(
                TOPIC,
                "t1",
                ("retention.ms", SET, "1"),
                ("retention.ms", DELETE, None),
                version=version,
            )
            == error
        )


def test_of_one_resource_twice_the_last_counts(broker: Harness) -> None:
    body = m33.AlterConfigsRequest(
        resources=[
            m33.AlterConfigsResource(
                resource_type=TOPIC,
                resource_name="t1",
                configs=[m33.AlterableConfig(name="retention.ms", value=value)],
            )
            for value in ("5", "6")
        ]
    )
    request = asked(1)
    answers = asyncio.run(k33_alter_configs.handle(broker.broker, request, body)).responses
    assert [a.error_code for a in answers] == [0]
    assert broker.overrides() == {"retention.ms": "6"}


def test_brokers(broker: Harness) -> None:
    assert broker.alter(BROKER, "7", [("log.roll.ms", "9")]) == (0, None)
    assert broker.alter(BROKER, "", [("log.roll.ms", "8"), ("foo.bar", "z")]) == (0, None)
    assert broker.store.entities == {
        ("brokers", "7"): {"log.roll.ms": "9"},
        ("brokers", "<default>"): {"log.roll.ms": "8", "foo.bar": "z"},
    }
    assert broker.config.roll_ms == 9
    assert broker.alter(BROKER, "7", []) == (0, None)
    assert broker.config.roll_ms == 8


def test_other_brokers_changes_are_not_ours(broker: Harness) -> None:
    asyncio.run(broker.store.alter("brokers", "8", {"log.roll.ms": "9"}))
    assert not broker.config.is_set("log.roll.ms")


@pytest.mark.parametrize(("version", "code"), [(0, 42), (1, 42), (2, 40)])
def test_refused_settings_of_brokers(broker: Harness, version: int, code: int) -> None:
    prefix = "Invalid config value for resource ConfigResource(type=BROKER, name='7'): "
    assert broker.alter(BROKER, "7", [("log.retention.hours", "5")], version=version) == (
        code,
        prefix + "Cannot update these configs dynamically: Set(log.retention.hours)",
    )
    assert broker.alter(BROKER, "7", [("log.segment.bytes", "1")], version=version) == (
        code,
        prefix + "Invalid value 1 for configuration log.segment.bytes: Value must be at least 14",
    )
    assert broker.alter(BROKER, "", [("advertised.listeners", "X://x:1")], version=version) == (
        code,
        "Invalid config value for resource ConfigResource(type=BROKER, name=''): Cannot update "
        "these configs at default cluster level, broker id must be specified: "
        "Set(advertised.listeners)",
    )
    assert broker.alter(BROKER, "8", [], version=version) == (
        42,
        "Unexpected broker id, expected 7 but received 8",
    )
    assert broker.alter(BROKER, "x", [], version=version)[0] == 42
    assert broker.store.entities == {}


def test_a_broken_store_is_said(broker: Harness, caplog: pytest.LogCaptureFixture) -> None:
    broker.store.broken = True
    error = (-1, "The metadata store failed: nobody there")
    assert broker.alter(TOPIC, "t1", [("retention.ms", "1")]) == error
    assert broker.change(BROKER, "7", ("log.roll.ms", SET, "1")) == error
    results = broker.describe((TOPIC, "t1", None), (BROKER, "7", None))
    assert [r.error_code for r in results] == [-1, 0]
    assert "nobody there" in caplog.text


def test_overrides_are_bounded(broker: Harness) -> None:
    big = "x" * limits.STRING_BYTES_MAX
    most = [(f"a{i:02}", big) for i in range(limits.CONFIG_CHARACTERS_MAX // (len(big) + 3))]
    assert broker.alter(BROKER, "7", most) == (0, None)
    assert broker.alter(BROKER, "7", [*most, ("b", big)])[0] == 42
    assert broker.change(BROKER, "7", ("b", SET, big))[0] == 42
    assert set(broker.store.entities["brokers", "7"]) == {name for name, _ in most}


def test_a_value_that_no_answer_could_tell_is_refused(broker: Harness) -> None:
    replicas = ",".join(f"{i}:1" for i in range(3_000))
    name = "leader.replication.throttled.replicas"
    assert broker.change(TOPIC, "t1", (name, SET, replicas))[0] == 0
    assert broker.change(TOPIC, "t1", (name, APPEND, replicas.replace(":1", ":2")))[0] == 42
    (described,) = broker.describe((TOPIC, "t1", [name]))
    assert described.configs[0].value == replicas


# -- incremental ---------------------------------------------------------------------------


def test_setting_and_deleting_leave_the_rest_alone(broker: Harness) -> None:
    broker.alter(TOPIC, "t1", [("retention.ms", "1"), ("segment.ms", "2")])
    assert broker.change(
        TOPIC,
        "t1",
        ("retention.ms", DELETE, None),
        ("flush.ms", SET, "3"),
        ("foo", DELETE, ""),
    ) == (0, None)
    assert broker.overrides() == {"segment.ms": "2", "flush.ms": "3"}
    assert broker.change(TOPIC, "t1") == (0, None)
    assert broker.overrides() == {"segment.ms": "2", "flush.ms": "3"}


@pytest.mark.parametrize(
    ("before", "operation", "value", "after"),
    [
        ("delete", APPEND, "compact", "delete,compact"),
        ("delete,compact", APPEND, "compact", "delete,compact"),
        (None, APPEND, "compact", "delete,compact"),  # from the default
        ("delete,compact", SUBTRACT, "delete", "compact"),
        ("compact", SUBTRACT, "delete", "compact"),
        ("compact,delete", SUBTRACT, " delete , compact ", ""),
        (None, SUBTRACT, "delete", ""),
        ("", APPEND, "compact", "compact"),
    ],
)
def test_lists(broker: Harness, before: str | None, operation: int, value: str, after: str) -> None:
    if before is not None:
        broker.alter(TOPIC, "t1", [("cleanup.policy", before)])
    assert broker.change(TOPIC, "t1", ("cleanup.policy", operation, value)) == (0, None)
    assert broker.overrides() == {"cleanup.policy": after}


def test_lists_of_brokers(broker: Harness) -> None:
    assert broker.change(BROKER, "7", ("log.cleanup.policy", APPEND, "compact")) == (0, None)
    assert broker.config.get_list("log.cleanup.policy") == ["delete", "compact"]
    assert broker.change(BROKER, "", ("log.cleanup.policy", SET, "compact")) == (0, None)
    assert broker.store.entities["brokers", "<default>"] == {"log.cleanup.policy": "compact"}


def test_what_is_no_list(broker: Harness) -> None:
    error = "Config value append is not allowed for config key: retention.ms"
    assert broker.change(TOPIC, "t1", ("retention.ms", APPEND, "1")) == (42, error)
    error = "Config value subtract is not allowed for config key: num.io.threads"
    assert broker.change(BROKER, "7", ("num.io.threads", SUBTRACT, "1")) == (42, error)
    assert broker.change(BROKER, "7", ("foo.bar", APPEND, "1"))[0] == 42


def test_appending_to_an_unknown_setting_by_version(broker: Harness) -> None:
    change = ("foo", APPEND, "x")
    assert broker.change(TOPIC, "t1", change, version=0) == (-1, "key not found: foo")
    assert broker.change(TOPIC, "t1", change, version=1) == (40, "Unknown topic config name: foo")


def test_malformed_changes(broker: Harness) -> None:
    assert broker.change(TOPIC, "t1", ("retention.ms", 9, "1"))[0] == 42
    assert broker.change(TOPIC, "t1", ("retention.ms", SET, None)) == (
        42,
        "Null value not supported for : retention.ms",
    )
    assert broker.change(TOPIC, "t1", ("cleanup.policy", APPEND, None))[0] == 42
    assert broker.overrides() == {}


# -- loggers -------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("kavka.test.configs")
    yield logger
    logger.setLevel(logging.NOTSET)


def test_loggers_are_described_and_changed(broker: Harness, logger: logging.Logger) -> None:
    assert broker.change(LOGGER, "7", (logger.name, SET, "DEBUG")) == (0, None)
    assert logger.level == logging.DEBUG
    configs = broker.shown(LOGGER, "7")
    assert configs[logger.name].value == "DEBUG"
    assert configs[logger.name].config_source == 6
    assert "root" in configs
    assert all(name == "root" or name.startswith("kavka") for name in configs)
    assert broker.change(LOGGER, "7", (logger.name, DELETE, None)) == (0, None)
    assert logger.level == logging.NOTSET


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("kavka.nobody", SET, "INFO"), 40),
        (("kavka.test.configs", SET, "LOUD"), 40),
        (("kavka.test.configs", APPEND, "INFO"), 42),
        (("kavka.test.configs", SET, None), 42),
        (("root", DELETE, None), 42),
    ],
)
def test_refused_changes_of_loggers(
    broker: Harness, logger: logging.Logger, change: tuple[str, int, str | None], code: int
) -> None:
    other = logging.getLogger("kavka.test.configs.other")
    assert broker.change(LOGGER, "7", (other.name, SET, "DEBUG"), change)[0] == code
    assert logger.level == other.level == logging.NOTSET


def test_loggers_of_other_brokers_and_other_ways(broker: Harness, logger: logging.Logger) -> None:
    assert broker.change(LOGGER, "8", (logger.name, SET, "DEBUG"))[0] == 42
    assert broker.change(LOGGER, "", (logger.name, SET, "DEBUG"))[0] == 42
    assert broker.change(LOGGER, "7", (logger.name, SET, "DEBUG"), validate_only=True)[0] == 0
    assert broker.alter(LOGGER, "7", [(logger.name, "DEBUG")])[0] == 42
    assert logger.level == logging.NOTSET


def test_loggers_are_unknown_to_2_3() -> None:
    broker = Harness({"compatibility": "2.3.0"})
    assert broker.describe((LOGGER, "7", None))[0].error_code == 42
    assert broker.change(LOGGER, "7", ("root", SET, "INFO"))[0] == 42


@pytest.mark.parametrize(
    ("level", "word"), [(50, "FATAL"), (35, "WARN"), (30, "WARN"), (7, "TRACE"), (1, "TRACE")]
)
def test_levels_in_kafkas_words(logger: logging.Logger, level: int, word: str) -> None:
    logger.setLevel(level)
    assert loggers.levels()[logger.name] == word


def test_codes_on_the_wire() -> None:
    assert [s.value for s in subject.Source] == [1, 2, 3, 4, 5, 6]
    assert subject.ResourceType.GROUP == 32


def test_answers_can_be_sent_in_every_version(broker: Harness) -> None:
    results = broker.describe(
        (TOPIC, "t1", None), (BROKER, "7", None), (LOGGER, "7", None), (TOPIC, "nope", None),
        docs=True,
    )  # fmt: skip
    described = m32.DescribeConfigsResponse(results=results)
    for version in range(5):
        read = codec.decode(m32.DescribeConfigsResponse, codec.encode(described, version), version)
        assert [len(r.configs) for r in read.results] == [len(r.configs) for r in results]
        (segment,) = (c for c in read.results[0].configs if c.name == "segment.bytes")
        assert segment.value == "1048576"
        assert segment.config_source == (-1 if version == 0 else 4)
        assert bool(segment.documentation) is (version >= 3)
        assert read.results[3].error_code == 3
