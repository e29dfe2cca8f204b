import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.config.broker import BrokerConfig
from kavka.config.option import ConfigError
from kavka.config.sources import ALLOW, DENY, SourceRules, parse_sets, rules_of

LISTENERS = "A://127.0.0.1:1001,B://127.0.0.1:1002"
MAP = "A:PLAINTEXT,B:PLAINTEXT"


def config(settings: dict[str, str]) -> BrokerConfig:
    return BrokerConfig(
        {
            "listeners": LISTENERS,
            "listener.security.protocol.map": MAP,
            "inter.broker.listener.name": "B",
            **settings,
        }
    )


def rules(settings: dict[str, str], listener: str = "A") -> SourceRules:
    found = rules_of(config(settings), listener, of_brokers=listener == "B")
    assert found is not None
    return found


def test_without_rules_everybody_is_let_in() -> None:
    assert not config({}).has_source_rules
    assert rules_of(config({}), "A", of_brokers=False) is None
    everybody = {"source.allow": "0.0.0.0/1,128.0.0.0/1,::/0"}
    assert rules_of(config(everybody), "A", of_brokers=False) is None


def test_only_what_is_allowed_gets_in() -> None:
    allow = {"listener.name.a.source.allow": "127.0.0.2/32, 10.0.0.0/8,2001:db8::/32"}
    found = rules(allow)
    for inside in ("127.0.0.2", "10.0.0.0", "10.255.255.255", "2001:db8::1"):
        assert found.refusing(inside) is None
    for outside in ("127.0.0.1", "9.255.255.255", "11.0.0.0", "2001:db9::", "::1"):
        assert found.refusing(outside) == ALLOW
    assert rules_of(config(allow), "B", of_brokers=True) is None


def test_an_empty_list_lets_nobody_in() -> None:
    found = rules({"listener.name.a.source.allow": ""})
    assert found.refusing("127.0.0.1") == ALLOW
    assert found.refusing("::1") == ALLOW


def test_what_is_denied_stays_out_though_it_is_allowed() -> None:
    found = rules({"source.deny": "10.1.0.0/16", "source.allow": "10.0.0.0/8"})
    assert found.refusing("10.1.2.3") == DENY
    assert found.refusing("10.2.2.3") is None


def test_rules_for_all_listeners_are_not_for_that_of_brokers() -> None:
    settings = {"source.allow": "10.0.0.0/8"}
    assert rules(settings).refusing("127.0.0.1") == ALLOW
    assert rules_of(config(settings), "B", of_brokers=True) is None
    its_own = rules({"listener.name.b.source.allow": "10.0.0.0/8"}, "B")
    assert its_own.refusing("127.0.0.1") == ALLOW


def test_the_only_listener_has_the_rules_for_all() -> None:
    alone = BrokerConfig({"source.allow": "10.0.0.0/8"})
    found = rules_of(alone, "PLAINTEXT", of_brokers=True)
    assert found is not None
    assert found.refusing("127.0.0.1") == ALLOW


def test_sets_may_contain_sets() -> None:
    settings = {
        "source.rule.sets": "office = 10.0.0.0/24, 10.0.1.0/24 @vpn; vpn=192.0.2.0/24;",
        "listener.name.a.source.allow": "@office,127.0.0.1",
        "listener.name.a.source.deny": "@vpn",
    }
    found = rules(settings)
    assert found.refusing("10.0.1.7") is None
    assert found.refusing("127.0.0.1") is None
    assert found.refusing("192.0.2.1") == DENY
    assert found.refusing("10.0.2.7") == ALLOW


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source.allow": "10.0.0.0/33"}, "Invalid address 10.0.0.0/33 in source.allow"),
        ({"listener.name.a.source.deny": "host.example"}, "listener.name.a.source.deny"),
        ({"source.allow": "@none"}, "the set @none, which source.rule.sets does not have"),
        ({"source.rule.sets": "a=@b;b=@a"}, "contains itself"),
        ({"source.rule.sets": "a=@a"}, "contains itself"),
        ({"source.rule.sets": "a=10.0.0.1;a=10.0.0.2"}, "twice"),
        ({"source.rule.sets": "10.0.0.1"}, "write it as name=address"),
        ({"source.rule.sets": "a=@b"}, "the set @b"),
        ({"source.rule.sets": ";".join(f"s{n}=" for n in range(201))}, "at most 200 sets"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(settings)


def test_sets_nested_many_times_do_not_grow() -> None:
    nested = ["s0=10.0.0.0/8", *(f"s{n}=@s{n - 1} @s{n - 1}" for n in range(1, 150))]
    sets = parse_sets(";".join(reversed(nested)))
    assert {len(members) for members in sets.values()} == {1}


@given(
    st.lists(st.ip_addresses(v=4).map(str), max_size=5),
    st.lists(st.ip_addresses(v=4).map(str), max_size=5),
    st.lists(st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 32)), max_size=6),
)
def test_membership_is_that_of_the_standard_library(
    allowed: list[str], probes: list[str], networks: list[tuple[str, int]]
) -> None:
    from ipaddress import ip_address, ip_network

    texts = [f"{address}/{bits}" for address, bits in networks] + allowed
    found = rules_of(config({"source.allow": ",".join(texts)}), "A", of_brokers=False)
    expected = [ip_network(text, strict=False) for text in texts]
    for probe in [*probes, *allowed]:
        inside = found is None or found.refusing(probe) is None
        assert inside == any(ip_address(probe) in network for network in expected)


def test_other_brokers_are_let_in_only_where_there_are_some() -> None:
    settings = {"listener.name.b.source.allow": "10.0.0.0/8"}
    alone = rules_of(config(settings), "B", of_brokers=True)
    assert alone is not None and not alone.of_brokers
    member = rules_of(config({**settings, "zookeeper.connect": "zk:2181"}), "B", of_brokers=True)
    assert member is not None and member.of_brokers
