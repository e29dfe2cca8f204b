"""What requests cost their clients in time: the face of the quotas to dispatch and handlers.

The way of a request: :meth:`Quotas.arrived` when it does, its handler (Fetch and the APIs that
change partitions ask here what they may), :meth:`Quotas.answered` when its answer is ready. Who is
over a quota gets the answer at once with the time to wait in it, and for that time nothing more is
read from the connection (KIP-219).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kavka.broker.quotas.answers import MS_MAX, with_throttle
from kavka.broker.quotas.entities import (
    CONSUMER_BYTE_RATE,
    CONTROLLER_MUTATION_RATE,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    ClientEntity,
)
from kavka.broker.quotas.memory import Window
from kavka.broker.quotas.meters import ClientQuota, Meter
from kavka.broker.quotas.mutations import TokenBucket, exceeded
from kavka.broker.request import Raw
from kavka.protocol.headers import PRODUCE
from kavka.replication.rate import Rate

if TYPE_CHECKING:
    from kavka.broker.quotas.instance import InstanceBandwidth
    from kavka.broker.request import Request, Response
    from kavka.storage.clock import Clock

EXEMPT: Final = frozenset((4, 5, 6, 7, 17, 27, 36))
"""What brokers tell each other, and logins."""

FREE: Final = -1.0
"""The throttle of a request that is exempt by what it is: a replica's Fetch."""

PERCENT_OF_SECOND: Final = 100.0  # of one thread: there is one


