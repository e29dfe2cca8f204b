"""A bound on open descriptors, however many segments there are.

A segment opens its file when it is first read or written and hands itself to this pool; past the
limit the pool asks one that was not used lately to let go (the "clock" rule: a second chance for
each that was used since the hand last passed). Responses that are being sent keep their own
reference, so letting go never cuts one off.
"""

import resource
from collections import OrderedDict
from threading import Lock
from typing import Final, Protocol

_FEWEST: Final = 64
_MOST: Final = 16_384


class Closable(Protocol):
    """What the pool holds: a segment, or a stand-in of a test."""

    in_use: bool  # set by the owner at each use of its file

    def let_go(self) -> None:
        """Drop file and mapping; they are opened again when needed."""

    @property
    def is_open(self) -> bool:
        """Whether there is anything to let go of."""


def descriptor_budget() -> int:
    """How many segment files may stay open: half of what the process may have open at all.

    A segment being appended to holds two (its file and its mapping), connections need the rest.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(_FEWEST, min(_MOST, soft // 4))


class OpenFiles:
    """The segments whose files are open, shared by all logs of a broker.

    Logs are loaded by several threads, so this one thing has a lock; it is taken only when a
    file is opened.
    """

    __slots__ = ("_lock", "_ring", "limit")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = descriptor_budget() if limit is None else limit
        self._ring: OrderedDict[Closable, None] = OrderedDict()
        self._lock = Lock()

    def opened(self, segment: Closable) -> None:
        """Note that ``segment`` has just opened its file; close others if there are too many."""
        with self._lock:
            ring = self._ring
            if segment in ring:
                return
            # Twice round is enough: the first pass takes every second chance away.
            for _ in range(2 * len(ring)):
                if len(ring) < self.limit:
                    break
                candidate, _none = ring.popitem(last=False)
                if candidate.in_use and candidate.is_open:
                    candidate.in_use = False
                    ring[candidate] = None
                elif candidate.is_open:
                    candidate.let_go()
            ring[segment] = None

    def closed(self, segment: Closable) -> None:
        """Forget a segment that is closed for good."""
        with self._lock:
            self._ring.pop(segment, None)

    def __len__(self) -> int:
        return len(self._ring)
