"""Which segments have had their time (log-storage.md §6): pure decisions, no disk, no clock."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

SEGMENTS_AT_ONCE: Final = 4
"""How many segments are deleted before the event loop gets its turn: 1 to 3 ms of renaming."""


class Expirable(Protocol):
    """A segment as far as retention looks at it."""

    size: int  # bytes
    base_offset: int

    @property
    def largest_timestamp(self) -> int:
        """The largest record timestamp, or the file's mtime when no record has one (ms)."""


class RetentionRules(NamedTuple):
    """A topic's settings that decide about deletion; -1 means no limit."""

    deletes: bool  # cleanup.policy includes delete
    retention_ms: int
    retention_bytes: int


class LogBounds(NamedTuple):
    """How far a log goes."""

    log_start_offset: int
    high_watermark: int
    log_end_offset: int


def deletable(
    segments: Sequence[Expirable], rules: RetentionRules, bounds: LogBounds, now_ms: int
) -> list[str]:
    """The reason why each of the oldest segments may go; as many segments as reasons.

    Always a prefix: the first segment that must stay keeps all later ones (so a record from the
    future holds everything behind it). Nothing at or past the high watermark goes, and the
    active segment only when it has records. When every segment is deletable the caller rolls
    first.
    """
    reasons: list[str] = []
    last = len(segments) - 1

    def may_go(index: int) -> bool:
        if index > last:
            return False
        if index == last:
            return bounds.high_watermark >= bounds.log_end_offset and segments[index].size > 0
        return bounds.high_watermark >= segments[index + 1].base_offset

    if rules.deletes and rules.retention_ms >= 0:
        while may_go(len(reasons)):
            age = now_ms - segments[len(reasons)].largest_timestamp
            if age <= rules.retention_ms:
                break
            reasons.append(f"retention.ms={rules.retention_ms} age_ms={age}")
    if rules.deletes and rules.retention_bytes >= 0:
        size = sum(segment.size for segment in segments[len(reasons) :])
        while may_go(len(reasons)):
            size -= segments[len(reasons)].size
            if size < rules.retention_bytes:
                break
            reasons.append(f"retention.bytes={rules.retention_bytes} bytes_left={size}")
    while len(reasons) < last and may_go(len(reasons)):
        if segments[len(reasons) + 1].base_offset > bounds.log_start_offset:
            break
        reasons.append(f"log_start_offset={bounds.log_start_offset}")
    return reasons
