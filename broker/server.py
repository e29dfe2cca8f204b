"""A broker from start to stop: what is built in which order, and taken down again.

The start is a race against the user's patience: nothing is imported or compiled before it is
needed. A failing start says in one sentence what to change. The broker says that it is ready when
its logs are recovered, its coordinator loaded and its listeners bound, and not before.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kavka.broker import logs
from kavka.broker.configs import Configs
from kavka.broker.context import Broker
from kavka.broker.control import ConfiguredChannel
from kavka.broker.dispatch import Dispatcher, offered_versions
from kavka.broker.fetch.sessions import FetchSessions
from kavka.broker.groups.coordinator import GroupCoordinator
from kavka.broker.listeners import ListenError
from kavka.broker.network import Network, UnsupportedProtocol
from kavka.broker.transactions.coordinator import TransactionCoordinator
from kavka.config import topic as topic_settings
from kavka.config.option import ConfigError
from kavka.replication import registration
from kavka.replication.controller.channels import BrokerChannel, LocalChannel
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.controller.controller import Controller
from kavka.replication.controller.producer_ids import ProducerIds
from kavka.replication.metadata import MetadataCache
from kavka.replication.registration import RegistrationError
from kavka.replication.replica_manager import ReplicaManager
from kavka.replication.store.base import StoreError
from kavka.replication.store.local import LocalStore
from kavka.replication.waiting import WaitingRoom
from kavka.replication.znodes import Registration
from kavka.storage.capacity_guard import CapacityGuard
from kavka.storage.clock import Clock, SystemClock
from kavka.storage.fs import FileSystem
from kavka.storage.manager import LogManager
from kavka.storage.meta import LogDirectoryError

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint
    from kavka.config.topic import TopicConfig
    from kavka.storage.logdir import LogDirectory

log = logging.getLogger("kavka.server")

_GC_THRESHOLDS: Final = (50_000, 50, 1_000)
_DRAIN_SECONDS: Final = 5.0  # for coroutine handlers of a stopping broker
_FLUSH_SECONDS: Final = 1.0  # for readers of a stopping broker's last answers
_STORE_FILE: Final = "metadata.db"

_EXPECTED: Final = (
    ListenError,
    LogDirectoryError,
    RegistrationError,
    StoreError,
    UnsupportedProtocol,
)


class StartupError(Exception):
    """The broker cannot start; the message is one sentence that says what to change."""


class Server:
    """One broker. Owned by the event loop it is started on; started and stopped once."""

    def __init__(
        self,
        config: "BrokerConfig",
        clock: Clock | None = None,
        fs: FileSystem | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.fs = fs or FileSystem()
        self.random = random.SystemRandom()
        self.broker = Broker(config, self.clock)
        self.bound: list[Endpoint] = []  # where it listens, and what clients are told of that
        self.advertised: list[Endpoint] = []
        self.failed = asyncio.Event()  # something without which the broker cannot go on
        # Taken down in the opposite order of building, also when building stops half-way.
        self._teardown = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Build the broker and let clients in.

        Raises StartupError for what the user can change; whatever was built is taken down again.
        """
        try:
            await self._build()
        except _EXPECTED as error:
            await self._teardown.aclose()
            raise StartupError(str(error)) from error
        except OSError as error:
            await self._teardown.aclose()
            what = error.filename or "a file"
            raise StartupError(
                f"Cannot use {what}: {error.strerror or error}; check log.dirs and the rights there"
            ) from error
        except BaseException:
            await self._teardown.aclose()
            raise

    async def stop(self) -> None:
        """Answer who waits, flush and close the logs, leave the mark of a clean stop."""
        await self._teardown.aclose()
        log.info("broker stopped broker=%d", self.broker.node_id)

    # -- building -----------------------------------------------------------------------------

    async def _build(self) -> None:
        broker, config, clock = self.broker, self.config, self.clock
        loop = broker.loop = asyncio.get_running_loop()
        if not config.embedded:
            raise StartupError(
                "zookeeper.connect is set, but this release keeps its metadata in a store of its "
                "own: remove zookeeper.connect"
            )
        compatibility = config.get_str("compatibility")
        broker.offered_versions = offered_versions(compatibility)
        dispatcher = Dispatcher(broker, compatibility)
        network = Network(config, clock, loop, dispatcher)
        network.bind()
        self._teardown.callback(network.close)
        self.bound, self.advertised = network.bound(), network.advertised()
        broker.advertised_endpoints = {
            endpoint.name: (endpoint.host, endpoint.port) for endpoint in self.advertised
        }

        log_manager = broker.logs = LogManager(config, self.fs, clock, rng=self.random)
        log_manager.on_directory_offline = self._directory_offline
        known_id = log_manager.open_directories()
        self._teardown.push_async_callback(log_manager.stop)
        path = os.path.join(log_manager.describe()[0].path, _STORE_FILE)
        opening = loop.create_task(LocalStore.open(path, clock))
        self._teardown.push_async_callback(_close_store, opening)
        store = broker.store = await asyncio.shield(opening)
        await registration.prepare_store(store)
        broker.cluster_id = await registration.cluster_id(store, self.random)
        broker.node_id = await self._node_id(known_id)
        log_manager.claim(broker.node_id, broker.cluster_id)

        broker.metadata = MetadataCache(broker.cluster_id)
        config_store = ConfigStore(store, clock)
        broker.configs = Configs(config, broker.node_id, broker.metadata, config_store)
        await config_store.start()
        self._teardown.push_async_callback(config_store.stop)

        def topic_config(topic: str) -> "TopicConfig":
            return _resolve(topic, config_store.topic_overrides(topic), config)

        await log_manager.start(topic_config)
        broker.waiting = WaitingRoom(clock, loop)
        broker.replicas = ReplicaManager(
            broker.node_id, log_manager, broker.metadata, topic_config, broker.waiting, clock
        )
        log_manager.mover.on_moved = broker.replicas.log_moved
        broker.capacity = broker.replicas.capacity = CapacityGuard(
            config, log_manager, self.fs, clock
        )
        self._teardown.push_async_callback(broker.capacity.stop)
        await broker.capacity.start()
        self._follow_topic_settings(config_store, topic_config)
        broker.fetch_sessions = FetchSessions(
            config.get_int("max.incremental.fetch.session.cache.slots"), clock, self.random
        )
        broker.producer_ids = ProducerIds(
            store, broker.node_id, partial(_highest_producer_id, log_manager)
        )
        broker.groups = GroupCoordinator.create(broker)
        broker.groups.start(broker)
        broker.transactions = TransactionCoordinator.create(broker)

        await registration.register(
            store,
            broker.node_id,
            Registration(tuple(self.advertised), config.get_optional_str("broker.rack")),
            clock.wall_ms(),
        )
        channel = ConfiguredChannel(LocalChannel(broker.replicas, broker.metadata), config_store)

        def open_channel(broker_id: int, registered: Registration) -> BrokerChannel:
            assert broker_id == broker.node_id, "a lone broker is its own only peer"
            return channel

        broker.controller = Controller(
            broker.node_id,
            store,
            broker.metadata,
            config_store,
            config,
            clock,
            self.random,
            open_channel,
        )
        self._teardown.push_async_callback(broker.controller.stop)
        await broker.controller.start()
        await channel.settled()
        broker.transactions.start(broker)
        await broker.groups.loaded()
        await broker.transactions.loaded()
        self._teardown.push_async_callback(self._stop_serving, network, dispatcher)
        network.listen()

    async def _node_id(self, known: int | None) -> int:
        if known is not None:
            return known
        reserved = self.config.get_int("reserved.broker.max.id")
        return await registration.generated_broker_id(self.broker.store, reserved)

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

    # -- stopping -----------------------------------------------------------------------------

    async def _stop_serving(self, network: Network, dispatcher: Dispatcher) -> None:
        """Let nobody in, let finish what is under way, and tell everybody who waits."""
        network.stop_listening()
        await dispatcher.drain(_DRAIN_SECONDS)
        self.broker.groups.stop()
        self.broker.transactions.stop()
        self.broker.waiting.expire_all()
        await network.hub.drain(_FLUSH_SECONDS)
        network.close()


