"""Listening sockets."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from kavka.broker.admission import Admission, Refused
from kavka.broker.connection import Connection
from kavka.config.limits import (
    ACCEPTS_PER_TURN_MAX,
    FRAME_BYTES_MAX_BEFORE_AUTHENTICATION,
    HELD_REFUSALS_MAX,
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

    taken = False  # whether somebody else has it


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
        self._waiting = False  # for room, of which one line has been logged
        self._held: set[socket.socket] = set()  # refused, but closed only later

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    @property
    def name(self) -> str:
        """The listener's name."""
        return self.endpoint.name

    @property
    def is_bound(self) -> bool:
        """Whether it has its address."""
        return bool(self._sockets)

    def bind(self) -> None:
        """Take the address. Raises ListenError."""
        port = self.endpoint.port
        try:
            for family, host in _families(self.endpoint.host, port):
                self._sockets.append(self._bind_one(family, host, port))
                port = self.address[1]  # a free port must be the same for every address
        except OSError as error:
            self.close()
            raise _listen_error(self.endpoint, error) from error

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
                only_v6 = bool(self.endpoint.routable_host)
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
            raise _listen_error(self.endpoint, error) from error
        self._watch()

    def close(self) -> None:
        """Stop listening; connections stay."""
        self._unwatch()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        for sock in self._held:
            sock.close()
        self._held.clear()

    def accept_pending(self) -> None:
        """Let in who has connected already: closing the socket would turn them away."""
        if self._accepting:
            for sock in self._sockets:
                self._on_acceptable(sock)

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
        admission, name = self._admission, self.endpoint.name
        for _ in range(ACCEPTS_PER_TURN_MAX):
            lacking = admission.lacks_room(name)
            if lacking is not None:
                self._wait_for_room(lacking)
                return
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
            refused = admission.admit(name, ip)
            if refused is not None:
                self._refuse(sock, refused)
                if admission.refusals.note(name, ip, port, refused):
                    self._hub.loop.call_later(_REPORT_SECONDS, admission.refusals.report)
                continue
            sock.setblocking(False)
            self._serve(sock, ip, port)
            if (pause := admission.pause(name)) > 0:
                self._unwatch()
                self._hub.loop.call_later(pause, self._go_on)
                return

    def _serve(self, sock: socket.socket, ip: str, port: int) -> None:
        # What fails here is a defect, or TLS that cannot begin: no reason to let nobody in.
        try:
            connection = self._connect(
                self._hub, sock, (ip, port), self.endpoint, self._on_connection_closed
            )
        except Exception:
            log.exception("a connection cannot be served listener=%s", self.name)
            sock.close()
            self._admission.leave(self.name, ip)
            return
        if self._gate is not None:
            try:
                connection.max_frame = FRAME_BYTES_MAX_BEFORE_AUTHENTICATION
                connection.service = self._gate(connection)
            except Exception:
                log.exception("a connection cannot be served listener=%s", self.name)
                connection.close()

    def _on_connection_closed(self, connection: Connection) -> None:
        self._admission.leave(self.endpoint.name, connection.address[0])

    def _refuse(self, sock: socket.socket, refused: Refused) -> None:
        if refused.hold <= 0 or len(self._held) >= HELD_REFUSALS_MAX:
            sock.close()
            return
        self._held.add(sock)
        self._hub.loop.call_later(refused.hold, self._let_go, sock)

    def _let_go(self, sock: socket.socket) -> None:
        self._held.discard(sock)
        sock.close()

    def _wait_for_room(self, lacking: str) -> None:
        """Leave the clients that come now to the kernel, connected but not served."""
        self._unwatch()
        self._admission.call_when_room(self._go_on)
        if not self._waiting:
            self._waiting = True
            self._hub.loop.call_later(_REPORT_SECONDS, self._may_say_waiting)
            log.warning("clients wait to be accepted: %s listener=%s", lacking, self.endpoint.name)

    def _may_say_waiting(self) -> None:
        self._waiting = False

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


def _families(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """Families and addresses to bind for a host; the empty host is every interface."""
    if not host:
        if socket.has_dualstack_ipv6():
            return [(socket.AF_INET6, "::")]
        return [(socket.AF_INET, "0.0.0.0")]
    # A string would first load Python's codec for international names, tables and all.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listen_error(endpoint: "Endpoint", error: OSError) -> ListenError:
    failure = ListenError(_what_to_change(endpoint, error))
    failure.taken = error.errno == errno.EADDRINUSE
    return failure


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
