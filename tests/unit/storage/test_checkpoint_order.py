"""What checkpoint files say of a log must never be ahead of what the log has become."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from kavka.storage.checkpoints import LOG_START_OFFSETS, RECOVERY_POINTS, read_offsets
from kavka.storage.fs import FileSystem
from kavka.storage.manager import LogManager
from tests.unit.storage.log_support import FaultyFileSystem, append, read_values, topic_config
from tests.unit.storage.power_loss_world import Queue
from tests.unit.storage.test_manager import A0, Disks


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    """Threads there do only what they are waited for."""
    with mock.patch("kavka.storage.manager.Workers", Queue):
        yield Disks(tmp_path, **{"log.cleaner.enable": "false"})


def live(disks: Disks, step: Callable[[LogManager], None]) -> None:
    """Start a broker's logs, do something, and die: what waits for a thread is never done."""

    async def main() -> None:
        manager = disks.manager()
        await manager.start(disks.topic)
        try:
            step(manager)
        finally:
            await manager.upkeep.end()
            for directory in manager.describe():
                directory.unlock()

    asyncio.run(main())


def recovery_point(disks: Disks) -> int | None:
    path = disks.file(RECOVERY_POINTS)
    return read_offsets(FileSystem(), str(path)).get(A0)


def fill(manager: LogManager) -> None:
    """Five records on disk, of which four are deleted; all checkpoints are to say so."""
    log = manager.get_or_create(A0, topic_config())
    for _ in range(5):
        append(log, "old")
    log.flush()
    log.advance_high_watermark(5)
    log.increment_log_start_offset(4)
    manager.checkpoint(RECOVERY_POINTS)
    manager.checkpoint(LOG_START_OFFSETS)


def test_nothing_is_written_to_a_cut_log_before_its_checkpoint_could_be(disks: Disks) -> None:
    disks.fs = fs = FaultyFileSystem()

    def truncate(manager: LogManager) -> None:
        fill(manager)
        manager._disk.wait()
        log = manager.get_or_create(A0, topic_config())
        log.truncate_to(4)
        fs.full = True
        manager._disk.wait()
        fs.full = False
        assert recovery_point(disks) == 5
        append(log, "new")
        assert recovery_point(disks) == 4

    live(disks, truncate)


@pytest.mark.parametrize("told", ["on disk", "soon", "in the life before"])
def test_a_new_partition_is_not_taken_for_the_one_before_it(disks: Disks, told: str) -> None:
    """Whether checkpoint files tell of the old one, or will by what a thread is about to do."""

    def replace(manager: LogManager) -> None:
        fill(manager)
        if told != "soon":
            manager._disk.wait()
        manager.delete(A0)
        if told == "in the life before":
            return
        log = manager.get_or_create(A0, topic_config())
        if told == "soon":  # by now, but what the deletion wants is not
            manager._disk.jobs.pop(0)()
            manager._disk.jobs.pop(0)()
        append(log, "new")
        log.flush()

    def begin(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        if told == "in the life before":
            append(log, "new")
            log.flush()

    def look(manager: LogManager) -> None:
        assert read_values(manager.get_or_create(A0, topic_config())) == {0: "new"}

    live(disks, replace)
    live(disks, begin)
    live(disks, look)


def test_where_an_empty_log_begins_is_known_without_a_file(disks: Disks) -> None:
    disks.fs = fs = FaultyFileSystem()

    def begin_anew(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        fs.full = True
        log.truncate_fully_and_start_at(100)
        fs.full = False
        manager._disk.wait()

    def look(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        assert (log.log_start_offset, log.log_end_offset) == (100, 100)

    live(disks, begin_anew)
    live(disks, look)
