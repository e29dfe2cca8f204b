"""Kills and power losses at any call of a cleaning, and of the recovery after it."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from kavka.storage.log import Log
from tests.unit.storage.cleaner_support import (
    Cleaning,
    contents,
    end_transaction,
    headers,
    put,
    raw,
)
from tests.unit.storage.log_support import Place
from tests.unit.storage.power_loss_fs import Killed, PowerLossFileSystem

DIRECTORY: Final = "/data/orders-0"
SHARE: Final = float(os.environ.get("KAVKA_CRASH_SHARE", "0.06"))  # of calls that are tried
CHANGES: Final = frozenset(
    ("rename", "unlink", "create", "pwrite", "truncate", "set_mtime", "fdatasync", "sync_dir")
)
Contents = dict[int, tuple[bytes | None, bytes | None]]


def write_history(log: Log, rng: random.Random, count: int) -> None:
    """Some keys many times over, tombstones, committed and aborted transactions."""
    keys = rng.choice((12, 50))
    for number in range(count):
        pairs = [
            (b"key-%d" % rng.randrange(keys), None if rng.random() < 0.2 else b"%d" % number * 9)
            for _ in range(rng.randint(1, 3))
        ]
        if rng.random() < 0.2:
            log.roll()
        if rng.random() < 0.7:
            put(log, *pairs, codec=rng.choice((0, 0, 1)))
            continue
        producer_id = rng.choice((1, 2))
        fields: dict[str, Any] = {"producer_id": producer_id, "producer_epoch": 0}
        entry = log.producers.get(producer_id)
        sequence = entry.last_sequence + 1 if entry else 0
        put(log, *pairs, base_sequence=sequence, transactional=True, **fields)
        end_transaction(log, producer_id, commit=rng.random() < 0.5)
    log.roll()


class WatchedFileSystem(PowerLossFileSystem):
    """Calls back before each call that changes something."""

    before_change: Callable[[str], None] | None = None

    def _enter(self, what: str, path: str) -> bool:
        if self.before_change is not None and what in CHANGES:
            callback, self.before_change = self.before_change, None
            callback(what)
            self.before_change = callback
        return super()._enter(what, path)


class World:
    """A log on a disk that forgets, and what must be true of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.fs = WatchedFileSystem(lambda: 1_000)
        self.fs.mkdir("/data")
        self.fs.sync_dir("/")
        self.settings: dict[str, Any] = {
            "segment_bytes": self.rng.choice((400, 800, 1_600)),
            "cleanup_policy": ("compact",),
            "delete_retention_ms": self.rng.choice((0, 10_000)),
            "index_interval_bytes": 200,
        }
        self.cleaning = Cleaning(Place(DIRECTORY, self.fs, **self.settings))
        write_history(self.cleaning.log, self.rng, 40)
        if self.rng.random() < 0.6:  # so that there is a clean part, with merged segments
            while self.cleaning.clean():
                pass
            write_history(self.cleaning.log, self.rng, 20)
        self.cleaning.log.flush()
        self.before = contents(self.cleaning.log)
        self.end = self.cleaning.log.log_end_offset
        self.state = state_of(self.before, self.cleaning.log)

    def clean(self) -> None:
        cleaned = self.cleaning.clean()
        assert cleaned

    def load(self, fs: PowerLossFileSystem) -> Cleaning:
        """Start again, after a kill or a power loss."""
        place = Place(DIRECTORY, fs, **self.settings)
        log = place.open(clean=False, recovery_point=self.end)
        log.advance_high_watermark(log.log_end_offset)
        again = Cleaning(place, log)
        again.logs.checkpoint = self.cleaning.logs.checkpoint
        return again

    def check(self, again: Cleaning) -> None:
        log = again.log
        found = contents(log)
        assert found.items() <= self.before.items()
        assert log.log_end_offset == self.end
        assert state_of(found, log) == self.state
        bounds = [
            (batch.base_offset, batch.last_offset)
            for segment in log.segments
            for batch in segment.batches()
        ]
        assert all(a[1] < b[0] for a, b in itertools.pairwise(bounds))
        bases = [segment.base_offset for segment in log.segments]
        assert bases == sorted(set(bases))
        for segment in log.segments[:-1]:
            assert segment.size == again.place.fs.file_size(segment.file())
        names = again.place.files()
        assert not [n for n in names if n.endswith((".cleaned", ".swap", ".deleted"))]
        # And it can be cleaned as if nothing had been.
        again.clean()
        assert again.cleaner.uncleanable == {}
        found = contents(log)
        clean = [key for offset, (key, _) in found.items() if offset < (again.logs.checkpoint or 0)]
        assert len(clean) == len(set(clean))
        assert state_of(found, log) == self.state


