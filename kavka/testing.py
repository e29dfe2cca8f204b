"""A broker for the tests of other projects: a pytest plugin with the fixture ``kavka_broker``.

Installed with the package, so a test only has to name the fixture::

    def test_orders_arrive(kavka_broker):
        producer = KafkaProducer(bootstrap_servers=kavka_broker.bootstrap)
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from kavka.broker.embed import EmbeddedBroker

SETTINGS: Final = {
    # A group of one test waits for nobody else to join.
    "group.initial.rebalance.delay.ms": "0",
    # How full somebody's machine is must not decide over their tests.
    "capacity.threshold.percent": "100",
}


@pytest.fixture(scope="session")
def kavka_broker() -> "Iterator[EmbeddedBroker]":
    """A broker on a free port of 127.0.0.1, one for the whole test session."""
    from kavka.broker.embed import EmbeddedBroker

    with EmbeddedBroker(SETTINGS) as broker:
        yield broker
