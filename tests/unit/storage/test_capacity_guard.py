"""The guard over real logs on a disk of which the test says how full it is."""

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kavka.config.broker import BrokerConfig
from kavka.config.topic import TopicConfig, resolve
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TopicPartition
from kavka.storage.capacity_guard import CapacityGuard
from kavka.storage.clock import ManualClock
from kavka.storage.fs import DiskSpace, FileSystem
from kavka.storage.log import Log
from kavka.storage.manager import LogManager
from tests.unit.storage.log_support import append, read_values

MIB = 1 << 20
TOTAL = 100 * MIB


class SmallDisks(FileSystem):
    """Volumes of :data:`TOTAL` bytes: what lies in the test's files, and what others have there."""

    def __init__(self) -> None:
        self.others: dict[str, int] = {}  # bytes, by the end of a path
        self.measured = 0
        self.sick = False

    def disk_space(self, path: str) -> DiskSpace:
        if not Path(path).name.startswith("disk"):
            return DiskSpace(TOTAL, TOTAL)  # a segment asks before it grows
        self.measured += 1
        if self.sick:
            raise OSError(errno.EIO, "sick")
        used = sum(size for end, size in self.others.items() if path.endswith(end))
        for file in Path(path).rglob("*"):
            if file.suffix in (".log", ".deleted") and ".log" in file.name:
                used += file.stat().st_size
        return DiskSpace(TOTAL, TOTAL - used)


