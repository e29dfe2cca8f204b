"""Which quota is a client's, and what is counted together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.quotas import memory
from kavka.broker.quotas.entities import (
    CLIENT_QUOTAS,
    NOBODY,
    ClientEntity,
    candidates,
    client_entity,
    entity_name,
    parse_limit,
)
from kavka.broker.quotas.memory import EXPIRE_SECONDS, Memory, Window
from kavka.broker.quotas.meters import ClientQuota
from kavka.replication.rate import Rate

WINDOW = Window(11, 1.0)
D = "<default>"


def quota(default: float | None = None) -> ClientQuota[Rate]:
    return ClientQuota(WINDOW.rate, WINDOW, default)


def limit_of(limits: ClientQuota[Rate], user: str, client_id: str) -> float | None:
    meter = limits.meter(f"User:{user}", client_id, 0.0)
    return None if meter is None else meter.limit


NAMES = st.sampled_from(("", "ann", "bob", D))
CLIENTS = st.sampled_from(("", "app", "job", D))
LIMITS = st.dictionaries(
    st.tuples(NAMES, CLIENTS).filter(lambda pair: pair != ("", "")), st.integers(1, 99)
)


def naive(
    limits: dict[tuple[str, str], int], default: float | None, user: str, client: str
) -> tuple[float | None, tuple[str, str]]:
    """Kafka's table of precedence, spelt out; with the key that it is counted under."""
    if (user, client) in limits:
        return limits[user, client], (user, client)
    if (user, D) in limits:
        return limits[user, D], (user, client)
    if (user, "") in limits:
        return limits[user, ""], (user, "")
    if (D, client) in limits:
        return limits[D, client], (user, client)
    if (D, D) in limits:
        return limits[D, D], (user, client)
    if (D, "") in limits:
        return limits[D, ""], (user, "")
    if ("", client) in limits:
        return limits["", client], ("", client)
    if ("", D) in limits:
        return limits["", D], ("", client)
    return default, ("", client)


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.sampled_from((None, 1000.0)))
def test_precedence_and_accounting(
    given_limits: dict[tuple[str, str], int], default: float | None
) -> None:
    limits = quota(default)
    for (user, client), limit in given_limits.items():
        limits.set(ClientEntity(user or NOBODY, client or NOBODY), float(limit))
    counted: dict[tuple[str, str], object] = {}
    for user in ("ann", "bob", "cid"):
        for client in ("app", "job", "x"):
            expected, key = naive(given_limits, default, user, client)
            meter = limits.meter(f"User:{user}", client, 0.0)
            if expected is None:
                assert meter is None
                continue
            assert meter is not None
            assert meter.limit == expected
            assert counted.setdefault(key, meter.counted) is meter.counted
    assert len({id(each) for each in counted.values()}) == len(counted)


def test_a_change_is_in_force_at_once_and_forgets_nothing() -> None:
    limits = quota()
    everybody, ann = ClientEntity(user=D), ClientEntity(user="ann")
    limits.set(everybody, 10.0)
    before = limits.meter("User:ann", "app", 0.0)
    assert before is not None and before.limit == 10
    limits.set(ann, 20.0)
    after = limits.meter("User:ann", "app", 0.0)
    assert after is not None and after.limit == 20
    assert after.counted is before.counted
    limits.set(ann, None)
    limits.set(everybody, None)
    assert limit_of(limits, "ann", "app") is None
    assert not limits.limits_anybody


def test_nobody_becomes_the_default_by_its_name() -> None:
    limits = quota()
    limits.set(ClientEntity(client_id=D), 5.0)
    limits.set(ClientEntity(client_id="a%20b"), 7.0)
    assert limit_of(limits, "ann", D) == 5  # as anybody else
    assert limit_of(limits, "ann", "a b") == 7
    limits.set(ClientEntity(client_id="%3Cdefault%3E"), 9.0)
    assert limit_of(limits, "ann", D) == 9
    assert limit_of(limits, "ann", "other") == 5


def test_a_client_without_a_name_is_one_all_the_same() -> None:
    limits = quota()
    limits.set(ClientEntity(user="ann"), 5.0)
    limits.set(ClientEntity("ann", D), 7.0)
    limits.set(ClientEntity(client_id=D), 9.0)
    assert limit_of(limits, "ann", "") == 7
    assert limit_of(limits, "bob", "") == 9


def test_entities_by_their_nodes() -> None:
    for place in (
        ("users", "ann"),
        ("users", D),
        ("clients", "app"),
        ("users", "ann/clients/app"),
        ("users", f"{D}/clients/{D}"),
    ):
        entity = client_entity(*place)
        assert entity is not None
        assert entity_name(entity) == place
    assert client_entity("users", "ann/clients/") is None
    assert client_entity("users", "ann/tokens/x") is None
    assert client_entity("users", "ann/clients/a/b") is None
    assert len(candidates("ann", "app")) == 8
    assert set(CLIENT_QUOTAS) == {
        *("producer_byte_rate", "consumer_byte_rate"),
        *("request_percentage", "controller_mutation_rate"),
    }


def test_values_that_are_no_numbers() -> None:
    assert parse_limit("1.5") == 1.5
    assert parse_limit("1.0E16") == 1e16  # as Java writes it
    assert parse_limit("much") is None
    assert parse_limit("nan") is None


def test_who_is_quiet_for_an_hour_is_forgotten() -> None:
    remembered: Memory[str, Rate] = Memory(WINDOW.rate, WINDOW)
    first = remembered.find("a", 0.0)
    remembered.find("b", 100.0)
    assert remembered.find("a", EXPIRE_SECONDS) is first
    remembered.find("c", 100.0 + EXPIRE_SECONDS)
    assert len(remembered) == 2  # not b
    assert remembered.forgotten == 1


def test_a_forgotten_client_begins_anew_also_where_it_was_cached() -> None:
    limits = quota()
    limits.set(ClientEntity(user=D), 10.0)
    before = limits.meter("User:ann", "app", 0.0)
    now = 2 * EXPIRE_SECONDS
    limits.meter("User:bob", "app", now)
    after = limits.meter("User:ann", "app", now)
    other = limits.meter("User:ann", "job", now)
    assert before is not None and after is not None and other is not None
    assert after.counted is not before.counted
    assert after.counted is other.counted


def test_a_crowd_of_strangers_is_forgotten_sooner() -> None:
    remembered: Memory[int, Rate] = Memory(WINDOW.rate, WINDOW)
    for number in range(memory.CROWD):
        remembered.find(number, 100.0)
    remembered.find(-1, 100.5)
    assert len(remembered) == memory.CROWD + 1  # they still count
    remembered.find(-2, 100.0 + WINDOW.whole)
    assert len(remembered) == 2
