"""What a producer of one partition is told when its request has waited."""

from typing import Any

import pytest

from kavka.broker.produce.append import Append, succeed
from kavka.broker.produce.waiters import ProduceWaiter, SingleWaiter
from kavka.broker.request import Pending
from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k00_produce import (
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from kavka.replication.partition import ACKS_ALL
from kavka.replication.waiting import Waiter
from kavka.storage.append import AppendInfo
from tests.unit.replication.test_partition import Case

VERSION = 9
INFO = AppendInfo(0, 2, -1, 0, 300)


def single_waiter(case: Case) -> tuple[SingleWaiter, Pending]:
    pending = Pending()
    return SingleWaiter(b"orders", ACKS_ALL, VERSION, case.partition, INFO, pending), pending


def general_waiter(case: Case) -> tuple[ProduceWaiter, Pending]:
    pending = Pending()
    append = Append("orders", memoryview(b""), PartitionProduceResponse(index=0))
    append.partition = case.partition
    succeed(append, INFO)
    response = ProduceResponse(
        responses=[TopicProduceResponse(name="orders", partition_responses=[append.result])]
    )
    return ProduceWaiter(ACKS_ALL, VERSION, response, [append], pending), pending


def told(pending: Pending) -> PartitionProduceResponse:
    response = pending.response
    if isinstance(response, bytes):
        response = codec.decode(ProduceResponse, memoryview(response), VERSION)
    assert isinstance(response, ProduceResponse)
    assert response.responses[0].name == "orders"
    return response.responses[0].partition_responses[0]


def replicate(case: Case) -> None:
    case.fetch(2, 3)
    case.fetch(3, 3)


def lose_leadership(case: Case) -> None:
    case.partition.become_follower(2, 6)


def lose_replicas(case: Case) -> None:
    case.fetch(2, 3)
    case.fetch(3, 3)
    case.partition.in_sync_replicas = [1]


def lose_the_disk(case: Case) -> None:
    case.log.offline = "gone"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("happening", "code"),
    [
        (replicate, ErrorCode.NONE),
        (lose_leadership, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (lose_replicas, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        (lose_the_disk, ErrorCode.KAFKA_STORAGE_ERROR),
    ],
)
@pytest.mark.parametrize("make", [single_waiter, general_waiter])
def test_it_is_told_what_has_become_of_its_records(make: Any, happening: Any, code: int) -> None:
    case = Case(min_isr=2)
    case.append(3)
    waiter, pending = make(case)
    assert not waiter.try_complete(case.partition)
    assert not pending.done
    happening(case)
    assert waiter.try_complete(case.partition)
    result = told(pending)
    assert result.error_code == code
    assert result.index == 0
    assert result.base_offset == (0 if code == ErrorCode.NONE else -1)


@pytest.mark.parametrize("make", [single_waiter, general_waiter])
def test_some_followers_are_not_enough(make: Any) -> None:
    case = Case()
    case.append(3)
    waiter, pending = make(case)
    case.fetch(2, 3)
    case.fetch(3, 2)
    assert not waiter.try_complete(case.partition)
    assert not pending.done


@pytest.mark.parametrize("make", [single_waiter, general_waiter])
def test_patience_ends(make: Any) -> None:
    case = Case()
    case.append(3)
    waiter, pending = make(case)
    assert isinstance(waiter, Waiter)
    waiter.expire()
    assert told(pending).error_code == ErrorCode.REQUEST_TIMED_OUT
