"""What a coordinator is told of its append when leadership changes before it is replicated."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrTopicState,
)
from kavka.replication.replica_manager import ReplicaManager
from kavka.replication.waiting import Waiter
from kavka.storage.clock import ManualClock
from tests.unit.replication.test_partition import FakeLog

ME, OTHER, DEAD = 1, 2, 3
ALL = [ME, OTHER, DEAD]


class Case:
    """A partition that is led here in epoch 1, with a record that nobody else has yet."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.parked: list[Waiter] = []
        self.told: list[ErrorCode] = []
        self.manager = ReplicaManager(
            ME,
            cast(Any, SimpleNamespace(get_or_create=lambda *_, **__: self.log)),
            cast(Any, SimpleNamespace(has_partition=lambda *_: True)),
            lambda _: cast(Any, None),
            cast(
                Any,
                SimpleNamespace(
                    notify=lambda _: None, park=lambda waiter, *_: self.parked.append(waiter)
                ),
            ),
            ManualClock(),
        )
        self.lead(1, ME, ALL)
        self.log.log_end_offset = 1
        self.manager.when_replicated("t", 0, 1, 1000, self.told.append)

    def lead(self, epoch: int, leader: int, isr: list[int]) -> None:
        state = LeaderAndIsrPartitionState(
            partition_index=0, leader=leader, leader_epoch=epoch, isr=isr, replicas=ALL
        )
        topic = LeaderAndIsrTopicState(topic_name="t", partition_states=[state])
        answer = self.manager.apply_leader_and_isr(LeaderAndIsrRequest(topic_states=[topic]))
        assert answer.partition_errors[0].error_code == ErrorCode.NONE

    def look(self) -> list[ErrorCode]:
        (waiter,) = self.parked
        assert waiter.try_complete(self.manager.partition("t", 0)) == bool(self.told)
        return self.told


def test_a_dead_follower_does_not_undo_what_the_others_have() -> None:
    case = Case()
    assert case.look() == []
    case.lead(2, ME, [ME, OTHER])
    assert case.look() == []
    case.manager.partition("t", 0).follower_fetched(OTHER, 1, 0)
    assert case.look() == [ErrorCode.NONE]


@pytest.mark.parametrize("back", [False, True])
def test_a_leader_in_between_may_have_undone_it(back: bool) -> None:
    case = Case()
    case.lead(2, OTHER, ALL)
    if back:
        case.lead(3, ME, [ME])
    assert case.look() == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
