"""One broker's settings: layers, values made of several, rules between them."""

import pytest

from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.config.options import ConfigError, UnknownOptionError


def refused(**settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        BrokerConfig({name.replace("_", "."): value for name, value in settings.items()})
    return caught.value.message


def test_defaults_of_the_product() -> None:
    config = BrokerConfig()
    assert config.get_int("num.partitions") == 3
    assert config.get_int("message.max.bytes") == 10 * 1024 * 1024
    assert config.retention_ms == 72 * 3600 * 1000
    assert config.get_int("max.connections.per.ip") == 200
    assert config.get_bool("auto.create.topics.enable") is True
    assert config.listeners == [Endpoint("PLAINTEXT", "PLAINTEXT", "127.0.0.1", 9092)]
    assert config.advertised_listeners == config.listeners
    assert config.log_dirs == ["./kavka-data"]
    assert config.get_str("compatibility") == "latest"
    assert config.get_float("log.cleaner.min.cleanable.ratio") == 0.5
    assert config.get_list("log.cleanup.policy") == ["delete"]
    assert config.get_optional_str("broker.rack") is None
    assert config.get_optional_int("log.retention.ms") is None


def test_a_broker_without_zookeeper_is_its_own_only_replica() -> None:
    alone = BrokerConfig()
    member = BrokerConfig({"zookeeper.connect": "zk:2181"})
    one = (
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "transaction.state.log.min.isr",
    )
    assert alone.embedded and not member.embedded
    assert [alone.get_int(name) for name in one] == [1, 1, 1, 1]
    assert [member.get_int(name) for name in one] == [3, 3, 3, 2]
    assert alone.broker_id == 1
    assert BrokerConfig({"broker.id": "-1"}).broker_id == 1
    assert BrokerConfig({"broker.id": "0"}).broker_id == 0
    assert member.broker_id == -1
    chosen = BrokerConfig({"offsets.topic.replication.factor": "2"})
    assert chosen.get_int("offsets.topic.replication.factor") == 2


def test_asking_for_the_wrong_type_is_a_defect() -> None:
    config = BrokerConfig()
    with pytest.raises(AssertionError):
        config.get_int("log.retention.ms")  # not set
    with pytest.raises(AssertionError):
        config.get_int("log.cleanup.policy")
    with pytest.raises(AssertionError):
        config.get_int("auto.create.topics.enable")
    with pytest.raises(KeyError):
        config.get_int("no.such.setting")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"log.retention.hours": "1"}, 3_600_000),
        ({"log.retention.hours": "1", "log.retention.minutes": "2"}, 120_000),
        ({"log.retention.minutes": "2", "log.retention.ms": "3"}, 3),
        ({"log.retention.ms": "-1"}, -1),
        ({"log.retention.ms": "-5"}, -1),
        ({"log.retention.hours": "-1"}, -1),
    ],
)
def test_retention(settings: dict[str, str], expected: int) -> None:
    config = BrokerConfig(settings)
    assert config.retention_ms == config.effective("log.retention.ms") == expected


def test_values_with_fallbacks() -> None:
    config = BrokerConfig(
        {
            "log.roll.hours": "2",
            "log.roll.jitter.hours": "1",
            "log.flush.scheduler.interval.ms": "77",
            "zookeeper.session.timeout.ms": "123",
        }
    )
    assert config.roll_ms == config.effective("log.roll.ms") == 7_200_000
    assert config.roll_jitter_ms == config.effective("log.roll.jitter.ms") == 3_600_000
    assert config.flush_interval_ms == config.effective("log.flush.interval.ms") == 77
    assert config.zookeeper_connection_timeout_ms == 123
    exact = BrokerConfig(
        {
            "log.roll.ms": "5",
            "log.roll.jitter.ms": "6",
            "log.flush.interval.ms": "7",
            "zookeeper.connection.timeout.ms": "8",
        }
    )
    assert (exact.roll_ms, exact.roll_jitter_ms) == (5, 6)
    assert (exact.flush_interval_ms, exact.zookeeper_connection_timeout_ms) == (7, 8)
    assert exact.effective("num.partitions") == 3


def test_log_dirs() -> None:
    assert BrokerConfig({"log.dir": "/a"}).log_dirs == ["/a"]
    assert BrokerConfig({"log.dir": "/a", "log.dirs": "/b, /c,,/b"}).log_dirs == ["/b", "/c"]
    assert "At least one log directory" in refused(log_dirs=" , ")


