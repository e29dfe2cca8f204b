"""Puts a broker together, part by part, and takes it apart in the opposite order.

The start is a race against the user's patience: nothing is imported or compiled before it is
needed. What only a member of a cluster needs is in ``broker/cluster``.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from kavka.broker.audit import audit_automatic_deletion
from kavka.broker.configs import Configs
from kavka.broker.context import Broker
from kavka.broker.control import ConfiguredChannel, FencedChannel, OwnChannel
from kavka.broker.coordination.on_demand import OnDemand
from kavka.broker.dispatch import Dispatcher, features, offered_versions
from kavka.broker.fetch.sessions import FetchSessions
from kavka.broker.listener_control import ListenerControl
from kavka.broker.network import Network
from kavka.broker.quotas.keeper import QuotaKeeper
from kavka.broker.security.acl.opening import open_authorizer
from kavka.broker.security.logins import Logins
from kavka.broker.security.tls.keeper import TlsKeeper
from kavka.broker.transactions.inclusion import Inclusion
from kavka.config import topic as topic_settings
from kavka.config.option import ConfigError
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC
from kavka.replication import registration
from kavka.replication.controller.channels import BrokerChannel, LocalChannel
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.controller.controller import Controller
from kavka.replication.controller.producer_ids import ProducerIds
from kavka.replication.metadata import MetadataCache
from kavka.replication.replica_manager import ReplicaManager
from kavka.replication.store.base import MetadataStore, StoreError
from kavka.replication.store.outlasting import OutlastingStore
from kavka.replication.waiting import WaitingRoom
from kavka.replication.znodes import Registration
from kavka.storage.capacity_guard import CapacityGuard
from kavka.storage.clock import Clock
from kavka.storage.fs import FileSystem
from kavka.storage.manager import LogManager

if TYPE_CHECKING:
    from kavka.broker.cluster.membership import Membership
    from kavka.broker.groups.coordinator import GroupCoordinator
    from kavka.broker.transactions.coordinator import TransactionCoordinator
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint
    from kavka.config.topic import TopicConfig
    from kavka.storage.logdir import LogDirectory

log = logging.getLogger("kavka.server")

_DRAIN_SECONDS: Final = 5.0  # for coroutine handlers of a stopping broker
_FLUSH_SECONDS: Final = 1.0  # for readers of a stopping broker's last answers
_STORE_FILE: Final = "metadata.db"


class Assembly:
    """The parts of one broker. Built once, by ``build``; taken apart by ``take_apart``."""

    def __init__(
        self, config: "BrokerConfig", clock: Clock, fs: FileSystem, random: Random
    ) -> None:
        self.config = config
        self.clock = clock
        self.fs = fs
        self.random = random
        self.broker = Broker(config, clock)
        self._listeners: ListenerControl | None = None
        self._membership: Membership | None = None  # of a cluster
        self.failed = asyncio.Event()  # something without which the broker cannot go on
        # Taken down in the opposite order of building, also when building stops half-way.
        self._teardown = contextlib.AsyncExitStack()

    @property
    def bound(self) -> "list[Endpoint]":
        """Where the broker listens."""
        return self._listeners.bound if self._listeners is not None else []

    @property
    def advertised(self) -> "list[Endpoint]":
        """What clients are told of that."""
        return self._listeners.advertised if self._listeners is not None else []

    async def build(self) -> None:
        """Build all parts; returns when clients are let in and everything is loaded.

        Raises what keeps the broker from starting; the caller then takes it apart.
        """
        broker, config = self.broker, self.config
        broker.loop = asyncio.get_running_loop()
        compatibility = config.get_str("compatibility")
        broker.offered_versions = offered_versions(compatibility)
        dispatcher = Dispatcher(broker, compatibility)
        broker.tls = TlsKeeper(config, broker.loop, self.clock)
        self._teardown.push_async_callback(broker.tls.stop)
        await broker.tls.prepare(config)
        network = self._network(dispatcher)
        broker.logs = LogManager(config, self.fs, self.clock, rng=self.random)
        broker.logs.on_directory_offline = self._directory_offline
        known_id = broker.logs.open_directories()
        self._teardown.push_async_callback(broker.logs.stop)
        broker.store = await self._open_store()
        await registration.prepare_store(broker.store)
        broker.cluster_id = await registration.cluster_id(broker.store, self.random)
        broker.node_id = await self._node_id(known_id)
        broker.logs.claim(broker.node_id, broker.cluster_id)
        broker.metadata = MetadataCache(broker.cluster_id)
        config_store = ConfigStore(OutlastingStore(broker.store), self.clock)
        broker.configs = Configs(config, broker.node_id, broker.metadata, config_store)
        broker.configs.listeners = self._listeners
        broker.quota_keeper = QuotaKeeper(broker, config_store)
        broker.quota_keeper.limit_connections(network.admission)
        broker.logins.follow(config_store)
        await config_store.start()
        self._teardown.push_async_callback(config_store.stop)
        await broker.configs.renew_secrets()
        self._teardown.push_async_callback(broker.logins.close_tokens)
        await broker.logins.open_tokens()
        await open_authorizer(broker, self.random, self._teardown)
        await self._replicas(config_store)
        self._coordinators()
        await self._join(config_store, network, dispatcher)

    async def take_apart(self) -> None:
        """Answer who waits, flush and close the logs, leave the mark of a clean stop."""
        await self._teardown.aclose()

    # -- part by part -------------------------------------------------------------------------

    def _network(self, dispatcher: Dispatcher) -> Network:
        logins = self.broker.logins = Logins(self.broker, dispatcher)
        self._teardown.callback(logins.close)
        for endpoint in self.config.listeners:
            if endpoint.protocol.startswith("SASL_"):
                logins.prepare(endpoint)
        network = Network(
            self.config,
            self.clock,
            self.broker.loop,
            dispatcher,
            gates=logins.gate,
            tls=self.broker.tls.settings,
        )
        logins.connections = network.hub.connections
        network.bind()
        self._teardown.callback(network.close)
        self._listeners = ListenerControl(self.broker, network)
        self._teardown.callback(self._listeners.close)
        return network

    async def _open_store(self) -> MetadataStore:
        store: Coroutine[Any, Any, MetadataStore]
        if not self.config.embedded:
            from kavka.broker.cluster import zookeeper

            store = zookeeper.open_store(self.config)
        else:
            # Imported here because a member of a cluster has no use for it.
            from kavka.replication.store.local import LocalStore

            path = os.path.join(self.broker.logs.describe()[0].path, _STORE_FILE)
            store = LocalStore.open(path, self.clock)
        opening: asyncio.Task[MetadataStore] = self.broker.loop.create_task(store)
        self._teardown.push_async_callback(_close_store, opening)
        return await asyncio.shield(opening)

    async def _node_id(self, known: int | None) -> int:
        if known is not None:
            return known
        reserved = self.config.get_int("reserved.broker.max.id")
        return await registration.generated_broker_id(self.broker.store, reserved)

    async def _replicas(self, config_store: ConfigStore) -> None:
        broker, config, clock = self.broker, self.config, self.clock
        log_manager = broker.logs

        def topic_config(topic: str) -> "TopicConfig":
            return _resolve(topic, config_store.topic_overrides(topic), config)

        await log_manager.start(topic_config)
        broker.waiting = WaitingRoom(clock, broker.loop)
        if config.embedded:
            broker.replicas = ReplicaManager(
                broker.node_id, log_manager, broker.metadata, topic_config, broker.waiting, clock
            )
        else:
            from kavka.broker.cluster.peers import Peers
            from kavka.broker.cluster.replication import replicas_of_member
            from kavka.broker.cluster.security import client_security

            broker.peers = Peers(config, broker.node_id, client_security(config, broker.tls))
            self._teardown.callback(broker.peers.close)
            broker.replicas = replicas_of_member(broker, broker.peers, topic_config, self._teardown)
        log_manager.mover.on_moved = broker.replicas.log_moved
        broker.metadata.on_brokers_changed(partial(broker.waiting.notify, broker.metadata))
        broker.capacity = broker.replicas.capacity = CapacityGuard(
            config, log_manager, self.fs, clock
        )
        broker.capacity.on_deleted = audit_automatic_deletion
        self._teardown.push_async_callback(broker.capacity.stop)
        await broker.capacity.start()
        self._follow_topic_settings(config_store, topic_config)

    def _coordinators(self) -> None:
        broker, config = self.broker, self.config
        broker.fetch_sessions = FetchSessions(
            config.get_int("max.incremental.fetch.session.cache.slots"), self.clock, self.random
        )
        broker.producer_ids = ProducerIds(
            broker.store, broker.node_id, partial(_highest_producer_id, broker.logs)
        )
        broker.groups_on_demand = OnDemand(partial(_group_coordinator, broker))
        broker.groups_on_demand.start(broker.replicas, GROUP_METADATA_TOPIC)
        broker.transactions_on_demand = OnDemand(partial(_transaction_coordinator, broker))
        broker.inclusion = Inclusion.create(broker)
        broker.features = features(config.get_str("compatibility"), broker.inclusion.can_add)

    async def _join(
        self, config_store: ConfigStore, network: Network, dispatcher: Dispatcher
    ) -> None:
        """Become part of the cluster, or all of it, and let clients in."""
        broker = self.broker
        fenced = FencedChannel(
            LocalChannel(broker.replicas, broker.metadata), broker.replicas, broker.metadata
        )
        inbox = broker.inbox = ConfiguredChannel(fenced, config_store)
        assert self._listeners is not None
        self._listeners.meet(broker.metadata)
        registration_of_now = self._listeners.registration
        if self.config.embedded:
            await registration.register(
                broker.store, broker.node_id, registration_of_now(), self.clock.wall_ms()
            )
            self._controller(config_store, lambda broker_id, _: OwnChannel(inbox))
            await broker.controller.start()
            await inbox.settled()
            await self._coordinate()
            self._teardown.push_async_callback(self._stop_serving, network, dispatcher)
            network.listen()
            return
        from kavka.broker.cluster.membership import Membership

        assert broker.peers is not None
        membership = self._membership = Membership(
            broker, broker.peers, registration_of_now, fenced, inbox, config_store
        )
        self._controller(config_store, membership.open_channel)
        if broker.logs.lost_memory:
            from kavka.replication.unclean_start import leave_in_sync_sets

            await leave_in_sync_sets(broker.store, broker.node_id, broker.logs.whole())
        await broker.logs.forgive()
        self._teardown.push_async_callback(self._stop_serving, network, dispatcher)
        # The controller talks to this broker as soon as it is registered.
        network.listen()
        self._teardown.push_async_callback(membership.leave)
        await membership.join()
        await self._coordinate()

    async def _coordinate(self) -> None:
        """Read what this broker, whose metadata is known, coordinates."""
        groups, transactions = self.broker.groups_on_demand, self.broker.transactions_on_demand
        transactions.start(self.broker.replicas, TRANSACTION_STATE_TOPIC)
        await groups.loaded()
        await transactions.loaded()

    def _controller(
        self, config_store: ConfigStore, open_channel: Callable[[int, Registration], BrokerChannel]
    ) -> None:
        broker = self.broker
        broker.controller = Controller(
            broker.node_id,
            broker.store,
            broker.metadata,
            config_store,
            self.config,
            self.clock,
            self.random,
            open_channel,
            partial(_topic_id_on_disk, broker.logs),
        )
        self._teardown.push_async_callback(broker.controller.stop)

    def _follow_topic_settings(
        self, config_store: ConfigStore, topic_config: "Callable[[str], TopicConfig]"
    ) -> None:
        """Let open logs follow what is changed of their topics, and of the broker's defaults."""
        replicas, metadata = self.broker.replicas, self.broker.metadata

        def topic_changed(topic: str, overrides: Mapping[str, str]) -> None:
            replicas.update_topic_config(topic, topic_config(topic))

        def defaults_changed(names: frozenset[str]) -> None:
            for topic in metadata.topics:
                replicas.update_topic_config(topic, topic_config(topic))

        config_store.subscribe("topics", topic_changed)
        keys = {option.broker_key for option in topic_settings.TOPIC_OPTIONS.values()}
        self.config.on_change({key for key in keys if key is not None}, defaults_changed)

    def _directory_offline(self, directory: "LogDirectory") -> None:
        directories = self.broker.logs.describe()
        if all(each.offline for each in directories):
            reasons = "; ".join(str(each.offline) for each in directories)
            log.critical("no log directory is left, the broker stops: %s", reasons)
            self.failed.set()
        if hasattr(self.broker, "replicas"):  # else it failed while the broker was starting
            self.broker.replicas.directory_failed()
            if self._membership is not None:
                self._membership.directory_failed()

    # -- stopping -----------------------------------------------------------------------------

    async def _stop_serving(self, network: Network, dispatcher: Dispatcher) -> None:
        """Let nobody in, let finish what is under way, and tell everybody who waits."""
        network.stop_listening()
        await dispatcher.drain(_DRAIN_SECONDS)
        self.broker.groups_on_demand.stop()
        self.broker.transactions_on_demand.stop()
        self.broker.waiting.expire_all()
        await network.hub.drain(_FLUSH_SECONDS)
        network.close()


