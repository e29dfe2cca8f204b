"""Why a group rebalanced: the last few times, with who caused it."""

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

KEPT_EVENTS: Final = 32


class RebalanceEvent(NamedTuple):
    """The start of a rebalance. ``generation`` is the one that ended by it."""

    wall_ms: int
    generation: int
    reason: str
    member_id: str = ""
    client_id: str = ""
    client_host: str = ""


class RebalanceHistory:
    """The last :data:`KEPT_EVENTS` rebalances of one group, oldest first. In memory only."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: deque[RebalanceEvent] = deque(maxlen=KEPT_EVENTS)

    def add(self, event: RebalanceEvent) -> None:
        self._events.append(event)

    def __iter__(self) -> Iterator[RebalanceEvent]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)
