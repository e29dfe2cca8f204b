"""Which log to clean, and which part of it (log-storage.md §9): pure decisions.

A log is *clean* below its first dirty offset, *dirty* from there to its first uncleanable offset,
where a segment begins. Kafka's ``LogCleanerManager``, with one rule of later releases: nothing at
or past the last stable offset is cleaned (2.3 looks at open transactions only), so that what a
truncation may take away is never the reason for another record to go.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from kavka.config.option import LONG_MAX


class Compactable(Protocol):
    """A segment, as the choice looks at it."""

    size: int  # bytes
    base_offset: int

    @property
    def largest_timestamp(self) -> int:
        """The largest record timestamp, or the file's mtime when no record has one (ms)."""

    @property
    def first_timestamp(self) -> int:
        """The largest timestamp of the first batch (ms), -1 for none."""


_Segment = TypeVar("_Segment", bound=Compactable)


class CompactionRules(NamedTuple):
    """A topic's settings that decide when it is cleaned."""

    min_dirty_ratio: float  # min.cleanable.dirty.ratio
    min_lag_ms: int  # min.compaction.lag.ms
    max_lag_ms: int  # max.compaction.lag.ms


class LogState(NamedTuple):
    """How far a log goes, and how far it has been cleaned."""

    checkpoint: int | None  # first dirty offset as last noted
    log_start_offset: int
    last_stable_offset: int
    log_end_offset: int


class Cleanable(NamedTuple):
    """How dirty a log is."""

    first_dirty: int
    first_uncleanable: int  # base offset of a segment
    clean_bytes: int
    dirty_bytes: int
    overdue_ms: int  # by how much max.compaction.lag.ms is exceeded, 0 for not

    @property
    def ratio(self) -> float:
        """Part of the log that is dirty, of what can be cleaned at all."""
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0

    def is_due(self, rules: CompactionRules) -> bool:
        """Whether to clean now."""
        return self.dirty_bytes > 0 and (self.overdue_ms > 0 or self.ratio > rules.min_dirty_ratio)


def first_dirty_offset(state: LogState) -> int:
    """Where cleaning goes on. A checkpoint that cannot be (the log was cut after it, or deleted
    up to beyond it) means: from the start."""
    if (
        state.checkpoint is None
        or not state.log_start_offset <= state.checkpoint <= state.log_end_offset
    ):
        return state.log_start_offset
    return state.checkpoint


def judge(
    segments: Sequence[Compactable], state: LogState, rules: CompactionRules, now_ms: int
) -> Cleanable:
    """How dirty a log is. ``segments`` are all, the active one last, which is never cleaned.

    Asks segments for timestamps only where a setting needs them.
    """
    first_dirty = first_dirty_offset(state)
    dirty = _reaching(segments, first_dirty)[:-1]
    uncleanable = min(segments[-1].base_offset, state.last_stable_offset)
    if rules.min_lag_ms > 0:
        young = now_ms - rules.min_lag_ms
        for segment in dirty:
            if segment.base_offset >= uncleanable or segment.largest_timestamp > young:
                uncleanable = min(uncleanable, segment.base_offset)
                break
    # Only whole segments: the one that has the offset stays, unless it begins there.
    boundary = max(
        (each.base_offset for each in segments if each.base_offset <= uncleanable),
        default=first_dirty,
    )
    overdue = 0
    if rules.max_lag_ms < LONG_MAX:
        firsts = [each.first_timestamp for each in dirty if each.size]
        earliest = min((first for first in firsts if first > 0), default=now_ms)
        overdue = max(0, now_ms - rules.max_lag_ms - earliest)
    return Cleanable(
        first_dirty,
        max(boundary, first_dirty),
        sum(each.size for each in segments if each.base_offset < first_dirty),
        sum(each.size for each in dirty if each.base_offset < boundary),
        overdue,
    )


def _reaching(segments: Sequence[_Segment], offset: int) -> Sequence[_Segment]:
    """Those from the one that ``offset`` is in on."""
    number = len(segments) - 1
    while number > 0 and segments[number].base_offset > offset:
        number -= 1
    return segments[number:]


_Key = TypeVar("_Key")


def filthiest(
    candidates: Iterable[tuple[_Key, Cleanable, CompactionRules]],
) -> tuple[_Key, Cleanable] | None:
    """The dirtiest of those that are due."""
    due = [(key, found) for key, found, rules in candidates if found.is_due(rules)]
    return max(due, key=lambda item: item[1].ratio, default=None)
