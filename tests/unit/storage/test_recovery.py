"""Loading a partition's directory: after a clean stop, after a crash, after interrupted work."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kavka.storage.fs import File, FileSystem
from kavka.storage.log import Log
from tests.unit.storage.log_support import (
    FaultyFileSystem,
    Place,
    append,
    batch,
    read_values,
)


class CountingFileSystem(FileSystem):
    """Counts the bytes read of each kind of file, but for zeros at the end of a piece."""

    def __init__(self) -> None:
        self.read: dict[str, int] = {}

    def pread(self, file: File, size: int, offset: int) -> bytes:
        data = super().pread(file, size, offset)
        suffix = Path(file.path).suffix
        self.read[suffix] = self.read.get(suffix, 0) + len(data.rstrip(b"\0"))
        return data


Make = Callable[..., Place]


@pytest.fixture
def place(tmp_path: Path) -> Make:
    def make(fs: FileSystem | None = None, **settings: object) -> Place:
        return Place(str(tmp_path / "orders-0"), fs, **settings)

    return make


def fill(log: Log, count: int, size: int = 100) -> dict[int, str]:
    values = {}
    for _ in range(count):
        value = f"{log.log_end_offset}".ljust(size, ".")
        values[append(log, value).first_offset] = value
    return values


def change(path: str, position: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        file.write(data)


# -- clean ----------------------------------------------------------------------------------


def test_a_clean_start_reads_only_the_tail(place: Make) -> None:
    here = place(segment_bytes=1 << 20)
    values = fill(log := here.open(), 4_000, 1_000)
    log.close()
    fs = CountingFileSystem()
    again = place(fs, segment_bytes=1 << 20)
    log = again.open()
    assert (log.log_end_offset, log.size) == (4_000, sum(s.size for s in log.segments))
    assert fs.read[".log"] < 20_000
    assert sum(fs.read.values()) < 60_000
    assert read_values(log) == values


def test_files_are_cut_to_their_data_at_a_clean_stop(place: Make) -> None:
    here = place()
    log = here.open()
    fill(log, 50)
    path = here.path("00000000000000000000.log")
    assert Path(path).stat().st_size > log.size
    log.close()
    assert Path(path).stat().st_size == log.size


def test_files_that_were_let_go_are_cut_too(place: Make) -> None:
    here = place()
    log = here.open()
    fill(log, 50)
    log.segments.last.let_go()
    log.close()
    assert Path(here.path("00000000000000000000.log")).stat().st_size == log.size
    assert here.load().recovery.segments == 0


def test_the_topic_id_is_kept(place: Make) -> None:
    here = place()
    log = here.load(topic_id=bytes(range(16))).log
    append(log, "a")
    log.close()
    text = Path(here.path("partition.metadata")).read_text()
    assert text == "version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw\n"
    assert here.open().topic_id == bytes(range(16))
    Path(here.path("partition.metadata")).write_text("topic_id: ?")
    assert here.load(topic_id=bytes([7] * 16)).log.topic_id == bytes([7] * 16)
    assert here.open().topic_id == bytes([7] * 16)


def test_a_start_past_the_end_begins_the_log_anew(place: Make) -> None:
    here = place()
    fill(log := here.open(), 3)
    log.close()
    log = here.open(log_start_offset=10)
    assert (log.log_start_offset, log.log_end_offset) == (10, 10)
    assert append(log, "a").first_offset == 10
    assert here.files(".log") == ["00000000000000000010.log"]


def test_the_start_offset_is_that_of_the_checkpoint(place: Make) -> None:
    here = place()
    values = fill(log := here.open(), 5)
    log.close()
    log = here.open(log_start_offset=2)
    assert log.log_start_offset == 2
    assert read_values(log) == {offset: values[offset] for offset in (2, 3, 4)}


# -- after a crash --------------------------------------------------------------------------


def test_reserved_space_is_cut_without_a_word(
    place: Make, caplog: pytest.LogCaptureFixture
) -> None:
    here = place()
    values = fill(log := here.open(), 50)
    log.abandon()
    loaded = here.load(clean=False)
    assert loaded.recovery.cut_bytes == 0
    assert not caplog.records
    assert read_values(loaded.log) == values
    assert Path(here.path("00000000000000000000.log")).stat().st_size == loaded.log.size


def test_a_torn_batch_is_cut_and_told_once(place: Make, caplog: pytest.LogCaptureFixture) -> None:
    here = place()
    values = fill(log := here.open(), 5)
    whole = log.size
    fill(log, 1)
    log.abandon()
    path = here.path("00000000000000000000.log")
    os.truncate(path, whole + 70)
    with caplog.at_level(logging.INFO, "kavka"):
        loaded = here.load(clean=False)
    assert [record.getMessage() for record in caplog.records] == [
        f"Log cut where it is damaged: a batch of {loaded.log.size // 5} bytes is not complete "
        f"partition=orders-0 file={path} position={whole} offset=5 bytes=70 "
        "later_segments_deleted=0"
    ]
    assert read_values(loaded.log) == values
    assert append(loaded.log, "next").first_offset == 5


def test_damage_in_the_middle_ends_the_log_there(
    place: Make, caplog: pytest.LogCaptureFixture
) -> None:
    here = place(segment_bytes=1_000)
    values = fill(log := here.open(), 30)
    log.abandon()
    second = log.segments[1]
    change(second.path, 2 * (second.size // 5) + 100, b"!")
    loaded = here.load(clean=False)
    kept = second.base_offset + 2
    assert read_values(loaded.log) == {offset: values[offset] for offset in range(kept)}
    assert loaded.log.log_end_offset == kept
    assert len(here.files(".log")) == 2
    (message,) = [record.getMessage() for record in caplog.records]
    assert "the checksum of a batch does not match" in message
    assert f"later_segments_deleted={len(log.segments) - 2}" in message
    # A batch may end with a zero, which cannot be told from reserved space behind it.
    assert loaded.recovery.cut_bytes == pytest.approx(log.size - loaded.log.size, abs=5)
    assert append(loaded.log, "next").first_offset == kept
    assert read_values(here.load(clean=False).log)[kept] == "next"


def test_only_what_lies_past_the_recovery_point_is_read(place: Make) -> None:
    here = place(segment_bytes=1 << 20)
    values = fill(log := here.open(), 150, 20_000)
    log.flush()
    values |= fill(log, 5, 20_000)
    point = log.recovery_point
    assert point == 150
    log.abandon()
    fs = CountingFileSystem()
    again = place(fs, segment_bytes=1 << 20)
    loaded = again.load(clean=False, recovery_point=point)
    assert loaded.recovery.segments == 1
    assert 100_000 < loaded.recovery.bytes < 110_000
    # Below it a header for each batch of the last segment (8 KiB a piece), nothing else.
    assert fs.read[".log"] < 110_000 + 60 * 8_192 + 1_000
    assert read_values(loaded.log) == values


def test_damage_below_the_recovery_point_is_not_looked_for(place: Make) -> None:
    here = place()
    fill(log := here.open(), 10)
    log.flush()
    fill(log, 2)
    log.abandon()
    change(log.segments.last.path, 200, b"!")
    assert here.load(clean=False, recovery_point=10).log.log_end_offset == 12
    assert here.load(clean=False, recovery_point=0).log.log_end_offset == 1


def test_what_recovery_found_is_synced(place: Make) -> None:
    fs = FaultyFileSystem()
    here = place(fs)
    fill(log := here.open(), 3)
    log.abandon()
    fs.broken = {"fdatasync"}
    with pytest.raises(OSError, match="Input/output"):
        here.load(clean=False)
    fs.broken = set()
    assert here.load(clean=False).log.recovery_point == 3


def test_offsets_that_go_back_end_the_log(place: Make) -> None:
    here = place()
    fill(log := here.open(), 3)
    log.close()
    _, again = batch("again", base_offset=1)
    with open(here.path("00000000000000000000.log"), "ab") as file:
        file.write(again)
    assert here.load(clean=False).log.log_end_offset == 3


def test_garbage_behind_a_log_that_was_closed_cleanly_is_cut(place: Make) -> None:
    here = place()
    values = fill(log := here.open(), 3)
    log.close()
    with open(here.path("00000000000000000000.log"), "ab") as file:
        file.write(b"garbage " * 20)
    log = here.open()
    assert read_values(log) == values
    assert append(log, "next").first_offset == 3


# -- indexes --------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("damage", ["missing", "torn", "zeros"])
def test_damaged_indexes_are_rebuilt(place: Make, clean: bool, suffix: str, damage: str) -> None:
    here = place(segment_bytes=20_000, index_interval_bytes=500)
    values = fill(log := here.open(), 500)
    log.close()
    before = {name: Path(here.path(name)).read_bytes() for name in here.files(suffix)}
    for name, data in before.items():
        path = Path(here.path(name))
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(data[:-3] if damage == "torn" else bytes(len(data)))
    log = here.open(clean=clean, recovery_point=500)
    assert read_values(log) == values
    assert log.max_timestamp_offset() == (1_000, 0, 0)
    log.close()
    assert {name: Path(here.path(name)).read_bytes() for name in before} == before


def test_an_index_that_lies_is_rebuilt_when_it_is_used(
    place: Make, caplog: pytest.LogCaptureFixture
) -> None:
    here = place(index_interval_bytes=500)
    values = fill(log := here.open(), 500)
    log.close()
    path = Path(here.path("00000000000000000000.index"))
    right = path.read_bytes()
    entries = [right[at : at + 8] for at in range(0, len(right), 8)]
    path.write_bytes(
        b"".join(e[:4] + (int.from_bytes(e[4:], "big") + 7).to_bytes(4, "big") for e in entries)
    )
    log = here.open()
    assert log.log_end_offset == 500
    assert "index points to where no batch is" in caplog.text
    assert {offset: read_values(log, offset)[offset] for offset in (0, 1, 250, 499)} == {
        offset: values[offset] for offset in (0, 1, 250, 499)
    }
    log.close()
    assert path.read_bytes() == right


def test_indexes_without_a_log_are_removed(place: Make) -> None:
    here = place()
    fill(log := here.open(), 3)
    log.close()
    for suffix in (".index", ".timeindex", ".txnindex"):
        Path(here.path(f"00000000000000000007{suffix}")).write_bytes(b"")
    here.open()
    assert not here.files("07.index") + here.files("07.timeindex") + here.files("07.txnindex")


# -- epochs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_leader_epochs_come_back(place: Make, clean: bool) -> None:
    here = place()
    log = here.open()
    for epoch in (0, 0, 3, 5):
        append(log, "x", epoch=epoch)
    log.close()
    if not clean:
        Path(here.path("leader-epoch-checkpoint")).unlink()
    log = here.open(clean=clean)
    assert log.leader_epochs.entries() == [(0, 0), (3, 2), (5, 3)]


def test_leader_epochs_from_before_a_truncation_do_not_hide_later_ones(place: Make) -> None:
    here = place()
    log = here.open()
    append(log, "a", epoch=0)
    append(log, "b", epoch=1)
    append(log, "c", epoch=1)
    log.flush()
    log.truncate_to(1)
    append(log, "B", epoch=1)
    log.truncate_to(0)
    append(log, "A", epoch=1)
    log.abandon()
    log = here.open(clean=False)
    assert log.leader_epochs.entries() == [(1, 0)]


def test_damaged_leader_epochs_are_found_in_the_records(place: Make) -> None:
    here = place()
    log = here.open()
    for epoch in (0, 0, 3, 5):
        append(log, "x", epoch=epoch)
    log.close()
    Path(here.path("leader-epoch-checkpoint")).write_text("0\n2\n1 1\n")
    assert here.open().leader_epochs.entries() == [(0, 0), (3, 2), (5, 3)]


# -- interrupted work -----------------------------------------------------------------------


def test_deleted_files_are_removed(place: Make) -> None:
    here = place()
    fill(log := here.open(), 3)
    log.close()
    Path(here.path("00000000000000000000.log.deleted")).write_bytes(b"x")
    Path(here.path("00000000000000000000.index.deleted")).write_bytes(b"x")
    assert here.open().log_end_offset == 3
    assert not here.files(".deleted")


def three_segments(here: Place) -> dict[int, str]:
    """Segments with the offsets 0-9, 10-19 and 20-29."""
    log = here.open()
    values = {}
    for _ in range(3):
        values |= fill(log, 10)
        log.roll()
    log.close()
    return values


def as_swap(here: Place, values: dict[int, str], base: int, suffix: str) -> None:
    """Write ``values`` as compaction's replacement for the segment at ``base``."""
    data = b"".join(batch(value, base_offset=offset)[1] for offset, value in sorted(values.items()))
    Path(here.path(f"{base:020d}.log{suffix}")).write_bytes(data)


