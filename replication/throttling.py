"""Holding replication to a rate (KIP-73), so that moving partitions leaves room for clients.

``leader.replication.throttled.replicas`` and ``follower.replication.throttled.replicas`` of a
topic say which replicas are held back on the sending and on the fetching side, the broker's
``*.replication.throttled.rate`` to how many bytes a second altogether. Replicas in sync are not
held back. Without a rate nothing here is ever asked.
"""

from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol

from kavka.replication.partition import Partition
from kavka.replication.rate import Rate
from kavka.storage.clock import Clock

UNLIMITED: Final = 2**63 - 1
ALL: Final = "*"

Side = Literal["leader", "follower"]


class Settings(Protocol):
    """The broker's settings, some of which change while it runs."""

    def get_int(self, name: str) -> int: ...

    def on_change(
        self, names: Iterable[str], callback: Callable[[frozenset[str]], None]
    ) -> object: ...


class ReplicationThrottle:
    """One side of a broker's replication."""

    __slots__ = ("_clock", "_name", "_node_id", "_rate", "_settings", "_side", "is_on", "limit")

    def __init__(self, side: Side, settings: Settings, node_id: int, clock: Clock) -> None:
        self._side = side
        self._name = f"{side}.replication.throttled.rate"
        self._settings = settings
        self._node_id = node_id
        self._clock = clock
        self._rate = Rate(
            settings.get_int("replication.quota.window.num"),
            settings.get_int("replication.quota.window.size.seconds"),
            clock.monotonic(),
        )
        self.limit = 0
        self.is_on = False
        """Whether there is a rate at all."""
        self._read_limit()
        settings.on_change((self._name,), lambda _: self._read_limit())

    def _read_limit(self) -> None:
        self.limit = self._settings.get_int(self._name)
        self.is_on = self.limit < UNLIMITED

    def covers(self, partition: Partition) -> bool:
        """Whether this broker's replica of a partition is one of those to be held back."""
        if not self.is_on:
            return False
        config = partition.log.config
        replicas = (
            config.leader_replication_throttled_replicas
            if self._side == "leader"
            else config.follower_replication_throttled_replicas
        )
        if not replicas:
            return False
        return ALL in replicas or f"{partition.index}:{self._node_id}" in replicas

    def record(self, size: int) -> None:
        """Bytes of a covered replica have been sent or fetched."""
        self._rate.record(size, self._clock.monotonic())

    @property
    def is_exceeded(self) -> bool:
        """Whether covered replicas have to wait."""
        return self._rate.value(self._clock.monotonic()) > self.limit

    @property
    def wait(self) -> float:
        """Seconds until they need not wait any more, as far as is known."""
        return self._rate.excess(self.limit, self._clock.monotonic())
