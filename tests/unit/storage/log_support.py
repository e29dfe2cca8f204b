"""A log in a temporary directory, batches for it, and disks that fail."""

import errno
import os
import random
from collections.abc import Iterator, Sequence

from kavka.config.topic import TOPIC_OPTIONS, TopicConfig
from kavka.protocol.records.batch import (
    BatchHeader,
    Record,
    build_batch,
    iter_batches,
    iter_records,
    read_header,
)
from kavka.protocol.topics import TopicPartition
from kavka.storage.append import AppendInfo, AppendOrigin
from kavka.storage.clock import ManualClock
from kavka.storage.fs import Buffer, File, FileSystem
from kavka.storage.log import Log
from kavka.storage.open_files import OpenFiles
from kavka.storage.recovery import Loaded, load_log

TP = TopicPartition("orders", 0)
DAY_MS = 86_400_000


def topic_config(**settings: object) -> TopicConfig:
    """Kafka's defaults but for ``settings``, named with underscores."""
    values = {name: option.default for name, option in TOPIC_OPTIONS.items()}
    for name, value in settings.items():
        key = name.replace("_", ".")
        assert key in values, key
        values[key] = value  # type: ignore[assignment]
    return TopicConfig(values)


def batch(
    *values: str | bytes,
    timestamp: int | Sequence[int] = 1_000,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    codec: int = 0,
    base_offset: int = 0,
    leader_epoch: int = -1,
) -> tuple[BatchHeader, memoryview]:
    """A client's batch with one record for each of ``values``, as validation hands it on."""
    times = [timestamp] * len(values) if isinstance(timestamp, int) else timestamp
    data = bytearray(
        build_batch(
            [
                Record(
                    base_offset + index,
                    times[index],
                    None,
                    value.encode() if isinstance(value, str) else value,
                )
                for index, value in enumerate(values)
            ],
            base_offset=base_offset,
            codec=codec,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            transactional=transactional,
            leader_epoch=leader_epoch,
        )
    )
    view = memoryview(data)
    return read_header(view), view


class Place:
    """A directory that a log lives in, and the world around it."""

    def __init__(self, directory: str, fs: FileSystem | None = None, **settings: object) -> None:
        self.directory = directory
        self.fs = fs or FileSystem()
        self.clock = ManualClock()
        self.config = topic_config(**settings)
        self.open_files = OpenFiles(64)

    def load(
        self,
        *,
        clean: bool = True,
        recovery_point: int = 0,
        log_start_offset: int = 0,
        topic_id: bytes = bytes(16),
    ) -> Loaded:
        return load_log(
            TP,
            self.directory,
            self.config,
            fs=self.fs,
            clock=self.clock,
            rng=random.Random(1),
            open_files=self.open_files,
            producer_expiration_ms=DAY_MS,
            clean=clean,
            recovery_point=recovery_point,
            log_start_offset=log_start_offset,
            topic_id=topic_id,
        )

    def open(
        self, *, clean: bool = True, recovery_point: int = 0, log_start_offset: int = 0
    ) -> Log:
        return self.load(
            clean=clean, recovery_point=recovery_point, log_start_offset=log_start_offset
        ).log

    def files(self, suffix: str = "") -> list[str]:
        return [name for name in self.fs.listdir(self.directory) if name.endswith(suffix)]

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)


def append(
    log: Log,
    *values: str | bytes,
    epoch: int = 0,
    now_ms: int = 1_000,
    origin: AppendOrigin = AppendOrigin.CLIENT,
    **fields: object,
) -> AppendInfo:
    """Append one batch as leader."""
    return log.append_as_leader([batch(*values, **fields)], epoch, now_ms, origin)  # type: ignore[arg-type]


def records(data: Buffer) -> Iterator[Record]:
    """The records of all whole batches in ``data``."""
    for position, _, _ in iter_batches(data):
        yield from iter_records(data, position, read_header(data, position), 1 << 24)


def read_values(
    log: Log, offset: int | None = None, limit: int = 1 << 20, bound: int | None = None
) -> dict[int, str]:
    """Offset → value of everything from ``offset`` up to ``bound``, fetched as a consumer does."""
    found: dict[int, str] = {}
    offset = log.log_start_offset if offset is None else offset
    bound = log.log_end_offset if bound is None else bound
    while offset < bound:
        data = log.read(offset, limit, bound).view()
        got = [record for record in records(data) if record.offset >= offset]
        if not got:
            break
        for record in got:
            assert record.value is not None
            found[record.offset] = record.value.decode()
        offset = got[-1].offset + 1
    return found


class FaultyFileSystem(FileSystem):
    """A real file system on which calls can be made to fail.

    ``full`` refuses whatever needs new space; ``broken`` names methods that fail with EIO.
    """

    def __init__(self) -> None:
        self.full = False
        self.broken: set[str] = set()
        self.short_write: int | None = None  # bytes of the next write that still fit

    def _use(self, name: str, needs_space: bool = False) -> None:
        if name in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if needs_space and self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def allocate(self, file: File, offset: int, length: int) -> None:
        self._use("allocate", needs_space=True)
        super().allocate(file, offset, length)

    def pwrite(self, file: File, data: Buffer, offset: int) -> None:
        if self.short_write is not None:
            fits, self.short_write = self.short_write, None
            super().pwrite(file, memoryview(data)[:fits], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._use("pwrite", needs_space=offset + len(data) > self.file_size(file))
        super().pwrite(file, data, offset)

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        self._use("create" if create else "open", needs_space=create and not self.exists(path))
        return super().open(path, write=write, create=create, exclusive=exclusive)

    def fdatasync(self, file: File) -> None:
        self._use("fdatasync")
        super().fdatasync(file)

    def rename(self, source: str, target: str) -> None:
        self._use("rename")
        super().rename(source, target)

    def pread(self, file: File, size: int, offset: int) -> bytes:
        self._use("pread")
        return super().pread(file, size, offset)
