"""One simulated broker: the real parts, on a virtual disk, network, metadata store and clock.

What is left out of a broker is what has nothing to do with replication: sockets, groups,
transactions, quotas. Requests reach the real handlers.
"""

import asyncio
import contextlib
import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kavka.broker.cluster.membership import Membership
from kavka.broker.cluster.peers import Peers
from kavka.broker.context import Broker
from kavka.broker.control import ConfiguredChannel, FencedChannel
from kavka.broker.dispatch import HANDLERS
from kavka.broker.fetch.sessions import FetchSessions
from kavka.broker.request import Pending, Raw, Request
from kavka.config import topic as topic_settings
from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.protocol import codec
from kavka.protocol.errors import KafkaError
from kavka.protocol.keys import message_classes
from kavka.protocol.topics import TopicPartition
from kavka.replication import registration
from kavka.replication.client import BrokerAddress
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.controller.controller import Controller
from kavka.replication.fetching.manager import FetcherManager
from kavka.replication.isr_changes import StoreIsrWriter
from kavka.replication.metadata import MetadataCache
from kavka.replication.partition import Partition
from kavka.replication.registration import RegistrationError
from kavka.replication.replica_manager import ReplicaManager
from kavka.replication.store.base import StoreError
from kavka.replication.throttling import ReplicationThrottle
from kavka.replication.unclean_start import leave_in_sync_sets
from kavka.replication.waiting import WaitingRoom
from kavka.replication.znodes import Registration
from kavka.storage import manager as storage_manager
from kavka.storage.log import Log
from kavka.storage.manager import LogManager
from tests.simulator.network import Link, Network, Peer
from tests.simulator.store import SimStore, ZooKeeper
from tests.simulator.world import Loop, LoopClock, SimWorkers, World
from tests.unit.storage.power_loss_fs import PowerLossFileSystem

LISTENER = "PLAINTEXT"
LAG_MAX = 2.0

SETTINGS = {
    "zookeeper.connect": "simulated",
    "log.dirs": "/data",
    "log.cleaner.enable": "false",
    "inter.broker.protocol.version": "2.3",
    "replica.lag.time.max.ms": "2000",
    "replica.fetch.backoff.ms": "200",
    "replica.fetch.wait.max.ms": "300",
    "replica.socket.timeout.ms": "2000",
    "controller.socket.timeout.ms": "2000",
    "unclean.leader.election.enable": "false",
    "log.segment.bytes": "4096",
    "auto.leader.rebalance.enable": "false",
    "controlled.shutdown.max.retries": "1",
    "controlled.shutdown.retry.backoff.ms": "100",
}


@contextmanager
def virtual_threads() -> Iterator[None]:
    """The storage layer's threads run in virtual time meanwhile."""
    before = storage_manager.Workers
    storage_manager.Workers = SimWorkers  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        storage_manager.Workers = before  # type: ignore[misc]


class Node:
    """A broker over its restarts."""

    def __init__(
        self,
        world: World,
        broker_id: int,
        network: Network,
        zookeeper: ZooKeeper,
        settings: dict[str, str],
    ) -> None:
        self.world = world
        self.broker_id = broker_id
        self.network = network
        self.zookeeper = zookeeper
        self.settings = settings
        self.clock = LoopClock(world)
        self.fs = PowerLossFileSystem(self.clock.wall_ms)
        self.process: Process | None = None
        self.starts = 0
        self.boots = 1  # of the machine
        self.lost_power = False  # since it was last taken into the in-sync sets
        self.out_of: set[TopicPartition] = set()  # whose sets it has been seen out of since

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def is_running(self) -> bool:
        return self.process is not None and not self.process.loop.paused

    def start(self) -> None:
        assert self.process is None
        self.starts += 1
        self.process = Process(self)

    def kill(self, *, power: bool) -> None:
        process = self.process
        assert process is not None
        process.loop.kill()
        self.network.process_died(process)
        self.process = None
        if power:
            self.boots += 1
            self.fs = self.fs.crash(self.world.random)
        else:
            self.fs.restart()

    def partition(self, tp: TopicPartition) -> Partition | None:
        process = self.process
        if process is None or process.broker is None or not hasattr(process.broker, "replicas"):
            return None
        return process.broker.replicas.find(*tp)

    def log(self, tp: TopicPartition) -> Log | None:
        process = self.process
        if process is None or process.broker is None or not hasattr(process.broker, "logs"):
            return None
        return process.broker.logs.get(tp)


