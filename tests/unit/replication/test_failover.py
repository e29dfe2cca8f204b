"""A broker that leads much goes while leaders have written what they have not told yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kavka.replication import znodes
from kavka.replication.controller.operations import NewTopic
from kavka.replication.controller.term import STATES_TOGETHER
from kavka.replication.store.base import Operation
from kavka.replication.store.local import LocalStore
from tests.unit.replication.harness import TIMEOUT_MS, Harness, run

MANY = 3 * STATES_TOGETHER - 20  # the last group is not full


class Counts:
    """Counts transactions, and reads of states, that a store is asked for from now on."""

    def __init__(self, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transactions = 0
        self.reads = 0
        multi, get = store.multi, store.get

        def counted_multi(operations: Sequence[Operation]) -> Any:
            self.transactions += 1
            return multi(operations)

        def counted_get(path: str, watch: Any = None) -> Any:
            self.reads += path.endswith("/state")
            return get(path, watch)

        monkeypatch.setattr(store, "multi", counted_multi)
        monkeypatch.setattr(store, "get", counted_get)


async def create(harness: Harness, *assignment: Sequence[int]) -> None:
    topic = NewTopic("t", assignment=dict(enumerate(assignment)))
    (created,) = await harness.controller.create_topics([topic], timeout_ms=TIMEOUT_MS)
    assert created.error is None


async def silently(harness: Harness, partition: int, *isr: int) -> None:
    """Change an ISR as its leader does some seconds before it tells of it."""
    path = znodes.state_path("t", partition)
    data, stat = await harness.store.get(path)
    state = znodes.decode_state(path, data)
    await harness.store.set(path, znodes.encode_state(state._replace(isr=isr)), stat.version)


async def outcome(harness: Harness, partition: int) -> tuple[int, int, tuple[int, ...]]:
    """Leader, leader epoch and ISR, which everybody has been told of."""
    state = await harness.state("t", partition)
    known = harness.metadata.topics["t"].partitions[partition]
    assert (known.leader, known.leader_epoch, known.isr) == state[:3]
    return state.leader, state.leader_epoch, state.isr


def test_many_leaders_are_replaced_in_few_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, *([2, 1, 3] if i % 3 else [1, 2, 3] for i in range(MANY)))
        counts = Counts(harness.store, monkeypatch)
        await harness.broker_goes(2)
        await harness.settle()
        assert counts.reads == 0  # nothing is in doubt
        assert counts.transactions == 2 + 1  # elections; ISRs of what others lead
        for i in range(MANY):
            assert await outcome(harness, i) == (1, 1, (1, 3))

    run(harness, scenario, 2, 3)


def test_what_a_leader_has_written_spoils_no_others_election(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, *([2, 1, 3] for _ in range(MANY)))
        spoilt = (0, 7, STATES_TOGETHER, MANY - 1)
        for i in spoilt:
            await silently(harness, i, 2, 3)
        await harness.broker_goes(2)
        await harness.settle()
        for i in range(MANY):
            expected = (3, 1, (3,)) if i in spoilt else (1, 1, (1, 3))
            assert await outcome(harness, i) == expected

    run(harness, scenario, 2, 3)


def test_who_has_come_into_sync_untold_can_lead(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [2, 1], [2, 1])
        await harness.controller.alter_configs(
            "topics", "t", {"unclean.leader.election.enable": "true"}
        )
        for i in (0, 1):
            await harness.shrink("t", i, (2,))
        await harness.settle()
        await silently(harness, 0, 2, 1)
        await harness.broker_goes(2)
        await harness.settle()
        assert await outcome(harness, 0) == (1, 1, (1,))
        assert await outcome(harness, 1) == (1, 1, (1,))  # uncleanly

    run(harness, scenario, 2)


def test_who_has_come_into_sync_untold_is_not_kept_when_it_goes(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [1, 2, 3])
        await harness.shrink("t", 0, (1, 3))
        await harness.settle()
        await silently(harness, 0, 1, 3, 2)
        await harness.broker_goes(2)
        await harness.settle()
        assert await outcome(harness, 0) == (1, 1, (1, 3))

    run(harness, scenario, 2, 3)


def test_who_has_come_into_sync_untold_takes_over(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [2, 1, 3], [3, 2, 1])
        await harness.shrink("t", 0, (2,))
        await harness.shrink("t", 1, (3, 1))
        await harness.settle()
        await silently(harness, 0, 2, 1)
        await silently(harness, 1, 3, 1, 2)
        assert await harness.controller.controlled_shutdown(2, -1) == []
        await harness.settle()
        assert await outcome(harness, 0) == (1, 1, (1,))
        assert await outcome(harness, 1) == (3, 1, (3, 1))

    run(harness, scenario, 2, 3)


def test_who_has_left_the_isr_untold_cannot_lead(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, [2, 1])
        await silently(harness, 0, 2)
        await harness.broker_goes(2)
        await harness.settle()
        assert await outcome(harness, 0) == (-1, 1, (2,))

    run(harness, scenario, 2)