def test_listeners() -> None:
    config = BrokerConfig(
        {
            "listeners": "internal://:9091, PUBLIC://[::1]:0 ,SASL_SSL://h-1.x_y:9093",
            "listener.security.protocol.map": "INTERNAL:PLAINTEXT,public:ssl,SASL_SSL:SASL_SSL",
            "advertised.listeners": "PUBLIC://example.com:19094",
        }
    )
    assert config.listeners == [
        Endpoint("INTERNAL", "PLAINTEXT", "", 9091),
        Endpoint("PUBLIC", "SSL", "::1", 0),
        Endpoint("SASL_SSL", "SASL_SSL", "h-1.x_y", 9093),
    ]
    assert [str(e) for e in config.listeners] == [
        "INTERNAL://:9091",
        "PUBLIC://[::1]:0",
        "SASL_SSL://h-1.x_y:9093",
    ]
    assert config.advertised_listeners == [Endpoint("PUBLIC", "SSL", "example.com", 19094)]


def test_the_old_address_settings() -> None:
    config = BrokerConfig(
        {"host.name": "", "port": "0", "advertised.host.name": "h", "advertised.port": "7"}
    )
    assert config.listeners == [Endpoint("PLAINTEXT", "PLAINTEXT", "", 0)]
    assert config.advertised_listeners == [Endpoint("PLAINTEXT", "PLAINTEXT", "h", 7)]
    both = BrokerConfig({"listeners": "PLAINTEXT://a:1", "advertised.host.name": "h"})
    assert both.advertised_listeners == [Endpoint("PLAINTEXT", "PLAINTEXT", "a", 1)]


@pytest.mark.parametrize(
    ("listeners", "reason"),
    [
        ("PLAINTEXT://:1,PLAINTEXT://:2", "Each listener must have a different name"),
        ("PLAINTEXT://:1,SSL://:1", "Each listener must have a different port"),
        ("FOO://:1", "No security protocol defined for listener FOO"),
        ("bad", "Unable to parse bad to a broker endpoint"),
        ("PLAINTEXT://:99999", "Port 99999 of PLAINTEXT://:99999 in listeners is above 65535"),
        ("PLAINTEXT://:-1", "Unable to parse"),
        ("", "listeners must name at least one address"),
    ],
)
def test_bad_listeners(listeners: str, reason: str) -> None:
    assert reason in refused(listeners=listeners)


def test_free_ports_do_not_clash() -> None:
    config = BrokerConfig({"listeners": "PLAINTEXT://:0,SSL://:0"})
    assert [e.port for e in config.listeners] == [0, 0]


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]"])
def test_all_interfaces_are_advertised_as_a_host_left_open(host: str) -> None:
    config = BrokerConfig({"listeners": f"PLAINTEXT://{host}:9092"})
    assert config.listeners[0].host == host.strip("[]")
    assert config.advertised_listeners == [Endpoint("PLAINTEXT", "PLAINTEXT", "", 9092)]


def test_rules_between_settings() -> None:
    assert "nonroutable" in refused(advertised_listeners="PLAINTEXT://0.0.0.0:1")
    assert "subset" in refused(advertised_listeners="SSL://a:1")
    assert "Only one of" in refused(
        inter_broker_listener_name="PLAINTEXT", security_inter_broker_protocol="PLAINTEXT"
    )
    assert "not found in listener.security.protocol.map" in refused(
        inter_broker_listener_name="FOO"
    )
    assert "Invalid security protocol `B`" in refused(listener_security_protocol_map="A:B")
    assert "log.retention.ms must be unlimited" in refused(log_retention_hours="0")
    assert "log.roll.ms must be" in refused(log_roll_ms="0")
    assert "log.roll.jitter.ms must be" in refused(log_roll_jitter_ms="-1")
    assert "at least 1MB per cleaner thread" in refused(log_cleaner_threads="200")
    assert "replica.lag.time.max.ms" in refused(replica_fetch_wait_max_ms="20000")
    assert "socket timeouts" in refused(replica_fetch_wait_max_ms="40000")
    assert "offsets.commit.required.acks must" in refused(offsets_commit_required_acks="5")
    assert "can be set to zero only" in refused(max_connections_per_ip="0")
    assert "authentication responses" in refused(
        connection_failed_authentication_delay_ms="500", connections_max_idle_ms="400"
    )
    assert "queued.max.request.bytes must be larger" in refused(queued_max_request_bytes="5")
    assert "reserved.broker.max.id" in refused(zookeeper_connect="z:1", broker_id="2000")
    assert "broker.id must be" in refused(
        zookeeper_connect="z:1", broker_id_generation_enable="false"
    )
    assert "inter.broker.listener.name must be" in refused(
        zookeeper_connect="z:1", listeners="SSL://:1"
    )