class Process:
    """One life of a broker."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.world = node.world
        self.loop = Loop(node.world, f"broker {node.broker_id}.{node.starts}")
        self.accepting = False
        self.ready = False
        self.broker: Broker | None = None
        self.teardown = contextlib.AsyncExitStack()
        self.membership: Membership | None = None
        node.network.listeners[node.broker_id] = self
        self.loop.start(self._start())

    async def _start(self) -> None:
        node = self.node
        while not self.ready:
            try:
                await self._build()
            except (StoreError, RegistrationError) as error:
                self.world.note(f"{self.loop.name} cannot start: {error}")
                await self.teardown.aclose()
                self.accepting = False
                self.node.fs.restart()
                await asyncio.sleep(0.5)
        node.world.note(f"{self.loop.name} is ready")

    async def _build(self) -> None:
        node, loop = self.node, self.loop
        settings = {**SETTINGS, **node.settings, "broker.id": str(node.broker_id)}
        config = BrokerConfig(settings)
        broker = self.broker = Broker(config, node.clock)
        broker.loop = loop
        broker.node_id = node.broker_id
        rng = random.Random(self.world.random.random())
        boot = str(node.boots).encode()
        logs = broker.logs = LogManager(config, node.fs, node.clock, rng=rng, boot=boot)
        logs.open_directories()
        store = SimStore(node.zookeeper, node.broker_id, loop)
        broker.store = store
        self.teardown.push_async_callback(store.close)
        await registration.prepare_store(store)
        broker.cluster_id = await registration.cluster_id(store, rng)
        logs.claim(node.broker_id, broker.cluster_id)
        broker.metadata = MetadataCache(broker.cluster_id)
        config_store = ConfigStore(store, node.clock)
        await config_store.start()

        def topic_config(topic: str) -> Any:
            return topic_settings.resolve(config_store.topic_overrides(topic), config)

        await logs.start(topic_config)
        self.teardown.push_async_callback(logs.stop)
        broker.waiting = WaitingRoom(node.clock, loop)
        peers = SimPeers(config, node, loop)
        fetchers = FetcherManager(
            node.broker_id,
            config,
            node.clock,
            loop,
            peers.link,
            partial(peers.address, broker.metadata),
            ReplicationThrottle("follower", config, node.broker_id, node.clock),
        )
        writer = StoreIsrWriter(store, node.clock, loop)
        self.teardown.push_async_callback(writer.stop)
        broker.replicas = ReplicaManager(
            node.broker_id,
            logs,
            broker.metadata,
            topic_config,
            broker.waiting,
            node.clock,
            fetchers=fetchers,
            isr_writer=writer,
            lag_max=LAG_MAX,
        )
        broker.replicas.leader_throttle = ReplicationThrottle(
            "leader", config, node.broker_id, node.clock
        )
        broker.replicas.rack_aware = "RackAware" in config.get_str("replica.selector.class")
        broker.replicas.start(loop)
        self.teardown.callback(broker.replicas.stop)
        broker.fetch_sessions = FetchSessions(1000, node.clock, rng)
        from kavka.replication.controller.channels import LocalChannel

        fenced = FencedChannel(
            LocalChannel(broker.replicas, broker.metadata), broker.replicas, broker.metadata
        )
        broker.inbox = ConfiguredChannel(fenced, config_store)
        rack = f"rack{node.broker_id}"
        address = Endpoint(LISTENER, "PLAINTEXT", f"host{node.broker_id}", 9092)
        membership = Membership(
            broker,
            peers,
            lambda: Registration((address,), rack),
            fenced,
            broker.inbox,
            config_store,
        )
        self.membership = membership
        broker.controller = Controller(
            node.broker_id,
            store,
            broker.metadata,
            config_store,
            config,
            node.clock,
            rng,
            membership.open_channel,
        )
        self.teardown.push_async_callback(broker.controller.stop)
        if logs.lost_memory:
            await leave_in_sync_sets(store, node.broker_id, logs.whole())
        await logs.forgive()
        self.accepting = True
        await membership.join()
        self.ready = True

    async def stop(self) -> None:
        """A clean stop: leadership is handed over, then everything ends."""
        assert self.membership is not None and self.broker is not None
        await self.membership.leave()
        self.accepting = False
        self.node.network.process_died(self)
        self.broker.waiting.expire_all()
        await self.teardown.aclose()
        self.loop.kill()
        if self.node.process is self:
            self.node.process = None
            self.node.fs.restart()

    # -- requests ---------------------------------------------------------------------------

    def receive(self, peer: Peer, key: int, version: int, body: bytes) -> None:
        broker = self.broker
        assert broker is not None
        slot: list[Any] = [None]
        peer.parked.append(slot)
        view = memoryview(bytearray(body))
        module = importlib.import_module(f"kavka.broker.handlers.{HANDLERS[key].module}")
        request = Request(key, version, 0, "client", view, peer)  # type: ignore[arg-type]
        if hasattr(module, "handle_raw"):
            answer = module.handle_raw(broker, request)
        else:
            wanted, _ = message_classes(key)
            message = codec.decode(wanted, view, version)
            answer = module.handle(broker, request, message)
            if asyncio.iscoroutine(answer):
                task = self.loop.create_task(self._later(module, answer, message))
                task.add_done_callback(partial(self._task_done, peer, slot, version))
                return
        if isinstance(answer, Pending):
            answer.request = request
            if answer.done:
                self._done(peer, slot, answer.response, version)
            else:
                answer.await_with(_Awaiter(self, peer, slot, version))
                peer.on_close.append(lambda: None if answer.done else answer.cancel())
        else:
            self._done(peer, slot, answer, version)

    async def _later(self, module: Any, answer: Any, message: Any) -> Any:
        try:
            return await answer
        except KafkaError as error:
            return module.error_response(error.code, message)

    def _task_done(
        self, peer: Peer, slot: list[Any], version: int, done: "asyncio.Task[Any]"
    ) -> None:
        if not done.cancelled():
            self._done(peer, slot, done.result(), version)

    def _done(self, peer: Peer, slot: list[Any], answer: Any, version: int) -> None:
        slot[0] = _bytes(answer, version)
        while peer.parked and peer.parked[0][0] is not None:
            peer.answer(peer.parked.pop(0)[0])


class _Awaiter:
    def __init__(self, process: Process, peer: Peer, slot: list[Any], version: int) -> None:
        self._process = process
        self._peer = peer
        self._slot = slot
        self._version = version

    def answer_ready(self, pending: Pending) -> None:
        assert pending.error is None, pending.error
        if not self._peer.closed:
            self._process._done(self._peer, self._slot, pending.response, self._version)


def _bytes(answer: Any, version: int) -> bytes:
    if isinstance(answer, Raw):
        return b"".join(
            bytes(part.view()) if hasattr(part, "view") else bytes(part) for part in answer.parts
        )
    if isinstance(answer, bytes | bytearray):
        return bytes(answer)
    return codec.encode(answer, version)


class SimPeers(Peers):
    """The way to other brokers is the simulated network."""

    def __init__(self, config: BrokerConfig, node: Node, loop: Loop) -> None:
        super().__init__(config, node.broker_id)
        self._node = node
        self._loop = loop

    async def link(self, address: BrokerAddress, client_id: str) -> Link:
        return await self._node.network.connect(
            self._loop, self._node.broker_id, address, timeout=2.0
        )

    async def connect(self, address: BrokerAddress) -> Any:
        return await self.link(address, "controller")
