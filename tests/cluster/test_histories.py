"""Writers, readers and transactions on three brokers beside kills: a possible world again."""

import threading
from collections.abc import Callable

import pytest

from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.zookeeper import needs_zookeeper
from tests.histories.check import check
from tests.histories.history import Outcome
from tests.histories.workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.crash, needs_zookeeper]

ROUNDS = 40


def test_what_clients_see_while_leaders_and_coordinators_die(cluster: Cluster) -> None:
    cluster.create("t", min_insync_replicas="2")
    victims: dict[int, Callable[[], Member]] = {
        60: lambda: cluster.coordinator("t-transactor-0", transactional=True),
        100: lambda: cluster.leader("t"),
        140: cluster.controller,
    }  # of 200 rounds of five clients
    killed = []
    lock = threading.Lock()

    def disturb(turn: int) -> None:
        if turn in victims:
            with lock:
                member = victims[turn]()
                member.kill()
                member.start()
                cluster.wait_for_isr("t", 3)
                killed.append(member.broker_id)

    history = Workload(cluster.bootstrap, "t", 3, rounds=ROUNDS, seed=3).run(disturb)
    assert len(killed) == len(victims)
    assert {op.outcome for op in history.ops if op.transactional} >= {Outcome.OK, Outcome.FAIL}
    assert check(history) == []
