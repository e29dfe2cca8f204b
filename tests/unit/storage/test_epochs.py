from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.storage.checkpoints import CorruptCheckpoint, EpochEntry
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.fs import FileSystem

PATH = "leader-epoch-checkpoint"


def cache(*entries: tuple[int, int]) -> LeaderEpochCache:
    return LeaderEpochCache(PATH, [EpochEntry(*entry) for entry in entries])


def test_assign_ignores_what_it_knows() -> None:
    epochs = cache()
    assert epochs.latest_epoch == -1
    assert epochs.assign(2, 10)
    assert not epochs.assign(2, 10)
    assert not epochs.assign(2, 25)
    assert epochs.assign(4, 25)
    assert epochs.entries() == [(2, 10), (4, 25)]
    assert epochs.latest_epoch == 4
    assert epochs.earliest == (2, 10) and epochs.latest == (4, 25)


@pytest.mark.parametrize(
    ("epoch", "start", "left"),
    [
        (5, 30, [(1, 0), (3, 10), (4, 20), (5, 30)]),
        (5, 20, [(1, 0), (3, 10), (5, 20)]),
        (5, 15, [(1, 0), (3, 10), (5, 15)]),
        (3, 30, [(1, 0), (3, 30)]),
        (4, 15, [(1, 0), (3, 10), (4, 15)]),
        (0, 0, [(0, 0)]),
    ],
)
def test_assign_drops_what_contradicts(epoch: int, start: int, left: list[tuple[int, int]]) -> None:
    epochs = cache((1, 0), (3, 10), (4, 20))
    assert epochs.assign(epoch, start)
    assert epochs.entries() == left


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (-1, (-1, -1)),  # undefined
        (0, (0, 5)),  # older than all known: where the first known begins
        (1, (1, 10)),
        (2, (1, 10)),  # wrote nothing here: the largest below
        (3, (3, 20)),
        (5, (5, 99)),  # the latest ends at the log's end
        (6, (-1, -1)),
    ],
)
def test_end_offset_for(asked: int, answer: tuple[int, int]) -> None:
    assert cache((1, 5), (3, 10), (5, 20)).end_offset_for(asked, 99) == answer


def test_end_offset_without_entries() -> None:
    assert cache().end_offset_for(0, 99) == (-1, -1)
    assert cache().end_offset_for(-1, 99) == (-1, -1)


def test_epoch_for_offset() -> None:
    epochs = cache((1, 5), (3, 10))
    assert [epochs.epoch_for_offset(offset) for offset in (4, 5, 9, 10, 1000)] == [-1, 1, 1, 3, 3]


@pytest.mark.parametrize(
    ("end", "left"),
    [(21, 3), (20, 2), (11, 2), (10, 1), (6, 1), (5, 0), (0, 0)],
)
def test_truncate_from_end(end: int, left: int) -> None:
    entries = [(1, 5), (3, 10), (5, 20)]
    epochs = cache(*entries)
    epochs.truncate_from_end(end)
    assert epochs.entries() == entries[:left]
    assert epochs.dirty == (left < 3)
    assert epochs.latest_epoch == (entries[left - 1][0] if left else -1)


@pytest.mark.parametrize(
    ("start", "left"),
    [
        (4, [(1, 5), (3, 10), (5, 20)]),
        (5, [(1, 5), (3, 10), (5, 20)]),
        (7, [(1, 7), (3, 10), (5, 20)]),
        (10, [(3, 10), (5, 20)]),
        (15, [(3, 15), (5, 20)]),
        (1000, [(5, 1000)]),
    ],
)
def test_truncate_from_start(start: int, left: list[tuple[int, int]]) -> None:
    epochs = cache((1, 5), (3, 10), (5, 20))
    epochs.truncate_from_start(start)
    assert epochs.entries() == left
    assert epochs.dirty == (start > 5)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["assign", "assign", "end", "start"]),
            st.integers(0, 12),
            st.integers(0, 50),
        )
    )
)
@settings(max_examples=150, deadline=None)
def test_entries_stay_ascending_and_lookup_agrees(steps: list[tuple[str, int, int]]) -> None:
    epochs = cache()
    for action, epoch, offset in steps:
        if action == "assign":
            epochs.assign(epoch, offset)
            assert epochs.latest_epoch == epoch
            assert epochs.epoch_for_offset(offset) == epoch
        elif action == "end":
            epochs.truncate_from_end(offset)
            assert all(entry.start_offset < offset for entry in epochs.entries())
        else:
            before = epochs.epoch_for_offset(offset)
            epochs.truncate_from_start(offset)
            assert epochs.epoch_for_offset(offset) == before
            assert all(entry.start_offset >= offset for entry in epochs.entries())
        entries = epochs.entries()
        assert entries == sorted(entries)
        for kind in (0, 1):
            assert len({entry[kind] for entry in entries}) == len(entries)
        for asked in range(13):
            later = [entry for entry in entries if entry.epoch > asked]
            found = epochs.end_offset_for(asked, 1000)
            if entries and asked == entries[-1].epoch:
                assert found == (asked, 1000)
            elif later:
                assert found.end_offset == later[0].start_offset
                assert found.epoch <= asked
            else:
                assert found == (-1, -1)


def test_save_writes_only_news(tmp_path: Path) -> None:
    path = tmp_path / PATH
    epochs = LeaderEpochCache.load(FileSystem(), str(path))
    epochs.save(FileSystem())
    assert not path.exists()
    epochs.assign(3, 7)
    epochs.save(FileSystem())
    assert path.read_bytes() == b"0\n1\n3 7\n"
    assert not epochs.dirty
    again = LeaderEpochCache.load(FileSystem(), str(path))
    assert again.entries() == [(3, 7)] and again.latest_epoch == 3 and not again.dirty
    again.clear()
    again.save(FileSystem())
    assert path.read_bytes() == b"0\n0\n"


def test_a_checkpoint_that_is_not_ascending_is_corrupt() -> None:
    for entries in ([(3, 0), (3, 5)], [(3, 5), (2, 9)], [(1, 5), (2, 5)]):
        with pytest.raises(CorruptCheckpoint, match="not ascending"):
            cache(*entries)