def state_of(found: Contents, log: Log) -> dict[bytes | None, bytes]:
    """The live value of each key, for a read_committed consumer."""
    aborted = [txn for segment in log.segments for txn in segment.txn_index.entries()]
    state = {}
    for header in headers(raw(log)):
        if header.is_control or not header.records_count:
            continue
        if header.is_transactional and any(
            txn.producer_id == header.producer_id
            and txn.first_offset <= header.base_offset <= txn.last_offset
            for txn in aborted
        ):
            continue
        for offset in range(header.base_offset, header.next_offset):
            if offset in found:
                key, value = found[offset]
                state[key] = value
    return {key: value for key, value in state.items() if value is not None}


def lose(fs: PowerLossFileSystem, rng: random.Random) -> PowerLossFileSystem:
    """What a power loss leaves, on a file system with a journal or on one without."""
    return fs.crash(rng, ordered=rng.random() < 0.3)


def kills(seed: int, share: float) -> Iterator[World]:
    """Worlds in which the broker was killed at some call of a pass."""
    world = World(seed)
    first = world.fs.calls
    world.clean()
    calls = world.fs.calls - first
    for number in sorted(world.rng.sample(range(calls), int(calls * share))):
        world = World(seed)
        world.fs.kill_at = world.fs.calls + 1 + number
        world.fs.on_kill = world.rng
        with pytest.raises(Killed):
            world.clean()
        yield world


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_anywhere_in_a_pass_costs_nothing(seed: int) -> None:
    for world in kills(seed, SHARE / 5):
        world.fs.restart()
        world.check(world.load(world.fs))


@pytest.mark.parametrize("seed", range(2, 8))
def test_a_power_loss_anywhere_in_a_pass_costs_nothing(seed: int) -> None:
    world = World(seed)
    checked = 0

    def lose_power(what: str) -> None:
        nonlocal checked
        if world.rng.random() < SHARE * (5 if what == "rename" else 1):
            world.check(world.load(lose(world.fs, world.rng)))
            checked += 1

    world.fs.before_change = lose_power
    world.clean()
    assert checked > 5


@pytest.mark.parametrize("seed", range(8, 11))
def test_recovery_may_be_interrupted_too(seed: int) -> None:
    for world in kills(seed, SHARE / 5):
        fs = lose(world.fs, world.rng)
        for _ in range(3):
            fs.kill_at = fs.calls + world.rng.randrange(120)
            fs.on_kill = world.rng
            try:
                world.load(fs)
            except Killed:
                if world.rng.random() < 0.3:
                    fs.restart()
                    continue
            fs.kill_at = None
            fs = lose(fs, world.rng)
        world.check(world.load(fs))


@pytest.mark.parametrize("missing", [".index", ".timeindex", ".index.swap"])
def test_aborted_records_stay_aborted_whenever_a_rebuild_of_indexes_ends(missing: str) -> None:
    """A transaction index that is lost on the way looks like one that was never needed."""
    rng = random.Random(1)
    calls = 0
    while True:
        fs = WatchedFileSystem(lambda: 1_000)
        fs.mkdir("/data")
        fs.sync_dir("/")
        place = Place(DIRECTORY, fs, cleanup_policy=("compact",))
        log = place.open()
        fields: dict[str, Any] = {"producer_id": 1, "producer_epoch": 0, "transactional": True}
        put(log, (b"key", b"aborted"), base_sequence=0, **fields)
        end_transaction(log, 1, commit=False)
        log.roll()
        log.flush()
        path = f"{DIRECTORY}/{0:020}{missing}"
        if missing == ".index.swap":  # a swap whose last step was interrupted
            fs.open(path, create=True)
        else:
            fs.unlink(path)
        fs.sync_dir(DIRECTORY)
        calls += 1
        fs.kill_at = fs.calls + calls
        finished = True
        try:
            place.open(clean=False, recovery_point=2)
        except Killed:
            finished = False
        for _ in range(5):
            after = Place(DIRECTORY, lose(fs, rng), cleanup_policy=("compact",))
            again = after.open(clean=False, recovery_point=2)
            assert [txn.first_offset for txn in again.segments.first.txn_index.entries()] == [0]
        if finished:
            break
    assert calls > 30
