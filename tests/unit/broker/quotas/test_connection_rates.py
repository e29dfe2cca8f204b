"""KIP-612: connections of an address."""

from kavka.broker.quotas.connections import ConnectionRates, canonical
from kavka.broker.quotas.memory import Window
from kavka.storage.clock import ManualClock


def rates() -> tuple[ConnectionRates, ManualClock]:
    clock = ManualClock()
    return ConnectionRates(Window(11, 1.0), clock), clock


def test_addresses_without_a_limit_are_let_in() -> None:
    limited, _ = rates()
    limited.set("10.0.0.1", 1.0)
    assert all(limited.admit("10.0.0.2") == 0 for _ in range(1_000))
    assert limited.limits_anybody


def test_an_address_gets_its_rate() -> None:
    limited, clock = rates()
    limited.set("10.0.0.1", 2.0)
    accepted = 0
    for _ in range(600):
        accepted += limited.admit("10.0.0.1") == 0
        clock.advance(0.1)
    assert 120 <= accepted <= 140  # and the worth of ten seconds at once
    refused = [limited.admit("10.0.0.1") for _ in range(50)]
    assert all(0 < wait <= 1.0 for wait in refused[30:])
    clock.advance(11)
    assert limited.admit("10.0.0.1") == 0  # refused ones have not been counted


def test_the_default_is_for_each_address_by_itself() -> None:
    limited, _ = rates()
    limited.set("<default>", 1.0)
    for address in ("10.0.0.1", "10.0.0.2"):
        assert sum(limited.admit(address) == 0 for _ in range(30)) == 10
    limited.set("10.0.0.2", 100.0)
    assert limited.admit("10.0.0.2") == 0
    limited.set("<default>", None)
    assert limited.admit("10.0.0.1") == 0


def test_nobody_is_let_in_with_a_limit_of_zero() -> None:
    limited, clock = rates()
    limited.set("<default>", 0.0)
    for _ in range(30):
        assert limited.admit("10.0.0.1") == 1.0
        clock.advance(1)


def test_addresses_are_known_however_they_are_written() -> None:
    limited, _ = rates()
    limited.set("2001:DB8:0::1", 0.0)
    assert limited.admit("2001:db8::1") > 0
    assert canonical("::ffff:10.0.0.1") == "::ffff:10.0.0.1"
    assert canonical("host.example") is None
    assert canonical("10.1") is None
    limited.set("2001:db8::1", None)
    assert limited.admit("2001:db8::1") == 0
