"""How many connections an address may make a second (KIP-612)."""

import socket

from kavka.broker.quotas.memory import Memory, Window
from kavka.replication.rate import Rate
from kavka.replication.znodes import DEFAULT_ENTITY
from kavka.storage.clock import Clock


def canonical(address: str) -> str | None:
    """An address as sockets print it; None for what is none."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, address))
        except (OSError, ValueError):
            continue
    return None


class ConnectionRates:
    """The limits of addresses and what they have done. Asked once for every accepted socket."""

    def __init__(self, window: Window, clock: Clock) -> None:
        self._window = window
        self._clock = clock
        self._limits: dict[str, float] = {}
        self._default: float | None = None
        self._rates: Memory[str, Rate] = Memory(window.rate, window)

    def set(self, address: str, limit: float | None) -> None:
        """Set or remove the limit of an address, or of ``<default>`` for all without their own."""
        if address == DEFAULT_ENTITY:
            self._default = limit
            return
        address = canonical(address) or address
        if limit is None:
            self._limits.pop(address, None)
        else:
            self._limits[address] = limit

    @property
    def limits_anybody(self) -> bool:
        return bool(self._limits) or self._default is not None

    def admit(self, address: str) -> float:
        """0 to let a connection in, which is counted; else after how many seconds to close it."""
        limit = self._limits.get(address, self._default)
        if limit is None:
            return 0.0
        now = self._clock.monotonic()
        rate = self._rates.find(address, now).by
        rate.record(1, now)
        excess = rate.excess(limit, now)
        if excess > 0:
            rate.record(-1, now)
        return min(excess, self._window.seconds)
