"""Writers, readers and transactions beside kills: what the clients saw must be a possible world."""

import threading
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess
from tests.clients.test_confluent import create
from tests.histories.check import Kind, check
from tests.histories.history import Outcome
from tests.histories.workload import Workload

pytestmark = [pytest.mark.crash, pytest.mark.clients]

ROUNDS = 40
KILL_AT = {60, 110, 150}  # of 200 rounds of five clients


def test_what_clients_see_through_kills(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data").start()
    create(broker, "t", partitions=3)
    killed = []
    lock = threading.Lock()

    def disturb(turn: int) -> None:
        if turn in KILL_AT:
            with lock:
                broker.kill()
                broker.start()
                killed.append(turn)

    history = Workload(broker.bootstrap, "t", 3, rounds=ROUNDS, seed=len(KILL_AT)).run(disturb)
    assert len(killed) == len(KILL_AT)
    outcomes = {op.outcome for op in history.ops if op.transactional}
    assert outcomes >= {Outcome.OK, Outcome.FAIL}
    assert sum(len(poll.records) for op in history.ops for poll in op.polls) > 100
    assert check(history) == []
    assert broker.stop() == 0


def test_readers_of_everything_are_caught(tmp_path: Path) -> None:
    """The judge is no stamp: who does not ask for committed data is seen to get other data."""
    broker = BrokerProcess(tmp_path / "data").start()
    create(broker, "t", partitions=2)
    work = Workload(
        broker.bootstrap, "t", 2, rounds=20, writers=0, readers=0, isolation="read_uncommitted"
    )
    kinds = {anomaly.kind for anomaly in check(work.run())}
    assert Kind.ABORTED_READ in kinds
    assert not kinds & {Kind.LOST_WRITE, Kind.DUPLICATE, Kind.INCONSISTENT_OFFSETS}
    assert broker.stop() == 0
