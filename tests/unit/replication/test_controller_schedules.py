"""Random schedules: whatever happens in whatever order, the cluster ends up as it must be.

Brokers come, go and bounce, topics are created, extended, moved and deleted, ISRs change, the
controller is replaced; some things happen at once, before the controller has seen the first of
them. When all is quiet the store, the metadata of every broker and what the replicas were told
must agree, and every partition that can have a leader must have one.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.operations import ElectionType, NewPartitions, NewTopic
from kavka.replication.store.base import BadVersion, NoNode
from kavka.replication.znodes import StateNode
from tests.unit.replication.harness import NODE, Harness

OTHERS = (2, 3, 4)
TOPICS = ("a", "b")

REPLICAS = st.lists(st.sampled_from([NODE, *OTHERS]), min_size=1, max_size=3, unique=True)
BROKER = st.sampled_from(OTHERS)
TOPIC = st.sampled_from(TOPICS)
STEP = st.one_of(
    st.tuples(st.just("come"), BROKER),
    st.tuples(st.just("go"), BROKER),
    st.tuples(st.just("bounce"), BROKER),
    st.tuples(st.just("create"), TOPIC, REPLICAS, st.integers(1, 2)),
    st.tuples(st.just("create"), TOPIC, REPLICAS, st.integers(1, 2)),
    st.tuples(st.just("delete"), TOPIC),
    st.tuples(st.just("extend"), TOPIC),
    st.tuples(st.just("isr"), TOPIC, st.sets(st.sampled_from([NODE, *OTHERS]))),
    st.tuples(st.just("isr"), TOPIC, st.sets(st.sampled_from([NODE, *OTHERS]))),
    st.tuples(st.just("move"), TOPIC, st.none() | REPLICAS),
    st.tuples(st.just("elect"), TOPIC),
    st.tuples(st.just("stop"), BROKER),
    st.tuples(st.just("depose")),
    st.tuples(st.just("restart")),
)
SCHEDULES = st.lists(st.tuples(STEP, st.booleans()), min_size=1, max_size=14)


class Cluster:
    """Does the steps, and knows what must hold."""

    def __init__(self, directory: Path) -> None:
        self.harness = Harness(directory)
        self.stopping: set[int] = set()
        self.seen: dict[tuple[bytes, int], StateNode] = {}
        self.background: list[asyncio.Task[Any]] = []

    async def do(self, name: str, *arguments: Any) -> None:
        step: Callable[..., Coroutine[Any, Any, None]] = getattr(self, name)
        await step(*arguments)

    async def come(self, broker: int) -> None:
        if await self.harness.store.exists(znodes.broker_path(broker)) is None:
            self.stopping.discard(broker)
            await self.harness.broker_comes(broker)

    async def go(self, broker: int) -> None:
        if await self.harness.store.exists(znodes.broker_path(broker)) is not None:
            self.stopping.discard(broker)
            await self.harness.broker_goes(broker)

    async def bounce(self, broker: int) -> None:
        await self.go(broker)
        await self.come(broker)

    async def create(self, topic: str, replicas: list[int], partitions: int) -> None:
        assignment = dict.fromkeys(range(partitions), replicas)
        await self.harness.controller.create_topics(
            [NewTopic(topic, assignment=assignment)], timeout_ms=0
        )

    async def delete(self, topic: str) -> None:
        await self.harness.controller.delete_topics([topic], timeout_ms=0)

    async def extend(self, topic: str) -> None:
        known = self.harness.metadata.topics.get(topic)
        if known is not None:
            await self.harness.controller.create_partitions(
                [NewPartitions(topic, len(known.partitions) + 1)], timeout_ms=0
            )

    async def isr(self, topic: str, members: set[int]) -> None:
        """What a leader does: those that have caught up join, those that lag leave."""
        path, live = znodes.state_path(topic, 0), await self.live()
        try:
            node, _ = await self.harness.store.get(znodes.topic_path(topic))
            data, stat = await self.harness.store.get(path)
        except NoNode:
            return
        state = znodes.decode_state(path, data)
        replicas = znodes.decode_topic("", node).partitions[0]
        if state.leader not in live:
            return
        possible = [replica for replica in replicas if replica in state.isr or replica in live]
        isr = tuple(r for r in possible if r in members or r == state.leader)
        body = znodes.encode_state(state._replace(isr=isr))
        # The controller may have written meanwhile; a leader then waits for its word.
        with contextlib.suppress(BadVersion, NoNode):
            await self.harness.store.set(path, body, stat.version)
            await self.harness.store.create(
                f"{znodes.ISR_CHANGES}/isr_change_",
                znodes.encode_partitions([TopicPartition(topic, 0)]),
                sequence=True,
            )

    async def move(self, topic: str, target: list[int] | None) -> None:
        await self.harness.controller.alter_reassignments({TopicPartition(topic, 0): target})

    async def elect(self, topic: str) -> None:
        await self.harness.controller.elect_leaders(
            ElectionType.PREFERRED, [TopicPartition(topic, 0)], timeout_ms=0
        )

    async def stop(self, broker: int) -> None:
        if broker in await self.live():
            await self.harness.settle()
            if broker in await self.live():
                self.stopping.add(broker)
                await self.harness.controller.controlled_shutdown(broker, -1)

    async def depose(self) -> None:
        """The office falls vacant; there is only one candidate."""
        self.stopping.clear()  # a new controller does not know who wanted to stop
        await self.harness.store.delete(znodes.CONTROLLER)
        await self.harness.settle()

    async def restart(self) -> None:
        """Everything stops at once, and comes up again one after the other."""
        await self.harness.settle()
        live = await self.live()
        self.stopping.clear()
        await self.harness.stop()
        await self.harness.start()
        for broker in sorted(live - {NODE}):
            await self.harness.broker_comes(broker)

    async def live(self) -> set[int]:
        return {int(name) for name in await self.harness.store.children(znodes.BROKER_IDS)}

    # -- what must hold -----------------------------------------------------------------------

    async def check(self) -> None:
        harness, store = self.harness, self.harness.store
        await harness.settle()
        live = await self.live()
        marked = set(await store.children(znodes.DELETE_TOPICS))
        names = set(await store.children(znodes.TOPICS))
        assert marked <= names, "a mark outlived its topic"
        assert harness.controller.active
        visible: dict[str, dict[int, tuple[int, int, tuple[int, ...], tuple[int, ...]]]] = {}
        for name in names:
            data, _ = await store.get(znodes.topic_path(name))
            node = znodes.decode_topic("", data)
            if name in marked:
                everybody = {r for replicas in node.partitions.values() for r in replicas}
                assert everybody - live, "a deletion stands still though all replicas are alive"
                continue
            for index, replicas in node.partitions.items():
                shown = await self.check_partition(name, node.topic_id, index, replicas, live)
                if shown is not None:
                    visible.setdefault(name, {})[index] = shown
        for broker in live:
            cache = harness.caches[broker]
            assert set(cache.brokers) == live
            assert {
                name: {
                    index: (p.leader, p.leader_epoch, p.isr, p.replicas)
                    for index, p in topic.partitions.items()
                }
                for name, topic in cache.topics.items()
                if name not in marked
            } == visible
            assert not marked & set(cache.topics)

    async def check_partition(
        self, name: str, topic_id: bytes, index: int, replicas: Any, live: set[int]
    ) -> tuple[int, int, tuple[int, ...], tuple[int, ...]] | None:
        tp = TopicPartition(name, index)
        usable = live - self.stopping
        try:
            state = await self.harness.state(name, index)
        except NoNode:
            assert not set(replicas) & usable, f"{tp} could have had its first leader"
            return None
        assert len(set(replicas)) == len(replicas)
        assert set(state.isr) <= set(replicas)
        assert state.isr, "somebody must have every record"
        if state.leader == -1:
            assert not set(state.isr) & usable, f"{tp} could have a leader"
        else:
            assert state.leader in live
            assert state.leader in state.isr
        before = self.seen.get((topic_id, index))
        if before is not None:
            assert state.leader_epoch >= before.leader_epoch
            if state.leader_epoch == before.leader_epoch:
                assert state.leader == before.leader, "two leaders in one epoch"
        self.seen[(topic_id, index)] = state
        for replica in set(replicas) & live:
            told = self.harness.replicas[replica].leaders.get(tp)
            if replica in self.stopping and told is None:
                continue  # it was told to stop
            assert told == (state.leader, state.leader_epoch), f"broker {replica} of {tp}"
        for broker in live - set(replicas):
            assert tp not in self.harness.replicas[broker].leaders, f"{broker} still has {tp}"
        return state.leader, state.leader_epoch, state.isr, tuple(replicas)


@given(SCHEDULES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_all_agree_in_the_end(schedule: list[tuple[Any, bool]]) -> None:
    shm = Path("/dev/shm")

    async def play() -> None:
        with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as directory:
            cluster = Cluster(Path(directory))
            await cluster.harness.start(2)
            try:
                for (name, *arguments), look in schedule:
                    await cluster.do(name, *arguments)
                    if look:
                        await cluster.check()
                await cluster.check()
            finally:
                await cluster.harness.stop()

    asyncio.run(play())
