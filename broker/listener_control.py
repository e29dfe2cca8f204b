"""Keeps the world in line with this broker's listeners while it runs.

Clients find a broker through the metadata of its cluster, the cluster through the broker's
registration in the metadata store. So when listeners are opened, closed or get other addresses,
the registration is written anew; the controller sees that and tells every broker.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from kavka.broker.listeners import ListenError
from kavka.broker.network import UnsupportedProtocol
from kavka.config.option import ConfigError
from kavka.replication import registration
from kavka.replication.registration import RegistrationError
from kavka.replication.store.base import StoreError
from kavka.replication.znodes import Registration

if TYPE_CHECKING:
    from kavka.broker.admission import Admission
    from kavka.broker.context import Broker
    from kavka.broker.network import Network, Rebinding
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint
    from kavka.replication.metadata import MetadataCache

log = logging.getLogger("kavka.network")

_RETRY_SECONDS: Final = 1.0


class ListenerControl:
    """What this broker says of where it can be reached. Owned by the event loop."""

    def __init__(self, broker: "Broker", network: "Network") -> None:
        self._broker = broker
        self._network = network
        self._registered = False
        self._telling: asyncio.Task[None] | None = None
        self.bound: list[Endpoint] = []  # where it listens
        self.advertised: list[Endpoint] = []  # what clients are told of that
        self._look()
        network.on_addresses = self._addresses_changed

    @property
    def admission(self) -> "Admission":
        """Counts connections, and those that were refused."""
        return self._network.admission

    def registration(self) -> Registration:
        """What is to stand in the metadata store as long as this broker lives.

        From the first call on the registration is kept up to date.
        """
        self._registered = True
        rack = self._broker.config.get_optional_str("broker.rack")
        return Registration(tuple(self.advertised), rack)

    def meet(self, metadata: "MetadataCache") -> None:
        """Let admission know the brokers of the cluster."""
        admission = self._network.admission
        admission.live_brokers = lambda: len(metadata.brokers)
        peers = PeerAddresses(metadata, self._broker.node_id, self._broker.loop)
        admission.is_broker = peers.__contains__

    async def prepare(self, changed: "BrokerConfig", *, trial: bool) -> "Rebinding | None":
        """Take the addresses that changed settings ask for, before these are written; None if
        they ask for no others.

        The result must be abandoned in the end, whether the settings came into force or not.
        Raises ConfigError, also when another broker is reached at such an address, and
        StoreError; nothing has changed then.
        """
        config = self._broker.config
        opened = {endpoint.name for endpoint in self.bound}
        await self._broker.tls.prepare(changed, opened)
        if (
            changed.listeners == config.listeners
            and changed.advertised_listeners == config.advertised_listeners
        ):
            return None
        try:
            rebinding = self._network.rebind(changed, trial=trial)
        except (ListenError, UnsupportedProtocol) as error:
            raise ConfigError("listeners", str(error)) from None
        told = self._network.advertised_after(rebinding, changed)
        try:
            await registration.check_addresses(
                self._broker.store, self._broker.node_id, Registration(tuple(told))
            )
        except RegistrationError as error:
            rebinding.abandon()
            raise ConfigError("advertised.listeners", str(error)) from None
        except BaseException:
            rebinding.abandon()
            raise
        return rebinding

    async def settled(self) -> None:
        """Wait until the metadata store has what this broker says."""
        if self._telling is not None:
            await asyncio.wait((self._telling,))

    def close(self) -> None:
        """Write nothing any more."""
        if self._telling is not None:
            self._telling.cancel()

    def _look(self) -> None:
        self.bound, self.advertised = self._network.bound(), self._network.advertised()
        self._broker.advertised_endpoints = {
            endpoint.name: (endpoint.host, endpoint.port) for endpoint in self.advertised
        }

    def _addresses_changed(self) -> None:
        self._look()
        if self._registered and (self._telling is None or self._telling.done()):
            self._telling = self._broker.loop.create_task(self._tell())

    async def _tell(self) -> None:
        """Write the registration until it says what is so."""
        told: Registration | None = None
        while told != (current := self.registration()):
            try:
                await registration.update(
                    self._broker.store, self._broker.node_id, current, self._broker.clock.wall_ms()
                )
            except StoreError as error:
                log.warning("the new addresses cannot be registered yet error=%s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                told = current


class PeerAddresses:
    """The addresses of the other brokers of a cluster, as far as they are known."""

    def __init__(
        self, metadata: "MetadataCache", node_id: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._metadata = metadata
        self._node_id = node_id
        self._loop = loop
        self._version = -1
        self._hosts: set[str] = set()
        self._resolved: dict[str, frozenset[str]] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, ip: str) -> bool:
        if self._version != self._metadata.brokers_version:
            self._version = self._metadata.brokers_version
            self._hosts = {
                endpoint.host
                for broker in self._metadata.brokers.values()
                if broker.id != self._node_id
                for endpoint in broker.endpoints
            }
            self._resolved.clear()
        if ip in self._hosts:
            return True
        for host in self._hosts:
            if host not in self._resolved and host not in self._looking:
                self._looking[host] = self._loop.create_task(self._look_up(host))
        return any(ip in self._resolved.get(host, ()) for host in self._hosts)

    async def _look_up(self, host: str) -> None:
        """Find the addresses of a name. Whoever asked before they are known asks again."""
        try:
            found = await self._loop.getaddrinfo(host, None)
            self._resolved[host] = frozenset(str(entry[4][0]) for entry in found)
        except OSError as error:
            log.warning("the address of a broker cannot be found host=%s error=%s", host, error)
            self._resolved[host] = frozenset()
        finally:
            del self._looking[host]
