"""Kafka's own dump tool reads the state files of a segment."""

import re
from pathlib import Path

import pytest

from kavka.protocol.records.batch import Record, build_batch
from kavka.storage.fs import FileSystem
from kavka.storage.index import OffsetIndex, TimeIndex
from kavka.storage.producers import ProducerStateManager
from kavka.storage.txn_index import TransactionIndex
from tests import java
from tests.unit.storage.producer_support import EndMarker, batch, control

FS = FileSystem()
BASE = 100


@pytest.mark.java
@pytest.mark.parametrize(
    ("release", "tool"),
    [
        ("4.3", "org.apache.kafka.tools.DumpLogSegments"),
        ("2.3", "kafka.tools.DumpLogSegments"),
    ],
)
def test_kafkas_dump_tool_reads_indexes_and_producer_state(
    tmp_path: Path, release: str, tool: str
) -> None:
    stem = str(tmp_path / f"{BASE:020}")
    offsets = OffsetIndex(FS, f"{stem}.index", BASE)
    times = TimeIndex(FS, f"{stem}.timeindex", BASE)
    transactions = TransactionIndex(FS, f"{stem}.txnindex", BASE)
    producers = ProducerStateManager(FS, str(tmp_path), "t-0", expiration_ms=10**9)
    offsets.create()
    times.create()
    producers.reload(BASE, BASE, 0)
    log = b""
    for number in range(20):
        offset, timestamp = BASE + number, 1_500_000_000_000 + number
        if number:
            offsets.append(offset, len(log))
            times.maybe_append(timestamp, offset)
        record = Record(offset, timestamp, b"k", b"v")
        log += build_batch([record], base_offset=offset, leader_epoch=0)
    Path(f"{stem}.log").write_bytes(log)
    producers.update(batch(0, 5, transactional=True), 101, 1_500_000_000_001)
    producers.update(batch(7, 2, producer_id=2000, epoch=3), 106, 1_500_000_000_002)
    aborted = producers.update(control(), 110, 1_500_000_000_003, EndMarker(False, 9))
    assert aborted is not None
    transactions.append(aborted)
    producers.end_offset = 111
    producers.take_snapshot()
    for index in (offsets, times, transactions):
        index.close()

    names = [offsets.path, times.path, transactions.path, str(tmp_path / f"{111:020}.snapshot")]
    shown = java.run_tool(release, tool, "--files", ",".join(names)).stdout
    assert f"offset: 119 position: {len(log) * 19 // 20}" in shown
    assert "timestamp: 1500000000019 offset: 119" in shown
    assert "mismatch" not in shown.lower()
    assert "producerId: 1000 firstOffset: 101 lastOffset: 110 lastStableOffset: 111" in shown
    assert re.search(
        "producerId: 1000 producerEpoch: 0 coordinatorEpoch: 9 .* firstSequence: 0 lastSequence: 4 "
        "lastOffset: 105 offsetDelta: 4 timestamp: 1500000000003",
        shown,
    )
    assert re.search(
        "producerId: 2000 producerEpoch: 3 coordinatorEpoch: -1 .* firstSequence: 7 "
        "lastSequence: 8 lastOffset: 107 offsetDelta: 1 timestamp: 1500000000002",
        shown,
    )
