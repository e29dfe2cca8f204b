"""Client connections: bytes in, frames to the service, answers out in request order.

The data path does its own non-blocking socket calls from the event loop's readiness events;
there is no transport, stream or task (those cost several times the work of a small request).

* All connections receive into one shared buffer. What one readiness event brings is served as
  a batch and answered by one send. The tail of a frame that is still incomplete is kept aside
  and put in front of the next bytes; a frame larger than the shared buffer gets a buffer of its
  own, into which the rest is received straight.
* Answers leave in request order. While an earlier request is parked, later answers queue
  behind it.
* Nothing grows without bound: a connection stops being read while it has too many unanswered
  requests, too many unread answers, or an exclusive request in work.
* Whatever breaks the rules closes this connection, with one log line, and nothing else.
"""

import logging
import socket
from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final

from kavka.broker.answering import MEMORY, MUTED, TURN, Answering
from kavka.broker.request import ANONYMOUS, Pending
from kavka.config.limits import (
    CLIENT_ID_CHARACTERS_LOGGED,
    FRAME_BYTES_MIN,
    FRAME_BYTES_PER_SECOND_MIN,
    REQUESTS_PER_TURN_MAX,
)
from kavka.protocol.errors import MalformedFrame

if TYPE_CHECKING:
    import asyncio

    from kavka.broker.buffers import Loan
    from kavka.broker.handlers.k01_fetch import FetchWaiter
    from kavka.broker.hub import Hub, Service
    from kavka.broker.output import Answer
    from kavka.broker.produce.lane import ProduceLane
    from kavka.config.listeners import Endpoint

log = logging.getLogger("kavka.network")

