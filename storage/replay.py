"""Bringing producer state up to a log's end from what stands in the log."""

import logging
from typing import NamedTuple

from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import CONTROL_MASK, BatchHeader
from kavka.storage.batch_scan import BatchPosition
from kavka.storage.producers import CompletedTxn, ProducerStateManager
from kavka.storage.segment import Segment
from kavka.storage.segments import Segments

log = logging.getLogger("kavka.storage.recovery")


class EndMarker(NamedTuple):
    """What an end-transaction marker says."""

    committed: bool
    coordinator_epoch: int


def read_marker(view: bytes | memoryview, header: BatchHeader) -> EndMarker | None:
    """The marker in a control batch; None when compaction has emptied it, or it is another.

    Raises KafkaError for a control batch that cannot be read.
    """
    if header.records_count == 0:
        return None
    from kavka.protocol.records.control import ControlType, read_end_txn_marker

    marker = read_end_txn_marker(view, 0, header)
    if marker is None:
        return None
    return EndMarker(marker.type is ControlType.COMMIT, marker.coordinator_epoch)


def replay_batch(
    producers: ProducerStateManager, segment: Segment, batch: BatchPosition
) -> CompletedTxn | None:
    """Take in a batch that stands in ``segment``; return the transaction that it ended."""
    header = batch.header
    if header is None or header.producer_id < 0:
        return None
    marker = None
    if header.attributes & CONTROL_MASK:
        marker = read_marker(segment.pread(batch.size, batch.position), header)
    return producers.update(header, header.base_offset, header.max_timestamp, marker)


def rebuild_producers(
    producers: ProducerStateManager,
    segments: Segments,
    log_start_offset: int,
    end_offset: int,
    now_ms: int,
) -> bool:
    """Load the newest snapshot that fits and replay the log from there up to ``end_offset``.

    Says whether anything had to be replayed. Transaction indexes are left alone.
    Raises OSError.
    """
    start = producers.reload(log_start_offset, end_offset, now_ms)
    if start < end_offset:
        for segment in segments.reaching(start):
            if segment.base_offset >= end_offset:
                break
            try:
                for batch in segment.batches(segment.find_position(start)):
                    if batch.last_offset >= end_offset:
                        break
                    replay_batch(producers, segment, batch)
            except KafkaError as error:
                # Producers of what cannot be read are unknown then, and begin anew.
                log.warning(
                    "Producer state lacks part of a segment: %s file=%s", error, segment.path
                )
    producers.end_offset = end_offset
    return start < end_offset
