"""A broker with several disks, of which one after the other fails."""

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from kavka.broker.server import Server
from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.messages.k35_describe_log_dirs import (
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.topics import TopicPartition
from kavka.storage.fs import Buffer, File, FileSystem
from tests.wire import WireClient

T = TypeVar("T")


class Disks(FileSystem):
    """Calls for files below ``broken`` fail with EIO."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def _check(self, path: str) -> None:
        if any(path.startswith(each) for each in self.broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def pwrite(self, file: File, data: Buffer, offset: int) -> None:
        self._check(file.path)
        super().pwrite(file, data, offset)

    def fdatasync(self, file: File) -> None:
        self._check(file.path)
        super().fdatasync(file)

    def listdir(self, path: str) -> list[str]:
        self._check(path)
        return super().listdir(path)


class World:
    """A server on this loop, and a blocking client in a thread."""

    def __init__(self, root: Path, fs: Disks, server: Server) -> None:
        self.paths = [str(root / f"disk{number}") for number in range(2)]
        self.fs = fs
        self.server = server
        self._client: WireClient | None = None

    async def ask(self, work: Callable[[WireClient], T]) -> T:
        """Do ``work`` in a thread: the loop must turn meanwhile."""

        def run() -> T:
            if self._client is None:
                self._client = WireClient(self.server.bound[0].port)
            return work(self._client)

        return await asyncio.get_running_loop().run_in_executor(None, run)

    def close(self) -> None:
        if self._client is not None:
            self._client.socket.close()

    async def create(self, name: str, partitions: int) -> None:
        topic = CreatableTopic(name=name, num_partitions=partitions, replication_factor=1)
        request = CreateTopicsRequest(topics=[topic], timeout_ms=10_000)
        response = await self.ask(lambda client: client.ask(request, CreateTopicsResponse, 2))
        assert [result.error_code for result in response.topics] == [0]

    async def produce(self, topic: str, index: int, version: int = 8) -> PartitionProduceResponse:
        batch = build_batch([Record(0, 1_700_000_000_000, None, b"value", ())], base_offset=0)
        partition = PartitionProduceData(index=index, records=memoryview(batch))
        data = TopicProduceData(name=topic, partition_data=[partition])
        request = ProduceRequest(acks=-1, timeout_ms=25_000, topic_data=[data])
        response = await self.ask(lambda client: client.ask(request, ProduceResponse, version))
        [result] = response.responses[0].partition_responses
        return result

    def partition_on(self, topic: str, disk: int) -> int:
        """A partition of ``topic`` on that disk."""
        return next(
            index
            for index in range(4)
            if self.server.broker.logs.directory_of(TopicPartition(topic, index))
            == self.paths[disk]
        )


def run(root: Path, fs: Disks, test: Callable[[World], Awaitable[None]], **settings: str) -> None:
    async def main() -> None:
        paths = ",".join(str(root / f"disk{number}") for number in range(2))
        config = BrokerConfig(
            {
                "log.dirs": paths,
                "listeners": "PLAINTEXT://127.0.0.1:0",
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )
        server = Server(config, fs=fs)
        await server.start()
        world = World(root, fs, server)
        try:
            async with asyncio.timeout(20):
                await test(world)
        finally:
            world.close()
            await server.stop()

    asyncio.run(main())


def test_only_the_partitions_of_the_broken_disk_are_offline(tmp_path: Path) -> None:
    fs = Disks()

    async def test(world: World) -> None:
        await world.create("t", 4)
        whole, broken = world.partition_on("t", 0), world.partition_on("t", 1)
        assert (await world.produce("t", broken)).error_code == 0
        fs.broken = [world.paths[1]]
        failed = await world.produce("t", broken)
        assert failed.error_code == ErrorCode.KAFKA_STORAGE_ERROR
        assert failed.error_message and "Input/output error" in failed.error_message
        assert (await world.produce("t", broken)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        old = await world.produce("t", broken, version=3)
        assert old.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER, "the older code of its kind"
        assert (await world.produce("t", whole)).error_code == 0
        described = await world.ask(
            lambda client: client.ask(
                DescribeLogDirsRequest(topics=None), DescribeLogDirsResponse, 1
            )
        )
        assert {each.log_dir: each.error_code for each in described.results} == {
            world.paths[0]: 0,
            world.paths[1]: ErrorCode.KAFKA_STORAGE_ERROR,
        }
        assert not world.server.failed.is_set()

    run(tmp_path, fs, test)


def test_who_waits_for_the_disk_is_told_at_once(tmp_path: Path) -> None:
    fs = Disks()

    async def test(world: World) -> None:
        await world.create("t", 4)
        index = world.partition_on("t", 1)
        assert (await world.produce("t", index)).error_code == 0
        log = world.server.broker.logs.get(TopicPartition("t", index))
        assert log is not None
        appended = log.log_end_offset
        fs.broken = [log.directory]
        fs.pwrite = FileSystem().pwrite  # type: ignore[method-assign]
        failed = await world.produce("t", index)
        assert log.log_end_offset == appended + 1, "it was written, and could not be synced"
        assert failed.error_code == ErrorCode.KAFKA_STORAGE_ERROR

    run(tmp_path, fs, test, log_flush_interval_messages="1")


def test_without_any_disk_the_broker_says_why_and_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fs = Disks()

    async def test(world: World) -> None:
        await world.create("t", 4)
        indexes = [world.partition_on("t", disk) for disk in range(2)]
        for index in indexes:
            assert (await world.produce("t", index)).error_code == 0
        fs.broken = list(world.paths)
        for index in indexes:
            await world.produce("t", index)
        await asyncio.wait_for(world.server.failed.wait(), 10)

    run(tmp_path, fs, test)
    [last] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    for disk in range(2):
        assert f"{tmp_path}/disk{disk} is offline: Input/output error" in last.getMessage()


def test_a_partition_is_not_begun_again_beside_a_disk_that_is_broken_at_start(
    tmp_path: Path,
) -> None:
    fs = Disks()
    there: list[int] = []

    async def fill(world: World) -> None:
        await world.create("t", 4)
        there.extend(world.partition_on("t", disk) for disk in range(2))
        for index in there:
            assert (await world.produce("t", index)).base_offset == 0

    async def half(world: World) -> None:
        assert (await world.produce("t", there[0])).base_offset == 1
        assert (await world.produce("t", there[1])).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        await world.create("new", 1)
        assert (await world.produce("new", 0)).error_code == 0

    async def back(world: World) -> None:
        assert (await world.produce("t", there[0])).base_offset == 2
        assert (await world.produce("t", there[1])).base_offset == 1, "nothing is lost"

    run(tmp_path, fs, fill)
    fs.broken = [str(tmp_path / "disk1")]
    run(tmp_path, fs, half)
    fs.broken = []
    run(tmp_path, fs, back)
