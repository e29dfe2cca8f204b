"""What requests cost their clients in time: the face of the quotas to dispatch and handlers.

The way of a request: :meth:`Quotas.arrived` when it does, its handler (Fetch and the APIs that
change partitions ask here what they may), :meth:`Quotas.answered` when its answer is ready. Who is
over a quota gets the answer at once with the time to wait in it, and for that time nothing more is
read from the connection (KIP-219).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from kavka.broker.quotas.answers import MS_MAX, with_throttle
from kavka.broker.quotas.bytes import ByteRate
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
    from kavka.broker.fetch.reader import FetchOptions
    from kavka.broker.quotas.instance import InstanceBandwidth
    from kavka.broker.request import Part, Request, Response
    from kavka.storage.clock import Clock

EXEMPT: Final = frozenset((4, 5, 6, 7, 17, 27, 36))
"""What brokers tell each other, and logins."""

FREE: Final = -1.0
"""The throttle of a request that is exempt by what it is: a replica's Fetch."""

PERCENT_OF_SECOND: Final = 100.0  # of one thread: there is one
_SHORTEST: Final = 0.0005  # seconds: what is told is in milliseconds


class Quotas:
    """All quotas of one broker. Owned by the event loop."""

    def __init__(
        self,
        clock: "Clock",
        window: Window,
        *,
        burst: float | None = None,
        is_replica: Callable[[int], bool] = lambda broker_id: True,
        producer_default: float | None = None,
        consumer_default: float | None = None,
    ) -> None:
        """The defaults are in bytes a second, for clients without a quota in the store.

        ``burst`` is how many seconds' worth of bytes may be moved at once; None for as many as the
        window has. ``is_replica`` tells who may fetch as a broker, which has no limits: who claims
        it by an id that no other live broker has is a client.
        """
        self._now = clock.monotonic
        self._window = window
        self._burst = burst
        self._is_replica = is_replica
        byte_rate = partial(ByteRate, window, burst)
        self.producing = ClientQuota[ByteRate](byte_rate, window, producer_default)
        self.consuming = ClientQuota[ByteRate](byte_rate, window, consumer_default)
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
        request.started = self._now() if self._timing else 0.0

    def parked(self, request: "Request") -> None:
        """Its handler has returned without an answer: what it did so far counts."""
        if self._timing and _is_known(request):
            self._count_time(request, self._now())

    def answered(self, request: "Request", response: "Response") -> "Response":
        """Count what the request took, and make its client wait if that is too much.

        The response comes back with the time to wait in it.
        """
        try:
            wait = request.throttle
        except AttributeError:
            return response  # it was here before there were quotas
        key = request.key
        if wait < 0 or key in EXEMPT:
            return response
        now = self._now()
        connection = request.connection
        if key == PRODUCE:
            meter = self.producing.meter(connection.principal, request.client_id, now)
            if meter is not None:
                wait = max(wait, meter.counted.by.count(request.size, meter.limit, now))
        if self._timing:
            self._count_time(request, now)
            wait = max(wait, self._over_time(request, now))
        if self.instance is not None:
            wait = max(wait, self.instance.take(connection, request.size, size_of(response), now))
        if wait < _SHORTEST:
            return response
        ms = min(round(wait * 1000), MS_MAX)
        connection.mute(ms / 1000)
        return with_throttle(key, request.version, response, ms)

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

    def prepare_fetch(self, request: "Request", options: "FetchOptions") -> None:
        """Let a Fetch be counted before it is answered, and answer no more at once than passes.

        A replica's is exempt.
        """
        if not _is_known(request):
            return
        if options.replica_id >= 0 and self._is_replica(options.replica_id):
            request.throttle = FREE
            return
        meter = self._consumer(request)
        if meter is not None:
            # Kafka allows what the limit gives in a whole window (KAFKA-9677): more would be too
            # much even after a long silence. A share of that makes for an even flow.
            seconds = self._window.burst if self._burst is None else self._window.seconds
            options.max_bytes = min(options.max_bytes, max(int(meter.limit * seconds), 0))
            options.min_bytes = min(options.min_bytes, options.max_bytes)
        options.charge = partial(self.fetch, request)

    def fetch(self, request: "Request", parts: "Sequence[Part]") -> bool:
        """Count the answer to a Fetch; False when nothing is counted and it must be empty."""
        now = self._now()
        wait = self._over_time(request, now) if self._timing else 0.0
        passes = wait <= 0
        meter = self._consumer(request)
        if meter is not None and passes:
            size = bytes_of(parts)
            passes, wait = meter.counted.by.try_count(size, meter.limit, now)
        request.throttle = max(request.throttle, wait)
        return passes

    def _consumer(self, request: "Request") -> Meter[ByteRate] | None:
        if not self.consuming.limits_anybody:
            return None
        now = self._now()
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
        meter = self.mutating.meter(request.principal, request.client_id, self._now())
        if meter is None:
            return None
        bucket, limit = meter.counted.by, meter.limit

        def count(partitions: int) -> None:
            now = self._now()
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
    return bytes_of(response.parts) if isinstance(response, Raw) else 0


def bytes_of(parts: "Sequence[Part]") -> int:
    """Bytes in memory and in slices of files."""
    return sum(
        len(part) if isinstance(part, bytes | bytearray | memoryview) else part.size
        for part in parts
    )
