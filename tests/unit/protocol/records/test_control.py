"""Transaction markers: both vectors, what readers pass over and what they refuse."""

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import batch as b
from kavka.protocol.records.control import (
    ControlType,
    EndTxnMarker,
    build_end_txn_marker,
    parse_control_record,
    read_end_txn_marker,
)

T = 1_500_000_000_000
COMMIT = bytes.fromhex(
    "0000000000000007000000420000000402192b5e4a0030000000000000015d3ef798000000015d3ef7980000"
    "000000000003e80002ffffffff000000012000000008000000010c00000000000300"
)
ABORT = bytes.fromhex(
    "0000000000000007000000420000000402ed1588020030000000000000015d3ef798000000015d3ef7980000"
    "000000000003e80002ffffffff000000012000000008000000000c00000000000300"
)


@pytest.mark.parametrize(
    ("vector", "kind"), [(COMMIT, ControlType.COMMIT), (ABORT, ControlType.ABORT)]
)
def test_vectors(vector: bytes, kind: ControlType) -> None:
    marker = EndTxnMarker(kind, 3)
    built = build_end_txn_marker(
        marker, producer_id=1000, producer_epoch=2, timestamp=T, base_offset=7, leader_epoch=4
    )
    assert built == vector
    header = b.read_header(vector)
    assert header.is_control and header.is_transactional and header.base_sequence == -1
    assert b.crc_ok(vector, 0, len(vector))
    assert read_end_txn_marker(vector, 0, header) == marker


def control_batch(key: bytes | None, value: bytes | None) -> bytes:
    return b.build_batch([b.Record(0, T, key, value)], base_offset=0, control=True)


def test_unknown_types_are_passed_over_and_later_versions_read() -> None:
    assert parse_control_record(b"\0\0\0\2", None) is None
    assert parse_control_record(b"\0\0\0\1", b"\0\0\0\0\0\3") == (ControlType.COMMIT, 3)
    later = parse_control_record(b"\0\1\0\0more", b"\0\1\0\0\0\3more")
    assert later == (ControlType.ABORT, 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"\0\0\0\0\0\3"),
        (b"\0\0\0", b"\0\0\0\0\0\3"),
        (b"\xff\xff\0\1", b"\0\0\0\0\0\3"),
        (b"\0\0\0\1", None),
        (b"\0\0\0\1", b"\0\0\0\0\0"),
        (b"\0\0\0\1", b"\xff\xff\0\0\0\3"),
        (b"\0\0\0\1", b"\0" * 5000),
    ],
)
def test_broken_markers(key: bytes | None, value: bytes | None) -> None:
    data = control_batch(key, value)
    with pytest.raises(KafkaError) as caught:
        read_end_txn_marker(data, 0, b.read_header(data))
    assert caught.value.code is ErrorCode.INVALID_RECORD


def test_an_emptied_control_batch_has_no_marker() -> None:
    data = b.build_batch([], base_offset=0, last_offset=0, control=True)
    assert read_end_txn_marker(data, 0, b.read_header(data)) is None


def test_a_client_library_reads_the_marker() -> None:
    from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

    (record,) = b.iter_records(ABORT, 0, b.read_header(ABORT), 100)
    assert ControlRecord.parse(record.key) == ABORT_MARKER
