"""Handshakes in small portions, so that a storm of them delays nobody who is served already.

A handshake costs as much as a hundred requests. Connections whose peer has sent something wait
here for their turn; each turn of the event loop takes a few, one from every peer address before a
second one from any.
"""

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from kavka.broker.security.tls.stream import Scratch
from kavka.config.limits import TLS_HANDSHAKE_SECONDS_MAX

if TYPE_CHECKING:
    from kavka.broker.hub import Hub
    from kavka.broker.security.tls.connection import TlsConnection

log = logging.getLogger("kavka.network")

_TURN_SECONDS: Final = 0.001
_STEPS_PER_TURN: Final = 8
_REPORT_SECONDS: Final = 1.0


class Handshakes:
    """The handshakes under way on one event loop."""

    def __init__(self, hub: "Hub") -> None:
        self.scratch = Scratch()
        self.under_way: dict[TlsConnection, float] = {}  # by when each must be done; oldest first
        self.failed = 0
        self._hub = hub
        self._waiting: dict[str, deque[TlsConnection]] = {}  # by address, whose turn it is first
        self._scheduled = False
        self._complaints: dict[tuple[str, str], int] = {}

    def begin(self, connection: "TlsConnection") -> None:
        """A connection is new: its handshake must be done in time."""
        self.under_way[connection] = self._hub.monotonic() + TLS_HANDSHAKE_SECONDS_MAX

    def end(self, connection: "TlsConnection") -> None:
        """A handshake is done, or its connection closed."""
        self.under_way.pop(connection, None)

    def ready(self, connection: "TlsConnection") -> None:
        """The peer has sent something: go on when it is this connection's turn."""
        self._waiting.setdefault(connection.address[0], deque()).append(connection)
        self._schedule()

    def expire(self) -> None:
        """Close connections whose handshake has taken too long."""
        now = self._hub.monotonic()
        for connection, deadline in list(self.under_way.items()):
            if deadline > now:
                break
            connection.handshake_failed(
                f"the TLS handshake was not done within {TLS_HANDSHAKE_SECONDS_MAX} s"
            )

    def complain(self, connection: "TlsConnection", reason: str) -> None:
        """Log why a handshake failed: each reason once a second and address, others counted."""
        self.failed += 1
        key = connection.address[0], reason
        count = self._complaints.get(key)
        if count is not None:
            self._complaints[key] = count + 1
            return
        log.warning(
            "closing connection: %s peer=%s listener=%s",
            reason,
            connection.peer,
            connection.endpoint.name,
        )
        if not self._complaints:
            self._hub.loop.call_later(_REPORT_SECONDS, self._report)
        self._complaints[key] = 0

    def _report(self) -> None:
        complaints, self._complaints = self._complaints, {}
        for (address, reason), count in complaints.items():
            if count:
                log.warning(
                    "closed further connections within a second: %s count=%d peer=%s",
                    reason,
                    count,
                    address,
                )

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._hub.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        waiting, monotonic = self._waiting, self._hub.monotonic
        until = monotonic() + _TURN_SECONDS
        for _ in range(_STEPS_PER_TURN):
            if not waiting:
                return
            address = next(iter(waiting))
            queue = waiting.pop(address)
            connection = queue.popleft()
            if queue:
                waiting[address] = queue  # at the end: others come first
            if not connection.closed:
                connection.shake_hands()
                if monotonic() >= until:
                    break
        if waiting:
            self._schedule()
