"""Listening sockets, and who may connect to them."""

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from kavka.broker.connection import Connection
from kavka.config.limits import (
    ACCEPTS_PER_TURN_MAX,
    FRAME_BYTES_MAX_BEFORE_AUTHENTICATION,
    LISTEN_BACKLOG,
)

if TYPE_CHECKING:
    from kavka.broker.hub import Hub, Service
    from kavka.config.listeners import Endpoint

log = logging.getLogger("kavka.network")

_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_ACCEPT_SECONDS: Final = 0.5
_REPORT_SECONDS: Final = 1.0
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
_V4_IN_V6: Final = "::ffff:"

Gates: TypeAlias = "Callable[[Connection], Service]"
"""Gives a new connection what serves it until it is authenticated."""


class TlsSettings(Protocol):
    """What a TLS listener needs to know of TLS."""

    def connect(
        self,
        hub: "Hub",
        sock: socket.socket,
        address: tuple[str, int],
        endpoint: "Endpoint",
        on_close: Callable[[Connection], None],
    ) -> Connection:
        """A connection that begins with a handshake."""


class ListenError(Exception):
    """A listener's address cannot be had; the message says what to change."""


class Admission:
    """Counts connections, in all and by address, and refuses those above the limits."""

    def __init__(self, maximum: int, per_ip: int, overrides: Mapping[str, int]) -> None:
        self.total = 0
        self._by_ip: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self.set_limits(maximum, per_ip, overrides)

    def set_limits(self, maximum: int, per_ip: int, overrides: Mapping[str, int]) -> None:
        """Take over changed limits; they hold for connections to come.

        ``overrides`` is by address or host name; names are looked up once, here.
        """
        self._maximum = maximum
        self._per_ip = per_ip
        self._overrides: dict[str, int] = {}
        for host, limit in overrides.items():
            for address in _addresses_of(host):
                self._overrides[address] = limit

    def admit(self, ip: str) -> str | None:
        """Count a connection from ``ip``, or say why there may be no more."""
        if self.total >= self._maximum:
            return f"the broker has max.connections={self._maximum} connections"
        count = self._by_ip.get(ip, 0)
        limit = self._overrides.get(ip, self._per_ip)
        if count >= limit:
            return f"the address has max.connections.per.ip={limit} connections"
        self._by_ip[ip] = count + 1
        self.total += 1
        return None

    def leave(self, ip: str) -> None:
        """A counted connection has closed."""
        self.total -= 1
        count = self._by_ip[ip] - 1
        if count:
            self._by_ip[ip] = count
        else:
            del self._by_ip[ip]

    def refused(self, ip: str) -> bool:
        """Note a refusal; True for the first one since the last report, which is logged."""
        count = self._refused.get(ip, 0)
        self._refused[ip] = count + 1
        return not count

    def report(self) -> dict[str, int]:
        """Refusals by address beyond those logged one by one; starts to count anew."""
        further = {ip: count - 1 for ip, count in self._refused.items() if count > 1}
        self._refused.clear()
        return further


class Listener:
    """The listening sockets of one endpoint.

    Binding and listening are two steps: the port is known, and known to be free, before the
    broker loads its data; clients are let in when it can serve them.
    """

    def __init__(
        self,
        endpoint: "Endpoint",
        hub: "Hub",
        admission: Admission,
        *,
        gate: "Gates | None" = None,
        tls: TlsSettings | None = None,
        send_buffer: int | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._hub = hub
        self._admission = admission
        self._gate = gate
        self._connect = Connection if tls is None else tls.connect
        self._send_buffer = send_buffer  # bytes; None leaves sizing to the kernel
        self._receive_buffer = receive_buffer
        self._sockets: list[socket.socket] = []
        self._accepting = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    def bind(self) -> None:
        """Take the address. Raises ListenError."""
        port = self.endpoint.port
        try:
            for family, host in _families(self.endpoint.host, port):
                self._sockets.append(self._bind_one(family, host, port))
                port = self.address[1]  # a free port must be the same for every address
        except OSError as error:
            self.close()
            raise ListenError(_what_to_change(self.endpoint, error)) from error

    def _bind_one(self, family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Connections inherit these from their listener, which saves calls for each of them.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            if self._send_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
            if self._receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            if family == socket.AF_INET6:
                # The wildcard serves IPv4 too, as Java's does; a named address is only itself.
                only_v6 = bool(self.endpoint.host)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        return sock

    def listen(self) -> None:
        """Let clients in. Raises ListenError when another process was faster."""
        try:
            for sock in self._sockets:
                sock.listen(LISTEN_BACKLOG)
        except OSError as error:
            self.close()
            raise ListenError(_what_to_change(self.endpoint, error)) from error
        self._watch()

    def close(self) -> None:
        """Stop listening; connections stay."""
        self._unwatch()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def _watch(self) -> None:
        if not self._accepting:
            self._accepting = True
            for sock in self._sockets:
                self._hub.loop.add_reader(sock.fileno(), self._on_acceptable, sock)

    def _unwatch(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._sockets:
                self._hub.loop.remove_reader(sock.fileno())

    def _on_acceptable(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN_MAX):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._take_breath(error)
                    return
                log.debug("a connection was gone before it was accepted: %s", error)
                continue
            ip, port = address[0].removeprefix(_V4_IN_V6), address[1]
            reason = self._admission.admit(ip)
            if reason is not None:
                sock.close()
                self._report(ip, port, reason)
                continue
            sock.setblocking(False)
            connection = self._connect(
                self._hub, sock, (ip, port), self.endpoint, self._on_connection_closed
            )
            if self._gate is not None:
                connection.max_frame = FRAME_BYTES_MAX_BEFORE_AUTHENTICATION
                connection.service = self._gate(connection)

    def _on_connection_closed(self, connection: Connection) -> None:
        self._admission.leave(connection.address[0])

    def _take_breath(self, error: OSError) -> None:
        """Out of descriptors or memory: the waiting connection would spin the loop."""
        log.error(
            "cannot accept connections for now, raise the limit on open files: %s listener=%s",
            error,
            self.endpoint.name,
        )
        self._unwatch()
        self._hub.loop.call_later(_RETRY_ACCEPT_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if self._sockets:
            self._watch()

    def _report(self, ip: str, port: int, reason: str) -> None:
        """One line for the first refusal of an address, one for those of the next second."""
        if self._admission.refused(ip):
            facts = f"peer={ip}:{port} listener={self.endpoint.name}"
            log.warning("refusing connection: %s %s", reason, facts)
            self._hub.loop.call_later(_REPORT_SECONDS, self._report_further)

    def _report_further(self) -> None:
        for ip, count in self._admission.report().items():
            log.warning("refused further connections within a second count=%d peer=%s", count, ip)


def _families(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """Families and addresses to bind for a host; the empty host is every interface."""
    if not host:
        if socket.has_dualstack_ipv6():
            return [(socket.AF_INET6, "::")]
        return [(socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _addresses_of(host: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    log.warning("a host of max.connections.per.ip.overrides is unknown host=%s", host)
    return []


def _what_to_change(endpoint: "Endpoint", error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {endpoint.port} of {endpoint} is taken by another process: stop it, or choose "
            "another port in listeners"
        )
    if error.errno == errno.EACCES:
        return f"The port of {endpoint} needs privileges: choose one above 1023 in listeners"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"The host of {endpoint} is no address of this machine: correct it in listeners"
    return f"Cannot listen on {endpoint}: {error.strerror or error}; correct it in listeners"
