"""The bandwidth of the instance: each direction for itself; public listeners have a second one.

What comes by a public listener counts for both.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from kavka.broker.quotas.bandwidth import Bandwidth

if TYPE_CHECKING:
    from kavka.broker.connection import Connection

_ASK_SECONDS: Final = 1.0  # between two looks at the rates: they follow the live brokers


class _Duplex:
    """A bandwidth in both directions, for as long as there is a rate."""

    __slots__ = ("_egress", "_ingress", "_limited")

    def __init__(self) -> None:
        self._ingress = Bandwidth(1.0, 0.0)
        self._egress = Bandwidth(1.0, 0.0)
        self._limited = False

    def set_rate(self, rate: float | None, now: float) -> None:
        if rate is None:
            self._limited = False
        elif self._limited:
            self._ingress.rate = self._egress.rate = rate
        else:
            self._limited = True
            self._ingress, self._egress = Bandwidth(rate, now), Bandwidth(rate, now)

    def take(self, who: int, received: int, sent: int, now: float) -> float:
        if not self._limited:
            return 0.0
        return max(self._ingress.take(who, received, now), self._egress.take(who, sent, now))


class InstanceBandwidth:
    """What clients may send and get in all, and by public listeners.

    ``rates`` gives both rates in bytes a second and direction, None for no limit.
    """

    __slots__ = ("_all", "_asked", "_public", "_public_listeners", "_rates")

    def __init__(
        self,
        rates: Callable[[], tuple[float | None, float | None]],
        public_listeners: Collection[str],
    ) -> None:
        self._rates = rates
        self._public_listeners = frozenset(public_listeners)
        self._all = _Duplex()
        self._public = _Duplex()
        self._asked: float | None = None

    def take(self, connection: "Connection", received: int, sent: int, now: float) -> float:
        """Count the bytes of a request and its answer; seconds for its connection to wait."""
        if self._asked is None or now - self._asked >= _ASK_SECONDS:
            self._asked = now
            rate, public_rate = self._rates()
            self._all.set_rate(rate, now)
            self._public.set_rate(public_rate, now)
        who = id(connection)  # may be given anew, but a closed one must not be kept
        wait = self._all.take(who, received, sent, now)
        if connection.endpoint.name in self._public_listeners:
            wait = max(wait, self._public.take(who, received, sent, now))
        return wait
