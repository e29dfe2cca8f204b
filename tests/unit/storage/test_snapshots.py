import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.storage.fs import FileSystem
from kavka.storage.producer_entry import BatchMetadata, ProducerEntry
from kavka.storage.producers import ProducerStateManager
from kavka.storage.snapshots import (
    CorruptSnapshot,
    SnapshotFiles,
    decode_snapshot,
    encode_snapshot,
)
from tests.unit.storage.producer_support import batch

VECTOR = bytes.fromhex(  # test-vectors.md
    "00010183602f0000000100000000000003e80002000000090000000000000029"
    "000000040000015d3ef79800ffffffffffffffffffffffff"
)
WEEK = 604_800_000


def manager(directory: Path) -> ProducerStateManager:
    return ProducerStateManager(FileSystem(), str(directory), "t-0", expiration_ms=WEEK)


def snapshots(directory: Path) -> list[int]:
    return [int(path.name.split(".")[0]) for path in sorted(directory.glob("*.snapshot"))]


def test_file_is_kafkas() -> None:
    entry = ProducerEntry(
        1000,
        2,
        batches=[BatchMetadata(5, 9, 41, 4, 1500000000000)],
        last_timestamp=1500000000000,
    )
    assert encode_snapshot([entry]) == VECTOR
    assert decode_snapshot(VECTOR) == [entry]


int16, int32, int64 = (st.integers(-1, 2**bits - 1) for bits in (15, 31, 63))


@given(st.lists(st.tuples(int64, int16, int32, int64, int32, int64, int32, int64), max_size=5))
@settings(deadline=None)
def test_entries_come_back(fields: list[tuple[int, ...]]) -> None:
    entries = []
    for pid, epoch, sequence, last, delta, timestamp, coordinator, txn in fields:
        batches = [BatchMetadata(0, sequence, last, max(delta, 0), timestamp)] if last >= 0 else []
        entries.append(
            ProducerEntry(
                pid,
                epoch,
                batches=batches,
                last_timestamp=timestamp,
                coordinator_epoch=coordinator,
                txn_first_offset=txn,
            )
        )
    decoded = decode_snapshot(encode_snapshot(entries))
    assert encode_snapshot(decoded) == encode_snapshot(entries)
    for entry, again in zip(entries, decoded, strict=True):
        assert again.last_offset == entry.last_offset
        for one in again.batches:
            if one.last_sequence >= 0:
                delta = one.offset_delta
                assert 0 <= one.base_sequence < 2**31
                assert (one.base_sequence + delta) % 2**31 == one.last_sequence


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (VECTOR[:9], "9 bytes"),
        (b"", "0 bytes"),
        (b"\0\2" + VECTOR[2:], "version 2"),
        (VECTOR[:-1] + b"\0", "checksum"),
        (VECTOR[:-1], "checksum"),
    ],
)
def test_corrupt_snapshots(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptSnapshot, match=reason):
        decode_snapshot(data)


def test_a_count_that_cannot_be_is_corrupt() -> None:
    from kavka.protocol.records.crc import crc32c

    for count in (2, 2**31 - 1, -1):
        body = count.to_bytes(4, "big", signed=True) + VECTOR[10:]
        with pytest.raises(CorruptSnapshot, match="entries"):
            decode_snapshot(b"\0\1" + crc32c(body).to_bytes(4, "big") + body)


def test_the_newest_whole_snapshot_counts_and_corrupt_ones_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = SnapshotFiles(FileSystem(), str(tmp_path))
    assert files.load_newest() is None
    files.write(42, VECTOR)
    files.write(50, VECTOR[:20])
    files.write(60, b"")
    (tmp_path / f"{70:020}.log").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "kavka.storage.producers"):
        assert files.load_newest() == (42, decode_snapshot(VECTOR))
    assert files.offsets() == [42]
    assert f"{50:020}.snapshot" in caplog.text and f"{60:020}.snapshot" in caplog.text


def test_writing_again_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    files = SnapshotFiles(FileSystem(), str(tmp_path))
    files.write(42, VECTOR * 2)
    files.write(42, VECTOR)
    assert (tmp_path / f"{42:020}.snapshot").read_bytes() == VECTOR


def test_snapshots_are_taken_once_for_an_offset(tmp_path: Path) -> None:
    producers = manager(tmp_path)
    assert not producers.take_snapshot(), "nothing is known yet"
    assert producers.reload(0, 0, 0) == 0
    producers.update(batch(0, 10), 0, 5)
    producers.end_offset = 10
    assert producers.take_snapshot()
    assert not producers.take_snapshot()
    producers.end_offset = 12  # batches without producer id move it too
    assert producers.take_snapshot()
    assert snapshots(tmp_path) == [10, 12]
    producers.delete_snapshots_below(12)
    assert snapshots(tmp_path) == [12]
    assert decode_snapshot((tmp_path / f"{12:020}.snapshot").read_bytes())[0].last_offset == 9


def test_reload_begins_at_the_newest_snapshot_in_range(tmp_path: Path) -> None:
    before = manager(tmp_path)
    before.reload(0, 0, 0)
    for number in range(4):
        before.update(batch(number * 10, 10), number * 10, 5)
        before.end_offset = number * 10 + 10
        before.take_snapshot()
    producers = manager(tmp_path)
    assert producers.reload(5, 35, 0) == 30
    assert snapshots(tmp_path) == [10, 20, 30]
    assert producers.check(batch(20, 10)) == (20, 29, 5)
    producers.update(batch(30, 5), 30, 5)
    producers.end_offset = 35
    assert producers.reload(5, 35, 0) == 35, "it is there already"
    assert producers.check(batch(30, 5)) == (30, 34, 5)
    assert producers.reload(25, 28, 0) == 25, "no snapshot is left: read from the start"
    assert snapshots(tmp_path) == []
    assert len(producers) == 0


def test_reload_forgets_expired_and_deleted(tmp_path: Path) -> None:
    before = manager(tmp_path)
    before.reload(0, 0, 0)
    before.update(batch(0, 10, producer_id=1), 0, 5)
    before.update(batch(0, 10, producer_id=2), 10, 5)
    before.update(batch(0, 10, producer_id=3), 20, 6)
    before.end_offset = 30
    before.take_snapshot()
    producers = manager(tmp_path)
    assert producers.reload(15, 40, WEEK) == 30
    assert sorted(entry.producer_id for entry in producers.entries()) == [2, 3]
    assert producers.reload(15, 40, WEEK + 5) == 30
    assert [entry.producer_id for entry in producers.entries()] == [3]


def test_an_empty_snapshot_saves_scanning_an_old_log(tmp_path: Path) -> None:
    producers = manager(tmp_path)
    producers.write_empty_snapshot(1000)
    assert producers.reload(0, 1000, 0) == 1000


def test_reset_removes_snapshots(tmp_path: Path) -> None:
    producers = manager(tmp_path)
    producers.reload(0, 0, 0)
    producers.update(batch(0, 10), 0, 5)
    producers.end_offset = 10
    producers.take_snapshot()
    producers.reset(3)
    assert snapshots(tmp_path) == [] and len(producers) == 0 and producers.end_offset == 3
    producers.end_offset = 5
    assert producers.take_snapshot()
