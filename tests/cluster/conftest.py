"""One ZooKeeper for all tests of a session; each test has a path of its own there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kafka_cluster import Cluster, running_cluster
from tests.cluster.zookeeper import ZooKeeper, running_zookeeper


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    with running_zookeeper(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server


@pytest.fixture
def cluster(zookeeper: ZooKeeper, tmp_path: Path) -> Iterator[Cluster]:
    """Three brokers."""
    with running_cluster(zookeeper, tmp_path) as members:
        yield members
