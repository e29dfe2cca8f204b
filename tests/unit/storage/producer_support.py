"""Batch headers and markers for tests of producer state."""

from typing import NamedTuple

from kavka.protocol.records.batch import CONTROL_MASK, TRANSACTIONAL_MASK, BatchHeader


class EndMarker(NamedTuple):
    committed: bool
    coordinator_epoch: int = 0


def batch(
    base_sequence: int,
    count: int = 1,
    *,
    producer_id: int = 1000,
    epoch: int = 0,
    transactional: bool = False,
    emptied: bool = False,
) -> BatchHeader:
    """The header of a data batch, as a client sends it."""
    return BatchHeader(
        base_offset=0,
        batch_length=100,
        leader_epoch=-1,
        magic=2,
        crc=0,
        attributes=TRANSACTIONAL_MASK if transactional else 0,
        last_offset_delta=count - 1,
        first_timestamp=0,
        max_timestamp=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=base_sequence,
        records_count=0 if emptied else count,
    )


def control(*, producer_id: int = 1000, epoch: int = 0) -> BatchHeader:
    """The header of a control batch."""
    return batch(-1, producer_id=producer_id, epoch=epoch)._replace(
        attributes=CONTROL_MASK | TRANSACTIONAL_MASK
    )
