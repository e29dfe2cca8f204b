"""A broker whose machine lost power leaves the in-sync sets that have other members."""

import asyncio
from pathlib import Path

import pytest

from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.registration import prepare_store
from kavka.replication.store.local import LocalStore
from kavka.replication.unclean_start import leave_in_sync_sets, without
from kavka.replication.znodes import StateNode, TopicNode
from kavka.storage.clock import ManualClock

ME = 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (StateNode(2, 5, (1, 2, 3), 7), StateNode(2, 5, (2, 3), 7)),
        (StateNode(1, 5, (1, 2), 7), StateNode(-1, 6, (2,), 7)),
        (StateNode(-1, 5, (2, 1), 7), StateNode(-1, 5, (2,), 7)),
        (StateNode(1, 5, (1,), 7), None),
        (StateNode(2, 5, (2, 3), 7), None),
    ],
    ids=["follows", "leads", "nobody leads", "alone", "not in sync"],
)
def test_who_is_left(before: StateNode, after: StateNode | None) -> None:
    assert without(before, ME) == after


def test_all_partitions_but_those_that_are_whole_are_left_and_the_controller_hears_of_it(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        store = await LocalStore.open(str(tmp_path / "metadata.db"), ManualClock())
        await prepare_store(store)
        node = TopicNode(b"0" * 16, {0: (1, 2), 1: (1, 2), 2: (2, 3), 3: (1, 2)})
        await store.create(znodes.topic_path("t"), znodes.encode_topic(node))
        await store.create(znodes.topic_path("odd"), b"not JSON")
        await store.create(znodes.partitions_path("t"))
        for index in range(3):  # partition 3 has no state yet
            await store.create(znodes.partition_path("t", index))
            isr = (2, 3) if index == 2 else (1, 2)
            state = znodes.encode_state(StateNode(2, 0, isr, 1))
            await store.create(znodes.state_path("t", index), state)
        left = await leave_in_sync_sets(store, ME, {TopicPartition("t", 1)})
        assert left == [TopicPartition("t", 0)]
        isrs = []
        for index in range(3):
            path = znodes.state_path("t", index)
            isrs.append(znodes.decode_state(path, (await store.get(path))[0]).isr)
        assert isrs == [(2,), (1, 2), (2, 3)]
        [notice] = await store.children(znodes.ISR_CHANGES)
        path = f"{znodes.ISR_CHANGES}/{notice}"
        assert znodes.decode_partitions(path, (await store.get(path))[0]) == left
        assert await leave_in_sync_sets(store, ME, set()) == [TopicPartition("t", 1)]
        await store.close()

    asyncio.run(run())
