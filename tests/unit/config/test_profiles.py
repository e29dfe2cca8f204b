import pytest

from kavka.config import profiles
from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.config.option import ConfigError
from kavka.config.profiles import PROFILES, PUBLIC_PLAIN, check_addresses, check_topic

STRICT, MANAGED = PROFILES["strict"], PROFILES["managed"]


def listening(**settings: str) -> list[str]:
    config = BrokerConfig({name.replace("_", "."): value for name, value in settings.items()})
    return [str(endpoint) for endpoint in config.listeners]


def test_who_sets_nothing_has_one_plain_listener_on_this_machine() -> None:
    assert listening() == ["PLAINTEXT://127.0.0.1:9092"]


@pytest.mark.parametrize("profile", ["managed", "strict"])
def test_a_managed_instance_has_the_ports_of_the_manual(profile: str) -> None:
    config = BrokerConfig(
        {
            "profile": profile,
            "zookeeper.connect": "zk:2181",
            "host.name": "10.0.0.1",
            "ssl.keystore.location": "/keys",
        }
    )
    assert [(e.name, e.protocol, e.host, e.port) for e in config.listeners] == [
        ("REPLICATION", "PLAINTEXT", "10.0.0.1", 9091),
        ("INTERNAL_PLAIN", "PLAINTEXT", "10.0.0.1", 9092),
        ("INTERNAL_SASL_SSL", "SASL_SSL", "10.0.0.1", 9093),
        ("CROSS_VPC", "SASL_SSL", "10.0.0.1", 9011),
    ]
    assert config.inter_broker_listener == "REPLICATION"
    assert config.security_protocols["PUBLIC_PLAIN"] == "PLAINTEXT"
    assert config.security_protocols["PUBLIC_SASL_SSL"] == "SASL_SSL"
    assert config.security_protocols["SSL"] == "SSL"


def test_without_keys_nothing_is_encrypted_and_a_lone_broker_replicates_with_nobody() -> None:
    assert listening(profile="managed", host_name="::1") == [
        "REPLICATION://127.0.0.1:9091",
        "INTERNAL_PLAIN://[::1]:9092",
        "CROSS_VPC://[::1]:9011",
    ]


def test_own_listeners_and_protocols_win() -> None:
    config = BrokerConfig(
        {
            "profile": "managed",
            "listeners": "REPLICATION://h:1,MINE://h:2,CROSS_VPC://h:3",
            "listener.security.protocol.map": "MINE:PLAINTEXT,CROSS_VPC:SASL_PLAINTEXT",
            "zookeeper.connect": "zk:2181",
        }
    )
    assert [e.protocol for e in config.listeners] == ["PLAINTEXT", "PLAINTEXT", "SASL_PLAINTEXT"]
    assert config.inter_broker_listener == "REPLICATION"
    other = BrokerConfig(
        {
            "profile": "managed",
            "listeners": "PLAINTEXT://h:1",
            "zookeeper.connect": "zk:2181",
        }
    )
    assert other.inter_broker_listener == "PLAINTEXT"


def test_advertised_host_name_is_told_for_every_listener() -> None:
    config = BrokerConfig({"profile": "managed", "advertised.host.name": "b1.example"})
    assert [str(e) for e in config.advertised_listeners] == [
        "REPLICATION://b1.example:9091",
        "INTERNAL_PLAIN://b1.example:9092",
        "CROSS_VPC://b1.example:9011",
    ]


def test_public_access_is_a_change_of_two_settings() -> None:
    config = BrokerConfig({"profile": "managed"})
    public = Endpoint(PUBLIC_PLAIN, "PLAINTEXT", "0.0.0.0", profiles.PORTS[PUBLIC_PLAIN])
    on = profiles.with_listeners(
        config, {PUBLIC_PLAIN: public}, advertised={PUBLIC_PLAIN: ("203.0.113.1", 9094)}
    )
    opened = config.with_dynamic({}, on)
    assert [e.name for e in opened.listeners][-1] == PUBLIC_PLAIN
    assert str(opened.advertised_listeners[-1]) == "PUBLIC_PLAIN://203.0.113.1:9094"
    assert opened.listeners[:-1] == config.listeners
    off = profiles.with_listeners(opened, {}, closed=[PUBLIC_PLAIN])
    closed = config.with_dynamic({}, off)
    assert closed.listeners == config.listeners
    assert closed.advertised_listeners == config.advertised_listeners
    with pytest.raises(ConfigError, match="no listener PUBLIC_PLAIN"):
        profiles.with_listeners(closed, {}, advertised={PUBLIC_PLAIN: ("203.0.113.1", 9094)})


def test_public_access_and_ipv6_exclude_each_other_only_in_the_strict_profile() -> None:
    both = "INTERNAL_PLAIN://[::1]:1,PUBLIC_PLAIN://127.0.0.1:2,REPLICATION://127.0.0.1:3"
    listening(profile="managed", listeners=both)
    with pytest.raises(ConfigError, match="exclude each other in the strict profile"):
        listening(profile="strict", listeners=both)
    listening(profile="strict", listeners="INTERNAL_PLAIN://[::1]:1")


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ({1: "203.0.113.1", 2: "203.0.113.2"}, "without an address: 3"),
        ({1: "203.0.113.1", 2: "203.0.113.2", 3: "203.0.113.3", 4: "a"}, "no such brokers: 4"),
        ({1: "203.0.113.1", 2: "203.0.113.1", 3: "203.0.113.3"}, "1 and 2 have the same"),
        ({1: "b.example", 2: "B.example", 3: "c.example"}, "1 and 2 have the same"),
        ({1: "203.0.113.1", 2: "0.0.0.0", 3: "203.0.113.3"}, "broker 2 is none"),
        ({1: "203.0.113.1", 2: "", 3: "203.0.113.3"}, "broker 2 is none"),
    ],
)
def test_addresses_between_networks_are_complete_and_unique(
    addresses: dict[int, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_addresses(MANAGED, addresses, [1, 2, 3], public=False)


def test_the_strict_profile_has_public_ipv4_addresses_only() -> None:
    for host in ("2001:db8::1", "b.example"):
        check_addresses(MANAGED, {1: host}, [1], public=True)
        check_addresses(STRICT, {1: host}, [1], public=False)
        with pytest.raises(ConfigError, match="needs an IPv4 address, but broker 1 has"):
            check_addresses(STRICT, {1: host}, [1], public=True)
    check_addresses(STRICT, {1: "203.0.113.1"}, [1], public=True)


def test_limits_of_topics_that_management_makes() -> None:
    check_topic(MANAGED, name="a.b", partitions=100, replicas=3, retention_hours=168)
    check_topic(STRICT, name="a-b", partitions=20, replicas=1, retention_hours=1)
    check_topic(STRICT, name="a-b", partitions=100, replicas=1, grown=True)
    for wrong, message in (
        ({"partitions": 101}, "1 to 100 partitions, not 101"),
        ({"partitions": 0}, "1 to 100 partitions"),
        ({"replicas": 4}, "1 to 3 replicas, not 4"),
        ({"retention_hours": 169}, "1 to 168 retention hours, not 169"),
        ({"retention_hours": 0}, "retention hours"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_topic(MANAGED, **{"name": "a", "partitions": 3, "replicas": 3, **wrong})
    with pytest.raises(ConfigError, match="1 to 20 partitions, not 21"):
        check_topic(STRICT, name="a", partitions=21, replicas=3)
    with pytest.raises(ConfigError, match="must not have a dot"):
        check_topic(STRICT, name="a.b", partitions=1, replicas=3)
