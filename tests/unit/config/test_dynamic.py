"""What may change while the broker runs. Messages are those of a Kafka 2.3.0 broker."""

import pytest

from kavka.config import dynamic
from kavka.config.broker import BrokerConfig
from kavka.config.options import ConfigError


def refused(
    overrides: dict[str, str], per_broker: bool = True, config: BrokerConfig | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        dynamic.validate(config or BrokerConfig(), overrides, per_broker)
    return caught.value.message


@pytest.mark.parametrize(
    ("overrides", "per_broker"),
    [
        ({}, True),
        ({"log.retention.ms": "7200000"}, True),
        ({"log.retention.ms": "3600000", "log.roll.ms": "999999"}, False),
        ({"foo.bar": "anything"}, True),
        ({"foo.bar": "anything"}, False),
        ({"leader.replication.throttled.rate": "1"}, True),
        ({"leader.replication.throttled.rate": "1"}, False),
        ({"listener.name.foo.ssl.keystore.location": "x"}, True),
        ({"listener.name.foo.max.connections": "5"}, False),
        ({"advertised.listeners": "PLAINTEXT://example.com:9092"}, True),
        ({"auto.create.topics.enable": "false"}, False),
        ({"num.io.threads": "4"}, True),
        ({"num.io.threads": "16"}, True),
    ],
)
def test_accepted(overrides: dict[str, str], per_broker: bool) -> None:
    dynamic.validate(BrokerConfig(), overrides, per_broker)


def test_read_only_settings() -> None:
    assert refused({"broker.id": "4", "port": "1", "log.roll.ms": "5"}) == (
        "Cannot update these configs dynamically: Set(broker.id, port)"
    )
    assert refused({"listener.name.x.connections.max.reauth.ms": "5"}).startswith(
        "Cannot update these configs dynamically"
    )


@pytest.mark.parametrize("per_broker", [True, False])
def test_security_settings_need_a_listener(per_broker: bool) -> None:
    assert refused({"ssl.keystore.location": "x"}, per_broker) == (
        "These security configs can be dynamically updated only per-listener using the listener "
        "prefix: Set(ssl.keystore.location)"
    )


@pytest.mark.parametrize(
    "name", ["advertised.listeners", "listener.name.foo.ssl.keystore.location"]
)
def test_settings_of_one_broker_are_no_clusters_default(name: str) -> None:
    assert refused({name: "PLAINTEXT://x:1"}, per_broker=False) == (
        "Cannot update these configs at default cluster level, broker id must be specified: "
        f"Set({name})"
    )


def test_bad_values() -> None:
    assert refused({"log.segment.bytes": "x"}) == (
        "Invalid value x for configuration log.segment.bytes: Not a number of type INT"
    )
    assert refused({"leader.replication.throttled.rate": "-1"}) == (
        "Invalid value -1 for configuration leader.replication.throttled.rate: "
        "Value must be at least 0"
    )
    assert "String must be one of" in refused({"listener.name.x.ssl.client.auth": "maybe"})


def test_rules_between_settings_hold_for_the_outcome() -> None:
    assert "log.retention.ms must be unlimited" in refused({"log.retention.ms": "0"})
    assert "log.retention.ms must be unlimited" in refused({"log.retention.ms": "0"}, False)
    assert "No security protocol defined for listener FOO" in refused(
        {"advertised.listeners": "FOO://x:1"}
    )
    overridden = BrokerConfig()
    overridden.set_dynamic_broker({"log.retention.ms": "5"})
    dynamic.validate(overridden, {"log.roll.ms": "7"}, per_broker=False)


def test_nothing_is_changed_by_checking() -> None:
    config = BrokerConfig()
    dynamic.validate(config, {"log.retention.ms": "5"}, per_broker=True)
    assert config.retention_ms == 72 * 3600 * 1000
    assert config.dynamic_broker == {}


def test_secrets_are_one_brokers() -> None:
    secret = {"listener.name.plaintext.ssl.keystore.password": "x"}
    assert "broker id must be specified" in refused(secret, per_broker=False)
    changed = dynamic.validate(BrokerConfig(), secret, per_broker=True)
    assert changed.listener_value("plaintext", "ssl.keystore.password") == "x"


def test_jaas_lines_are_read_before_they_are_taken_and_never_quoted() -> None:
    name = "listener.name.plaintext.plain.sasl.jaas.config"
    message = refused({name: 'module required password="s3cret"'})
    assert "semicolon" in message and "s3cret" not in message


def test_thread_counts_move_by_a_factor_of_two() -> None:
    prefix = "Dynamic thread count update validation failed for num.io.threads"
    assert refused({"num.io.threads": "17"}) == (
        f"{prefix}=17, value should not be greater than double the current value 8"
    )
    assert refused({"num.io.threads": "3"}) == (
        f"{prefix}=3, value should be at least half the current value 8"
    )
    assert refused({"num.io.threads": "0"}).endswith("Value must be at least 1")
    assert "value should be at least 1" in refused({"num.replica.fetchers": "0"})


def test_read_only_looks_at_the_whole_group() -> None:
    assert not dynamic.is_read_only("log.retention.hours")  # log.retention.ms can change
    assert dynamic.is_read_only("log.flush.scheduler.interval.ms")
    assert dynamic.is_read_only("num.partitions")
    assert dynamic.is_read_only("foo.bar")
    assert not dynamic.is_read_only("listener.name.x.ssl.keystore.location")
    assert not dynamic.is_read_only("leader.replication.throttled.rate")


def test_public_bandwidth_can_only_be_raised_in_the_strict_profile() -> None:
    name = "public.bandwidth.mbits"
    for profile in ("default", "managed"):
        free = BrokerConfig({name: "20", "profile": profile})
        assert dynamic.validate(free, {name: "10"}, True).get_int(name) == 10
    strict = BrokerConfig({name: "20", "profile": "strict"})
    for raised in ("20", "30", "0"):
        assert dynamic.validate(strict, {name: raised}, False).get_int(name) == int(raised)
    assert refused({name: "19"}, False, strict) == (
        "public.bandwidth.mbits can only be raised in the strict profile: it is 20, not 19"
    )
    # Taking back what raised it lowers it as well.
    raised_before = strict.with_dynamic({name: "50"}, {})
    assert "it is 50, not 20" in refused({}, False, raised_before)
