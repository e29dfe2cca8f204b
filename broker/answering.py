"""The half of a connection that answers: in request order, corked, and bounded."""

import errno
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from kavka.broker.output import Answer, Output, memory_of
from kavka.broker.request import Disconnect, Pending, RequestFailed
from kavka.protocol.errors import MalformedFrame

if TYPE_CHECKING:
    from kavka.broker.hub import Hub, Service

log = logging.getLogger("kavka.network")

_PEER_LEFT: Final = (
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EPIPE,
    errno.ETIMEDOUT,
)

# Why a connection is not being served further.
EXCLUSIVE: Final = 1  # a request that lets nothing overtake it is in work
IN_FLIGHT: Final = 2  # too many requests wait for their answers
OUTPUT: Final = 4  # the peer does not read what it asked for
MEMORY: Final = 8  # no memory for a large frame just now
TURN: Final = 16  # it has had its share of this turn of the loop
MUTED: Final = 32  # it went over a quota


class Answering:
    """What of a connection sends answers; :class:`Connection` adds what asks for them."""

    __slots__ = (
        "_closing",
        "_hub",
        "_output",
        "_parked",
        "_paused",
        "_ready",
        "_service",
        "_sock",
        "_unsent",
        "_will_flush",
        "_writing",
        "active",
        "closed",
        "in_flight",
    )

    def __init__(self, hub: "Hub", sock: socket.socket) -> None:
        self.active = hub.now
        self.closed = False
        self.in_flight = 0  # requests without an answer so far
        self._hub = hub
        self._service: Service = hub.service
        self._sock = sock
        self._parked: deque[Pending | Answer] | None = None  # in request order
        self._output = Output()
        self._unsent = 0  # bytes of memory in the output after a send that fell short
        self._ready = 0  # bytes of memory in answers that wait behind a parked request
        self._paused = 0
        self._writing = False
        self._will_flush = False
        self._closing = False  # the peer sent its last byte; only what is queued still goes out

    @property
    def unsent(self) -> bool:
        """Whether answers are ready that the socket has not taken."""
        return bool(self._output.parts)

    def close(self, reason: str | None = None, level: int = logging.WARNING) -> None:
        """Close now, dropping what is queued; ``reason`` makes the one log line."""
        raise NotImplementedError

    def resume(self) -> None:
        """Go on after a pause."""
        raise NotImplementedError

    def _facts(self) -> str:
        raise NotImplementedError

    # -- answering ------------------------------------------------------------------------

    def enqueue(self, answer: "Answer | Pending") -> int:
        """Put an answer into its place in the order; returns the bytes it holds in memory."""
        if answer.__class__ is Pending:
            return self._park(answer)
        answer = cast(Answer, answer)
        if answer is None:
            return 0
        size = memory_of(answer)
        if self._parked is None:
            self._output.add(answer)
        else:
            self._parked.append(answer)
            self._ready += size
            if len(self._parked) >= self._hub.bounds.in_flight:
                self._paused |= IN_FLIGHT
            self._mind_output()
        return size

    def _park(self, pending: Pending) -> int:
        if pending.done:
            return self.enqueue(self._service.encode(pending))
        pending.await_with(self)
        if self._parked is None:
            self._parked = deque()
        self._parked.append(pending)
        self.in_flight += 1
        if pending.exclusive:
            self._paused |= EXCLUSIVE
        if len(self._parked) >= self._hub.bounds.in_flight:
            self._paused |= IN_FLIGHT
        return 0

    def answer_ready(self, pending: Pending) -> None:
        """A parked request has its answer: it leaves when all before it have left."""
        if self.closed:
            return
        self.in_flight -= 1
        self.active = self._hub.now
        parked = self._parked
        assert parked is not None
        if parked[0] is pending:
            try:
                self._release()
            except Exception as error:
                self.flush()
                self._fail(error)
                return
            if self._output.parts and not self._will_flush:
                self._will_flush = True
                self._hub.flush_later(self)
        else:
            self._encode_early(parked, pending)
        if pending.exclusive:
            self._unpause(EXCLUSIVE)

    def _encode_early(self, parked: "deque[Pending | Answer]", pending: Pending) -> None:
        """What waits behind another answer is encoded, to take little memory and be counted."""
        try:
            answer = self._service.encode(pending)
        except Exception:
            return  # again when it is its turn: answers before it still go out
        parked[parked.index(pending)] = answer
        self._ready += memory_of(answer)
        self._mind_output()

    def _release(self) -> None:
        """Move answers that nothing holds back any more from the order to the output."""
        parked = self._parked
        assert parked is not None
        encode = self._service.encode
        while parked:
            head = parked[0]
            if head.__class__ is Pending:
                if not head.done:
                    break
                answer = encode(head)
            else:
                answer = cast(Answer, head)
                self._ready -= memory_of(answer)
            parked.popleft()
            if answer is not None:
                self._output.add(answer)
        if not parked:
            self._parked = None
        if self._paused & IN_FLIGHT and len(parked) <= self._hub.bounds.in_flight // 2:
            self._unpause(IN_FLIGHT)

    def _cancel_parked(self) -> None:
        parked, self._parked = self._parked, None
        self.in_flight = 0
        for entry in parked or ():
            if isinstance(entry, Pending) and not entry.done:
                entry.cancel()

    # -- sending --------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is ready, as much as the socket takes."""
        self._will_flush = False
        if self.closed or not self._output.parts:
            return
        if self._writing:  # the loop says when the socket takes more
            self._unsent = self._output.memory
            self._mind_output()
            return
        self._send()

    def _send(self) -> None:
        output = self._output
        try:
            done = output.send(self._sock)
        except OSError as error:
            self._lost(error)
            return
        except Disconnect as error:
            self._fail(error)
            return
        self.active = self._hub.now
        if done:
            self._unsent = 0
            if self._writing:
                self._writing = False
                self._hub.loop.remove_writer(self._sock.fileno())
            if self._closing:
                self.close()
            elif self._paused & OUTPUT:
                self._mind_output()
            return
        if not self._writing:
            self._writing = True
            self._hub.loop.add_writer(self._sock.fileno(), self._send)
        self._unsent = output.memory
        self._mind_output()

    def _mind_output(self) -> None:
        """Do not let the peer ask for more while it does not read what it asked for."""
        queued = self._unsent + self._ready
        limit = self._hub.bounds.output
        if queued > limit:
            self._paused |= OUTPUT
        elif queued <= limit // 2:
            self._unpause(OUTPUT)

    # -- the end --------------------------------------------------------------------------

    def _lost(self, error: OSError) -> None:
        if error.errno in _PEER_LEFT:
            log.debug("connection lost: %s %s", error, self._facts())
            self.close()
        else:
            self.close(str(error))

    def _fail(self, error: Exception) -> None:
        if isinstance(error, Disconnect):
            self.close(str(error), logging.INFO)
        elif isinstance(error, MalformedFrame):
            self.close(str(error), logging.WARNING)
        elif not self.closed:
            cause = error.__cause__ if isinstance(error, RequestFailed) else error
            log.error("closing connection: %s %s", error, self._facts(), exc_info=cause)
            self.close()

    def _unpause(self, reason: int) -> None:
        if self._paused & reason:
            self._paused &= ~reason
            if not self._paused and not self.closed:
                self._hub.resume_later(self)
