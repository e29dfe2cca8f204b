"""What the connections of one broker share: buffers, bounds, turns of the loop, the sweep."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from kavka.broker.buffers import FrameBuffers

if TYPE_CHECKING:
    from kavka.broker.answering import Answering
    from kavka.broker.connection import Connection
    from kavka.broker.output import Answer
    from kavka.broker.request import Pending
    from kavka.broker.security.tls.handshakes import Handshakes
    from kavka.storage.clock import Clock

_DRAIN_STEP_SECONDS: Final = 0.005
_SWEEP_SECONDS_MAX: Final = 5.0
_SWEEP_SECONDS_MIN: Final = 0.05


class Service(Protocol):
    """What stands behind the connections."""

    def serve(self, connection: "Connection", frame: memoryview) -> "Answer | Pending":
        """Handle one request frame (without its size prefix).

        Raises MalformedFrame for bytes that are no valid request and Disconnect when the
        client has to be told by a closed connection; any other exception is a defect.
        """

    def encode(self, pending: "Pending") -> "Answer":
        """The answer of a completed :class:`Pending`; raises as :meth:`serve` does."""


class Bounds:
    """Limits of every connection; sizes in bytes, times in seconds."""

    __slots__ = ("idle", "in_flight", "max_frame", "output")

    def __init__(self, *, max_frame: int, in_flight: int, output: int, idle: float) -> None:
        self.max_frame = max_frame
        self.in_flight = in_flight  # unanswered requests
        self.output = output  # answers that the peer has not read
        self.idle = idle


class Hub:
    """All connections of one broker, and what they share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: "Clock",
        service: Service,
        bounds: Bounds,
        buffers: FrameBuffers,
        receive_buffer_size: int,
    ) -> None:
        self.loop = loop
        self.service = service
        self.bounds = bounds
        self.buffers = buffers
        self.received = memoryview(bytearray(receive_buffer_size))
        self.connections: set[Connection] = set()
        self.now = clock.monotonic()  # of the last sweep: exact enough to tell who is idle
        self.monotonic = clock.monotonic
        self.misdirected = 0  # connections that spoke TLS or HTTP to a listener without
        self.handshakes: Handshakes | None = None  # where a listener speaks TLS
        self.tls_ports: Callable[[], list[int]] = list  # where clients that want TLS find it
        self._sweep_seconds = min(max(bounds.idle / 8, _SWEEP_SECONDS_MIN), _SWEEP_SECONDS_MAX)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._to_resume: list[Answering] = []
        self._to_flush: list[Answering] = []
        self._turn_scheduled = False

    def start(self) -> None:
        """Begin to look for idle connections."""
        self._sweep_timer = self.loop.call_later(self._sweep_seconds, self._on_sweep)

    async def drain(self, timeout: float) -> None:
        """Send what is ready, waiting at most ``timeout`` seconds for slow readers."""
        give_up = self.monotonic() + timeout
        while True:
            await asyncio.sleep(0)  # answers that have just become ready are sent by the turn
            if not self._turn_scheduled and not any(c.unsent for c in self.connections):
                return
            if self.monotonic() >= give_up:
                return
            await asyncio.sleep(_DRAIN_STEP_SECONDS)

    def close(self) -> None:
        """Close every connection."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for connection in list(self.connections):
            connection.close()

    def resume_later(self, connection: "Answering") -> None:
        """Serve the connection's waiting requests once the current callback is over.

        Not at once: somebody may be working on the shared buffer right now.
        """
        self._to_resume.append(connection)
        self._schedule_turn()

    def flush_later(self, connection: "Answering") -> None:
        """Send the connection's answers once per loop turn, however many become ready in it."""
        self._to_flush.append(connection)
        self._schedule_turn()

    def sweep(self) -> None:
        """Close idle connections, and slow ones that hold memory others wait for."""
        self.now = now = self.monotonic()
        bounds = self.bounds
        # `active` carries the time of the sweep before, hence the extra interval.
        idle_since = now - bounds.idle - self._sweep_seconds
        contended = self.buffers.contended
        for connection in list(self.connections):
            waits = connection.in_flight or connection.muted
            if connection.active <= idle_since and not waits:
                connection.close("idle for longer than connections.max.idle.ms", logging.INFO)
            elif contended and connection.is_slow(self._sweep_seconds):
                connection.close("a large request hardly arrives while others wait for memory")
        if self.handshakes is not None:
            self.handshakes.expire()
        self.buffers.trim()

    def _on_sweep(self) -> None:
        self._sweep_timer = self.loop.call_later(self._sweep_seconds, self._on_sweep)
        self.sweep()

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        resume, self._to_resume = self._to_resume, []
        for connection in resume:
            connection.resume()
        flush, self._to_flush = self._to_flush, []
        for connection in flush:
            connection.flush()
