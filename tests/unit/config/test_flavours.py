import pytest

from kavka.config.broker import BrokerConfig
from kavka.config.flavours import FLAVOURS, flavour_of
from kavka.config.option import ConfigError


def test_the_catalogue_has_the_figures_of_the_manual() -> None:
    def column(name: str) -> list[object]:
        return [getattr(flavour, name) for flavour in FLAVOURS.values()]

    assert list(FLAVOURS) == ["100", "300", "600", "1200"]
    assert column("bandwidth") == [100, 300, 600, 1200]
    assert column("brokers") == [3, 3, 4, 8]
    assert column("vcpus") == [2, 4, 8, 8]
    assert column("memory_gb") == [4, 8, 16, 16]
    assert column("partitions") == [300, 900, 1800, 1800]
    assert column("connections") == [3000, 10_000, 20_000, 20_000]
    assert column("groups") == [60, 300, 600, 600]
    assert column("business_flow") == [70, 210, 420, 840]
    assert column("messages_per_second") == [100_000, 300_000, 600_000, 1_200_000]
    assert [f.storage_gb[0] for f in FLAVOURS.values()] == [600, 1200, 2400, 4800]
    assert {f.storage_gb[-1] for f in FLAVOURS.values()} == {90_000}


def test_brokers_share_what_the_instance_may_have() -> None:
    flavour = FLAVOURS["100"]
    assert flavour.connections_of(1) == 3000
    assert flavour.connections_of(3) == 1000
    assert flavour.connections_of(7) * 7 >= 3000  # never less than promised
    assert flavour.connections_of(0) == 3000  # nobody is known yet
    assert flavour.bytes_per_second_of(2) == 50_000_000


def test_a_broker_has_a_flavour_when_it_is_told_so() -> None:
    assert flavour_of(BrokerConfig()) is None
    assert flavour_of(BrokerConfig({"instance.flavour": "600"})) is FLAVOURS["600"]
    with pytest.raises(ConfigError, match="one of: none, 100, 300, 600, 1200"):
        BrokerConfig({"instance.flavour": "200"})
