"""All logs of a broker: directories, start, stop, checkpoints, deletion, failing disks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kavka.config.broker import BrokerConfig
from kavka.config.topic import TopicConfig, resolve
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage.clock import ManualClock
from kavka.storage.fs import FileSystem
from kavka.storage.log import Log
from kavka.storage.logdir import LogDirectory
from kavka.storage.manager import LogDirectoryError, LogManager
from tests.unit.storage.log_support import FaultyFileSystem, append, read_values, topic_config

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
TOPIC_ID = bytes(range(16))


class Disks:
    """Log directories, and managers for them one after the other."""

    def __init__(self, root: Path, count: int = 1, **settings: str) -> None:
        self.paths = [str(root / f"disk{number}") for number in range(count)]
        self.config = BrokerConfig({"log.dirs": ",".join(self.paths), **settings})
        self.clock = ManualClock()
        self.fs: FileSystem = FileSystem()

    def manager(self) -> LogManager:
        manager = LogManager(self.config, self.fs, self.clock)
        manager.open_directories()
        manager.claim(1, "cluster")
        return manager

    def topic(self, _: str = "") -> TopicConfig:
        return resolve({}, self.config)

    def run(self, *steps: Callable[[LogManager], Awaitable[None]], stop: bool = True) -> None:
        """Start a manager, do the steps, and stop it, or leave it as a crash does."""

        async def main() -> None:
            manager = self.manager()
            await manager.start(self.topic)
            try:
                for step in steps:
                    await step(manager)
            finally:
                if stop:
                    await manager.stop()
                else:
                    await crash(manager)

        asyncio.run(main())

    def file(self, name: str, disk: int = 0) -> Path:
        return Path(self.paths[disk]) / name


async def crash(manager: LogManager) -> None:
    """Let go of everything without the work of a clean stop."""
    await manager.upkeep.end()
    await disk_done(manager)
    for log in manager:
        log.abandon()
    for directory in manager.describe():
        directory.unlock()


async def disk_done(manager: LogManager) -> None:
    """Wait until the disk thread has done what it was given."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    manager._disk.submit(lambda: loop.call_soon_threadsafe(done.set_result, None) and None)
    await done


async def flushed(manager: LogManager) -> None:
    """Wait until the flusher has nothing to do."""
    done = asyncio.get_running_loop().create_future()
    manager.flusher.when_idle(lambda: done.set_result(None))
    await done


def step(work: Callable[[LogManager], None]) -> Callable[[LogManager], Awaitable[None]]:
    async def run(manager: LogManager) -> None:
        work(manager)

    return run


def need(manager: LogManager, topic_partition: TopicPartition) -> Log:
    found = manager.get(topic_partition)
    assert found is not None
    return found


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


# -- whose directories ----------------------------------------------------------------------


def test_two_brokers_never_share_a_directory(disks: Disks) -> None:
    first = disks.manager()
    with pytest.raises(LogDirectoryError, match=r"another broker.*disk0.*log\.dirs"):
        disks.manager()
    asyncio.run(first.stop())
    asyncio.run(disks.manager().stop())


def test_when_one_directory_is_taken_the_others_are_let_go(tmp_path: Path) -> None:
    both, second = Disks(tmp_path, 2), Disks(tmp_path, 2)
    second.config = BrokerConfig({"log.dirs": second.paths[1]})
    holder = second.manager()
    with pytest.raises(LogDirectoryError, match="disk1"):
        both.manager()
    asyncio.run(holder.stop())
    asyncio.run(both.manager().stop())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    manager = LogManager(BrokerConfig({"log.dirs": str(tmp_path / "file" / "logs")}))
    with pytest.raises(LogDirectoryError, match=r"cannot use the log directory .*file/logs"):
        manager.open_directories()


