"""Connections to the other brokers, as the settings want them."""

import re
from typing import TYPE_CHECKING, Final

from kavka.replication.client import PLAINTEXT, BrokerAddress, BrokerClient, ClientSecurity
from kavka.replication.controller.network import Versions, fixed_versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavka.config.broker import BrokerConfig
    from kavka.replication.metadata import MetadataCache
    from kavka.replication.znodes import Registration

CONNECT_SECONDS: Final = 10.0


class Peers:
    """How this broker talks to others of its cluster."""

    def __init__(
        self, config: "BrokerConfig", node_id: int, security: ClientSecurity = PLAINTEXT
    ) -> None:
        self.security = security
        self.listener = config.inter_broker_listener
        control_plane = config.get_optional_str("control.plane.listener.name")
        self.control_listener = control_plane.upper() if control_plane else self.listener
        self._client_id = str(node_id)  # as Kafka's brokers call themselves
        self._timeout = config.get_int("controller.socket.timeout.ms") / 1000
        self._fixed: Versions | None = None
        self._closers: list[Callable[[], None]] = []
        if config.is_set("inter.broker.protocol.version"):
            release = config.get_str("inter.broker.protocol.version")
            numbers = re.findall(r"\d+", release.partition("-")[0])
            self._fixed = fixed_versions(tuple(map(int, numbers)))

    @property
    def fixed_versions(self) -> Versions | None:
        """The versions that ``inter.broker.protocol.version`` fixes; None when nobody set it."""
        return self._fixed

    def control_address(self, broker_id: int, registered: "Registration") -> BrokerAddress | None:
        """Where a broker takes the controller's requests; None when it does not say."""
        for name in (self.control_listener, self.listener):
            for endpoint in registered.endpoints:
                if endpoint.name == name:
                    return BrokerAddress(broker_id, endpoint.host, endpoint.port)
        return None

    def address(self, metadata: "MetadataCache", broker_id: int) -> BrokerAddress | None:
        """Where a live broker is reached by other brokers; None when nobody knows."""
        info = metadata.brokers.get(broker_id)
        endpoint = None if info is None else info.endpoint(self.listener)
        if endpoint is None:
            return None
        return BrokerAddress(broker_id, endpoint.host, endpoint.port)

    def when_closed(self, callback: "Callable[[], None]") -> None:
        """Have who keeps connections told to close them when the broker stops."""
        self._closers.append(callback)

    def close(self) -> None:
        """Talk to nobody any more."""
        for callback in self._closers:
            callback()

    async def connect(self, address: BrokerAddress) -> BrokerClient:
        """Raises BrokerUnavailable."""
        return await BrokerClient.connect(
            address,
            self._client_id,
            request_timeout=self._timeout,
            connect_timeout=min(CONNECT_SECONDS, self._timeout),
            security=self.security,
        )
