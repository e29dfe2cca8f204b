"""Coordinators that exist from the first question to them on, or the first partition led here.

A broker without groups and transactions starts sooner, and smaller, without the code of either.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from kavka.replication.replica_manager import ReplicaManager


class Coordinator(Protocol):
    """What becomes of either coordinator in the life of a broker."""

    def start(self) -> None:
        """Serve."""

    def stop(self) -> None:
        """Serve no more."""

    async def loaded(self) -> None:
        """Wait until no partition is being read."""

    def on_elected(self, partition: int, leader_epoch: int) -> None:
        """This broker leads a partition of the coordinator's topic."""

    def on_resigned(self, partition: int) -> None:
        """The partition is led elsewhere."""


C = TypeVar("C", bound=Coordinator)


class OnDemand(Generic[C]):
    """One coordinator, which ``make`` makes when it is needed."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._made: C | None = None
        self._started = False

    def get(self) -> C:
        """The coordinator; it serves if this has been started."""
        if self._made is None:
            self._made = self._make()
            if self._started:
                self._made.start()
        return self._made

    def start(self, replicas: "ReplicaManager", topic: str) -> None:
        """Serve, and hear which partitions of ``topic`` are led here."""
        self._started = True
        if self._made is not None:
            self._made.start()
        replicas.subscribe_leadership(topic, self._on_elected, self._on_resigned)

    def stop(self) -> None:
        """Serve no more."""
        self._started = False
        if self._made is not None:
            self._made.stop()

    async def loaded(self) -> None:
        """Wait until no partition is being read."""
        if self._made is not None:
            await self._made.loaded()

    def _on_elected(self, partition: int, leader_epoch: int) -> None:
        self.get().on_elected(partition, leader_epoch)

    def _on_resigned(self, partition: int) -> None:
        if self._made is not None:
            self._made.on_resigned(partition)
