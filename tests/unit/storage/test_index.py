from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.storage.fs import File, FileSystem
from kavka.storage.index import (
    CorruptIndex,
    OffsetIndex,
    OffsetPosition,
    TimeIndex,
    TimestampOffset,
)

FS = FileSystem()


def offset_index(directory: Path, base: int = 100) -> OffsetIndex:
    return OffsetIndex(FS, str(directory / f"{base:020}.index"), base)


def time_index(directory: Path, base: int = 100) -> TimeIndex:
    return TimeIndex(FS, str(directory / f"{base:020}.timeindex"), base)


def test_offset_entry_is_kafkas(tmp_path: Path) -> None:
    index = offset_index(tmp_path)
    index.create()
    index.append(120, 4096)
    index.close()
    assert Path(index.path).read_bytes().hex() == "0000001400001000"
    assert list(offset_index(tmp_path).entries()) == [OffsetPosition(120, 4096)]


def test_time_entry_is_kafkas(tmp_path: Path) -> None:
    index = time_index(tmp_path)
    index.create()
    assert index.maybe_append(1500000000000, 120)
    index.close()
    assert Path(index.path).read_bytes().hex() == "0000015d3ef7980000000014"
    assert list(time_index(tmp_path).entries()) == [TimestampOffset(1500000000000, 120)]


def test_empty_indexes_answer_with_the_base(tmp_path: Path) -> None:
    offsets, times = offset_index(tmp_path), time_index(tmp_path)
    assert offsets.lookup(150) == (100, 0)
    assert offsets.position_for(150) == 0
    assert offsets.first_at_or_after(0) is None
    assert offsets.last_offset == 100
    assert times.lookup(5) == (-1, 100)
    assert times.last_entry == (-1, 100)
    assert not Path(offsets.path).exists(), "a lookup makes no file"


def test_create_makes_an_empty_file_and_cuts_an_old_one(tmp_path: Path) -> None:
    index = offset_index(tmp_path)
    Path(index.path).write_bytes(b"\1" * 24)
    index.create()
    assert Path(index.path).read_bytes() == b""
    index.sanity_check()


steps = st.lists(st.tuples(st.integers(1, 2**20), st.integers(1, 2**18)), max_size=60)


def _ascending(pairs: list[tuple[int, int]], first: int, second: int) -> list[tuple[int, int]]:
    entries = []
    for one, other in pairs:
        first += one
        second += other
        entries.append((first, second))
    return entries


@given(steps, st.lists(st.integers(0, 2**26), min_size=1), st.data())
@settings(max_examples=60, deadline=None)
def test_offset_index_against_a_list(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[int, int]],
    questions: list[int],
    data: st.DataObject,
) -> None:
    entries = _ascending(pairs, 1000, 0)
    index = offset_index(tmp_path_factory.mktemp("index"), 1000)
    index.create()
    for entry in entries:
        index.append(*entry)
        action = data.draw(st.sampled_from(["", "", "write", "release", "truncate"]))
        if action == "write":
            index.write_out()
            assert index.unwritten == 0
        elif action == "release":
            index.release()
        elif action == "truncate":
            cut = data.draw(st.integers(990, entry[0] + 2))
            index.truncate_to(cut)
            entries = [kept for kept in entries if kept[0] < cut or kept[0] > entry[0]]
            if data.draw(st.booleans()):
                index.write_out()
    for again in (index, offset_index(Path(index.path).parent, 1000)):
        assert list(again.entries()) == entries
        assert len(again) == len(entries)
        for question in [*questions, *(offset for offset, _ in entries)]:
            floor = bisect_right(entries, question, key=lambda entry: entry[0]) - 1
            expected = entries[floor] if floor >= 0 else (1000, 0)
            assert again.lookup(question) == expected
            assert again.position_for(question) == expected[1]
            after = [entry for entry in entries if entry[1] >= question]
            assert again.first_at_or_after(question) == (after[0] if after else None)
        again.verify(2**31)
        again.write_out()
    assert Path(index.path).stat().st_size == 8 * len(entries)


