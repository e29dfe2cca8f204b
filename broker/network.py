"""The network side of a broker: its listeners and connections, made as its settings say."""

import asyncio
import heapq
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from kavka.broker.admission import Admission, Samples, limits_of
from kavka.broker.buffers import FrameBuffers
from kavka.broker.hub import Bounds, Hub, Service
from kavka.broker.listeners import Gates, Listener, ListenError, TlsSettings
from kavka.config.limits import (
    FRAME_MEMORY_BYTES_MAX,
    FRAME_MEMORY_IDLE_BYTES_MAX,
    PARKED_REQUESTS_PER_CONNECTION_MAX,
    QUEUED_BYTES_PER_CONNECTION_MAX,
    RECEIVE_BUFFER_BYTES,
)
from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.network")

_ADMISSION_SETTINGS: Final = (
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "max.connection.creation.rate",
    "instance.flavour",
    "source.allow",
    "source.deny",
    "source.rule.sets",
)
_ADDRESS_SETTINGS: Final = ("listeners", "advertised.listeners", "listener.security.protocol.map")
_WILDCARDS: Final = ("", "0.0.0.0", "::")

TlsOf: TypeAlias = "Callable[[Endpoint], TlsSettings]"


class UnsupportedProtocol(Exception):
    """A listener is to speak a security protocol that this broker does not have."""


CANNOT_LISTEN: Final = (ListenError, UnsupportedProtocol, ConfigError)
"""What keeps a listener from being opened; the message says what to change."""


class Rebinding:
    """Listeners bound for settings that are not in force yet.

    Either these come into force, and :class:`Network` takes the listeners over, or it is
    abandoned, and everything is as before.
    """

    def __init__(self, wanted: "list[Endpoint]", closing: list[Listener], trial: bool) -> None:
        self.wanted = wanted
        self.pending = True  # neither taken over nor abandoned
        self._trial = trial
        self.opened: dict[str, Listener] = {}
        self.closing = closing  # those whose name is gone or gets another address
        self._aside: list[Listener] = []

    def open(self, listener: Listener) -> None:
        """Bind a listener. One that is to be closed and has its port has to stand aside.

        Raises ListenError.
        """
        try:
            listener.bind()
        except ListenError as error:
            in_the_way = [
                each
                for each in self.closing
                if each.is_bound and each.address[1] == listener.endpoint.port
            ]
            if not error.taken or not in_the_way:
                raise
            if self._trial:
                return  # nobody is sent away for a trial
            for each in in_the_way:
                each.accept_pending()
                each.close()
                self._aside.append(each)
            listener.bind()
        self.opened[listener.name] = listener

    def abandon(self) -> None:
        """Close what was opened, unless it has been taken over, and restore what stood aside."""
        self.pending = False
        for listener in self.opened.values():
            listener.close()
        self.opened.clear()
        aside, self._aside = self._aside, []
        for listener in aside:
            try:
                listener.bind()
                listener.listen()
            except ListenError as error:
                log.error("a listener is lost: %s", error)

    def taken_over(self) -> None:
        """The listeners are the network's now."""
        self.pending = False
        self.opened = {}
        self._aside = []


