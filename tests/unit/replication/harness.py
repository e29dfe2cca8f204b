"""A controller over a real store, with brokers that only answer."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrPartitionError,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicError,
)
from kavka.protocol.messages.k05_stop_replica import (
    StopReplicaPartitionError,
    StopReplicaRequest,
    StopReplicaResponse,
)
from kavka.protocol.messages.k06_update_metadata import UpdateMetadataRequest
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.channels import ControlRequest, ControlResponse, LocalChannel
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.controller.controller import Controller
from kavka.replication.controller.producer_ids import ProducerIds
from kavka.replication.metadata import MetadataCache
from kavka.replication.registration import cluster_id, prepare_store, register
from kavka.replication.store.local import LocalStore
from kavka.replication.znodes import Registration
from kavka.storage.clock import ManualClock

NODE = 1
TIMEOUT_MS = 10_000


class FakeReplicas:
    """A replica manager that keeps a note of what it was told.

    ``broken`` partitions have a disk that fails.
    """

    def __init__(self) -> None:
        self.leaders: dict[TopicPartition, tuple[int, int]] = {}
        self.new: set[TopicPartition] = set()
        self.deleted: list[TopicPartition] = []
        self.stopped: list[TopicPartition] = []
        self.broken: set[TopicPartition] = set()
        self.undeletable: set[TopicPartition] = set()

    def apply_leader_and_isr(self, request: LeaderAndIsrRequest) -> LeaderAndIsrResponse:
        response = LeaderAndIsrResponse()
        for topic in request.topic_states:
            errors = LeaderAndIsrTopicError(topic_id=topic.topic_id, partition_errors=[])
            response.topics.append(errors)
            for state in topic.partition_states:
                tp = TopicPartition(topic.topic_name, state.partition_index)
                code = 56 if tp in self.broken else 0
                errors.partition_errors.append(
                    LeaderAndIsrPartitionError(
                        partition_index=state.partition_index, error_code=code
                    )
                )
                if not code:
                    self.leaders[tp] = (state.leader, state.leader_epoch)
                    if state.is_new:
                        self.new.add(tp)
        return response

    def stop_replica(self, request: StopReplicaRequest) -> StopReplicaResponse:
        response = StopReplicaResponse()
        for topic in request.topic_states:
            for state in topic.partition_states:
                tp = TopicPartition(topic.topic_name, state.partition_index)
                code = 56 if state.delete_partition and tp in self.undeletable else 0
                if not code:
                    (self.deleted if state.delete_partition else self.stopped).append(tp)
                    self.leaders.pop(tp, None)
                response.partition_errors.append(
                    StopReplicaPartitionError(
                        topic_name=topic.topic_name,
                        partition_index=state.partition_index,
                        error_code=code,
                    )
                )
        return response


class RecordingChannel(LocalChannel):
    """A channel that remembers every request."""

    def __init__(self, replicas: FakeReplicas, metadata: MetadataCache) -> None:
        super().__init__(replicas, metadata)
        self.requests: list[ControlRequest] = []
        self.closed = False

    def send(self, request: ControlRequest, on_response: Callable[[ControlResponse], None]) -> None:
        assert not self.closed
        self.requests.append(request)
        super().send(request, on_response)

    def close(self) -> None:
        self.closed = True

    def kinds(self) -> list[str]:
        return [type(request).__name__.removesuffix("Request") for request in self.requests]

    def last_metadata(self) -> UpdateMetadataRequest:
        return [r for r in self.requests if isinstance(r, UpdateMetadataRequest)][-1]


class Harness:
    """Broker 1 with the controller; other brokers come and go as they are told."""

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        self.path = str(directory / "metadata.db")
        self.clock = ManualClock()
        self.config = BrokerConfig(settings or {})
        self.random = Random(1)  # goes on over restarts: ids are not given twice
        self.replicas: dict[int, FakeReplicas] = {}
        self.channels: dict[int, RecordingChannel] = {}
        self.caches: dict[int, MetadataCache] = {}
        self.on_disk: dict[str, bytes] = {}  # ids of topics that logs remember
        self.wrap: Callable[[LocalStore], Any] = lambda store: store

    async def start(self, *others: int) -> None:
        self.store = self.wrap(await LocalStore.open(self.path, self.clock))
        await prepare_store(self.store)
        self.metadata = MetadataCache(await cluster_id(self.store, self.random))
        self.caches = {NODE: self.metadata}
        self.configs = ConfigStore(self.store, self.clock)
        await self.configs.start()
        self.producer_ids = ProducerIds(self.store, NODE)
        self.epoch = await register(self.store, NODE, registration(NODE), self.clock.wall_ms())
        for other in others:
            await self.broker_comes(other)
        self.controller = Controller(
            NODE,
            self.store,
            self.metadata,
            self.configs,
            self.config,
            self.clock,
            self.random,
            self.open_channel,
            self.on_disk.get,
        )
        await self.controller.start()

    def open_channel(self, broker_id: int, _: Registration) -> RecordingChannel:
        replicas = self.replicas.setdefault(broker_id, FakeReplicas())
        cache = self.caches.setdefault(broker_id, MetadataCache("other"))
        channel = self.channels[broker_id] = RecordingChannel(replicas, cache)
        return channel

    async def stop(self) -> None:
        await self.controller.stop()
        await self.configs.stop()
        await self.store.close()
        self.replicas.clear()

    async def broker_comes(self, broker_id: int, rack: str | None = None) -> None:
        """Register a broker that has just been started: it knows nothing yet."""
        self.replicas.pop(broker_id, None)
        self.caches.pop(broker_id, None)
        body = znodes.encode_registration(registration(broker_id, rack), 0)
        await self.store.create(znodes.broker_path(broker_id), body, ephemeral=True)

    async def broker_goes(self, broker_id: int) -> None:
        await self.store.delete(znodes.broker_path(broker_id))

    async def settle(self) -> None:
        """Let the controller see and do all there is to do."""
        for _ in range(5):
            await self.store.exists("/")
            await self.controller._do(_nothing)

    async def state(self, topic: str, partition: int = 0) -> znodes.StateNode:
        path = znodes.state_path(topic, partition)
        data, _ = await self.store.get(path)
        return znodes.decode_state(path, data)

    async def shrink(self, topic: str, partition: int, isr: tuple[int, ...]) -> None:
        """Change an ISR as its leader would, and announce it.

        Raises BadVersion when the controller has just written another state.
        """
        path = znodes.state_path(topic, partition)
        data, stat = await self.store.get(path)
        state = znodes.decode_state(path, data)
        assert state.leader == -1 or state.leader in isr
        await self.store.set(path, znodes.encode_state(state._replace(isr=isr)), stat.version)
        body = znodes.encode_partitions([TopicPartition(topic, partition)])
        await self.store.create(f"{znodes.ISR_CHANGES}/isr_change_", body, sequence=True)


async def _nothing() -> None:
    pass


def registration(broker_id: int, rack: str | None = None) -> Registration:
    return Registration((Endpoint("PLAINTEXT", "PLAINTEXT", f"host{broker_id}", 9092),), rack)


def run(harness: Harness, scenario: Callable[[], Coroutine[Any, Any, None]], *others: int) -> None:
    """Run a scenario against a started controller."""

    async def whole() -> None:
        await harness.start(*others)
        try:
            await scenario()
        finally:
            await harness.stop()

    asyncio.run(whole())