def test_a_lone_broker_needs_no_listener_for_other_brokers() -> None:
    assert BrokerConfig({"listeners": "SSL://:1"}).inter_broker_listener == "PLAINTEXT"
    named = BrokerConfig({"inter.broker.listener.name": "plaintext"})
    assert named.inter_broker_listener == "PLAINTEXT"


def test_connection_overrides() -> None:
    config = BrokerConfig({"max.connections.per.ip.overrides": "h:1, ::1:20"})
    assert config.max_connections_overrides == {"h": 1, "::1": 20}
    assert "host:count" in refused(max_connections_per_ip_overrides="a:b")


def test_unknown_names_are_told_apart_from_bad_values() -> None:
    with pytest.raises(UnknownOptionError):
        BrokerConfig({"no.such.setting": "1"})
    with pytest.raises(ConfigError) as caught:
        BrokerConfig({"num.partitions": "none"})
    assert not isinstance(caught.value, UnknownOptionError)


def test_settings_of_one_listener() -> None:
    config = BrokerConfig(
        {
            "ssl.keystore.location": "/all",
            "listener.name.public.ssl.keystore.location": "/public",
        }
    )
    assert config.listener_value("PUBLIC", "ssl.keystore.location") == "/public"
    assert config.listener_value("INTERNAL", "ssl.keystore.location") == "/all"
    assert config.listener_value("INTERNAL", "ssl.protocol") == "TLS"


# -- dynamic layers ------------------------------------------------------------------------


def test_dynamic_values_lie_over_static_ones() -> None:
    config = BrokerConfig({"log.segment.bytes": "1000"})
    config.set_dynamic_default({"log.segment.bytes": "2000", "log.retention.ms": "5"})
    assert config.get_int("log.segment.bytes") == 2000
    config.set_dynamic_broker({"log.segment.bytes": "3000"})
    assert config.get_int("log.segment.bytes") == 3000
    assert config.retention_ms == 5
    config.set_dynamic_broker({})
    assert config.get_int("log.segment.bytes") == 2000
    config.set_dynamic_default({})
    assert config.get_int("log.segment.bytes") == 1000
    assert config.retention_ms == 72 * 3600 * 1000


def test_subscribers_hear_of_their_settings_only_and_of_real_changes() -> None:
    config = BrokerConfig()
    heard: list[set[str]] = []
    config.on_change(
        ["log.segment.bytes", "log.retention.ms"], lambda names: heard.append({*names})
    )
    config.set_dynamic_default({"num.io.threads": "9"})
    assert heard == []
    config.set_dynamic_default({"log.segment.bytes": "50", "num.io.threads": "9"})
    assert heard == [{"log.segment.bytes"}]
    config.set_dynamic_broker({"log.segment.bytes": "50"})  # same value from elsewhere
    assert len(heard) == 1
    config.set_dynamic_default({"log.retention.ms": "1"})
    assert heard[1:] == [{"log.retention.ms"}]
    config.set_dynamic_broker({})
    assert heard[2:] == [{"log.segment.bytes"}]


def test_a_subscriber_reads_the_new_value() -> None:
    config = BrokerConfig()
    seen: list[int] = []
    config.on_change(
        ["log.segment.bytes"], lambda names: seen.append(config.get_int("log.segment.bytes"))
    )
    config.set_dynamic_broker({"log.segment.bytes": "50"})
    assert seen == [50]


def test_dynamic_values_that_cannot_be_used_are_left_out_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = BrokerConfig()
    config.set_dynamic_default(
        {"num.partitions": "9", "log.segment.bytes": "x", "log.roll.ms": "60000", "foo.bar": "1"}
    )
    assert config.get_int("num.partitions") == 3
    assert config.get_int("log.segment.bytes") == 1073741824
    assert config.roll_ms == 60000
    assert "num.partitions" in caplog.text and "log.segment.bytes" in caplog.text
    assert "foo.bar" not in caplog.text.replace("names=foo.bar", "")


def test_dynamic_values_that_contradict_each_other_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = BrokerConfig()
    config.set_dynamic_default({"log.retention.ms": "9"})
    config.set_dynamic_broker({"log.retention.ms": "0"})
    assert config.retention_ms == 9
    assert config.dynamic_broker == {}
    assert "log.retention.ms must be unlimited" in caplog.text