class World:
    """A manager of logs, its guard, and the disks."""

    def __init__(self, root: Path, count: int, **settings: str) -> None:
        self.fs = SmallDisks()
        self.clock = ManualClock()
        self.paths = [str(root / f"disk{number}") for number in range(count)]
        self.config = BrokerConfig(
            {
                "log.dirs": ",".join(self.paths),
                "log.cleaner.enable": "false",
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )
        self.logs = LogManager(self.config, self.fs, self.clock)
        self.guard = CapacityGuard(self.config, self.logs, self.fs, self.clock)

    def in_files(self, disk: str) -> int:
        """Bytes in the logs' files, reserved ones among them."""
        directory = next(path for path in self.paths if path.endswith(disk))
        return sum(file.stat().st_size for file in Path(directory).rglob("*.log"))

    def topic(self, **overrides: str) -> TopicConfig:
        return resolve({k.replace("_", "."): v for k, v in overrides.items()}, self.config)

    def log(self, name: str, partition: int = 0, **overrides: str) -> Log:
        return self.logs.get_or_create(TopicPartition(name, partition), self.topic(**overrides))

    def append(self, log: Log, size: int = 1000, timestamp: int = 1_000) -> None:
        """As a producer does, by way of the replica manager."""
        if self.guard.credit <= 0:
            self.guard.admit(log)
        info = append(log, b"x" * size, timestamp=timestamp, now_ms=self.clock.wall_ms())
        log.advance_high_watermark(log.log_end_offset)
        self.guard.credit -= info.size

    def refused(self, log: Log) -> str | None:
        try:
            self.append(log)
        except KafkaError as error:
            assert error.code is ErrorCode.POLICY_VIOLATION
            return error.message
        return None

    def set(self, **settings: str) -> None:
        self.config.set_dynamic_default({k.replace("_", "."): v for k, v in settings.items()})


def run(
    root: Path, test: Callable[[World], Awaitable[None]], count: int = 1, **settings: str
) -> None:
    async def main() -> None:
        world = World(root, count, **settings)
        world.logs.open_directories()
        world.logs.claim(1, "cluster")
        await world.logs.start(lambda _: world.topic())
        try:
            await world.guard.start()
            await test(world)
        finally:
            await world.guard.stop()
            await world.logs.stop()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition()``; for what a thread has to do."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


# -- produce_reject ---------------------------------------------------------------------------


def test_producers_are_refused_at_95_percent_and_not_at_94(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log("orders")
        world.append(log)
        used = world.in_files("disk0")
        world.fs.others["disk0"] = 94 * MIB - used
        await world.guard.check()
        assert world.refused(log) is None
        world.fs.others["disk0"] = 95 * MIB - used
        await world.guard.check()
        message = world.refused(log)
        assert message is not None
        assert world.paths[0] in message and "95.0 %" in message and "percent=95" in message
        assert world.guard.refusals == 1
        assert read_values(log), "consumers go on"

    run(tmp_path, test)


def test_internal_topics_go_on(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.fs.others["disk0"] = 99 * MIB
        await world.guard.check()
        assert world.refused(world.log("orders"))
        assert world.refused(world.log(GROUP_METADATA_TOPIC)) is None

    run(tmp_path, test)


def test_producers_come_back_two_percent_below(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log("orders")
        for others, refused in ((96, True), (94, True), (92, False), (94, False), (95, True)):
            world.fs.others["disk0"] = others * MIB
            await world.guard.check()
            assert bool(world.refused(log)) is refused, others

    run(tmp_path, test)


def test_only_the_directory_that_is_full_refuses(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        first, second = world.log("a"), world.log("b")
        assert world.logs.directory_of(first.topic_partition) == world.paths[0]
        world.fs.others["disk0"] = 96 * MIB
        await world.guard.check()
        assert world.refused(first)
        assert world.refused(second) is None

    run(tmp_path, test, count=2)


def test_it_is_full_before_the_next_measurement(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log("orders")
        world.fs.others["disk0"] = 94 * MIB
        await world.guard.check()
        measured = world.fs.measured
        appended = 0
        while world.refused(log) is None:
            appended += 1000
            assert appended < 2 * MIB, "no measurement, and no end"
        assert world.fs.measured == measured

    run(tmp_path, test)


def test_the_budget_is_that_of_all_directories(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        logs = [world.log(name) for name in "ab"]
        assert len({world.logs.directory_of(log.topic_partition) for log in logs}) == 2
        appended = 0
        while world.refused(logs[appended % 2]) is None:
            appended += 1
        size = sum(log.size for log in logs)
        assert 0.95 * MIB <= size < 1.05 * MIB
        message = world.refused(logs[0])
        assert message and "budget" in message and str(MIB) in message
        world.logs.delete(logs[0].topic_partition)
        await world.guard.check()
        assert world.refused(logs[1]) is None

    run(tmp_path, test, count=2, capacity_budget_bytes=str(MIB))


def test_a_threshold_of_100_refuses_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        world.fs.others["disk0"] = TOTAL
        await world.guard.check()
        assert world.refused(world.log("orders")) is None
        for _ in range(2):
            await world.guard.check()
        assert caplog.text.count("volume of a log directory is full") == 1
        world.fs.others["disk0"] = TOTAL // 2
        await world.guard.check()
        assert "has space again" in caplog.text

    run(tmp_path, test, capacity_threshold_percent="100")


def test_what_waits_for_its_delay_goes_when_space_is_short(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log, other = world.log("orders"), world.log("other")
        world.append(log)
        world.logs.delete(log.topic_partition)
        world.fs.others["disk0"] = 96 * MIB
        assert any("-delete" in path.name for path in Path(world.paths[0]).iterdir())
        await world.guard.check()
        assert world.refused(other)
        await until(lambda: not any("-delete" in p.name for p in Path(world.paths[0]).iterdir()))

    run(tmp_path, test)


def test_a_disk_that_does_not_answer_limits_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        world.fs.others["disk0"] = 99 * MIB
        await world.guard.check()
        world.fs.sick = True
        await world.guard.check()
        assert world.refused(world.log("orders")) is None
        assert "space of a log directory is unknown" in caplog.text

    run(tmp_path, test)


# -- time_base --------------------------------------------------------------------------------


def test_the_oldest_tenth_goes_and_producers_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        old = world.log("old", segment_bytes="10000")
        new = world.log("new", segment_bytes="10000")
        for number in range(400):
            world.append(old, timestamp=1_000 + number)
            world.append(new, timestamp=9_000_000 + number)
        before = old.size + new.size
        world.fs.others["disk0"] = 95 * MIB - world.in_files("disk0") + before // 20
        caplog.set_level(logging.WARNING)
        await world.guard.check()
        freed = before - old.size - new.size
        assert 0.1 * before <= freed <= 0.1 * before + 10_000
        assert new.log_start_offset == 0
        assert old.log_start_offset == old.segments.first.base_offset > 0
        assert world.refused(new) is None
        line = next(line for line in caplog.messages if line.startswith("Records deleted"))
        assert "topic=old partition=0 first_offset=0 last_offset=" in line
        assert world.guard.deleted_bytes == freed
        assert min(read_values(old)) == old.log_start_offset
        names = [path.name for path in Path(old.directory).iterdir()]
        assert not any(name.endswith(".deleted") for name in names), "the space is there at once"

    run(tmp_path, test, capacity_policy="time_base")


def test_two_hundred_partitions_of_one_segment_each(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        logs = [world.log("tiny", number) for number in range(200)]
        world.clock.advance(10)
        for number, log in enumerate(logs):
            world.append(log, timestamp=1_000 + number)
        data = sum(log.size for log in logs)
        world.set(capacity_policy="time_base", capacity_budget_bytes=str(data))
        await world.guard.check()
        emptied = [number for number, log in enumerate(logs) if not log.size]
        assert emptied == list(range(20))
        assert all(log.log_start_offset == 1 for log in logs[:20])
        assert world.refused(logs[0]) is None

    run(tmp_path, test)


def test_state_is_not_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        commits = world.log(GROUP_METADATA_TOPIC)
        table = world.log("table", cleanup_policy="compact")
        orders = world.log("orders")
        for log in (commits, table):
            world.append(log, size=10_000)
        world.append(orders, size=500)
        world.fs.others["disk0"] = 96 * MIB
        await world.guard.check()
        assert commits.size and table.size and orders.size, "it would not have helped"
        message = world.refused(orders)
        assert message and "nothing more" in message
        assert "producers are refused" in caplog.text
        world.fs.others["disk0"] = 90 * MIB
        await world.guard.check()
        assert world.refused(orders) is None

    run(tmp_path, test, capacity_policy="time_base")


def test_what_is_not_committed_stays(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log("orders", segment_bytes="2000")
        for _ in range(10):
            append(log, b"x" * 1000)
        log.advance_high_watermark(4)
        world.set(capacity_budget_bytes="100", capacity_policy="time_base")
        await world.guard.check()
        assert 0 < log.log_start_offset <= 4

    run(tmp_path, test)


# -- settings ---------------------------------------------------------------------------------


def test_the_policy_may_change_while_it_is_full(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        log = world.log("orders", segment_bytes="10000")
        for _ in range(500):
            world.append(log)
        world.fs.others["disk0"] = 95 * MIB - log.size // 2
        await world.guard.check()
        assert world.refused(log)
        world.set(capacity_policy="time_base")
        assert world.refused(log) is None, "at once"
        await until(lambda: log.log_start_offset > 0)
        world.fs.others["disk0"] = 95 * MIB
        await world.guard.check()
        world.set(capacity_policy="produce_reject")
        assert world.refused(log)
        world.set(capacity_threshold_percent="99")
        assert world.refused(log) is None

    run(tmp_path, test)
