"""Client connections that speak TLS."""

import logging
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kavka.broker.answering import TURN
from kavka.broker.connection import Connection
from kavka.broker.security.tls.failures import foreign_bytes, handshake_failure, session_failure
from kavka.broker.security.tls.principal import NoPrincipal
from kavka.broker.security.tls.stream import TlsOutput, TlsStream

if TYPE_CHECKING:
    from kavka.broker.hub import Hub
    from kavka.broker.security.tls.handshakes import Handshakes
    from kavka.config.listeners import Endpoint

log = logging.getLogger("kavka.network")

_PEEK: Final = 16  # bytes that tell what a peer speaks


class TlsConnection(Connection):
    """A connection whose bytes are encrypted. It serves nothing before its handshake is done."""

    __slots__ = (
        "_context",
        "_handshakes",
        "_principal_of",
        "_shaking",
        "_stream",
        "_waiting",
        "peer_certificate",
    )

    encrypted = True

    def __init__(
        self,
        hub: "Hub",
        sock: socket.socket,
        address: tuple[str, int],
        endpoint: "Endpoint",
        on_close: Callable[[Connection], None] | None,
        handshakes: "Handshakes",
        context: ssl.SSLContext,
        principal_of: Callable[[bytes], str] | None = None,
    ) -> None:
        """``principal_of`` names the client by its certificate (DER)."""
        super().__init__(hub, sock, address, endpoint, on_close)
        self.peer_certificate: bytes | None = None
        self._handshakes = handshakes
        self._context = context
        self._principal_of = principal_of
        self._stream: TlsStream | None = None  # from the peer's first bytes on
        self._shaking = True
        self._waiting = False  # for its turn to go on with the handshake
        handshakes.begin(self)

    @property
    def session(self) -> ssl.SSLObject | None:
        """The TLS session: its version, suite and certificates."""
        return None if self._stream is None else self._stream.session

    @property
    def unsent(self) -> bool:
        """Whether answers are ready that the socket has not taken."""
        return super().unsent or (self._stream is not None and self._stream.backlog > 0)

    def close(self, reason: str | None = None, level: int = logging.WARNING) -> None:
        """Close now, dropping what is queued; ``reason`` makes the one log line."""
        if self.closed:
            return
        if self._stream is not None and not self._shaking and not self.unsent:
            self._stream.say_goodbye()
        self._handshakes.end(self)
        super().close(reason, level)
        self._stream = None

    # -- the handshake ---------------------------------------------------------------------

    def shake_hands(self) -> None:
        """Go on with the handshake: what has arrived is looked at now."""
        self._waiting = False
        try:
            if self._stream is None and not self._start():
                return
            stream = self._stream
            assert stream is not None
            done = stream.shake_hands()
        except (BlockingIOError, InterruptedError):
            self._read_on()
            return
        except EOFError:
            log.debug("the peer left in the TLS handshake %s", self._facts())
            self.close()
            return
        except ssl.SSLError as error:
            self._send_alert()
            self.handshake_failed(handshake_failure(error))
            return
        except OSError as error:
            self._lost(error)
            return
        self.active = self._hub.now
        if done:
            try:
                self._shaken(stream)
            except NoPrincipal as error:
                self.handshake_failed(str(error))
                return
        if stream.backlog:
            self._send()
        if not self.closed:
            self._read_on()
            if stream.buffered and not self._paused:
                self._on_readable()

    def _start(self) -> bool:
        """See what the peer speaks; False when it is not TLS, or nothing any more."""
        start = self._sock.recv(_PEEK, socket.MSG_PEEK)
        if not start:
            raise EOFError
        foreign = foreign_bytes(start, self.endpoint.protocol)
        if foreign is not None:
            self.handshake_failed(foreign)
            return False
        self._stream = stream = TlsStream(self._context, self._sock, self._handshakes.scratch)
        self._output = TlsOutput(stream)
        return True

    def _shaken(self, stream: TlsStream) -> None:
        self._shaking = False
        self._handshakes.end(self)
        self._receive_into = stream.receive_into
        self.peer_certificate = certificate = stream.session.getpeercert(binary_form=True)
        if certificate is not None and self._principal_of is not None:
            self.principal = self._principal_of(certificate)

    def handshake_failed(self, reason: str) -> None:
        """Close because the handshake came to nothing, with a line in the log."""
        self._handshakes.complain(self, reason)
        self.close()

    def _send_alert(self) -> None:
        """Let the peer know, if it takes that without waiting."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError:
            log.debug("the peer of a failed TLS session has left %s", self._facts())

    def _read_on(self) -> None:
        if not self._reading and not self._paused and not self._closing:
            self._reading = True
            self._hub.loop.add_reader(self._sock.fileno(), self._on_readable)

    # -- receiving -------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if not self._shaking:
            super()._on_readable()
            self._go_on()
        elif self._paused & ~TURN:
            self._stop_reading()
        else:
            self._waiting = True
            self._reading = False
            self._hub.loop.remove_reader(self._sock.fileno())
            self._handshakes.ready(self)

    def _go_on(self) -> None:
        """The socket does not tell of what is buffered here."""
        stream = self._stream
        if stream is None or self.closed:
            return
        if stream.backlog:
            if not self._writing:
                self._send()
            else:  # a peer may provoke alerts without end and read none of them
                self._unsent = self._output.memory
                self._mind_output()
        if stream.buffered and not (self.closed or self._closing or self._paused):
            self._paused |= TURN
            self._hub.resume_later(self)

    def resume(self) -> None:
        """Go on after a pause: with what was kept, what is buffered, what the kernel has."""
        if self._shaking:
            self._paused &= ~TURN
            if not self.closed and not self._waiting:
                self._read_on()
            return
        super().resume()
        stream = self._stream
        free = not (self.closed or self._closing or self._paused)
        if free and stream is not None and stream.buffered:
            self._on_readable()

    def _holds_requests(self) -> bool:
        return super()._holds_requests() or (self._stream is not None and self._stream.undelivered)

    # -- the end ---------------------------------------------------------------------------

    def _lost(self, error: OSError) -> None:
        if not isinstance(error, ssl.SSLError):
            super()._lost(error)
            return
        stream = self._stream
        if stream is not None:
            stream.collect()
            self._send_alert()
        self._shaking = True  # a broken session says no goodbye
        self.close(session_failure(error))