class Quotas:
    """All quotas of one broker. Owned by the event loop."""

    def __init__(
        self,
        clock: "Clock",
        window: Window,
        *,
        producer_default: float | None = None,
        consumer_default: float | None = None,
    ) -> None:
        """The defaults are in bytes a second, for clients without a quota in the store."""
        self._clock = clock
        self._window = window
        self.producing = ClientQuota[Rate](window.rate, window, producer_default)
        self.consuming = ClientQuota[Rate](window.rate, window, consumer_default)
        self.requesting = ClientQuota[Rate](window.rate, window)
        self.mutating = ClientQuota[TokenBucket](lambda now: TokenBucket(window, now), window)
        self.instance: InstanceBandwidth | None = None
        self._timing = False

    @property
    def limits_anybody(self) -> bool:
        return self.instance is not None or any(
            quota.limits_anybody
            for quota in (self.producing, self.consuming, self.requesting, self.mutating)
        )

    def set(self, entity: ClientEntity, key: str, limit: float | None) -> None:
        """Set or remove one limit of an entity."""
        if key == PRODUCER_BYTE_RATE:
            self.producing.set(entity, limit)
        elif key == CONSUMER_BYTE_RATE:
            self.consuming.set(entity, limit)
        elif key == CONTROLLER_MUTATION_RATE:
            self.mutating.set(entity, limit)
        else:
            assert key == REQUEST_PERCENTAGE, key
            self.requesting.set(entity, limit)
            self._timing = self.requesting.limits_anybody

    # -- the way of a request -------------------------------------------------------------------

    def arrived(self, request: "Request", size: int) -> None:
        """A request of ``size`` bytes is about to be handled."""
        request.size = size
        request.throttle = 0.0
        request.started = self._clock.monotonic() if self._timing else 0.0

    def parked(self, request: "Request") -> None:
        """Its handler has returned without an answer: what it did so far counts."""
        if self._timing and _is_known(request):
            self._count_time(request, self._clock.monotonic())

    def answered(self, request: "Request", response: "Response") -> "Response":
        """Count what the request took, and make its client wait if that is too much.

        The response comes back with the time to wait in it.
        """
        if not _is_known(request) or request.throttle == FREE or request.key in EXEMPT:
            return response
        now = self._clock.monotonic()
        wait = request.throttle
        connection = request.connection
        if request.key == PRODUCE and self.producing.limits_anybody:
            meter = self.producing.meter(connection.principal, request.client_id, now)
            if meter is not None:
                rate = meter.counted.by
                rate.record(request.size, now)
                wait = max(wait, rate.excess(meter.limit, now))
        if self._timing:
            self._count_time(request, now)
            wait = max(wait, self._over_time(request, now))
        if self.instance is not None:
            wait = max(wait, self.instance.take(connection, request.size, size_of(response), now))
        ms = min(round(wait * 1000), MS_MAX)
        if ms <= 0:
            return response
        connection.mute(ms / 1000)
        return with_throttle(request.key, request.version, response, ms)

    def _count_time(self, request: "Request", now: float) -> None:
        started, request.started = request.started, 0.0
        if started and request.key not in EXEMPT and request.throttle != FREE:
            meter = self.requesting.meter(request.principal, request.client_id, now)
            if meter is not None:
                meter.counted.by.record((now - started) * PERCENT_OF_SECOND, now)

    def _over_time(self, request: "Request", now: float) -> float:
        """Seconds to wait for having kept the broker busy; one sample at most."""
        meter = self.requesting.meter(request.principal, request.client_id, now)
        if meter is None:
            return 0.0
        return min(meter.counted.by.excess(meter.limit, now), self._window.seconds)

    # -- Fetch ----------------------------------------------------------------------------------

    def fetch_bytes_max(self, request: "Request") -> int | None:
        """Most bytes that a Fetch may answer with: what the quota allows in a whole window. More
        would be over the quota even after a long silence. None for no limit.
        """
        meter = self._consumer(request)
        return None if meter is None else max(int(meter.limit * self._window.burst), 0)

    def fetch(self, request: "Request", size: int) -> bool:
        """Count ``size`` bytes of records to be answered; False when they must not be.

        Then nothing is counted and the answer has to be an empty one. What is over the quota all
        by itself (one batch is always answered whole) passes when nothing else is in the window:
        otherwise its reader would never get on.
        """
        if not _is_known(request):
            return True
        now = self._clock.monotonic()
        wait = self._over_time(request, now) if self._timing else 0.0
        meter = self._consumer(request)
        passes = wait <= 0
        if meter is not None:
            rate = meter.counted.by
            before = rate.total(now)
            rate.record(size, now)
            excess = rate.excess(meter.limit, now)
            if excess > 0 and before > 0:
                passes = False
            if not passes:
                rate.record(-size, now)
            wait = max(wait, excess)
        request.throttle = max(request.throttle, wait)
        return passes

    def exempt(self, request: "Request") -> None:
        """The request is a replica's: no quota of clients is for it."""
        if _is_known(request):
            request.throttle = FREE

    def _consumer(self, request: "Request") -> Meter[Rate] | None:
        if not self.consuming.limits_anybody:
            return None
        now = self._clock.monotonic()
        return self.consuming.meter(request.principal, request.client_id, now)

    # -- partitions made and deleted --------------------------------------------------------------

    def mutations(self, request: "Request", *, strict: bool) -> Callable[[int], None] | None:
        """What is to be called with the number of partitions before each step that makes or
        deletes some; None when nothing limits the client.

        It raises THROTTLING_QUOTA_EXCEEDED once the quota is used up if the request is of a
        version that knows of it (``strict``); older ones only have to wait after the answer.
        """
        if not self.mutating.limits_anybody or not _is_known(request):
            return None
        meter = self.mutating.meter(request.principal, request.client_id, self._clock.monotonic())
        if meter is None:
            return None
        bucket, limit = meter.counted.by, meter.limit

        def count(partitions: int) -> None:
            now = self._clock.monotonic()
            if strict:
                debt = bucket.debt(limit, now)
                if debt <= 0:
                    bucket.take(partitions, limit, now)
                    return
            else:
                bucket.take(partitions, limit, now)
                debt = bucket.debt(limit, now)
            request.throttle = max(request.throttle, debt)
            if strict:
                raise exceeded()

        return count


def _is_known(request: "Request") -> bool:
    """Whether there were quotas already when the request arrived."""
    return hasattr(request, "throttle")


def size_of(response: "Response") -> int:
    """Bytes of an answer that is ready; the small others do not count."""
    if isinstance(response, bytes):
        return len(response)
    if isinstance(response, Raw):
        return sum(
            len(part) if isinstance(part, bytes | bytearray | memoryview) else part.size
            for part in response.parts
        )
    return 0