def test_directories_know_their_broker_and_cluster(disks: Disks) -> None:
    asyncio.run(disks.manager().stop())
    text = disks.file("meta.properties").read_text()
    assert "broker.id=1\n" in text and "cluster.id=cluster\n" in text
    other = LogManager(BrokerConfig({"log.dirs": disks.paths[0], "broker.id": "7"}))
    with pytest.raises(LogDirectoryError, match=r"broker\.id=7 does not match"):
        other.open_directories()
    again = LogManager(disks.config)
    assert again.open_directories() == 1
    with pytest.raises(LogDirectoryError, match="belongs to cluster"):
        again.claim(1, "another cluster")


# -- start and stop -------------------------------------------------------------------------


def fill(manager: LogManager) -> None:
    log = manager.get_or_create(A0, topic_config(), TOPIC_ID)
    for number in range(10):
        append(log, f"{number}")
    log.advance_high_watermark(8)
    log.increment_log_start_offset(3)
    manager.get_or_create(B0, topic_config())


def check(manager: LogManager) -> None:
    log = need(manager, A0)
    assert (log.log_start_offset, log.high_watermark, log.log_end_offset) == (3, 8, 10)
    assert read_values(log) == {number: f"{number}" for number in range(3, 10)}
    assert log.topic_id == TOPIC_ID
    assert {each.topic_partition for each in manager} == {A0, B0}


def test_a_clean_stop_leaves_everything_for_the_next_start(
    disks: Disks, caplog: pytest.LogCaptureFixture
) -> None:
    disks.run(step(fill))
    assert disks.file(".kafka_cleanshutdown").exists()
    assert disks.file("recovery-point-offset-checkpoint").read_text() == "0\n2\na 0 10\nb 0 0\n"
    assert disks.file("log-start-offset-checkpoint").read_text() == "0\n1\na 0 3\n"
    assert disks.file("replication-offset-checkpoint").read_text() == "0\n2\na 0 8\nb 0 0\n"

    def running(manager: LogManager) -> None:
        assert not disks.file(".kafka_cleanshutdown").exists()
        check(manager)

    with caplog.at_level(logging.INFO, "kavka.storage"):
        disks.run(step(running))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("Logs loaded partitions=2 ")
    assert "segments_recovered=0" in line


def test_after_a_crash_the_rest_is_recovered(
    disks: Disks, caplog: pytest.LogCaptureFixture
) -> None:
    async def checkpointed(manager: LogManager) -> None:
        fill(manager)
        need(manager, A0).flush()
        append(need(manager, A0), "unflushed")
        for name in ("recovery-point", "log-start", "replication"):
            manager.checkpoint(f"{name}-offset-checkpoint")
        await disk_done(manager)

    disks.run(checkpointed, stop=False)
    assert disks.file("recovery-point-offset-checkpoint").read_text() == "0\n2\na 0 10\nb 0 0\n"

    def recovered(manager: LogManager) -> None:
        log = need(manager, A0)
        assert (log.log_start_offset, log.high_watermark, log.log_end_offset) == (3, 8, 11)
        assert log.recovery_point == 11

    with caplog.at_level(logging.INFO, "kavka.storage"):
        disks.run(step(recovered))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "segments_recovered=1 bytes_recovered=77 bytes_cut=0" in line


def test_logs_are_loaded_by_several_threads(tmp_path: Path) -> None:
    disks = Disks(tmp_path, 2, **{"num.recovery.threads.per.data.dir": "3"})

    def many(manager: LogManager) -> None:
        for number in range(20):
            append(manager.get_or_create(TopicPartition("t", number), topic_config()), f"{number}")

    disks.run(step(many))

    def found(manager: LogManager) -> None:
        assert {each.topic_partition.partition: read_values(each)[0] for each in manager} == {
            number: f"{number}" for number in range(20)
        }

    disks.run(step(found))


def test_damaged_checkpoints_only_cost_time(disks: Disks, caplog: pytest.LogCaptureFixture) -> None:
    disks.run(step(fill))
    disks.file("recovery-point-offset-checkpoint").write_text("nonsense")
    disks.run(step(lambda manager: None))
    assert "recovery-point-offset-checkpoint" in caplog.text
    disks.run(step(check))