@given(steps, st.lists(st.integers(-1, 2**26), min_size=1), st.integers(1000, 2**22))
@settings(max_examples=60, deadline=None)
def test_time_index_against_a_list(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[int, int]],
    questions: list[int],
    cut: int,
) -> None:
    entries = [(timestamp, offset) for offset, timestamp in _ascending(pairs, 1000, 0)]
    index = time_index(tmp_path_factory.mktemp("index"), 1000)
    index.create()
    for number, (timestamp, offset) in enumerate(entries):
        assert index.maybe_append(timestamp, offset)
        assert not index.maybe_append(timestamp, offset + 1), "not later than the last"
        assert not index.maybe_append(timestamp - 1, offset + 1)
        if number % 7 == 3:
            index.release()
    index.write_out()
    index.truncate_to(cut)
    entries = [entry for entry in entries if entry[1] < cut]
    index.write_out()
    for again in (index, time_index(Path(index.path).parent, 1000)):
        assert list(again.entries()) == entries
        for question in [*questions, *(timestamp for timestamp, _ in entries)]:
            floor = [entry for entry in entries if entry[0] <= question]
            assert again.lookup(question) == (floor[-1] if floor else (-1, 1000))
        assert again.last_entry == (entries[-1] if entries else (-1, 1000))
        again.verify()
    assert Path(index.path).stat().st_size == 12 * len(entries)


def test_full_keeps_one_slot_of_the_time_index(tmp_path: Path) -> None:
    offsets = OffsetIndex(FS, str(tmp_path / "o.index"), 0, max_bytes=31)
    times = TimeIndex(FS, str(tmp_path / "t.timeindex"), 0, max_bytes=36)
    for number in (1, 2):
        assert not offsets.is_full and not times.is_full
        offsets.append(number, number)
        times.maybe_append(number, number)
    assert times.is_full and not offsets.is_full
    offsets.append(3, 3)
    assert offsets.is_full


def test_unused_space_of_a_preallocated_file_is_left_out_and_cut(tmp_path: Path) -> None:
    offsets, times = offset_index(tmp_path), time_index(tmp_path)
    Path(offsets.path).write_bytes(bytes.fromhex("0000001400001000") + bytes(8 * 1000 + 5))
    Path(times.path).write_bytes(bytes.fromhex("0000015d3ef7980000000014") + bytes(12 * 1000))
    assert list(offsets.entries()) == [(120, 4096)]
    assert list(times.entries()) == [(1500000000000, 120)]
    offsets.append(130, 5000)
    offsets.close()
    times.close()
    assert Path(offsets.path).stat().st_size == 16
    assert Path(times.path).stat().st_size == 12


@pytest.mark.parametrize(
    "content",
    [b"\0\0\0", bytes(8), bytes.fromhex("fffffff000001000")],
    ids=["partial entry", "zero entry", "offset below the base"],
)
def test_sanity_check_of_the_offset_index(tmp_path: Path, content: bytes) -> None:
    index = offset_index(tmp_path)
    Path(index.path).write_bytes(bytes.fromhex("0000001400001000") + content)
    with pytest.raises(CorruptIndex, match=r"000100\.index"):
        index.sanity_check()


@pytest.mark.parametrize(
    "content", [b"\0\0\0", b"\xff" * 12], ids=["partial entry", "negative entry"]
)
def test_sanity_check_of_the_time_index(tmp_path: Path, content: bytes) -> None:
    index = time_index(tmp_path)
    Path(index.path).write_bytes(bytes.fromhex("0000015d3ef7980000000014") + content)
    with pytest.raises(CorruptIndex, match=r"000100\.timeindex"):
        index.sanity_check()


