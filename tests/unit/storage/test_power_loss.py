"""Power losses and kills at any moment: what was acknowledged is there, in order, and fits.

Each schedule is one seed. A failure names it; the same one again, alone::

    KAVKA_POWER_LOSS_SEED=17 pytest tests/unit/storage/test_power_loss.py

and thousands of others::

    KAVKA_POWER_LOSS_SCHEDULES=20000 pytest tests/unit/storage/test_power_loss.py
"""

import os
import random

import pytest

from kavka.storage.fs import PAGE_SIZE, File
from tests.unit.storage.power_loss_fs import Impossible, Killed, PowerLossFileSystem
from tests.unit.storage.power_loss_world import World

SCHEDULES = int(os.environ.get("KAVKA_POWER_LOSS_SCHEDULES", "300"))
SEED = os.environ.get("KAVKA_POWER_LOSS_SEED")
PARTS = 10


def play(seed: int) -> World:
    world = World(seed)
    try:
        world.play(random.Random(seed).randint(5, 40))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        steps = "\n".join(world.steps)
        pytest.fail(f"KAVKA_POWER_LOSS_SEED={seed} after\n{steps}\n{error!r}")
    return world


@pytest.mark.parametrize("part", range(PARTS))
def test_schedules(part: int) -> None:
    seeds = range(part, SCHEDULES, PARTS) if SEED is None else [int(SEED)] * (part == 0)
    worlds = [play(seed) for seed in seeds]
    if len(worlds) >= 20:  # they are about what they should be about
        assert sum(world.power_losses for world in worlds) > len(worlds)
        assert sum(world.crashes - world.power_losses for world in worlds) > len(worlds) / 2
        assert sum(world.failed_starts for world in worlds) > len(worlds) / 4
        assert sum(world.cuts for world in worlds) > len(worlds) / 4


def test_a_seed_is_the_whole_schedule() -> None:
    one, other = play(3), play(3)
    assert one.steps == other.steps
    assert one.fs.calls == other.fs.calls


# -- the file system itself ------------------------------------------------------------------


@pytest.fixture
def fs() -> PowerLossFileSystem:
    return PowerLossFileSystem()


def outcomes(fs: PowerLossFileSystem, path: str, ordered: bool = True) -> set[bytes | None]:
    """What a file may hold after a power loss; None: it is not there."""
    found: set[bytes | None] = set()
    for seed in range(300):
        after = fs.crash(random.Random(seed), ordered=ordered)
        found.add(after.read_bytes(path) if after.exists(path) else None)
    return found


def make(fs: PowerLossFileSystem, path: str, data: bytes = b"") -> File:
    file = fs.open(path, write=True, create=True)
    fs.pwrite(file, data, 0)
    return file


def test_a_file_is_as_safe_as_its_name(fs: PowerLossFileSystem) -> None:
    file = make(fs, "/a", b"1")
    fs.fdatasync(file)
    assert outcomes(fs, "/a") == {None, b"1"}
    fs.sync_dir("/")
    assert outcomes(fs, "/a") == {b"1"}


def test_pages_survive_one_by_one_and_holes_are_zeros(fs: PowerLossFileSystem) -> None:
    file = make(fs, "/a", b"o" * 2 * PAGE_SIZE)
    fs.fdatasync(file)
    fs.sync_dir("/")
    fs.pwrite(file, b"n" * 3 * PAGE_SIZE, 0)
    found = outcomes(fs, "/a")
    shapes = {
        tuple(data[at : at + 1] for at in range(0, len(data), PAGE_SIZE)) for data in found if data
    }
    old, new, hole = b"o", b"n", b"\0"
    assert {(old, old), (new, old), (old, new, hole), (old, old, new), (new, new, new)} <= shapes
    assert any(data and b"no" in data for data in found), "no page was torn"


def test_a_truncation_may_come_undone_and_new_data_with_it(fs: PowerLossFileSystem) -> None:
    file = make(fs, "/a", b"old")
    fs.fdatasync(file)
    fs.sync_dir("/")
    fs.truncate(file, 1)
    fs.pwrite(file, b"N", 1)
    assert outcomes(fs, "/a") >= {b"old", b"o", b"oN", b"oN\0", b"o\0"}
    fs.fdatasync(file)
    assert outcomes(fs, "/a") == {b"oN"}


def test_a_rename_is_atomic_but_not_at_once(fs: PowerLossFileSystem) -> None:
    fs.atomic_write("/a", b"1")
    assert outcomes(fs, "/a") == {b"1"}
    fs.atomic_write("/a", b"2", sync_name=False)
    assert outcomes(fs, "/a") == {b"1", b"2"}
    fs.sync_dir("/")
    fs.atomic_write("/a", b"3", sync=False)
    assert outcomes(fs, "/a") == {b"2", b"3", b"", b"\0"}


def test_names_survive_in_order_or_in_any(fs: PowerLossFileSystem) -> None:
    make(fs, "/a")
    make(fs, "/b")
    both = {
        ordered: {
            (after.exists("/a"), after.exists("/b"))
            for after in (fs.crash(random.Random(seed), ordered=ordered) for seed in range(100))
        }
        for ordered in (True, False)
    }
    assert both[True] == {(False, False), (True, False), (True, True)}
    assert both[False] == both[True] | {(False, True)}


def test_mappings_and_writes_are_one(fs: PowerLossFileSystem) -> None:
    file = make(fs, "/a", b"x" * 10)
    fs.allocate(file, 10, 2 * PAGE_SIZE - 10)
    view = fs.map(file, PAGE_SIZE, offset=PAGE_SIZE, write=True)
    view[:3] = b"map"
    assert fs.pread(file, 3, PAGE_SIZE) == b"map"
    fs.pwrite(file, b"P", PAGE_SIZE)
    assert bytes(view[:3]) == b"Pap"
    fs.truncate(file, 5)
    view[0] = 1
    with pytest.raises(Impossible, match="past the end"):
        fs.fdatasync(file)


def test_mapping_a_hole_would_be_the_end(fs: PowerLossFileSystem) -> None:
    file = make(fs, "/a")
    fs.truncate(file, PAGE_SIZE)
    with pytest.raises(Impossible, match="holes"):
        fs.map(file, PAGE_SIZE, write=True)


def test_a_full_disk_takes_what_fits() -> None:
    fs = PowerLossFileSystem(capacity=2 * PAGE_SIZE)
    file = make(fs, "/a", b"x")
    with pytest.raises(OSError, match="No space"):
        fs.allocate(file, 0, 3 * PAGE_SIZE)
    assert fs.file_size(file) == 1
    with pytest.raises(OSError, match="No space"):
        fs.pwrite(file, bytes(3 * PAGE_SIZE), 0)
    assert fs.file_size(file) == 2 * PAGE_SIZE
    fs.unlink("/a")
    file.close()
    assert fs.disk_space("/").free == 2 * PAGE_SIZE


def test_a_killed_process_does_nothing_more_and_loses_nothing(fs: PowerLossFileSystem) -> None:
    file = make(fs, "/a", b"1")
    fs.kill_at = fs.calls + 1
    for _ in range(2):
        with pytest.raises(Killed):
            fs.pwrite(file, b"2", 0)
    fs.restart()
    assert fs.read_bytes("/a") == b"1"