def test_a_partition_in_two_directories_stops_the_start_and_changes_nothing(
    tmp_path: Path,
) -> None:
    disks = Disks(tmp_path, 2)
    disks.run(step(fill))
    before = disks.file("recovery-point-offset-checkpoint").read_text()
    home = 0 if disks.file("a-0").exists() else 1
    disks.file("a-0", 1 - home).mkdir()
    with pytest.raises(LogDirectoryError, match=r"a-0 is in two log directories"):
        disks.run()
    assert disks.file("recovery-point-offset-checkpoint").read_text() == before
    disks.file("a-0", 1 - home).rmdir()
    disks.run(step(check))


def test_directories_of_others_are_left_alone(
    disks: Disks, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("lost+found", "mine", "a-b"):
        disks.file(name).mkdir(parents=True)
    disks.file("metadata.db").write_text("")
    disks.run(step(lambda manager: None))
    assert disks.file("mine").exists()
    assert caplog.text.count("left alone") == 2


# -- logs -----------------------------------------------------------------------------------


def test_new_partitions_go_where_there_are_fewest(tmp_path: Path) -> None:
    disks = Disks(tmp_path, 3)

    def spread(manager: LogManager) -> None:
        for number in range(7):
            manager.get_or_create(TopicPartition("t", number), topic_config())
        assert [each.partition_count for each in manager.describe()] == [3, 2, 2]
        home = manager.directory_of(TopicPartition("t", 1))
        assert home == disks.paths[1] and manager.has_directory(home)
        assert not manager.has_directory("/elsewhere")
        assert manager.directory_of(A0) is None
        first = manager.describe()[0]
        assert first.total_bytes >= first.usable_bytes > 0

    disks.run(step(spread))


def test_an_earlier_topic_of_the_name_is_not_continued(disks: Disks) -> None:
    def other(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config(), TOPIC_ID)
        assert manager.get_or_create(A0, topic_config(segment_bytes=99), TOPIC_ID) is log
        assert log.config.segment_bytes == 99
        assert manager.get_or_create(A0, topic_config()) is log
        with pytest.raises(KafkaError) as caught:
            manager.get_or_create(A0, topic_config(), bytes(16 * [1]))
        assert caught.value.code is ErrorCode.INCONSISTENT_TOPIC_ID

    disks.run(step(other))


@pytest.mark.parametrize("left", [None, b"", b"\0" * 40])
def test_a_topic_id_lost_with_the_power_is_written_again(disks: Disks, left: bytes | None) -> None:
    path = disks.file("a-0") / "partition.metadata"

    def fill(manager: LogManager) -> None:
        append(manager.get_or_create(A0, topic_config(), TOPIC_ID), "a")

    disks.run(step(fill))
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    disks.run(step(fill))
    assert path.read_bytes() == whole


def test_a_deleted_partition_is_gone_at_once_and_its_files_later(disks: Disks) -> None:
    async def delete(manager: LogManager) -> None:
        fill(manager)
        log = need(manager, A0)
        piece = log.read(3, 1 << 20, 10)
        manager.checkpoint("recovery-point-offset-checkpoint")
        assert manager.delete(A0)
        assert not manager.delete(A0)
        assert manager.get(A0) is None
        assert piece.view().nbytes == piece.size
        with pytest.raises(KafkaError):
            append(log, "late")
        await disk_done(manager)
        text = disks.file("recovery-point-offset-checkpoint").read_text()
        assert text == "0\n1\nb 0 0\n"
        (left,) = disks.file(".").glob("a-0.*-delete")
        assert (left / "00000000000000000000.log").exists()
        again = manager.get_or_create(A0, topic_config())
        assert (again.log_start_offset, again.log_end_offset) == (0, 0)

    disks.run(delete)
    assert list(disks.file(".").glob("*-delete"))
    disks.config = BrokerConfig({"log.dirs": disks.paths[0], "log.segment.delete.delay.ms": "0"})
    disks.run(step(lambda manager: None))
    assert not list(disks.file(".").glob("*-delete"))


def test_a_topic_may_have_its_files_removed_at_once(disks: Disks) -> None:
    async def delete(manager: LogManager) -> None:
        append(manager.get_or_create(A0, topic_config(file_delete_delay_ms=0)), "x")
        manager.delete(A0)
        await disk_done(manager)
        assert not list(disks.file(".").glob("a-0*"))

    disks.run(delete)


# -- background work ------------------------------------------------------------------------


def test_a_roll_has_the_finished_segment_synced(disks: Disks) -> None:
    async def roll(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        append(log, "a")
        log.roll()
        await flushed(manager)
        assert log.recovery_point == 1

    disks.run(roll)


def test_flush_ms_is_looked_after(disks: Disks) -> None:
    async def wait(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        append(log, "a")
        disks.clock.advance(5)
        manager.upkeep.check_flush()
        await flushed(manager)
        assert log.recovery_point == 0
        log.update_config(topic_config(flush_ms=6_000))
        manager.upkeep.check_flush()
        await flushed(manager)
        assert log.recovery_point == 0
        disks.clock.advance(1)
        manager.upkeep.check_flush()
        await flushed(manager)
        assert log.recovery_point == 1

    disks.run(wait)


def test_retention_deletes_and_removes(disks: Disks) -> None:
    async def expire(manager: LogManager) -> None:
        config = topic_config(retention_ms=1_000, file_delete_delay_ms=0)
        logs = [manager.get_or_create(TopicPartition("t", n), config) for n in range(50)]
        for log in logs:
            append(log, "a", timestamp=disks.clock.wall_ms())
            log.advance_high_watermark(1)
        disks.clock.advance(1)
        await manager.upkeep.check_retention()
        assert {log.log_start_offset for log in logs} == {0}
        disks.clock.advance(1)
        await manager.upkeep.check_retention()
        assert {log.log_start_offset for log in logs} == {1}
        await disk_done(manager)
        assert not list(disks.file(".").glob("t-*/*.deleted"))
        assert len(list(disks.file(".").glob("t-*/*.log"))) == 50

    disks.run(expire)


def test_idle_producers_are_forgotten(disks: Disks) -> None:
    def expire(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        now = disks.clock.wall_ms()
        append(log, "a", producer_id=5, producer_epoch=0, base_sequence=0, timestamp=now)
        manager.upkeep.expire_producers()
        assert log.producers.get(5) is not None
        disks.clock.advance(7 * 86_400)
        manager.upkeep.expire_producers()
        assert log.producers.get(5) is None

    disks.run(step(expire))


def test_truncation_removes_files_off_the_loop_and_is_checkpointed(disks: Disks) -> None:
    async def truncate(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        for _ in range(3):
            append(log, "a")
            log.roll()
        await flushed(manager)
        log.truncate_to(1)
        await disk_done(manager)
        assert not list(disks.file("a-0").glob("*.deleted"))
        text = disks.file("recovery-point-offset-checkpoint").read_text()
        assert text == "0\n1\na 0 1\n"

    disks.run(truncate)


# -- disks that fail ------------------------------------------------------------------------


class OneBroken(FaultyFileSystem):
    """Calls fail for paths below one directory only."""

    def __init__(self) -> None:
        super().__init__()
        self.below = ""

    def pwrite(self, file, data, offset) -> None:  # type: ignore[no-untyped-def]
        if self.below and file.path.startswith(self.below):
            super().pwrite(file, data, offset)
        else:
            FileSystem.pwrite(self, file, data, offset)


def test_a_broken_disk_takes_only_its_own_logs_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disks = Disks(tmp_path, 2)
    fs = disks.fs = OneBroken()

    async def fail(manager: LogManager) -> None:
        told: list[LogDirectory] = []
        manager.on_directory_offline = told.append
        logs = [manager.get_or_create(TopicPartition("t", n), topic_config()) for n in range(4)]
        for log in logs:
            append(log, "a")
        fs.below, fs.broken = disks.paths[1], {"pwrite"}
        with pytest.raises(KafkaError):
            append(logs[1], "b")
        assert [bool(log.offline) for log in logs] == [False, True, False, True]
        for log in (logs[0], logs[2]):
            append(log, "b")
        assert [each.path for each in told] == [disks.paths[1]]
        assert [bool(each.offline) for each in manager.describe()] == [False, True]
        new = manager.get_or_create(A0, topic_config())
        assert new.directory.startswith(disks.paths[0])

    disks.run(fail)
    assert disks.file(".kafka_cleanshutdown", 0).exists()
    assert not disks.file(".kafka_cleanshutdown", 1).exists()
    offline = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(offline) == 1 and disks.paths[1] in offline[0].getMessage()
    fs.broken = set()

    def back(manager: LogManager) -> None:
        assert [need(manager, TopicPartition("t", n)).log_end_offset for n in range(4)] == [
            2, 1, 2, 1,
        ]  # fmt: skip

    disks.run(step(back))


def test_with_no_directory_left_nothing_can_be_created(disks: Disks) -> None:
    fs = disks.fs = FaultyFileSystem()

    async def fail(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        append(log, "a")
        fs.broken = {"fdatasync"}
        with pytest.raises(KafkaError):
            log.flush()
        with pytest.raises(KafkaError) as caught:
            manager.get_or_create(B0, topic_config())
        assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        fs.broken = set()

    disks.run(fail)


def test_a_full_disk_takes_nothing_offline(disks: Disks) -> None:
    fs = disks.fs = FaultyFileSystem()

    async def fail(manager: LogManager) -> None:
        log = manager.get_or_create(A0, topic_config())
        append(log, "a")
        fs.full = True
        manager.checkpoint("recovery-point-offset-checkpoint")
        await disk_done(manager)
        await asyncio.sleep(0)
        with pytest.raises(KafkaError):
            append(log, "b" * 100_000)
        assert not log.offline and not manager.describe()[0].offline
        fs.full = False
        append(log, "b" * 100_000)

    disks.run(fail)
    assert disks.file(".kafka_cleanshutdown").exists()


def test_only_a_machine_that_went_down_loses_what_was_not_synced(tmp_path: Path) -> None:
    """A killed process has lost nothing, and a clean stop neither; what a topic has synced at once
    is whole in any case. Until it is dealt with, a start that fails changes nothing."""

    def start(boot: bytes, *, stop: bool, forgive: bool = True) -> tuple[bool, set[TopicPartition]]:
        async def main() -> tuple[bool, set[TopicPartition]]:
            config = BrokerConfig({"log.dirs": str(tmp_path / "disk")})
            manager = LogManager(config, clock=ManualClock(), boot=boot)
            manager.open_directories()
            manager.claim(1, "cluster")
            synced = resolve({"flush.messages": "1"}, config)
            await manager.start(lambda name: synced if name == "b" else resolve({}, config))
            found = manager.lost_memory, manager.whole()
            manager.get_or_create(A0, resolve({}, config), TOPIC_ID)
            manager.get_or_create(B0, synced, TOPIC_ID)
            if forgive:
                await manager.forgive()
                assert not manager.lost_memory
            if stop:
                await manager.stop()
            else:
                await crash(manager)
            return found

        return asyncio.run(main())

    assert start(b"first", stop=False) == (False, set())
    assert start(b"first", stop=False) == (False, {A0, B0})
    assert start(b"second", stop=False, forgive=False) == (True, {B0})
    assert start(b"second", stop=True) == (True, {B0})
    assert start(b"third", stop=False) == (False, {A0, B0})
    assert start(b"third", stop=False) == (False, {A0, B0})
    assert start(b"", stop=False, forgive=False) == (True, {B0}), "not known: the worst is assumed"