_HTTP: Final = frozenset(
    (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI ")
)
_SIZE: Final = Struct(">i")
_NEW: Final = -1  # a large frame that no sweep has seen arriving yet

_SEND_AT: Final = 1 << 18  # answers of one batch go out early when they grow past this


class Connection(Answering):
    """One accepted socket. Owned by the event loop."""

    __slots__ = (
        "_filled",
        "_frame",
        "_in_work",
        "_kept",
        "_loan",
        "_mute_timer",
        "_muted_until",
        "_on_close",
        "_reading",
        "_receive_into",
        "_swept",
        "address",
        "by_token",
        "client_id",
        "client_id_bytes",
        "client_software",
        "endpoint",
        "lane",
        "max_frame",
        "min_frame",
        "polled",
        "principal",
        "proven",
    )

    def __init__(
        self,
        hub: "Hub",
        sock: socket.socket,
        address: tuple[str, int],
        endpoint: "Endpoint",
        on_close: "Callable[[Connection], None] | None" = None,
    ) -> None:
        super().__init__(hub, sock)
        self.endpoint = endpoint
        self.address = address  # host and port of the peer
        self.principal = ANONYMOUS
        self.by_token = False  # the principal has shown a delegation token
        self.client_id = ""
        self.client_id_bytes = b""  # of the last request, to decode it only when it changes
        self.client_software = ""  # name and version as ApiVersions v3 told
        self.lane: ProduceLane | None = None  # for requests like those it has sent before
        self.polled: FetchWaiter | None = None  # its last Fetch, which found nothing
        self.proven = False  # has sent a frame of a believable size
        self.max_frame = hub.bounds.max_frame
        self.min_frame = FRAME_BYTES_MIN  # less only where SASL tokens come without headers
        self._muted_until = 0.0
        self._mute_timer: asyncio.TimerHandle | None = None
        self._on_close = on_close
        self._kept = b""  # bytes received and not yet served
        self._frame: memoryview | None = None  # of a large frame still arriving
        self._loan: Loan | None = None  # what the large frame lies in
        self._filled = 0
        self._in_work: Loan | None = None  # one that the handler being run keeps
        self._swept = _NEW  # what was filled at the last sweep
        self._receive_into: Callable[[memoryview], int] = sock.recv_into
        self._reading = True
        hub.connections.add(self)
        hub.loop.add_reader(sock.fileno(), self._on_readable)

    encrypted = False  # whether nobody on the way can read it
    peer_certificate: bytes | None = None  # of the client, as DER, checked

    def __repr__(self) -> str:
        return f"<Connection {self.peer} {self.endpoint.name}>"

    @property
    def peer(self) -> str:
        """``host:port`` of the client."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def client_host(self) -> str:
        """The client's address as Kafka prints it: ``/1.2.3.4``."""
        return f"/{self.address[0]}"

    @property
    def service(self) -> "Service":
        """Who serves this connection's requests, from the next one on.

        Until a client has proven who it is this is a gate. An answer is encoded by the service
        that is set at the moment of ``Pending.complete``.
        """
        return self._service

    @service.setter
    def service(self, service: "Service") -> None:
        self._service = service
        self.lane = None
        # What has arrived with the request being served is for the new service too: end the
        # batch, and go on with its rest in a new one.
        self._end_turn()

    def _end_turn(self) -> None:
        """Serve no more of what has been received before others have had their turn."""
        self._paused |= TURN
        self._hub.resume_later(self)

    @property
    def takes_lanes(self) -> bool:
        """Whether its requests may go past :attr:`service`, which adds nothing of its own."""
        return self._service is self._hub.service and bool(self.client_id_bytes)

    @property
    def muted(self) -> bool:
        """Whether :meth:`mute` is in force."""
        return bool(self._paused & MUTED)

    def mute(self, seconds: float) -> None:
        """Read and serve nothing for so long; answers go out all the same (KIP-219).

        Of several mutes the one that ends last counts.
        """
        until = self._hub.monotonic() + seconds
        if seconds <= 0 or until <= self._muted_until or self.closed:
            return
        self._muted_until = until
        self._paused |= MUTED
        if self._mute_timer is not None:
            self._mute_timer.cancel()
        self._mute_timer = self._hub.loop.call_later(seconds, self._unmute, until)

    def _unmute(self, until: float) -> None:
        if until == self._muted_until:
            self._mute_timer = None
            self.active = self._hub.now
            self._unpause(MUTED)

    def is_slow(self, seconds: float) -> bool:
        """Whether a large frame has hardly come on since this was last asked, ``seconds`` ago."""
        if self._frame is None:
            return False
        before, self._swept = self._swept, _NEW if self._paused else self._filled
        return before != _NEW and self._filled - before < FRAME_BYTES_PER_SECOND_MIN * seconds

    def close(self, reason: str | None = None, level: int = logging.WARNING) -> None:
        """Close now, dropping what is queued; ``reason`` makes the one log line."""
        if self.closed:
            return
        self.closed = True
        if reason is not None:
            log.log(level, "closing connection: %s %s", reason, self._facts())
        loop = self._hub.loop
        descriptor = self._sock.fileno()
        if self._reading:
            loop.remove_reader(descriptor)
        if self._writing:
            loop.remove_writer(descriptor)
        self._sock.close()
        if self._mute_timer is not None:
            self._mute_timer.cancel()  # it would keep all that this holds for as long
            self._mute_timer = None
        self._hub.connections.discard(self)
        self.lane = self.polled = None
        self._output.clear()
        self._kept = b""
        self._return_buffer()
        self._cancel_parked()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self)

    def set_client_id(self, raw: bytes) -> None:
        """Note a client id that differs from that of the request before."""
        self.client_id_bytes = raw
        self.lane = None
        self.client_id = raw.decode("utf-8", "replace")

    def keep_frame(self) -> bool:
        """Leave the frame being served to its handler for good, if it has its own buffer.

        Until the request is answered the buffer counts as lent.
        """
        loan, self._loan = self._loan, None
        if loan is None:
            return False
        self._hub.buffers.arrived(loan)
        self._in_work = loan
        return True

    # -- receiving ------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._paused:
            self._stop_reading()
            return
        if self._frame is not None:
            self._receive_large()
            return
        view = self._hub.received
        kept = self._kept
        have = len(kept)
        try:
            if have:
                view[:have] = kept
                count = self._receive_into(view[have:])
            else:
                count = self._receive_into(view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if not count:
            self._end_of_stream()
            return
        self._kept = b""
        self.active = self._hub.now
        self._consume(view, have + count)

    def _consume(self, view: memoryview, end: int) -> bool:
        """Serve every whole frame in ``view[:end]``, keep the rest, send the answers.

        False when the connection is now closed or paused.
        """
        serve = self._service.serve
        out = self._output.parts
        pos = queued = size = 0
        left = REQUESTS_PER_TURN_MAX
        try:
            while end - pos >= 4:
                size = _SIZE.unpack_from(view, pos)[0]
                if not FRAME_BYTES_MIN <= size <= self.max_frame or not self.proven:
                    self._check_size(size, view, pos)
                stop = pos + 4 + size
                if stop > end:
                    break
                frame = view[pos + 4 : stop]
                lane = self.lane
                if lane is not None:
                    if lane.take(frame):
                        pos = stop
                        left -= 1
                        if left:
                            continue
                        self._end_turn()
                        break
                    if lane.taken:
                        lane.run()
                        if self._paused or self.closed:
                            break
                answer = serve(self, frame)
                pos = stop
                if answer.__class__ is bytes and self._parked is None:
                    out.append(answer)
                    queued += len(answer)
                else:
                    queued += self.enqueue(answer)
                left -= 1
                if queued > _SEND_AT:
                    self.flush()
                    queued = 0
                if self._paused or self.closed:
                    break
                if not left:
                    self._end_turn()
                    break
            self._run_lane()
        except Exception as error:
            self.flush()
            self._fail(error)
            return False
        if pos < end and not self.closed:
            self._keep(view[pos:end], size)
        if out:
            self.flush()
        return not (self._paused or self.closed)

    def _run_lane(self) -> None:
        """Serve what the lane has taken."""
        lane = self.lane
        if lane is not None and lane.taken:
            lane.run()

    def _keep(self, rest: memoryview, size: int) -> None:
        """Keep bytes for later: part of a frame, or whole frames when serving is paused."""
        if self._paused or len(rest) < 4 or size + 4 <= len(self._hub.received):
            self._kept = bytes(rest)
            return
        loan = self._hub.buffers.take(size)
        if loan is None:
            self._kept = bytes(rest)
            self._wait_for_memory()
            return
        self._loan = loan
        self._frame = frame = memoryview(loan.buffer)[:size]
        self._filled = len(rest) - 4
        self._swept = _NEW
        frame[: self._filled] = rest[4:]

    def _wait_for_memory(self) -> None:
        self._paused |= MEMORY
        self._swept = _NEW  # nobody is called slow for what was not received
        self._hub.buffers.call_when_freed(self._memory_freed)

    def _receive_large(self) -> None:
        frame, loan = self._frame, self._loan
        assert frame is not None
        assert loan is not None
        if self._filled == loan.granted and not self._hub.buffers.extend(loan):
            self._wait_for_memory()
            return
        try:
            count = self._receive_into(frame[self._filled : loan.granted])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if not count:
            self._end_of_stream()
            return
        self.active = self._hub.now
        self._filled += count
        if self._filled < len(frame):
            return
        self._frame = None
        try:
            answer = self._service.serve(self, frame)
            self._settle_loan(answer)
            self.enqueue(answer)
        except Exception as error:
            self._settle_loan(None)
            self.flush()
            self._fail(error)
            return
        del frame
        self._return_buffer()
        if not self.closed:
            self.flush()

    def _settle_loan(self, answer: "Answer | Pending") -> None:
        """A frame that its handler keeps counts as lent until the request is answered."""
        loan, self._in_work = self._in_work, None
        if loan is None:
            return
        if isinstance(answer, Pending) and not answer.done:
            answer.when_done = partial(self._hub.buffers.forget, loan)
        else:
            self._hub.buffers.forget(loan)

    def _check_size(self, size: int, view: memoryview, pos: int) -> None:
        """The first frame of a connection, and every size out of bounds, come here."""
        self._run_lane()  # the last chance of what came before
        if not self.proven:
            start = bytes(view[pos : pos + 4])
            if start in _HTTP:
                self._hub.misdirected += 1
                raise MalformedFrame(
                    f"the peer speaks HTTP, but this listener speaks {self.endpoint.protocol}"
                )
            if start[0] == 0x16 and start[1] == 3:
                self._hub.misdirected += 1
                raise MalformedFrame(self._tls_refusal())
        if size < self.min_frame:
            raise MalformedFrame(f"a request of {size} bytes is too small to be one")
        if size > self.max_frame:
            raise MalformedFrame(
                f"a request of {size} bytes exceeds socket.request.max.bytes={self.max_frame}"
            )
        self.proven = True

    def _tls_refusal(self) -> str:
        ports = "/".join(map(str, self._hub.tls_ports()))
        advice = f"use {ports}" if ports else "and no other one of this broker speaks TLS"
        return (
            f"TLS on plaintext port: the peer started a TLS handshake, but this listener speaks "
            f"{self.endpoint.protocol}, {advice}"
        )

    def _end_of_stream(self) -> None:
        """The peer has closed or half-closed: what waits is given up, what is ready still goes."""
        self._closing = True
        self._stop_reading()
        self._return_buffer()
        self._cancel_parked()
        if not self.unsent:
            log.debug("peer closed the connection %s", self._facts())
            self.close()

    def _stop_reading(self) -> None:
        """Paused and something arrived: leave it to the kernel, but notice a peer that left."""
        if not self._closing:
            try:
                # Requests that were kept are served before their sender's leaving counts.
                if not self._holds_requests() and not self._sock.recv(1, socket.MSG_PEEK):
                    self._end_of_stream()
                    return
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lost(error)
                return
        if self._reading:
            self._reading = False
            self._hub.loop.remove_reader(self._sock.fileno())

    def _holds_requests(self) -> bool:
        """Whether requests have been received that wait to be served; part of one does not."""
        return bool(self._kept) and not self._paused & MEMORY

    def resume(self) -> None:
        """Go on after a pause: first with what was kept, then with what the kernel has."""
        self._paused &= ~TURN
        if self.closed or self._closing or self._paused:
            return
        kept = self._kept
        if kept:
            self._kept = b""
            view = self._hub.received
            view[: len(kept)] = kept
            if not self._consume(view, len(kept)):
                return
        if not self._reading:
            self._reading = True
            self._hub.loop.add_reader(self._sock.fileno(), self._on_readable)

    def _memory_freed(self) -> None:
        self._unpause(MEMORY)

    def _return_buffer(self) -> None:
        loan, self._loan = self._loan, None
        self._frame = None
        if loan is not None:
            self._hub.buffers.give_back(loan)

    def _facts(self) -> str:
        client = (
            f" client_id={self.client_id[:CLIENT_ID_CHARACTERS_LOGGED]!r}" if self.client_id else ""
        )
        return f"peer={self.peer} listener={self.endpoint.name}{client}"
