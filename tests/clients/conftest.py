"""One broker process that all client tests share, and topics of their own for each test."""

import itertools
import re
from collections.abc import Callable, Iterator

import pytest

from tests.broker_process import BrokerProcess, running_broker

_NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/clients/" in str(item.path):
            item.add_marker(pytest.mark.clients)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with default settings; tests must not change it.

    But it keeps what is old: it lives for longer than retention rests, and samples are from 2020.
    """
    settings = {"log.retention.ms": "-1"}
    with running_broker(tmp_path_factory.mktemp("broker") / "data", settings) as process:
        yield process


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes topic names that no other test uses."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[:80]
    return lambda: f"{stem}-{next(_NUMBERS)}"


@pytest.fixture
def topic(topic_name: Callable[[], str]) -> str:
    """A topic name of this test's own."""
    return topic_name()
