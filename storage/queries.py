"""Questions to a log by time and by transaction (log-storage.md §10, §11)."""

from typing import TYPE_CHECKING

from kavka.storage.fetch_slice import FetchSlice
from kavka.storage.segment import TimestampedOffset
from kavka.storage.txn_index import AbortedTxn

if TYPE_CHECKING:
    from kavka.storage.log import Log


def offset_for_timestamp(log: "Log", timestamp: int) -> TimestampedOffset | None:
    """The first record at or past the log's start that is not older than ``timestamp``."""
    for segment in log.segments:
        if segment.size and segment.max_timestamp >= timestamp:
            found = segment.find_by_timestamp(timestamp, log.log_start_offset)
            if found is not None:
                return found
    return None


def max_timestamp_offset(log: "Log") -> TimestampedOffset | None:
    """The record with the largest timestamp, the first of several (KIP-734)."""
    best = max(log.segments, key=lambda segment: segment.max_timestamp)
    if best.max_timestamp < 0:
        return None
    found = best.find_by_timestamp(best.max_timestamp, log.log_start_offset)
    if found is not None:
        return found
    # It lies below the log's start, in the first segment: look at what is left.
    left: TimestampedOffset | None = None
    for segment in log.segments:
        for batch in segment.batches():
            if batch.last_offset < log.log_start_offset:
                continue
            for record in segment.records(batch):
                if record.offset >= log.log_start_offset and record.timestamp > (
                    left.timestamp if left else -1
                ):
                    left = TimestampedOffset(record.timestamp, record.offset, batch.leader_epoch)
    return left


def legacy_offsets_before(log: "Log", timestamp: int, max_offsets: int, now_ms: int) -> list[int]:
    """ListOffsets v0: up to ``max_offsets`` segment offsets not newer than ``timestamp``.

    -1 (latest) and -2 (earliest) as in later versions; newest first.
    """
    known = [
        (max(segment.base_offset, log.log_start_offset), segment.mtime_ms)
        for segment in log.segments
    ]
    if log.segments.last.size:
        known.append((log.log_end_offset, now_ms))
    start = -1
    if timestamp == -1:
        start = len(known) - 1
    elif timestamp == -2:
        start = 0
    else:
        for index, (_, modified) in enumerate(known):
            if modified <= timestamp:
                start = index
    newest_first = [offset for offset, _ in known[start::-1]] if start >= 0 else []
    return sorted(newest_first[:max_offsets], reverse=True)


def aborted_transactions(log: "Log", offset: int, fetch_slice: FetchSlice) -> list[AbortedTxn]:
    """Aborted transactions with records in what was read from ``offset`` on.

    The bound is coarse (the next index entry behind the slice); transactions beyond it do a
    consumer no harm, it takes them up only when their records come.
    """
    if fetch_slice.empty:
        return []
    segment = log.segments.floor(offset)
    following = log.segments.after(segment)
    upper_bound = log.log_end_offset if following is None else following.base_offset
    if fetch_slice.file.path == segment.path:
        entry = segment.offset_index.first_at_or_after(fetch_slice.position + fetch_slice.size)
        if entry is not None:
            # The entry's batch begins behind the slice and ends with the entry's offset.
            upper_bound = entry.offset
    else:
        upper_bound = log.log_end_offset
    found: list[AbortedTxn] = []
    for segment in log.segments.reaching(offset):
        search = segment.txn_index.collect(offset, upper_bound)
        found += search.aborted
        if search.complete:
            break
    return found