def test_a_missing_file_fails_the_sanity_check(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        offset_index(tmp_path).sanity_check()


@pytest.mark.parametrize(
    "entries",
    [[(10, 100), (9, 200)], [(10, 100), (11, 100)], [(10, 100), (11, 5000)], [(-3, 1), (4, 5)]],
    ids=["offset falls", "position stands", "past the log", "below the base"],
)
def test_verify_finds_what_the_quick_check_cannot(
    tmp_path: Path, entries: list[tuple[int, int]]
) -> None:
    index = offset_index(tmp_path)
    Path(index.path).write_bytes(
        b"".join(
            offset.to_bytes(4, "big", signed=True) + position.to_bytes(4, "big")
            for offset, position in entries
        )
    )
    index.sanity_check()
    with pytest.raises(CorruptIndex):
        index.verify(log_size=5000)


def test_verify_of_the_time_index(tmp_path: Path) -> None:
    index = time_index(tmp_path)
    good = (7).to_bytes(8, "big") + (3).to_bytes(4, "big")
    later = (8).to_bytes(8, "big") + (2).to_bytes(4, "big")
    Path(index.path).write_bytes(good + later)
    index.sanity_check()
    with pytest.raises(CorruptIndex):
        index.verify()
    Path(index.path).write_bytes(good + good)
    with pytest.raises(CorruptIndex):
        time_index(tmp_path).verify()


class FullDisk(FileSystem):
    """Has room for half of what it is given, until somebody makes some."""

    full = False

    def pwrite(self, file: File, data: bytes | bytearray | memoryview, offset: int) -> None:
        if self.full:
            super().pwrite(file, data[: len(data) // 2], offset)
            raise OSError(28, "No space left on device")
        super().pwrite(file, data, offset)


def test_a_failed_write_out_is_made_good_by_the_next(tmp_path: Path) -> None:
    fs = FullDisk()
    index = OffsetIndex(fs, str(tmp_path / "0.index"), 0)
    index.create()
    for number in range(1, 4):
        index.append(number, number)
    fs.full = True
    with pytest.raises(OSError, match="No space"):
        index.write_out()
    assert index.position_for(3) == 3
    index.truncate_to(3)
    fs.full = False
    index.write_out()
    assert list(OffsetIndex(FS, index.path, 0).entries()) == [(1, 1), (2, 2)]
    assert Path(index.path).stat().st_size == 16


def test_rename_moves_the_file_and_keeps_the_entries(tmp_path: Path) -> None:
    index = offset_index(tmp_path)
    index.create()
    index.append(120, 4096)
    index.rename(index.path + ".deleted")
    assert index.position_for(121) == 4096
    index.write_out()
    index.sync()
    assert [path.name for path in tmp_path.iterdir()] == [f"{100:020}.index.deleted"]
    assert (tmp_path / f"{100:020}.index.deleted").stat().st_size == 8


def test_reset_forgets_entries_and_file(tmp_path: Path) -> None:
    index = offset_index(tmp_path)
    Path(index.path).write_bytes(bytes.fromhex("0000001400001000") * 3)
    index.reset()
    assert len(index) == 0
    index.append(105, 77)
    index.write_out()
    assert Path(index.path).read_bytes().hex() == "000000050000004d"


def test_offsets_only_grow(tmp_path: Path) -> None:
    index = offset_index(tmp_path)
    index.append(120, 4096)
    for offset, position in [(120, 5000), (119, 5000), (100 + 2**31, 5000), (99, 5000)]:
        with pytest.raises(AssertionError):
            index.append(offset, position)


@pytest.mark.parametrize("count", [0, 1, 2, 511, 512, 513, 514, 1025, 5000])
@pytest.mark.parametrize("unused", [0, 1, 3000])
def test_a_search_in_the_file_finds_what_memory_has(
    tmp_path: Path, count: int, unused: int
) -> None:
    offsets, times = offset_index(tmp_path), time_index(tmp_path)
    for number in range(count):
        offsets.append(100 + 3 * number + 1, 10 * number + 5)
        times.maybe_append(50 + 2 * number, 100 + 3 * number)
    for index in (offsets, times):
        index.write_out()
        with open(index.path, "ab") as file:
            file.write(bytes(unused * index._ENTRY_SIZE))
    edges = {0, 1, 2, 500, 511, 512, 513, 700, 1024, count - 1, count, count + 1}
    for number in sorted(edges):
        for shift in (-1, 0, 1):
            offset, position = 100 + 3 * number + 1 + shift, max(10 * number + 5 + shift, 0)
            timestamp = 50 + 2 * number + shift
            assert offset_index(tmp_path).lookup(offset) == offsets.lookup(offset)
            in_file = offset_index(tmp_path).first_at_or_after(position)
            assert in_file == offsets.first_at_or_after(position)
            assert time_index(tmp_path).lookup(timestamp) == times.lookup(timestamp)
    assert time_index(tmp_path).last_entry == times.last_entry


def test_a_search_without_a_file_finds_nothing(tmp_path: Path) -> None:
    assert offset_index(tmp_path).lookup(500) == OffsetPosition(100, 0)
    assert offset_index(tmp_path).first_at_or_after(0) is None
    assert time_index(tmp_path).lookup(500) == TimestampOffset(-1, 100)
    assert time_index(tmp_path).last_entry == TimestampOffset(-1, 100)
