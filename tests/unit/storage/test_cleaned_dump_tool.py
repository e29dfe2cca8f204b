"""Kafka's own dump tool reads what the cleaner has written."""

import re
from pathlib import Path

import pytest

from tests import java
from tests.unit.storage.cleaner_support import Cleaning, contents, end_transaction, put
from tests.unit.storage.log_support import Place


@pytest.mark.java
@pytest.mark.parametrize(
    ("release", "tool"),
    [
        ("4.3", "org.apache.kafka.tools.DumpLogSegments"),
        ("2.3", "kafka.tools.DumpLogSegments"),
    ],
)
def test_kafkas_dump_tool_reads_cleaned_segments(tmp_path: Path, release: str, tool: str) -> None:
    here = Cleaning(
        Place(
            str(tmp_path / "orders-0"),
            segment_bytes=100_000,
            index_interval_bytes=300,
            cleanup_policy=("compact",),
        )
    )
    log = here.log
    put(log, (b"kept", b"old"), (b"replaced", b"old"))
    put(
        log,
        (b"aborted", b"x"),
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
        transactional=True,
    )
    end_transaction(log, 7, commit=False)
    for number in range(60):
        put(
            log,
            *((b"key-%d" % (number % 20 + i), b"%d" % number * 10) for i in range(4)),
            timestamp=1_500_000_000_000 + number,
            codec=number % 5,
            producer_id=8,
            producer_epoch=1,
            base_sequence=number * 4,
        )
    put(log, (b"replaced", None), (b"key-5", None))
    put(log, (b"replaced", b"active"))
    log.roll()
    put(log, (b"key-1", b"of the active segment"))
    assert here.clean()
    expected = contents(log)
    log.close()

    stem = f"{here.place.directory}/{0:020}"
    files = [f"{stem}{suffix}" for suffix in (".log", ".index", ".timeindex", ".txnindex")]
    shown = java.run_tool(
        release, tool, "--files", ",".join(files), "--deep-iteration", "--print-data-log"
    ).stdout
    assert not re.search("mismatch|exception|not found|invalid bytes", shown, re.IGNORECASE)
    assert "isvalid: false" not in shown
    offsets = [
        int(found[1])
        for line in shown.splitlines()
        if (found := re.search(r"^\W*offset: (\d+).* keysize: ", line, re.IGNORECASE))
        and "endTxnMarker" not in line
    ]
    assert offsets == [offset for offset in expected if offset < log.segments.last.base_offset]
    assert len(offsets) > 20
    empty = [line for line in shown.splitlines() if re.search(r"baseOffset: .* count: 0 ", line)]
    assert len(empty) == 1, "the last batch of the producer whose transaction was aborted"
    assert "producerId: 7" in empty[0]
    assert "producerId: 7 firstOffset: 2 lastOffset: 3 lastStableOffset: 4" in shown
    assert re.search(r"offset: 3 .*endTxnMarker: ABORT", shown)
