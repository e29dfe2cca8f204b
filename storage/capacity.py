"""When a disk or the budget counts as full, and what may be deleted then: pure decisions.

The policies are those of the product's manual (feature list, section E): at
``capacity.threshold.percent`` either producers are refused until space is free again
(``produce_reject``), or the oldest tenth of all records is deleted (``time_base``).
:mod:`kavka.storage.capacity_guard` measures and acts.
"""

from collections.abc import Hashable, Iterable, Iterator
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final, NamedTuple

from kavka.storage.log import Log

RESUME_BELOW: Final = 2  # percent under the threshold at which producers are let in again
FREED_AT_ONCE: Final = 10  # percent of the records that time_base deletes
UNLIMITED: Final = 1 << 62  # bytes; more than any disk has
_FINEST: Final = 1 << 16  # bytes; how exactly a limit is kept to at least …
_PARTS: Final = 10_000  # … or this part of the whole


class Policy(StrEnum):
    """``capacity.policy``."""

    PRODUCE_REJECT = "produce_reject"
    TIME_BASE = "time_base"


class CapacityRules(NamedTuple):
    """The settings that decide."""

    threshold_percent: int
    policy: Policy
    budget_bytes: int  # 0: none


class Usage(NamedTuple):
    """How much of something is used, in bytes."""

    used: int
    total: int


class Gauge:
    """One thing that can be full: the volume of a log directory, or the budget.

    It is full from the threshold on; where producers are refused, until it is
    :data:`RESUME_BELOW` percent under it, so that they are not let in and refused in turn.
    """

    __slots__ = ("full", "name", "stuck", "total", "used", "watched_at_100")

    def __init__(self, name: str, *, watched_at_100: bool) -> None:
        self.name = name  # "log directory /data": completes "… is 95.2 % full"
        self.watched_at_100 = watched_at_100  # False: a threshold of 100 % switches it off
        self.used = 0  # bytes
        self.total = 0  # bytes; 0: not measured, or not to be measured
        self.full = False
        self.stuck = False  # it is full, and no deletion can help

    def update(self, usage: Usage, rules: CapacityRules, *, anew: bool = False) -> bool:
        """Take in a measurement; whether ``full`` has changed.

        ``anew`` judges without regard to what was before: for other rules.
        """
        self.used, self.total = usage
        was_full = self.full
        percent = rules.threshold_percent
        if not self.total or (percent == 100 and not self.watched_at_100):
            self.full = False
        elif 100 * self.used >= percent * self.total:
            self.full = True
        elif anew or 100 * self.used < self._resume_percent(rules) * self.total:
            self.full = False
        if not self.full:
            self.stuck = False
        return self.full != was_full

    def _resume_percent(self, rules: CapacityRules) -> int:
        # Nobody is refused while time_base deletes, and less than it must is what it shall delete.
        refuses = rules.policy is Policy.PRODUCE_REJECT or self.stuck
        return rules.threshold_percent - (RESUME_BELOW if refuses else 0)

    def room(self, rules: CapacityRules) -> int:
        """Bytes that may be added before it is full."""
        percent = rules.threshold_percent
        if not self.total or (percent == 100 and not self.watched_at_100):
            return UNLIMITED
        return percent * self.total // 100 - self.used

    @property
    def finest(self) -> int:
        """Bytes below which it makes no sense to look again."""
        return max(_FINEST, self.total // _PARTS)

    @property
    def percent(self) -> float:
        """How full it is."""
        return 100 * self.used / self.total if self.total else 0.0

    def refusal(self, rules: CapacityRules) -> str:
        """What a producer is told."""
        why = "produce_reject refuses records"
        if rules.policy is Policy.TIME_BASE:
            why = "time_base finds nothing more that it may delete"
        return (
            f"{self.name} is {self.percent:.1f} % full ({self.used} of {self.total} bytes): from "
            f"capacity.threshold.percent={rules.threshold_percent} on, capacity.policy={why} until "
            f"usage is below {max(rules.threshold_percent - RESUME_BELOW, 0)} %; delete topics or "
            "records, shorten retention, or add space"
        )


def credit(gauges: Iterable[Gauge], rules: CapacityRules) -> int:
    """Bytes that may be appended before somebody must look again; 0 when something is full."""
    smallest = UNLIMITED
    for gauge in gauges:
        if gauge.full:
            return 0
        smallest = min(smallest, max(gauge.room(rules), gauge.finest))
    return smallest


class Capacity:
    """How whoever appends asks: one comparison, as long as there is credit.

    ``if capacity.credit <= 0: capacity.admit(log)`` before an append of a client, and the size
    is taken off the credit after every append. This one never refuses.
    """

    __slots__ = ("credit",)

    def __init__(self) -> None:
        self.credit = UNLIMITED

    def admit(self, log: Log) -> None:
        """Let a client's append to ``log`` pass, or raise KafkaError POLICY_VIOLATION."""
        self.credit = UNLIMITED


class Old(NamedTuple):
    """A segment that could be deleted."""

    timestamp: int  # largest of its records, ms
    size: int  # bytes


class Trim:
    """Which segments of several logs go so that the oldest records go first.

    Of each log only a prefix can go. A segment is as old as its youngest record, so the active
    segment of a busy partition comes last, and that of an idle one in its turn.
    """

    __slots__ = ("_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Hashable, Iterator[Old]]] = []
        self._number = 0  # ties go by order of offering; logs cannot be compared

    def offer(self, log: Hashable, segments: Iterator[Old]) -> None:
        """Let ``segments`` of ``log``, oldest offsets first, be chosen from."""
        self._number += 1
        self._push(self._number, log, segments)

    def _push(self, number: int, log: Hashable, segments: Iterator[Old]) -> None:
        first = next(segments, None)
        if first is not None:
            heappush(self._heap, (first.timestamp, number, first.size, log, segments))

    def take(self, wanted: int) -> dict[Hashable, int]:
        """How many segments of which log make up ``wanted`` bytes, or all that there are."""
        counts: dict[Hashable, int] = {}
        while wanted > 0 and self._heap:
            _, number, size, log, segments = heappop(self._heap)
            counts[log] = counts.get(log, 0) + 1
            wanted -= size
            self._push(number, log, segments)
        return counts


def to_free(data: int) -> int:
    """How many of ``data`` bytes of records one pass of time_base deletes."""
    return -(-data * FREED_AT_ONCE // 100)


def can_help(gauge: Gauge, deletable: int, rules: CapacityRules) -> bool:
    """Whether deleting could bring usage below the threshold at all.

    When something else has filled the disk, deleting every record would not: then none goes.
    """
    return deletable > 0 and gauge.used - deletable < rules.threshold_percent * gauge.total // 100
