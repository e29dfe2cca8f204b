"""The bandwidth of the instance: each direction for itself, what comes by public listeners twice.

The share of one broker: of the flavour's bandwidth by the number of live brokers, or as set.
"""

from typing import TYPE_CHECKING

from kavka.broker.quotas.bandwidth import Bandwidth

if TYPE_CHECKING:
    from collections.abc import Collection

    from kavka.broker.connection import Connection


class Duplex:
    """A bandwidth in both directions."""

    __slots__ = ("egress", "ingress")

    def __init__(self, rate: float, now: float) -> None:
        self.ingress = Bandwidth(rate, now)
        self.egress = Bandwidth(rate, now)

    def set_rate(self, rate: float) -> None:
        self.ingress.rate = self.egress.rate = rate

    def take(self, who: int, received: int, sent: int, now: float) -> float:
        return max(self.ingress.take(who, received, now), self.egress.take(who, sent, now))


class InstanceBandwidth:
    """What clients may send and get in all, and by public listeners."""

    __slots__ = ("_all", "_public", "_public_listeners")

    def __init__(self) -> None:
        self._all: Duplex | None = None
        self._public: Duplex | None = None
        self._public_listeners: Collection[str] = frozenset()

    @property
    def limits_anybody(self) -> bool:
        return self._all is not None or self._public is not None

    def set(
        self,
        rate: float | None,
        public_rate: float | None,
        public_listeners: "Collection[str]",
        now: float,
    ) -> None:
        """Set both rates, in bytes a second and direction; None for no limit."""
        self._all = _changed(self._all, rate, now)
        self._public = _changed(self._public, public_rate, now)
        self._public_listeners = public_listeners

    def take(self, connection: "Connection", received: int, sent: int, now: float) -> float:
        """Count the bytes of a request and its answer; seconds for its connection to wait."""
        wait = 0.0
        who = id(connection)  # may be given anew, but a closed one must not be kept
        if self._all is not None:
            wait = self._all.take(who, received, sent, now)
        if self._public is not None and connection.endpoint.name in self._public_listeners:
            wait = max(wait, self._public.take(who, received, sent, now))
        return wait


def _changed(duplex: Duplex | None, rate: float | None, now: float) -> Duplex | None:
    if rate is None:
        return None
    if duplex is None:
        return Duplex(rate, now)
    duplex.set_rate(rate)
    return duplex