def test_a_complete_swap_takes_its_place(place: Make) -> None:
    here = place()
    values = three_segments(here)
    kept = {offset: values[offset] for offset in (3, 7, 15)}
    as_swap(here, kept, 0, ".swap")
    log = here.open()
    assert read_values(log) == kept | {offset: values[offset] for offset in range(20, 30)}
    assert [segment.base_offset for segment in log.segments] == [0, 20, 30]
    assert not here.files(".swap")
    log.close()
    assert read_values(here.open()).keys() == {3, 7, 15, *range(20, 30)}


def test_unfinished_compaction_is_thrown_away(place: Make) -> None:
    here = place()
    values = three_segments(here)
    as_swap(here, {3: "three"}, 0, ".cleaned")
    for suffix in (".index", ".timeindex"):
        Path(here.path(f"{0:020d}{suffix}.cleaned")).write_bytes(b"")
    assert read_values(here.open()) == values
    assert not here.files(".cleaned")


def test_a_swap_beside_an_earlier_cleaned_file_is_of_an_unfinished_split(place: Make) -> None:
    here = place()
    values = three_segments(here)
    as_swap(here, {3: "three"}, 0, ".cleaned")
    as_swap(here, {12: "twelve"}, 10, ".swap")
    assert read_values(here.open()) == values
    assert not here.files(".cleaned") + here.files(".swap")


def test_an_empty_directory_is_a_new_log(place: Make) -> None:
    here = place()
    Path(here.directory).mkdir()
    log = here.open(clean=False, log_start_offset=0, recovery_point=7)
    assert (log.log_start_offset, log.log_end_offset) == (0, 0)
    assert append(log, "a").first_offset == 0


def test_a_log_that_was_copied_here_is_served(place: Make, tmp_path: Path) -> None:
    here = place()
    values = fill(log := here.open(), 20)
    log.close()
    there = Place(str(tmp_path / "elsewhere" / "orders-0"))
    Path(there.directory).mkdir(parents=True)
    shutil.copy(here.path("00000000000000000000.log"), there.directory)
    assert read_values(there.open()) == values