async def _close_store(opening: "asyncio.Task[MetadataStore]") -> None:
    """Close the store, also one that was still being opened when the start was broken off."""
    try:
        store = await opening
    except StoreError:
        return
    await store.close()


def _group_coordinator(broker: Broker) -> "GroupCoordinator":
    from kavka.broker.groups.coordinator import GroupCoordinator  # see OnDemand

    return GroupCoordinator.create(broker)


def _transaction_coordinator(broker: Broker) -> "TransactionCoordinator":
    from kavka.broker.transactions.coordinator import TransactionCoordinator  # see OnDemand

    return TransactionCoordinator.create(broker)


def _highest_producer_id(logs: LogManager) -> int:
    ids = (entry.producer_id for each in logs for entry in each.producers.entries())
    return max(ids, default=-1)


def _topic_id_on_disk(logs: LogManager, topic: str) -> bytes | None:
    ids = (each.topic_id for each in logs if each.topic_partition.topic == topic)
    return next((topic_id for topic_id in ids if topic_id != ZERO_UUID), None)


def _resolve(topic: str, overrides: Mapping[str, str], config: "BrokerConfig") -> "TopicConfig":
    try:
        return topic_settings.resolve(overrides, config)
    except ConfigError as error:
        # Written past our checks by another tool; the topic must live on nevertheless.
        log.error("a topic's overrides are ignored: %s topic=%s", error.message, topic)
        return topic_settings.resolve({}, config)
