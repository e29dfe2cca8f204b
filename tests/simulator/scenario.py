"""A simulated cluster under faults, and what must hold nevertheless.

:func:`simulate` runs one seed: three brokers with the real replication, controller and storage
code, producers and consumers, and a nemesis that kills, pauses, cuts off and takes power away.
Afterwards everything is healed, and everything must be well again. The same seed gives the same
run, event by event.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kavka.protocol.records.batch import iter_batches, iter_records, read_header
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.partition import Partition
from kavka.replication.store.base import NoNode
from kavka.replication.znodes import StateNode, TopicNode
from tests.simulator.clients import Consumer, History, Producer
from tests.simulator.network import Network
from tests.simulator.node import Node, virtual_threads
from tests.simulator.store import SimStore, ZooKeeper
from tests.simulator.world import Loop, Trouble, World

BROKERS = (1, 2, 3)
TOPIC = "t"
CHECK = 0.1  # virtual seconds between two looks at the whole cluster


class Plan(NamedTuple):
    """What is simulated, all of it drawn from the seed."""

    partitions: int
    flush_messages: int | None  # None: not synced before it is acknowledged
    min_isr: int
    faults: tuple[str, ...]
    seconds: float
    gap: float  # between faults

    @classmethod
    def of(cls, seed: int) -> "Plan":
        chance = random.Random(seed)
        faults = ["kill", "pause", "cut", "zookeeper cut", "zookeeper drop", "break", "stop"]
        chosen = [fault for fault in faults if chance.random() < 0.6] or ["kill"]
        flush_messages, min_isr = chance.choice(((None, 2), (None, 2), (None, 1), (1, 2), (1, 1)))
        if (flush_messages, min_isr) != (None, 1) and chance.random() < 0.5:
            chosen.append("power")
        return cls(
            partitions=chance.randint(1, 3),
            flush_messages=flush_messages,
            min_isr=min_isr,
            faults=tuple(chosen),
            seconds=chance.choice((15.0, 30.0)),
            gap=chance.choice((0.3, 1.0, 3.0)),
        )


class Simulation:
    """One run."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.world = World(seed)
        self.network = Network(self.world)
        self.outside = Loop(self.world, "outside")
        self.zookeeper = ZooKeeper(self.world, Loop(self.world, "zookeeper"))
        settings = {"min.insync.replicas": str(self.plan.min_isr)}
        if self.plan.flush_messages is not None:
            settings["log.flush.interval.messages"] = str(self.plan.flush_messages)
        self.nodes = {
            broker_id: Node(self.world, broker_id, self.network, self.zookeeper, settings)
            for broker_id in BROKERS
        }
        self.history = History(self.world)
        self.tps = [TopicPartition(TOPIC, index) for index in range(self.plan.partitions)]
        self.producers: list[Producer] = []
        self.leaders: dict[tuple[TopicPartition, int], tuple[int, int]] = {}
        self.healing = False

    # -- the run ----------------------------------------------------------------------------

    def run(self) -> None:
        for node in self.nodes.values():
            node.start()
        self._until("all brokers are there", 20, lambda: all(map(_ready, self.nodes.values())))
        self.outside.start(self._create_topic())
        self._until("the topic is led", 20, self._in_order)
        for number, tp in enumerate(self.tps * 2):
            self.producers.append(
                Producer(number, tp, self.history, self.world, self.network, self.nodes)
            )
            Consumer(100 + number, tp, self.history, self.world, self.network, self.nodes)
        self._watch()
        end = self.world.now + self.plan.seconds
        self.outside.call_later(self.plan.gap, self._next_fault)
        self.world.run(end)
        self._heal()
        self._until("all is in order again", 60, self._in_order)
        sent = [producer.sent for producer in self.producers]
        self._until(
            "every producer gets on",
            30,
            lambda: all(p.sent > before for p, before in zip(self.producers, sent, strict=True)),
        )
        for producer in self.producers:
            producer.stopping = True
        self._until("producers have finished", 30, lambda: all(p.idle for p in self.producers))
        self._until("followers have caught up", 30, self._equal)
        self._check_end()

    def _until(self, what: str, seconds: float, holds: "object") -> None:
        assert callable(holds)
        if not self.world.run(self.world.now + seconds, _seldom(self.world, holds)):
            raise Trouble(f"not within {seconds} s: {what}; {self._state()}")

    async def _create_topic(self) -> None:
        store = SimStore(self.zookeeper, 0, self.outside)
        await store.create(znodes.config_path("topics", TOPIC), znodes.encode_config({}))
        replicas = {
            tp.partition: [BROKERS[(tp.partition + step) % 3] for step in range(3)]
            for tp in self.tps
        }
        node = TopicNode(b"0123456789abcdef", replicas)
        await store.create(znodes.topic_path(TOPIC), znodes.encode_topic(node))

    # -- the nemesis --------------------------------------------------------------------------

    def _next_fault(self) -> None:
        if self.healing:
            return
        chance = self.world.random
        fault = chance.choice(self.plan.faults)
        node = self.nodes[chance.choice(BROKERS)]
        other = chance.choice([broker for broker in BROKERS if broker != node.broker_id])
        lasting = chance.choice((0.05, 0.5, 2.5, 5.0))
        if self._strike(fault, node, other, lasting):
            self.world.note(f"fault: {fault} {node.broker_id} ({other}) for {lasting}")
        self.outside.call_later(chance.uniform(0.2, 2.0) * self.plan.gap, self._next_fault)

    def _strike(self, fault: str, node: Node, other: int, lasting: float) -> bool:
        later, broker_id = self.outside.call_later, node.broker_id
        match fault:
            case "kill" | "power":
                power = fault == "power"
                if not node.is_up or (power and not self._may_lose_power(node)):
                    return False
                if power:
                    node.lost_power = True
                    node.out_of.clear()
                node.kill(power=power)
                later(lasting, self._start, node)
            case "stop":
                if not node.is_running or not node.process or not node.process.ready:
                    return False
                node.process.loop.start(node.process.stop())
                later(lasting + 5, self._start, node)
            case "pause":
                if not node.is_running:
                    return False
                assert node.process is not None
                node.process.loop.pause()
                later(lasting, self._resume, node)
            case "cut":
                self.network.cut(broker_id, other)
                later(lasting, self.network.heal, broker_id, other)
            case "zookeeper cut":
                self.zookeeper.cut.add(broker_id)
                later(lasting, self.zookeeper.cut.discard, broker_id)
            case "zookeeper drop":
                process = node.process
                store = getattr(process.broker, "store", None) if process is not None else None
                if store is None or process is None or process.loop.paused:
                    return False
                process.loop.call_soon(store.drop)
            case "break":
                self.network.break_some()
        return True

    def _start(self, node: Node) -> None:
        if node.process is None:
            node.start()

    def _resume(self, node: Node) -> None:
        if node.process is not None:
            node.process.loop.resume()

    def _may_lose_power(self, node: Node) -> bool:
        """Whether what was acknowledged is elsewhere, too: somebody else who is in sync has it in
        memory, dead or alive as a process."""
        if self.plan.flush_messages == 1:
            return True
        for tp in self.tps:
            state = self._znode(tp)
            if state is None or not any(
                member != node.broker_id and not self.nodes[member].lost_power
                for member in state.isr
            ):
                return False
        return True

    def _heal(self) -> None:
        self.world.note("healing")
        self.healing = True
        self.network.heal_all()
        self.zookeeper.cut.clear()
        for node in self.nodes.values():
            if node.process is None:
                node.start()
            else:
                node.process.loop.resume()

    # -- what must hold -------------------------------------------------------------------

    def _znode(self, tp: TopicPartition) -> StateNode | None:
        path = znodes.state_path(*tp)
        try:
            data, _ = self.zookeeper.tree.get(path)
        except NoNode:
            return None
        return znodes.decode_state(path, data)

    def note_leader(self, partition: Partition, epoch: int) -> None:
        """A broker begins to lead: nobody else may, in that epoch."""
        node = self.nodes[partition.node_id]
        me = (partition.node_id, node.starts)
        key = (partition.topic_partition, epoch)
        before = self.leaders.setdefault(key, me)
        self.world.note(f"{me} leads {partition.topic_partition} in epoch {epoch}")
        if before[0] != me[0]:
            self.world.trouble(f"{before} and {me} lead {key}")

    def _note_returns(self) -> None:
        """Who lost power, was put out of all in-sync sets and is in them again, has everything."""
        for node in self.nodes.values():
            if not node.lost_power:
                continue
            for tp in self.tps:
                state = self._znode(tp)
                if state is None or node.broker_id not in state.isr:
                    node.out_of.add(tp)
                elif tp not in node.out_of:
                    break
            else:
                if _ready(node):
                    node.lost_power = False
                    node.out_of.clear()

    def _watch(self) -> None:
        self._note_returns()
        for tp in self.tps:
            state = self._znode(tp)
            if state is not None:
                self._check_isr(tp, state)
        self.outside.call_later(CHECK, self._watch)

    def _check_isr(self, tp: TopicPartition, state: StateNode) -> None:
        """Every member of the in-sync set holds all up to the highest high watermark."""
        marks = [log.high_watermark for node in self.nodes.values() if (log := node.log(tp))]
        highest = max(marks, default=0)
        for node in self.nodes.values():
            member = node.broker_id
            if member not in state.isr:
                continue
            log = node.log(tp)
            if log is None or node.lost_power:
                continue
            if log.log_end_offset < highest:
                self.world.trouble(
                    f"{member} is in sync for {tp} and ends at {log.log_end_offset}, but the high "
                    f"watermark is {highest}"
                )

    def _in_order(self) -> bool:
        """All brokers are there, and all replicas of everything are in sync."""
        if not all(map(_ready, self.nodes.values())):
            return False
        for tp in self.tps:
            state = self._znode(tp)
            if state is None or state.leader < 0 or set(state.isr) != set(BROKERS):
                return False
            partition = self.nodes[state.leader].partition(tp)
            if partition is None or not partition.is_leader:
                return False
        return True

    def _equal(self) -> bool:
        for tp in self.tps:
            ends = set()
            for node in self.nodes.values():
                log = node.log(tp)
                if log is None:
                    return False
                ends.add((log.log_end_offset, log.high_watermark))
            if len(ends) != 1:
                return False
            end, high = ends.pop()
            if end != high:
                return False
        return True

    def _check_end(self) -> None:
        for tp in self.tps:
            copies = [self._content(node, tp) for node in self.nodes.values()]
            if len(set(copies)) != 1:
                raise Trouble(f"replicas of {tp} differ: {[len(copy) for copy in copies]}")
            found = _records(copies[0])
            self._check_records(tp, found)

    def _check_records(self, tp: TopicPartition, found: dict[int, bytes]) -> None:
        by_value: dict[bytes, int] = {}
        for offset, value in found.items():
            if value in by_value:
                raise Trouble(f"{value!r} is in {tp} twice: at {by_value[value]} and {offset}")
            by_value[value] = offset
        for value, offset in self.history.acknowledged.get(tp, {}).items():
            if value not in by_value:
                raise Trouble(f"{value!r} of {tp} was acknowledged at {offset} and is gone")
            if offset not in (-1, by_value[value]):
                raise Trouble(f"{value!r} was acknowledged at {offset}, is at {by_value[value]}")
        for (shown_of, offset), value in self.history.shown.items():
            if shown_of == tp and found.get(offset) != value:
                raise Trouble(f"{tp} showed {value!r} at {offset}: there is {found.get(offset)!r}")
        last: dict[bytes, int] = {}
        for value in found.values():
            producer, _, number = value.partition(b".")
            if int(number) != last.get(producer, -1) + 1:
                raise Trouble(f"{tp}: {value!r} comes after {last.get(producer)}")
            last[producer] = int(number)

    def _content(self, node: Node, tp: TopicPartition) -> bytes:
        log = node.log(tp)
        assert log is not None
        parts = []
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            piece = bytes(log.read(offset, 1 << 20, log.log_end_offset).view())
            for pos, _, _ in iter_batches(piece):
                offset = read_header(piece, pos).next_offset
            parts.append(piece)
        return b"".join(parts)

    def _state(self) -> str:
        states = [f"{tp.partition}: {self._znode(tp)}" for tp in self.tps]
        nodes = [
            f"{n.broker_id}: {'up' if n.is_up else 'down'}"
            f"{' ready' if _ready(n) else ''} {[n.log(tp) for tp in self.tps]}"
            for n in self.nodes.values()
        ]
        return "; ".join(states + nodes)