async def _close_store(opening: "asyncio.Task[LocalStore]") -> None:
    """Close the store, also one that was still being opened when the start was broken off."""
    try:
        store = await opening
    except StoreError:
        return
    await store.close()


def _highest_producer_id(logs: LogManager) -> int:
    ids = (entry.producer_id for each in logs for entry in each.producers.entries())
    return max(ids, default=-1)


def _resolve(topic: str, overrides: Mapping[str, str], config: "BrokerConfig") -> "TopicConfig":
    try:
        return topic_settings.resolve(overrides, config)
    except ConfigError as error:
        # Written past our checks by another tool; the topic must live on nevertheless.
        log.error("a topic's overrides are ignored: %s topic=%s", error.message, topic)
        return topic_settings.resolve({}, config)


# -- the process ------------------------------------------------------------------------------


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop of uvloop, or asyncio's own where uvloop does not exist."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(config: "BrokerConfig") -> int:
    """Be a broker until SIGTERM or SIGINT; the exit status of the process."""
    gc.disable()  # until everything that will stay is there
    logs.set_up(config.get_str("log.level"))
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(config))
    except StartupError as error:
        print(f"kavka: {error}", file=sys.stderr)
    except Exception:
        log.critical("the broker failed", exc_info=True)
    return 1


async def _serve(config: "BrokerConfig") -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, loop, stop, number)
    server = Server(config)
    if not await _unless(stop, server.start()):
        return 0
    # What exists now stays: the collector need not look at it again.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()
    addresses = ", ".join(map(str, server.bound))
    facts = f"broker={server.broker.node_id} cluster={server.broker.cluster_id}"
    if server.advertised != server.bound:
        facts += f" advertised={','.join(map(str, server.advertised))}"
    with contextlib.suppress(BrokenPipeError):  # whoever read the line may be gone
        print(f"kavka is ready at {addresses} {facts}", flush=True)
    await _unless(stop, server.failed.wait())
    await server.stop()
    return 1 if server.failed.is_set() else 0


def _on_signal(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, number: signal.Signals
) -> None:
    log.info("stopping signal=%s", number.name)
    stop.set()
    # Whoever asks a second time does not want to wait for a clean stop.
    loop.remove_signal_handler(number)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Do ``work`` and say True, or False when ``stop`` was set before its end."""
    loop = asyncio.get_running_loop()
    working, stopping = loop.create_task(work), loop.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    return False


def _raise_file_limit() -> None:
    """Connections and segments need descriptors; shells hand out few by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
