"""Being a member of a cluster: joining it, living through lost sessions, and leaving it.

A broker is a member as long as its session with ZooKeeper holds its registration. When the
session has expired, the others count it as dead: its controller resigns, and it registers anew
as soon as there is a new session, with a new epoch, so that requests meant for the broker of
before are refused. What it leads it goes on serving; whoever leads it now has a later epoch, and
no ISR can be changed on behalf of the old one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from kavka.broker.control import FencedChannel, OwnChannel
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.messages.k07_controlled_shutdown import (
    ControlledShutdownRequest,
    ControlledShutdownResponse,
)
from kavka.replication import registration, znodes
from kavka.replication.client import BrokerUnavailable
from kavka.replication.controller.channels import BrokerChannel
from kavka.replication.controller.network import NetworkChannel, NoChannel, newest_versions
from kavka.replication.registration import RegistrationError
from kavka.replication.store.base import SessionEvent, StoreError

if TYPE_CHECKING:
    from kavka.broker.cluster.peers import Peers
    from kavka.broker.context import Broker
    from kavka.replication.controller.configs import ConfigStore
    from kavka.replication.znodes import Registration

log = logging.getLogger("kavka.cluster")

RETRY_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 2.0
_GRACE_SECONDS: Final = 2.0  # beyond the session time-out, for ZooKeeper to end a session
_LOOK_AGAIN_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 10.0  # before the log says what the start waits for
# What may come of a try to hand over leaderships.
_FAILURES: Final = (
    BrokerUnavailable,
    KafkaError,
    MalformedFrame,
    StoreError,
    OSError,
    TimeoutError,
)


class Membership:
    """This broker's place in its cluster. Owned by the event loop."""

    def __init__(
        self,
        broker: "Broker",
        peers: "Peers",
        registered: "Callable[[], Registration]",
        fence: FencedChannel,
        inbox: BrokerChannel,
        configs: "ConfigStore",
    ) -> None:
        self._broker = broker
        self._peers = peers
        self._registered = registered
        self._fence = fence
        fence.hold()
        self._inbox = inbox
        self._configs = configs
        self._connected = asyncio.Event()
        self._connected.set()
        self._expired = False
        self._leaving = False
        self._rejoining: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        broker.store.on_session_event(self._on_session)

    def open_channel(self, broker_id: int, registered: "Registration") -> BrokerChannel:
        """The controller's way to a broker."""
        if broker_id == self._broker.node_id:
            return OwnChannel(self._inbox)
        address = self._peers.control_address(broker_id, registered)
        if address is None:
            log.error(
                "A broker has no listener for other brokers and is told nothing broker=%d "
                "listener=%s",
                *(broker_id, self._peers.control_listener),
            )
            return NoChannel()
        return NetworkChannel(
            broker_id, partial(self._peers.connect, address), self._peers.fixed_versions
        )

    # -- joining --------------------------------------------------------------------------------

    async def join(self) -> None:
        """Register, stand for controller, and wait for the controller's first word.

        Raises RegistrationError and StoreError.
        """
        await self._first_registration()
        await self._broker.controller.start()
        metadata, node_id = self._broker.metadata, self._broker.node_id
        while not await metadata.wait_until(lambda: node_id in metadata.brokers, _PATIENCE_SECONDS):
            log.warning("No controller has told this broker anything yet: waiting for one")

    async def _first_registration(self) -> None:
        """Register, if need be when the session of this broker's former self has ended: a broker
        that was killed may come back before ZooKeeper has noticed.
        """
        broker = self._broker
        patience = broker.config.get_int("zookeeper.session.timeout.ms") / 1000 + _GRACE_SECONDS
        deadline = broker.clock.monotonic() + patience
        waiting = False
        while True:
            try:
                await self._register()
            except RegistrationError as error:
                if broker.clock.monotonic() > deadline:
                    raise
                if not waiting:
                    waiting = True
                    log.warning("Waiting for the end of another session, as %s", error)
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            else:
                return

    async def _register(self) -> None:
        broker = self._broker
        self._fence.broker_epoch = await registration.register(
            broker.store, broker.node_id, self._registered(), broker.clock.wall_ms()
        )

    # -- living through --------------------------------------------------------------------------

    def _on_session(self, event: SessionEvent) -> None:
        if event is SessionEvent.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        if event is SessionEvent.EXPIRED:
            self._expired = True
        elif event is SessionEvent.CONNECTED and self._expired and not self._leaving:
            self._expired = False
            if self._rejoining is not None:
                self._rejoining.cancel()
            self._rejoining = self._broker.loop.create_task(self._rejoin())

    async def _rejoin(self) -> None:
        """Set up again what went with the old session."""
        while True:
            try:
                await self._register()
                await self._configs.resume()
            except RegistrationError as error:
                # Its old session may not have ended for every server yet.
                log.error("This broker cannot register again yet: %s", error)
            except StoreError as error:
                log.warning("This broker cannot register again yet error=%s", error)
            else:
                break
            await asyncio.sleep(RETRY_SECONDS)
        self._broker.controller.stand_again()
        log.info("This broker is a member again broker=%d", self._broker.node_id)

    def directory_failed(self) -> None:
        """Let the controller ask this broker what it still has: a log directory has failed."""
        if not self._leaving:
            self._reporting = self._broker.loop.create_task(self._report())

    async def _report(self) -> None:
        node_id = self._broker.node_id
        while not self._leaving:
            try:
                await self._broker.store.create(
                    f"{znodes.LOG_DIR_EVENTS}/log_dir_event_",
                    znodes.encode_log_dir_event(node_id),
                    sequence=True,
                )
            except StoreError as error:
                log.warning("A failed directory is not reported yet error=%s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    # -- leaving ----------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Hand over what this broker leads, if somebody can take it."""
        self._leaving = True
        if self._rejoining is not None:
            self._rejoining.cancel()
            await asyncio.gather(self._rejoining, return_exceptions=True)
        config = self._broker.config
        if not config.get_bool("controlled.shutdown.enable") or self._fence.broker_epoch < 0:
            return
        self._broker.replicas.retire()
        tries = 1 + config.get_int("controlled.shutdown.max.retries")
        for number in range(tries):
            asked = self._broker.metadata.controller_id
            try:
                await self._require_zookeeper()
                remaining = await asyncio.wait_for(
                    self._ask_to_leave(), config.get_int("controller.socket.timeout.ms") / 1000
                )
            except _FAILURES as error:
                log.warning(
                    "Leadership could not be handed over try=%d of=%d error=%s",
                    *(number + 1, tries, str(error) or type(error).__name__),
                )
            else:
                if not remaining:
                    log.info("Leadership is handed over")
                    return
                log.warning(
                    "Partitions are left without a leader: no other replica can lead them now "
                    "try=%d of=%d partitions=%d",
                    *(number + 1, tries, remaining),
                )
            if self._alone:
                break
            if number + 1 < tries and self._connected.is_set():
                await self._before_next_try(asked)
        log.warning("The broker stops without having handed over all its leaderships")

    @property
    def _alone(self) -> bool:
        """Whether no other broker is alive that could take anything."""
        return not self._broker.metadata.brokers.keys() - {self._broker.node_id}

    @property
    def _backoff(self) -> float:
        """Seconds from one try to the next."""
        return self._broker.config.get_int("controlled.shutdown.retry.backoff.ms") / 1000

    async def _before_next_try(self, asked: int) -> None:
        """Wait for a while, but not if there is another controller, or nobody left."""
        metadata = self._broker.metadata
        await metadata.wait_until(
            lambda: metadata.controller_id != asked or self._alone, self._backoff
        )

    async def _require_zookeeper(self) -> None:
        """Wait for the connection if it is down: none but a controller who can write what becomes
        of the leaderships can take them. Raises StoreError when it does not come back soon."""
        try:
            await asyncio.wait_for(self._connected.wait(), self._backoff)
        except TimeoutError:
            raise StoreError("ZooKeeper cannot be reached") from None

    async def _ask_to_leave(self) -> int:
        """Ask the controller; the number of partitions that this broker leads still."""
        broker = self._broker
        controller_id, epoch = broker.metadata.controller_id, self._fence.broker_epoch
        if broker.controller.active:
            remaining = await broker.controller.controlled_shutdown(broker.node_id, epoch)
            # The others must have heard of it before this broker closes its door.
            with contextlib.suppress(TimeoutError):  # one that is dying itself may not hear it
                await asyncio.wait_for(broker.controller.told(), _TELL_SECONDS)
            return len(remaining)
        address = self._peers.address(broker.metadata, controller_id)
        if address is None:
            raise BrokerUnavailable(f"no address of the controller is known: {controller_id}")
        client = await self._peers.connect(address)
        try:
            versions = self._peers.fixed_versions or await newest_versions(client)
            request = ControlledShutdownRequest(broker_id=broker.node_id, broker_epoch=epoch)
            response = await client.send(request, ControlledShutdownResponse, versions[7])
        finally:
            client.close()
        if response.error_code != ErrorCode.NONE:
            raise KafkaError(ErrorCode(response.error_code), "the controller refuses")
        return len(response.remaining_partitions)
