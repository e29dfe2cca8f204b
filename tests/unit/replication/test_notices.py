"""What is asked of the controller by writing nodes, and what it does by the clock."""

import asyncio
from pathlib import Path

from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.cluster import Cluster, LiveBroker, Partition, Topic
from kavka.replication.controller.operations import NewTopic
from kavka.replication.controller.rebalance import misplaced
from tests.unit.replication.harness import TIMEOUT_MS, Harness, registration, run

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


async def create(harness: Harness, *replicas: list[int]) -> None:
    topic = NewTopic("t", assignment=dict(enumerate(replicas)))
    await harness.controller.create_topics([topic], timeout_ms=TIMEOUT_MS)


async def requested(harness: Harness) -> dict[TopicPartition, tuple[int, ...]] | None:
    """What the node that asks for moves still holds; None when it is gone."""
    if await harness.store.exists(znodes.REASSIGN_PARTITIONS) is None:
        return None
    data, _ = await harness.store.get(znodes.REASSIGN_PARTITIONS)
    return znodes.decode_reassignment("", data)


def test_moves_asked_for_by_a_node_leave_it_as_they_are_done(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [1], [1])
        wanted = {T0: (2,), T1: (3,), TopicPartition("none", 0): (1,)}
        body = znodes.encode_reassignment(wanted)
        await harness.store.create(znodes.REASSIGN_PARTITIONS, body)
        await harness.settle()
        assert await requested(harness) == {T0: (2,), T1: (3,)}
        await harness.shrink("t", 0, (1, 2))
        await harness.settle()
        assert await requested(harness) == {T1: (3,)}
        assert (await harness.state("t", 0)).leader == 2
        # A new controller finds it where the old one left it.
        await harness.store.delete(znodes.CONTROLLER)
        await harness.settle()
        assert await requested(harness) == {T1: (3,)}
        await harness.shrink("t", 1, (1, 3))
        await harness.settle()
        assert await requested(harness) is None
        assert (await harness.state("t", 1)).leader == 3
        # And the next request is seen as well.
        await harness.store.create(
            znodes.REASSIGN_PARTITIONS, znodes.encode_reassignment({T0: (2,)})
        )
        await harness.settle()
        assert await requested(harness) is None

    run(harness, scenario, 2, 3)


def test_a_request_for_moves_that_cannot_be_read_is_removed(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.create(znodes.REASSIGN_PARTITIONS, b"{")
        await harness.settle()
        assert await requested(harness) is None

    run(harness, scenario)


def test_a_failed_log_directory_costs_the_broker_its_leaderships(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [2, 1], [1, 2])
        harness.replicas[2].broken.update((T0, T1))
        await harness.store.create(
            f"{znodes.LOG_DIR_EVENTS}/log_dir_event_",
            znodes.encode_log_dir_event(2),
            sequence=True,
        )
        await harness.settle()
        assert (await harness.state("t", 0))[:3] == (1, 1, (1,))
        assert (await harness.state("t", 1)).isr == (1,)
        assert harness.metadata.topics["t"].partitions[1].offline_replicas == (2,)
        assert await harness.store.children(znodes.LOG_DIR_EVENTS) == []

    run(harness, scenario, 2)


def make_cluster(*partitions: tuple[list[int], int, tuple[int, ...]]) -> Cluster:
    """A cluster of live brokers 1 to 3; partitions by replicas, leader and ISR."""
    cluster = Cluster()
    for broker in (1, 2, 3):
        cluster.brokers[broker] = LiveBroker(broker, 1, registration(broker))
    topic = cluster.topics["t"] = Topic("t", b"0" * 16, 0)
    for index, (replicas, leader, isr) in enumerate(partitions):
        partition = topic.partitions[index] = Partition(replicas)
        partition.state = znodes.StateNode(leader, 0, isr, 1)
    return cluster


def test_only_more_than_the_allowed_share_sets_a_rebalance_off() -> None:
    at_home = [([1, 2], 1, (1, 2))] * 9
    assert misplaced(make_cluster(*at_home, ([1, 2], 2, (1, 2))), 10) == []
    assert misplaced(make_cluster(*at_home[:8], ([1, 2], 2, (1, 2))), 10) == [
        TopicPartition("t", 8)
    ]


def test_nobody_is_elected_who_cannot_lead() -> None:
    behind = make_cluster(([1, 2], 2, (2,)), ([4, 2], 2, (2,)))
    assert misplaced(behind, 10) == []
    stopping = make_cluster(([1, 2], 2, (1, 2)))
    stopping.shutting_down.add(1)
    assert misplaced(stopping, 10) == []
    moving = make_cluster(([1, 2], 2, (1, 2)), ([3, 1], 3, (3, 1)))
    moving.topics["t"].partitions[1].adding = (3,)
    assert misplaced(moving, 10) == []
    deleting = make_cluster(([1, 2], 2, (1, 2)))
    deleting.deleting.add("t")
    assert misplaced(deleting, 10) == []


def test_leadership_goes_back_to_a_broker_that_has_come_back(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [2, 1])
        await harness.broker_goes(2)
        await harness.settle()
        assert (await harness.state("t")).leader == 1
        await harness.broker_comes(2)
        await harness.settle()
        await harness.shrink("t", 0, (1, 2))  # it has caught up
        await harness.settle()
        duties = harness.controller._duties
        assert duties is not None
        duties._term.enqueue(duties.rebalance.check)
        await harness.settle()
        assert (await harness.state("t")).leader == 2
        await asyncio.sleep(0)

    run(harness, scenario, 2)
