"""Kafka's own dump tool reads the directory that a log has left."""

from pathlib import Path

import pytest

from kavka.protocol.records.batch import read_header
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.storage.append import AppendOrigin
from tests import java
from tests.unit.storage.log_support import Place, append


@pytest.mark.java
@pytest.mark.parametrize(
    ("release", "tool"),
    [
        ("4.3", "org.apache.kafka.tools.DumpLogSegments"),
        ("2.3", "kafka.tools.DumpLogSegments"),
    ],
)
def test_kafkas_dump_tool_reads_what_a_log_has_written(
    tmp_path: Path, release: str, tool: str
) -> None:
    here = Place(str(tmp_path / "orders-0"), segment_bytes=8_000, index_interval_bytes=500)
    log = here.open()
    now = here.clock.wall_ms()
    for number in range(100):
        append(log, f"{number}" * 40, epoch=7, timestamp=now + number, codec=number % 2)
    append(
        log, "txn", epoch=8, timestamp=now, producer_id=9, producer_epoch=1, base_sequence=0,
        transactional=True,
    )  # fmt: skip
    marker = bytearray(
        build_end_txn_marker(
            EndTxnMarker(ControlType.ABORT, 3), producer_id=9, producer_epoch=1, timestamp=now
        )
    )
    log.append_as_leader(
        [(read_header(marker), memoryview(marker))], 8, now, AppendOrigin.COORDINATOR
    )
    assert len(log.segments) > 1
    log.close()

    names = [name for name in here.files() if not name.startswith("leader")]
    assert {Path(name).suffix for name in names} == {
        ".index",
        ".log",
        ".snapshot",
        ".timeindex",
        ".txnindex",
    }
    shown = java.run_tool(
        release, tool, "--deep-iteration", "--print-data-log", "--files",
        ",".join(here.path(name) for name in names),
    ).stdout  # fmt: skip
    assert "mismatch" not in shown.lower()
    assert "invalid" not in shown.lower()
    for number in (0, 57, 99):
        assert f"payload: {f'{number}' * 40}" in shown
    assert "baseOffset: 99 lastOffset: 99" in shown and "partitionLeaderEpoch: 7" in shown
    assert "endTxnMarker: ABORT coordinatorEpoch: 3" in shown
    assert "producerId: 9 firstOffset: 100 lastOffset: 101" in shown
    assert f"timestamp: {now + 99} offset: 99" in shown