def _ready(node: Node) -> bool:
    return node.process is not None and node.process.ready and not node.process.loop.paused


def _seldom(world: World, holds: "object") -> "object":
    """Look only now and then: the answer costs more than most events."""
    last = [-1.0]

    def look() -> bool:
        if world.now - last[0] < 0.05:
            return False
        last[0] = world.now
        assert callable(holds)
        return bool(holds())

    return look


def _records(content: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for pos, _, _ in iter_batches(content):
        header = read_header(content, pos)
        for record in iter_records(content, pos, header, 1 << 20):
            found[record.offset] = record.value or b""
    return found


@contextmanager
def watching_leaders(simulation: Simulation) -> Iterator[None]:
    """Have every beginning of leadership noted."""
    before = Partition.become_leader

    def become_leader(self: Partition, leader_epoch: int) -> None:
        simulation.note_leader(self, leader_epoch)
        before(self, leader_epoch)

    Partition.become_leader = become_leader  # type: ignore[method-assign]
    try:
        yield
    finally:
        Partition.become_leader = before  # type: ignore[method-assign]


class Finding(NamedTuple):
    """What a run showed: nothing bad when ``problem`` is None."""

    seed: int
    problem: str | None
    trace: list[str]
    acknowledged: int
    messages: int


def simulate(seed: int, plan: Plan | None = None) -> Finding:
    """Run one seed, by the plan drawn from it or by another one."""
    simulation = Simulation(seed, plan or Plan.of(seed))
    problem: str | None = None
    with virtual_threads(), watching_leaders(simulation):
        try:
            simulation.run()
        except Trouble as trouble:
            problem = str(trouble)
        finally:
            asyncio.events._set_running_loop(None)
            for node in simulation.nodes.values():
                if node.process is not None:
                    node.process.loop.kill()
    count = sum(map(len, simulation.history.acknowledged.values()))
    return Finding(seed, problem, simulation.world.trace, count, simulation.network.messages)
