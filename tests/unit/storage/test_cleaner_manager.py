"""The cleaner at work in a manager of logs: what it is told, what it leaves on disk."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kavka.config.topic import TopicConfig, resolve
from kavka.protocol.topics import TopicPartition
from kavka.storage import checkpoints
from kavka.storage.clock import ManualClock
from kavka.storage.fs import FileSystem
from kavka.storage.log import Log
from kavka.storage.manager import LogManager
from tests.unit.storage.cleaner_support import contents, put
from tests.unit.storage.test_manager import Disks, disk_done, flushed, need

A, B, C = TopicPartition("a", 0), TopicPartition("b", 0), TopicPartition("c", 0)
PATIENCE = 30  # seconds
FAR_AHEAD = 4_000_000_000_000  # ms since 1970


class OwnFileSystem(FileSystem):
    """Not the plain one: cleaning is done in a thread of this process."""


class Compacting(Disks):
    """Managers whose topics are compacted, and cleaned without much delay."""

    def __init__(self, root: Path, count: int = 1, **settings: str) -> None:
        super().__init__(
            root, count, **{"log.cleaner.backoff.ms": "5", "log.cleanup.policy": "compact"}
        )
        self.config.set_dynamic_broker(settings)
        self.fs = OwnFileSystem()

    def topic(self, name: str = "") -> TopicConfig:
        overrides = {"segment.bytes": "1000", "min.cleanable.dirty.ratio": "0.0"}
        return resolve(overrides, self.config)


@pytest.fixture
def disks(tmp_path: Path) -> Compacting:
    return Compacting(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that is bound to come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def make(manager: LogManager, disks: Compacting, topic_partition: TopicPartition) -> Log:
    return manager.get_or_create(topic_partition, disks.topic(topic_partition.topic))


def fill(log: Log, rounds: int = 20) -> None:
    for number in range(5 * rounds):
        put(log, (b"key-%d" % (number % 5), b"%d" % number * 30))
    log.roll()


def is_clean(manager: LogManager, topic_partition: TopicPartition) -> bool:
    return manager.cleaned_to(topic_partition) == need(manager, topic_partition).log_end_offset


@pytest.mark.parametrize("fs", [FileSystem, OwnFileSystem])
def test_logs_are_cleaned_and_that_is_remembered(disks: Compacting, fs: type[FileSystem]) -> None:
    disks.fs = fs()

    async def work(manager: LogManager) -> None:
        for each in (A, B):
            fill(make(manager, disks, each))
        await until(lambda: is_clean(manager, A) and is_clean(manager, B))
        await disk_done(manager)
        assert disks.file("cleaner-offset-checkpoint").read_text() == "0\n2\na 0 100\nb 0 100\n"
        cleaner = manager.cleaner
        assert cleaner is not None
        await until(lambda: cleaner.dirtiest == 0.0)

    async def again(manager: LogManager) -> None:
        assert (manager.cleaned_to(A), manager.cleaned_to(B)) == (100, 100)
        assert [*contents(need(manager, A))] == [*range(95, 100)]

    disks.run(work)
    disks.run(again)


def test_a_cleaner_that_is_switched_off_leaves_everything_alone(tmp_path: Path) -> None:
    disks = Compacting(tmp_path)
    disks.config = type(disks.config)({**disks.config.static, "log.cleaner.enable": "false"})

    async def work(manager: LogManager) -> None:
        assert manager.cleaner is None
        fill(log := make(manager, disks, A))
        log.increment_log_start_offset(50)
        await manager.upkeep.check_retention()
        assert log.segments.first.base_offset > 40, "deletion goes on"

    disks.run(work)
    assert not disks.file("cleaner-offset-checkpoint").exists()


def test_compact_and_delete_are_both_done_by_the_cleaner(tmp_path: Path) -> None:
    disks = Compacting(tmp_path)
    disks.config.set_dynamic_default({"log.cleanup.policy": "compact,delete"})
    # Segments without records are as old as their files, which are of today.
    disks.clock = ManualClock(wall_ms=FAR_AHEAD)

    async def work(manager: LogManager) -> None:
        log = make(manager, disks, A)
        assert log.config.cleanup_policy == {"compact", "delete"}
        fill(log)
        put(log, (b"active", b"x"), timestamp=disks.clock.wall_ms())
        await manager.upkeep.check_retention()
        await until(lambda: log.log_start_offset == 100)
        assert len(log.segments) == 1
        assert [*contents(log)] == [100]

    disks.run(work)


def test_a_partition_that_cannot_be_cleaned_does_not_hold_others_up(
    disks: Compacting, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(manager: LogManager) -> None:
        cleaner = manager.cleaner
        assert cleaner is not None
        log = make(manager, disks, A)
        for number in range(100):
            put(log, (b"key", b"%d" % number * 30))
        path = log.segments[1].path
        with open(path, "r+b") as file:
            file.seek(100)
            file.write(b"?" * 20)
        log.roll()
        fill(make(manager, disks, B))
        await until(lambda: A in cleaner.uncleanable and is_clean(manager, B))
        assert not is_clean(manager, A)
        await flushed(manager)
        manager.delete(A)
        assert A not in cleaner.uncleanable
        fill(make(manager, disks, A))
        await until(lambda: is_clean(manager, A))

    disks.run(work)
    [told] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "A partition cannot be cleaned" in told.getMessage()
    assert "partition=a-0" in told.getMessage()


# -- what changes during a pass -----------------------------------------------------------------

CRAWLING = {"log.cleaner.io.max.bytes.per.second": "100"}


async def crawling(manager: LogManager, disks: Compacting) -> Log:
    """A log that is being cleaned, very slowly."""
    cleaner = manager.cleaner
    assert cleaner is not None
    fill(log := make(manager, disks, A))
    await until(lambda: A in cleaner._running)
    return log


@pytest.mark.parametrize("fs", [FileSystem, OwnFileSystem])
def test_settings_take_effect_at_once(tmp_path: Path, fs: type[FileSystem]) -> None:
    disks = Compacting(tmp_path, **CRAWLING)
    disks.fs = fs()

    async def work(manager: LogManager) -> None:
        await crawling(manager, disks)
        assert not is_clean(manager, A)
        disks.config.set_dynamic_broker({"log.cleaner.threads": "2"})
        await until(lambda: is_clean(manager, A))
        assert manager.cleaner is not None
        assert sorted(manager.cleaner._lanes) == [0, 1]
        disks.config.set_dynamic_broker({})
        lanes = manager.cleaner._lanes
        await until(lambda: sorted(lanes) == [0])

    disks.run(work)


def test_two_threads_clean_two_logs_at_a_time(tmp_path: Path) -> None:
    disks = Compacting(tmp_path, **CRAWLING, **{"log.cleaner.threads": "2"})

    async def work(manager: LogManager) -> None:
        cleaner = manager.cleaner
        assert cleaner is not None
        for each in (A, B, C):
            fill(make(manager, disks, each))
        await until(lambda: len(cleaner._running) == 2)
        assert len({each.job.name for each in cleaner._running.values()}) == 2

    disks.run(work)


@pytest.mark.parametrize("fs", [FileSystem, OwnFileSystem])
def test_a_stop_does_not_wait_for_a_pass(tmp_path: Path, fs: type[FileSystem]) -> None:
    disks = Compacting(tmp_path, **CRAWLING)
    disks.fs = fs()

    async def work(manager: LogManager) -> None:
        await crawling(manager, disks)

    disks.run(work)
    assert not [*disks.file("a-0").glob("*.cleaned"), *disks.file("a-0").glob("*.swap")]
    disks.config.set_dynamic_broker({})

    async def again(manager: LogManager) -> None:
        await until(lambda: is_clean(manager, A))
        assert [*contents(need(manager, A))] == [*range(95, 100)]

    disks.run(again)


@pytest.mark.parametrize("fs", [FileSystem, OwnFileSystem])
def test_a_partition_can_be_deleted_while_it_is_cleaned(
    tmp_path: Path, fs: type[FileSystem]
) -> None:
    disks = Compacting(tmp_path, **CRAWLING)
    disks.fs = fs()

    async def work(manager: LogManager) -> None:
        cleaner = manager.cleaner
        assert cleaner is not None
        await crawling(manager, disks)
        await flushed(manager)
        manager.delete(A)
        disks.config.set_dynamic_broker({})
        fill(make(manager, disks, A), rounds=10)
        await until(lambda: is_clean(manager, A))
        assert [*contents(need(manager, A))] == [*range(45, 50)]
        assert cleaner.uncleanable == {}

    disks.run(work)


@pytest.mark.parametrize("ends_early", [False, True])
def test_a_moved_log_is_as_clean_as_it_was(tmp_path: Path, ends_early: bool) -> None:
    disks = Compacting(tmp_path, 2)

    async def work(manager: LogManager) -> None:
        log = make(manager, disks, A)
        fill(log)
        if ends_early:
            put(log, (None, b"a last record that compaction takes away"))
            log.roll()
        end = log.log_end_offset
        await until(lambda: is_clean(manager, A))
        before = contents(log)
        assert len(before) == 5
        assert manager.cleaner is not None
        await manager.cleaner.stop()
        to = next(path for path in disks.paths if path != manager.directory_of(A))
        manager.move(A, to)
        await until(lambda: manager.directory_of(A) == to)
        await disk_done(manager)
        moved = need(manager, A)
        assert moved is not log
        assert contents(moved) == before
        assert (moved.log_end_offset, manager.cleaned_to(A)) == (end, end)
        noted = checkpoints.read_offsets(FileSystem(), f"{to}/cleaner-offset-checkpoint")
        assert noted == {A: end}

    disks.run(work)


def test_a_truncation_lowers_the_checkpoint(disks: Compacting) -> None:
    async def work(manager: LogManager) -> None:
        log = make(manager, disks, A)
        fill(log)
        await until(lambda: is_clean(manager, A))
        assert manager.cleaner is not None
        await manager.cleaner.stop()
        log.truncate_to(98)
        await disk_done(manager)
        path = str(disks.file("cleaner-offset-checkpoint"))
        noted = checkpoints.read_offsets(FileSystem(), path)
        assert noted == {A: log.segments.last.base_offset}
        assert noted[A] <= 95

    disks.run(work)
