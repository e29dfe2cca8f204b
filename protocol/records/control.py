"""Control batches: the markers that end a transaction on a partition (KIP-98).

A marker is a batch with the control and transactional bits and a single record, whose key says
whether the transaction committed and whose value says which coordinator epoch decided it. It
takes an offset and is never shown to an application.
"""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    HEADER_SIZE,
    NO_LEADER_EPOCH,
    BatchHeader,
    Record,
    build_batch,
    iter_records,
)
from kavka.protocol.records.crc import Buffer

_KEY: Final = Struct(">hh")  # version, type
_VALUE: Final = Struct(">hi")  # version, coordinator epoch
_VERSION: Final = 0
_PAYLOAD_LIMIT: Final = 4096  # a marker takes 78 bytes; what claims to unpack to more is none


class ControlType(IntEnum):
    """How a transaction ended; other types belong to KRaft and are passed over."""

    ABORT = 0
    COMMIT = 1


class EndTxnMarker(NamedTuple):
    """The one record of a control batch."""

    type: ControlType
    coordinator_epoch: int


def build_end_txn_marker(
    marker: EndTxnMarker,
    *,
    producer_id: int,
    producer_epoch: int,
    timestamp: int,
    base_offset: int = 0,
    leader_epoch: int = NO_LEADER_EPOCH,
) -> bytes:
    """The control batch for ``marker``; ``timestamp`` is the coordinator's clock in ms."""
    record = Record(
        base_offset,
        timestamp,
        _KEY.pack(_VERSION, marker.type),
        _VALUE.pack(_VERSION, marker.coordinator_epoch),
    )
    return build_batch(
        [record],
        base_offset=base_offset,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        leader_epoch=leader_epoch,
        transactional=True,
        control=True,
    )


def parse_control_record(key: bytes | None, value: bytes | None) -> EndTxnMarker | None:
    """The marker that a control record is; None for a type other than commit and abort.

    Versions later than 0 are read by the fields version 0 has, as clients do. Raises KafkaError
    INVALID_RECORD for a key or value that is too short or has a negative version.
    """
    if key is None or len(key) < _KEY.size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a control record has no key")
    version, kind = _KEY.unpack_from(key)
    if version < _VERSION:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"a control record has version {version}")
    if kind not in (ControlType.ABORT, ControlType.COMMIT):
        return None
    if value is None or len(value) < _VALUE.size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a transaction marker has no value")
    version, coordinator_epoch = _VALUE.unpack_from(value)
    if version < _VERSION:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"a transaction marker has version {version}")
    return EndTxnMarker(ControlType(kind), coordinator_epoch)


def read_end_txn_marker(buf: Buffer, pos: int, header: BatchHeader) -> EndTxnMarker | None:
    """The marker in the control batch at ``pos``; None for a batch emptied by compaction or of
    another type.

    Raises KafkaError as ``batch.iter_records`` and :func:`parse_control_record` do.
    """
    assert header.is_control
    if header.size > HEADER_SIZE + _PAYLOAD_LIMIT:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a control batch is larger than any marker")
    for record in iter_records(buf, pos, header, _PAYLOAD_LIMIT):
        return parse_control_record(record.key, record.value)
    return None