class Network:
    """All listeners and connections of one broker.

    Three steps, as what lies between them takes time: :meth:`bind` takes the addresses,
    :meth:`listen` lets clients in, :meth:`close` ends it. From the second on listeners follow
    the settings while connections to others go on.
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
        self.on_addresses: Callable[[], None] = lambda: None
        """Called when listeners, or what clients are told of them, have changed."""
        samples = Samples(
            config.get_int("quota.window.num"), config.get_int("quota.window.size.seconds")
        )
        self.admission = Admission(limits_of(config, _names(config)), clock, samples)
        self.admission.on_excess = self._close_least_recently_used
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
        self.hub.tls_ports = self._tls_ports
        self._listeners: dict[str, Listener] = {}
        self._listening = False
        self._stopped = False
        self._rebinding: Rebinding | None = None
        config.on_change(_ADMISSION_SETTINGS, self._on_admission_settings)
        config.on_change(_ADDRESS_SETTINGS, self._on_address_settings)

    # -- life -----------------------------------------------------------------------------

    def bind(self) -> None:
        """Take the addresses.

        Raises ListenError, UnsupportedProtocol, and ConfigError for TLS settings that are wrong.
        """
        try:
            for endpoint in self._config.listeners:
                listener = self._listeners[endpoint.name] = self._listener(endpoint)
                listener.bind()
        except Exception:
            self.close()
            raise

    def listen(self) -> None:
        """Let clients in. Raises ListenError."""
        self.hub.start()
        self._listening = True
        for listener in self._listeners.values():
            listener.listen()

    def stop_listening(self) -> None:
        """Let no more clients in."""
        self._stopped = True
        for listener in self._listeners.values():
            listener.close()
        self._listeners = {}

    def close(self) -> None:
        """Close listeners and connections."""
        self.stop_listening()
        self.hub.close()

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
            self.admission,
            gate=self._gates if authenticated else None,
            tls=self._tls(endpoint) if encrypted and self._tls is not None else None,
            send_buffer=self._socket_buffer(endpoint.name, "socket.send.buffer.bytes"),
            receive_buffer=self._socket_buffer(endpoint.name, "socket.receive.buffer.bytes"),
        )

    def _socket_buffer(self, listener: str, name: str) -> int | None:
        """A buffer size somebody asked for; the kernel tunes better than Kafka's old default."""
        config = self._config
        if not config.is_set(name) and not config.is_set_for_listener(listener, name):
            return None
        size = config.listener_value(listener, name)
        return size if isinstance(size, int) and size > 0 else None

    def _tls_ports(self) -> list[int]:
        return [endpoint.port for endpoint in self.bound() if endpoint.protocol.endswith("SSL")]

    # -- addresses ------------------------------------------------------------------------

    def bound(self) -> "list[Endpoint]":
        """The listeners with the hosts and ports really bound."""
        return [_bound(listener) for listener in self._listeners.values() if listener.is_bound]

    def advertised(self) -> "list[Endpoint]":
        """The listeners as clients are told of them: what the settings leave open is filled in."""
        return _advertised(self._config, self._listeners)

    def advertised_after(self, rebinding: Rebinding, changed: "BrokerConfig") -> "list[Endpoint]":
        """What :meth:`advertised` would be once these settings are in force."""
        return _advertised(changed, {**self._listeners, **rebinding.opened})

    # -- while it runs --------------------------------------------------------------------

    def rebind(
        self, changed: "BrokerConfig", *, trial: bool = False, partial: bool = False
    ) -> Rebinding:
        """Take the addresses that these settings ask for and that are not had yet; ``partial``:
        those that can be had, while brokers and somebody else are served.

        Must be followed by the settings coming into force, unless it is a ``trial``, and then by
        ``abandon`` of the result. Raises ListenError, UnsupportedProtocol and ConfigError;
        nothing has changed then.
        """
        wanted = changed.listeners
        addresses = {endpoint.name: endpoint for endpoint in wanted}
        closing = [
            listener
            for name, listener in self._listeners.items()
            if name not in addresses or not _same_address(listener.endpoint, addresses[name])
        ]
        staying = self._listeners.keys() - {listener.name for listener in closing}
        rebinding = Rebinding(wanted, closing, trial)
        failure: Exception | None = None
        for endpoint in wanted:
            if endpoint.name in staying:
                continue
            try:
                rebinding.open(self._listener(endpoint))
            except CANNOT_LISTEN as error:
                vital = not changed.embedded and endpoint.name == changed.inter_broker_listener
                if not partial or vital:
                    rebinding.abandon()
                    raise
                # Who can still connect can put it right; nobody can in the store of a broker
                # that does not start.
                log.error("a listener stays closed: %s", error)
                failure = error
        if failure is not None and not staying and not rebinding.opened:
            rebinding.abandon()
            raise failure
        self._rebinding = rebinding
        return rebinding

    def _on_address_settings(self, names: frozenset[str]) -> None:
        """Settings of addresses have come into force, prepared or not."""
        if self._stopped:
            return
        prepared, self._rebinding = self._rebinding, None
        if prepared is None or not prepared.pending or prepared.wanted != self._config.listeners:
            if prepared is not None:
                prepared.abandon()
            try:
                prepared = self.rebind(self._config, partial=not self._listening)
            except CANNOT_LISTEN as error:
                if not self._listening:
                    raise  # the broker is starting, and cannot
                log.error("listeners stay as they are: %s", error)
                self.on_addresses()
                return
            self._rebinding = None
        self._take_over(prepared)
        self.on_addresses()

    def _take_over(self, rebinding: Rebinding) -> None:
        names = {endpoint.name for endpoint in rebinding.wanted}
        for listener in rebinding.closing:
            listener.accept_pending()
            listener.close()
            del self._listeners[listener.name]
        for listener in rebinding.opened.values():
            self._listeners[listener.name] = listener
            if self._listening:
                try:
                    listener.listen()
                except ListenError as error:
                    log.error("a listener is lost: %s", error)
                    continue
            log.info("listening address=%s", _bound(listener))
        rebinding.taken_over()
        self._on_admission_settings(frozenset())
        gone = [listener for listener in rebinding.closing if listener.name not in names]
        for listener in gone:
            connections = [c for c in self.hub.connections if c.endpoint.name == listener.name]
            for connection in connections:
                connection.close()
            log.info(
                "not listening any more address=%s connections=%d",
                *(listener.endpoint, len(connections)),
            )

    def _on_admission_settings(self, names: frozenset[str]) -> None:
        self.admission.set_limits(limits_of(self._config, _names(self._config)))

    def _close_least_recently_used(self, excess: int) -> None:
        """Close connections of clients until the broker has as many as it may."""
        protected = self.admission.protected
        clients = [c for c in self.hub.connections if c.endpoint.name != protected]
        for connection in heapq.nsmallest(excess, clients, key=lambda c: c.active):
            connection.close()
        log.warning(
            "closed the connections that were silent longest, for max.connections is exceeded "
            "count=%d",
            min(excess, len(clients)),
        )


def _names(config: "BrokerConfig") -> list[str]:
    return [endpoint.name for endpoint in config.listeners]


def _same_address(one: "Endpoint", other: "Endpoint") -> bool:
    return (one.host, one.port) == (other.host, other.port)


def _bound(listener: Listener) -> "Endpoint":
    host, port = listener.address
    return listener.endpoint._replace(host=host, port=port)


def _advertised(config: "BrokerConfig", listeners: Mapping[str, Listener]) -> "list[Endpoint]":
    told = []
    for endpoint in config.advertised_listeners:
        listener = listeners.get(endpoint.name)
        if listener is None or not listener.is_bound:
            continue  # it could not be opened: nobody is sent there
        bound = _bound(listener)
        host, port = endpoint.host, endpoint.port or bound.port
        if not host:
            host = bound.host
            if host in _WILDCARDS:
                host = socket.gethostname()
        told.append(endpoint._replace(host=host, port=port))
    return told
