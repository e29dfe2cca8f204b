"""One kind of client quota: who is limited to what, and what is counted for them."""

from collections.abc import Callable
from typing import Final, Generic

from kavka.broker.quotas.entities import ClientEntity, candidates
from kavka.broker.quotas.memory import C, Counted, Memory, Window
from kavka.replication.znodes import sanitize

_CLIENTS_CACHED_MAX: Final = 10_000


class Meter(Generic[C]):
    """One client's limit, and what it is counted with: shared by all under the same key."""

    __slots__ = ("counted", "limit")

    def __init__(self, counted: Counted[C], limit: float) -> None:
        self.counted = counted
        self.limit = limit


class ClientQuota(Generic[C]):
    """The limits of one kind, by entity, and what is counted against them.

    ``limit_by_default`` is that of clients for whom nothing is set in the store; None for none.
    ``make`` makes what a new key is counted with, given the time.
    """

    def __init__(
        self, make: Callable[[float], C], window: Window, limit_by_default: float | None = None
    ) -> None:
        self.limits: dict[ClientEntity, float] = {}
        self._default = limit_by_default
        self._memory: Memory[ClientEntity, C] = Memory(make, window)
        self._forgotten = 0
        self._meters: dict[tuple[str, str], Meter[C] | None] = {}

    @property
    def limits_anybody(self) -> bool:
        return bool(self.limits) or self._default is not None

    def set(self, entity: ClientEntity, limit: float | None) -> None:
        """Set or remove an entity's limit. What has been counted stays counted."""
        if limit is None:
            self.limits.pop(entity, None)
        else:
            self.limits[entity] = limit
        self._meters.clear()

    def meter(self, principal: str, client_id: str, now: float) -> Meter[C] | None:
        """The meter of a client (``User:name`` and client id); None when nothing limits it."""
        try:
            meter = self._meters[principal, client_id]
        except KeyError:
            meter = self._find(principal, client_id, now)
        if meter is not None:
            meter.counted.last_used = now
        return meter

    def _find(self, principal: str, client_id: str, now: float) -> Meter[C] | None:
        meter = self._resolve(sanitize(principal.partition(":")[2]), sanitize(client_id), now)
        if self._memory.forgotten != self._forgotten or len(self._meters) >= _CLIENTS_CACHED_MAX:
            self._forgotten = self._memory.forgotten
            self._meters.clear()
        self._meters[principal, client_id] = meter
        return meter

    def _resolve(self, user: str, client_id: str, now: float) -> Meter[C] | None:
        pairs = candidates(user, client_id)
        for entity, key in pairs:
            limit = self.limits.get(entity)
            if limit is not None:
                return Meter(self._memory.find(key, now), limit)
        if self._default is None:
            return None
        return Meter(self._memory.find(pairs[-1][1], now), self._default)
