"""Partitions are moved to other replicas while they are in use."""

from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.operations import NewPartitions, NewTopic, Reassignment
from tests.unit.replication.harness import TIMEOUT_MS, Harness, run

T0 = TopicPartition("t", 0)


async def create(harness: Harness, *replicas: int) -> None:
    topic = NewTopic("t", assignment={0: replicas})
    await harness.controller.create_topics([topic], timeout_ms=TIMEOUT_MS)


async def alter(harness: Harness, target: list[int] | None) -> ErrorCode:
    outcomes = await harness.controller.alter_reassignments({T0: target})
    error: KafkaError | None = outcomes[T0]
    return ErrorCode.NONE if error is None else error.code


async def node(harness: Harness) -> znodes.TopicNode:
    data, _ = await harness.store.get("/brokers/topics/t")
    return znodes.decode_topic("/brokers/topics/t", data)


def test_a_move_waits_for_the_new_replicas_and_ends_with_them(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1, 2)
        assert await alter(harness, [3, 2]) is ErrorCode.NONE
        body = await node(harness)
        assert body.partitions == {0: (3, 2, 1)}
        assert (body.adding, body.removing) == ({0: (3,)}, {0: (1,)})
        assert harness.replicas[3].leaders[T0] == (1, 1)  # copies from the old leader
        assert await harness.controller.list_reassignments(None) == [
            Reassignment(T0, (3, 2, 1), (3,), (1,))
        ]
        assert await harness.controller.list_reassignments([TopicPartition("t", 5)]) == []
        await harness.shrink("t", 0, (1, 2, 3))
        await harness.settle()
        body = await node(harness)
        assert body == znodes.TopicNode(body.topic_id, {0: (3, 2)})
        state = await harness.state("t")
        assert (state.leader, state.leader_epoch, state.isr) == (3, 2, (2, 3))
        assert harness.replicas[1].deleted == [T0]
        assert harness.metadata.topics["t"].partitions[0].replicas == (3, 2)
        assert await harness.controller.list_reassignments(None) == []

    run(harness, scenario, 2, 3)


def test_a_cancelled_move_goes_back(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1, 2)
        assert await alter(harness, None) is ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
        assert await alter(harness, [3, 4]) is ErrorCode.NONE
        assert await alter(harness, None) is ErrorCode.NONE
        body = await node(harness)
        assert body == znodes.TopicNode(body.topic_id, {0: (1, 2)})
        assert harness.replicas[3].deleted == [T0]
        assert harness.replicas[4].deleted == [T0]
        assert (await harness.state("t")).leader == 1

    run(harness, scenario, 2, 3, 4)


def test_a_move_that_replaces_another(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1)
        assert await alter(harness, [3]) is ErrorCode.NONE
        assert await alter(harness, [2]) is ErrorCode.NONE
        assert harness.replicas[3].deleted == [T0]
        body = await node(harness)
        assert (body.partitions, body.adding) == ({0: (2, 1)}, {0: (2,)})

    run(harness, scenario, 2, 3)


def test_a_move_goes_on_under_the_next_controller(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def first() -> None:
        await create(harness, 1)
        assert await alter(harness, [2]) is ErrorCode.NONE
        state = await harness.state("t")
        body = znodes.encode_state(state._replace(isr=(1, 2)))
        await harness.store.set(znodes.state_path("t", 0), body)

    async def second() -> None:
        assert (await node(harness)).partitions == {0: (2,)}
        assert (await harness.state("t"))[:3] == (2, 2, (2,))
        assert harness.replicas[1].deleted == [T0]

    run(harness, first, 2)
    run(harness, second, 2)


def test_one_broker_only(tmp_path: Path) -> None:
    """What a lone broker says to each kind of move."""
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1)
        assert await alter(harness, [1]) is ErrorCode.NONE
        assert await alter(harness, [2]) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
        assert await alter(harness, []) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
        assert await alter(harness, [1, 1]) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
        assert await alter(harness, [-1]) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
        assert await alter(harness, None) is ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
        outcomes = await harness.controller.alter_reassignments(
            {TopicPartition("t", 1): [1], TopicPartition("u", 0): None}
        )
        assert [error.code for error in outcomes.values() if error] == [
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        ] * 2
        assert (await harness.state("t")).leader_epoch == 0  # nothing was moved

    run(harness, scenario)


def test_dead_replicas_can_be_dropped(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 2, 1)
        await harness.broker_goes(2)
        await harness.settle()
        assert await alter(harness, [1]) is ErrorCode.NONE
        assert (await node(harness)).partitions == {0: (1,)}
        assert harness.metadata.topics["t"].partitions[0].offline_replicas == ()

    run(harness, scenario, 2)


def test_a_partition_that_never_had_a_leader_moves_at_once(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        topic = NewTopic("t", assignment={0: [7]})
        await harness.controller.create_topics([topic], timeout_ms=0)
        await harness.settle()
        assert await alter(harness, [1]) is ErrorCode.NONE
        assert harness.metadata.has_leaders("t", [0])
        assert harness.replicas[1].leaders[T0] == (1, 0)

    run(harness, scenario)


def test_no_partitions_are_added_during_a_move(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1)
        assert await alter(harness, [2]) is ErrorCode.NONE
        outcomes = await harness.controller.create_partitions(
            [NewPartitions("t", 2)], timeout_ms=TIMEOUT_MS
        )
        error = outcomes["t"]
        assert error is not None
        assert error.code is ErrorCode.REASSIGNMENT_IN_PROGRESS

    run(harness, scenario, 2)


def test_a_deletion_ends_a_move(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1)
        assert await alter(harness, [2]) is ErrorCode.NONE
        outcomes = await harness.controller.delete_topics(["t"], timeout_ms=TIMEOUT_MS)
        assert outcomes == {"t": None}
        assert await harness.store.children(znodes.TOPICS) == []
        assert harness.replicas[1].deleted == [T0]
        assert harness.replicas[2].deleted == [T0]

    run(harness, scenario, 2)


@pytest.mark.parametrize("target", [[2, 1], [1, 2]])
def test_a_new_order_makes_a_new_preferred_leader(tmp_path: Path, target: list[int]) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, 1, 2)
        assert await alter(harness, target) is ErrorCode.NONE
        assert (await node(harness)).partitions == {0: tuple(target)}
        assert (await harness.state("t")).leader == 1
        assert harness.metadata.topics["t"].partitions[0].replicas == tuple(target)

    run(harness, scenario, 2)
