"""Moving a partition between two log directories while it is written, cut, deleted and read."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kavka.config.broker import BrokerConfig
from kavka.config.topic import resolve
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage.append import AppendInfo
from kavka.storage.clock import ManualClock
from kavka.storage.fs import FileSystem
from kavka.storage.log import Log
from kavka.storage.manager import LogManager
from tests.unit.storage.log_support import append, read_values

TP = TopicPartition("orders", 0)


class Disks(FileSystem):
    """Renames of paths that contain ``stuck`` fail; those in ``unsynced`` may not survive."""

    def __init__(self) -> None:
        self.stuck = ""
        self.unsynced: set[str] = set()

    def rename(self, source: str, target: str) -> None:
        if self.stuck and self.stuck in target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().rename(source, target)
        self.unsynced.add(os.path.dirname(target))

    def sync_dir(self, path: str) -> None:
        super().sync_dir(path)
        self.unsynced.discard(path)


class World:
    """A manager with two directories, and a partition in the first."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.fs = Disks()
        self.paths = [str(root / f"disk{number}") for number in range(2)]
        self.config = BrokerConfig({"log.dirs": ",".join(self.paths), **settings})
        self.clock = ManualClock()
        self.manager = LogManager(self.config, self.fs, self.clock)
        self.moved: list[tuple[Log, Log]] = []
        self.manager.mover.on_moved = lambda old, new: self.moved.append((old, new))

    def log(self, **overrides: str) -> Log:
        settings = {name.replace("_", "."): value for name, value in overrides.items()}
        return self.manager.get_or_create(TP, resolve(settings, self.config), bytes(range(16)))

    def now(self) -> Log:
        found = self.manager.get(TP)
        assert found is not None
        return found

    def move(self, disk: int) -> None:
        self.manager.move(TP, self.paths[disk])

    def home(self) -> int:
        return self.paths.index(str(self.manager.directory_of(TP)))

    def names(self, disk: int) -> list[str]:
        return [path.name for path in Path(self.paths[disk]).glob("orders*")]


def fill(log: Log, count: int, size: int = 1000, **fields: object) -> None:
    for _ in range(count):
        append(log, f"{log.log_end_offset:06d}" + "x" * size, **fields)  # type: ignore[arg-type]
    log.advance_high_watermark(log.log_end_offset)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(world: World) -> None:
    await until(lambda: not list(world.manager.mover))


def run(root: Path, test: Callable[[World], Awaitable[None]], **settings: str) -> None:
    async def main() -> None:
        world = World(root, **{name.replace("_", "."): value for name, value in settings.items()})
        world.manager.open_directories()
        world.manager.claim(1, "cluster")
        await world.manager.start(lambda _: resolve({}, world.config))
        try:
            await test(world)
        finally:
            await world.manager.stop()

    asyncio.run(main())


