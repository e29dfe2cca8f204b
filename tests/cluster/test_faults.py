"""A minute of random faults. Ten of them: ``python -m tests.cluster.faults``."""

import os
import random
from pathlib import Path

import pytest

from tests.cluster.faults import run
from tests.cluster.zookeeper import needs_zookeeper, running_zookeeper

pytestmark = [pytest.mark.cluster, needs_zookeeper]


def test_no_fault_costs_an_acknowledged_record(tmp_path: Path) -> None:
    seconds = float(os.environ.get("KAVKA_FAULT_SECONDS", "60"))
    seed = int(os.environ.get("KAVKA_FAULT_SEED", random.randrange(1 << 30)))
    with running_zookeeper(tmp_path / "zookeeper") as zookeeper:
        print(run(zookeeper, tmp_path, seconds, seed))
