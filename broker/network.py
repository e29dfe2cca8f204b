"""The network side of a broker: its listeners and connections, made as its settings say."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from kavka.broker.buffers import FrameBuffers
from kavka.broker.hub import Bounds, Hub, Service
from kavka.broker.listeners import Admission, Gates, Listener, TlsSettings
from kavka.config.limits import (
    FRAME_MEMORY_BYTES_MAX,
    FRAME_MEMORY_IDLE_BYTES_MAX,
    PARKED_REQUESTS_PER_CONNECTION_MAX,
    QUEUED_BYTES_PER_CONNECTION_MAX,
    RECEIVE_BUFFER_BYTES,
)

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.network")

_ADMISSION_SETTINGS: Final = (
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
)
_WILDCARDS: Final = ("", "0.0.0.0", "::")

TlsOf: TypeAlias = "Callable[[Endpoint], TlsSettings]"


class UnsupportedProtocol(Exception):
    """A listener is to speak a security protocol that this broker does not have."""


class Network:
    """All listeners and connections of one broker.

    Three steps, as what lies between them takes time: :meth:`bind` takes the addresses,
    :meth:`listen` lets clients in, :meth:`close` ends it.
    """

    def __init__(
        self,
        config: "BrokerConfig",
        clock: "Clock",
        loop: asyncio.AbstractEventLoop,
        service: Service,
        gates: "Gates | None" = None,
        tls: "TlsOf | None" = None,
    ) -> None:
        """``gates`` makes what serves a connection of a SASL listener until it is
        authenticated; ``tls`` the settings of a TLS listener. Without them no such listener can
        be had.
        """
        self._config = config
        self._gates = gates
        self._tls = tls
        self._admission = Admission(*self._admission_limits())
        budget = config.get_int("queued.max.request.bytes")
        idle_ms = config.get_int("connections.max.idle.ms")
        bounds = Bounds(
            max_frame=config.get_int("socket.request.max.bytes"),
            in_flight=PARKED_REQUESTS_PER_CONNECTION_MAX,
            output=QUEUED_BYTES_PER_CONNECTION_MAX,
            idle=idle_ms / 1000 if idle_ms >= 0 else float("inf"),
        )
        self.hub = Hub(
            loop,
            clock,
            service,
            bounds,
            FrameBuffers(
                budget if budget > 0 else FRAME_MEMORY_BYTES_MAX, FRAME_MEMORY_IDLE_BYTES_MAX
            ),
            RECEIVE_BUFFER_BYTES,
        )
        self._listeners: list[Listener] = []
        config.on_change(_ADMISSION_SETTINGS, self._on_admission_settings)

    def bind(self) -> None:
        """Take the addresses.

        Raises ListenError, UnsupportedProtocol, and ConfigError for TLS settings that are wrong.
        """
        try:
            for endpoint in self._config.listeners:
                listener = self._listener(endpoint)
                self._listeners.append(listener)
                listener.bind()
        except Exception:
            self.close()
            raise

    def _listener(self, endpoint: "Endpoint") -> Listener:
        authenticated = endpoint.protocol.startswith("SASL_")
        encrypted = endpoint.protocol.endswith("SSL")
        if (authenticated and self._gates is None) or (encrypted and self._tls is None):
            raise UnsupportedProtocol(
                f"Listener {endpoint} wants {endpoint.protocol}, which cannot be served here: "
                "change listeners or listener.security.protocol.map"
            )
        return Listener(
            endpoint,
            self.hub,
            self._admission,
            gate=self._gates if authenticated else None,
            tls=self._tls(endpoint) if encrypted and self._tls is not None else None,
            send_buffer=self._socket_buffer("socket.send.buffer.bytes"),
            receive_buffer=self._socket_buffer("socket.receive.buffer.bytes"),
        )

    def listen(self) -> None:
        """Let clients in. Raises ListenError."""
        self.hub.start()
        for listener in self._listeners:
            listener.listen()

    def stop_listening(self) -> None:
        """Let no more clients in."""
        for listener in self._listeners:
            listener.close()

    def close(self) -> None:
        """Close listeners and connections."""
        self.stop_listening()
        self.hub.close()

    def bound(self) -> "list[Endpoint]":
        """The listeners with the hosts and ports really bound."""
        found = []
        for listener in self._listeners:
            host, port = listener.address
            found.append(listener.endpoint._replace(host=host, port=port))
        return found

    def advertised(self) -> "list[Endpoint]":
        """The listeners as clients are told of them: what the settings leave open is filled in."""
        bound = {endpoint.name: endpoint for endpoint in self.bound()}
        told = []
        for endpoint in self._config.advertised_listeners:
            host, port = endpoint.host, endpoint.port
            if not port:
                port = bound[endpoint.name].port
            if not host:
                host = bound[endpoint.name].host
                if host in _WILDCARDS:
                    host = socket.gethostname()
            told.append(endpoint._replace(host=host, port=port))
        return told

    def _socket_buffer(self, name: str) -> int | None:
        """A buffer size somebody asked for; the kernel tunes better than Kafka's old default."""
        size = self._config.get_int(name)
        return size if self._config.is_set(name) and size > 0 else None

    def _admission_limits(self) -> tuple[int, int, dict[str, int]]:
        config = self._config
        return (
            config.get_int("max.connections"),
            config.get_int("max.connections.per.ip"),
            config.max_connections_overrides,
        )

    def _on_admission_settings(self, names: frozenset[str]) -> None:
        self._admission.set_limits(*self._admission_limits())