def test_all_records_arrive_while_more_are_written(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log(segment_bytes="100000")
        fill(log, 3000)
        world.move(1)
        assert world.home() == 0
        [move] = world.manager.mover
        assert move.lag == 3000
        assert any(name.endswith("-future") for name in world.names(1))
        while world.home() == 0:
            fill(world.now(), 5)
            await asyncio.sleep(0)
        new = world.now()
        assert world.moved == [(log, new)]
        assert (new.log_start_offset, new.high_watermark) == (0, new.log_end_offset)
        assert new.recovery_point == new.log_end_offset, "all of it was synced"
        assert new.topic_id == bytes(range(16))
        fill(new, 10)
        values = read_values(new)
        assert list(values) == list(range(new.log_end_offset))
        assert all(int(value[:6]) == offset for offset, value in values.items())
        assert world.names(1) == ["orders-0"]
        assert [name.endswith("-delete") for name in world.names(0)] == [True]
        assert new.leader_epochs.latest_epoch == 0

    run(tmp_path, test)

    async def again(world: World) -> None:
        assert world.home() == 1
        assert len(read_values(world.now())) == world.now().log_end_offset > 3000

    run(tmp_path, again)


def test_start_offset_and_producers_come_along(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log(segment_bytes="20000")
        now_ms = world.clock.wall_ms()

        def produce(log: Log, sequence: int) -> AppendInfo:
            return append(
                log,
                "x" * 1000,
                timestamp=now_ms,
                producer_id=7,
                producer_epoch=1,
                base_sequence=sequence,
            )

        for sequence in range(50):
            produce(log, sequence)
        log.advance_high_watermark(50)
        log.increment_log_start_offset(25)
        world.manager.remove_segments(log.delete_old_segments(2_000))
        world.move(1)
        await settled(world)
        new = world.now()
        assert new is not log
        assert new.log_start_offset == 25
        again = produce(new, 49)
        assert again.duplicate and again.first_offset == 49
        assert min(read_values(new)) == 25

    run(tmp_path, test)


def test_there_and_back(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        fill(world.log(), 100)
        for disk in (1, 0, 1):
            world.move(disk)
            await settled(world)
            assert world.home() == disk
            fill(world.now(), 1)
        assert list(read_values(world.now())) == list(range(103))

    run(tmp_path, test)


def test_the_old_directory_cannot_come_back_beside_the_new_one(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        fill(world.log(), 10)
        world.manager.mover.on_moved = lambda old, new: unsynced.update(world.fs.unsynced)
        world.move(1)
        await settled(world)

    unsynced: set[str] = set()
    run(tmp_path, test)
    assert not unsynced.intersection({str(tmp_path / "disk0"), str(tmp_path / "disk1")})


def test_an_empty_partition_and_one_emptied_on_the_way(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log(segment_bytes="20000")
        world.move(1)
        await settled(world)
        fill(world.now(), 2000)
        world.move(0)
        await asyncio.sleep(0)
        log = world.now()
        log.increment_log_start_offset(2000)
        log.roll()
        world.manager.remove_segments(log.delete_old_segments(2_000))
        await settled(world)
        assert world.home() == 0
        new = world.now()
        assert (new.log_start_offset, new.log_end_offset) == (2000, 2000)
        fill(new, 1)
        assert list(read_values(new)) == [2000]

    run(tmp_path, test)


def test_a_move_is_called_off_by_one_to_where_it_is(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log()
        fill(log, 3000)
        world.move(1)
        world.move(1)  # the same again is no news
        assert len(list(world.manager.mover)) == 1
        world.move(0)
        await until(lambda: not world.names(1))
        assert world.now() is log and log.offline is None
        world.move(0)
        assert not list(world.manager.mover)

    run(tmp_path, test)


def test_a_deleted_partition_takes_its_copy_along(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        fill(world.log(), 3000)
        world.move(1)
        world.manager.delete(TP)
        await until(lambda: not world.names(1))
        assert world.manager.get(TP) is None

    run(tmp_path, test)


def test_a_rename_that_fails_leaves_it_where_it_was(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log()
        fill(log, 100)
        append(log, "y")
        world.fs.stuck = "-delete"
        world.move(1)
        await settled(world)
        assert world.now() is log and log.offline is None
        world.fs.stuck = ""
        await until(lambda: not world.names(1))
        fill(log, 1)
        assert len(read_values(log)) == 102

    run(tmp_path, test)


def test_what_was_not_completed_goes_at_the_next_start(tmp_path: Path) -> None:
    future = tmp_path / "disk1" / f"orders-0.{'a' * 32}-future"

    async def first(world: World) -> None:
        fill(world.log(), 10)

    async def second(world: World) -> None:
        await until(lambda: not future.exists())
        assert world.home() == 0 and len(read_values(world.now())) == 10

    run(tmp_path, first)
    future.mkdir()
    (future / "00000000000000000000.log").write_bytes(b"x")
    run(tmp_path, second, log_segment_delete_delay_ms="0")


def test_refusals(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.log()

        def code(topic_partition: TopicPartition, path: str) -> ErrorCode:
            with pytest.raises(KafkaError) as refused:
                world.manager.move(topic_partition, path)
            return refused.value.code

        assert code(TP, "/elsewhere") is ErrorCode.LOG_DIR_NOT_FOUND
        long = TopicPartition("t" * 249, 0)
        assert code(long, world.paths[1]) is ErrorCode.INVALID_TOPIC_EXCEPTION
        coming = TopicPartition("coming", 0)
        for path in reversed(world.paths):
            assert code(coming, path) is ErrorCode.REPLICA_NOT_AVAILABLE
        world.manager.get_or_create(coming, resolve({}, world.config))
        assert world.manager.directory_of(coming) == world.paths[0], "as was wished for it"
        disk = world.manager.describe()[1]
        world.manager.directory_failed(disk, OSError(errno.EIO, "broken"))
        assert code(TP, world.paths[1]) is ErrorCode.KAFKA_STORAGE_ERROR

    run(tmp_path, test)


def test_a_disk_that_fails_on_the_way_leaves_it_where_it_was(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log()
        fill(log, 3000)
        world.move(1)
        world.manager.directory_failed(world.manager.describe()[1], OSError(errno.EIO, "broken"))
        await settled(world)
        assert world.now() is log and log.offline is None
        fill(log, 1)

    run(tmp_path, test)


def test_what_is_cut_and_written_anew_meanwhile_is_not_copied_as_it_was(tmp_path: Path) -> None:
    """A follower may be moved, and its leader replaced: then its last records go, and others come
    in their place."""

    async def test(world: World) -> None:
        log = world.log(segment_bytes="200000")
        fill(log, 3000)
        world.move(1)
        [move] = world.manager.mover
        await until(lambda: move.future.log_end_offset > 500)
        copied = move.future.log_end_offset
        log.high_watermark = 0
        log.truncate_to(400)
        while log.log_end_offset < copied + 200:
            append(log, f"{log.log_end_offset:06d}" + "y" * 1000)
        log.advance_high_watermark(log.log_end_offset)
        await settled(world)
        new = world.now()
        assert new is not log
        values = read_values(new)
        assert list(values) == list(range(new.log_end_offset))
        assert {value[-1:] for offset, value in values.items() if offset >= 400} == {"y"}

    run(tmp_path, test)
