"""Acts before a disk is full: measures, refuses producers or deletes the oldest records.

Usage of a log directory is what the file system says (``statvfs``, in a thread because a sick
one can block), at short intervals, and between two measurements what the logs have allocated
since. Whoever appends takes the size off :attr:`CapacityGuard.credit`; when that is used up the
numbers are looked at again at once. So the cost on the hot path is one comparison, and a fast
producer cannot run past the threshold between two measurements.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import INTERNAL_TOPICS, TopicPartition
from kavka.storage.capacity import (
    Capacity,
    CapacityRules,
    Gauge,
    Old,
    Policy,
    Trim,
    Usage,
    can_help,
    credit,
    to_free,
)
from kavka.storage.clock import Clock
from kavka.storage.fs import DiskSpace, FileSystem
from kavka.storage.log import Log, SegmentDeletion
from kavka.storage.logdir import LogDirectory
from kavka.storage.manager import LogManager
from kavka.storage.segment_file import KEPT_FREE

log = logging.getLogger("kavka.storage.capacity")

SETTINGS: Final = frozenset(
    {"capacity.threshold.percent", "capacity.policy", "capacity.budget.bytes"}
)
CHECK_INTERVAL: Final = 1.0  # seconds between two measurements …
FULL_INTERVAL: Final = 0.1  # … and when something is full
_NO_SPACE: Final = KEPT_FREE + (1 << 16)  # bytes; a volume with less counts as full
_NEAR: Final = 8  # allocations are followed when less than this part of a volume is left
_AT_ONCE: Final = 20  # logs looked at before the loop gets its turn


class CapacityGuard(Capacity):
    """Watches all log directories and the budget of a broker. For the event loop."""

    __slots__ = (
        "_allocated",
        "_budget",
        "_checking",
        "_clock",
        "_config",
        "_directories",
        "_fs",
        "_logs",
        "_no_space",
        "_rules",
        "_running",
        "_stopped",
        "_wake",
        "deleted_bytes",
        "deleted_segments",
        "on_deleted",
        "refusals",
    )

    def __init__(
        self, config: BrokerConfig, logs: LogManager, fs: FileSystem, clock: Clock
    ) -> None:
        super().__init__()
        self._config = config
        self._logs = logs
        self._fs = fs
        self._clock = clock
        self._budget = Gauge("capacity.budget.bytes", watched_at_100=True)
        self._directories: dict[str, Gauge] = {}  # by path
        # Bytes of each when it was last looked at; only of those that may soon be full: adding
        # up ten thousand logs takes some milliseconds.
        self._allocated: dict[str, int] = {}
        self._checking = asyncio.Lock()
        self._wake: asyncio.Event | None = None
        self._running: asyncio.Task[None] | None = None
        self._stopped = False
        self._no_space: set[str] = set()  # paths of which it has been told
        self._rules = self._read_rules()
        self.refusals = 0
        """Appends refused."""
        self.deleted_segments = 0
        """Segments that time_base has deleted."""
        self.deleted_bytes = 0
        """Bytes of records in them."""
        self.on_deleted: Callable[[TopicPartition, Sequence[SegmentDeletion]], None] | None = None
        """Told of what time_base deletes, one partition at a time."""

    def _read_rules(self) -> CapacityRules:
        config = self._config
        return CapacityRules(
            config.get_int("capacity.threshold.percent"),
            Policy(config.get_str("capacity.policy")),
            config.get_int("capacity.budget.bytes"),
        )

    # -- start and stop -----------------------------------------------------------------------

    async def start(self) -> None:
        """Measure for the first time, then go on measuring. The logs must be loaded."""
        names = []
        for directory in self._logs.describe():
            gauge = Gauge(f"log directory {directory.path}", watched_at_100=False)
            self._directories[directory.path] = gauge
            names.append(directory.path)
        self._budget.name = f"capacity.budget.bytes of {', '.join(names)}"
        self._wake = asyncio.Event()
        self._config.on_change(SETTINGS, self._settings_changed)
        await self.check()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop measuring; nothing is refused or deleted any more."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        assert self._wake is not None
        while not self._stopped:
            interval = CHECK_INTERVAL
            if any(gauge.full and not gauge.stuck for gauge in self._gauges()):
                interval = FULL_INTERVAL
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.check()
            except Exception:
                # Whatever it is, a broker whose guard is gone would run into a full disk.
                log.exception("The capacity check failed")

    def _settings_changed(self, names: frozenset[str]) -> None:
        if self._stopped:
            return
        self._rules = self._read_rules()
        for gauge in self._gauges():
            gauge.stuck = False
        self._judge(anew=True)
        self._look_soon()

    def _look_soon(self) -> None:
        if self._wake is not None:
            self._wake.set()

    # -- who appends --------------------------------------------------------------------------

    def admit(self, log: Log) -> None:
        """Let a client's append to ``log`` pass, or raise KafkaError POLICY_VIOLATION."""
        if not self._full or self.credit <= -self._finest:
            self._judge()
            self._look_soon()
        full = self._refusing(log)
        if full is not None and log.topic_partition.topic not in INTERNAL_TOPICS:
            self.refusals += 1
            raise KafkaError(ErrorCode.POLICY_VIOLATION, full.refusal(self._rules))

    def _refusing(self, log: Log) -> Gauge | None:
        rejects = self._rules.policy is Policy.PRODUCE_REJECT
        budget = self._budget
        if budget.full and (rejects or budget.stuck):
            return budget
        path = self._logs.directory_of(log.topic_partition)
        gauge = None if path is None else self._directories.get(path)
        if gauge is not None and gauge.full and (rejects or gauge.stuck):
            return gauge
        return None

    @property
    def _full(self) -> bool:
        return any(gauge.full for gauge in self._gauges())

    @property
    def _finest(self) -> int:
        return min((gauge.finest for gauge in self._gauges() if gauge.total), default=0)

    def _gauges(self) -> Iterator[Gauge]:
        yield self._budget
        yield from self._directories.values()

    # -- measuring ----------------------------------------------------------------------------

    async def check(self) -> None:
        """Measure, judge, and delete what time_base asks for."""
        async with self._checking:  # two at a time would delete two tenths
            await self._measure()
            while self._rules.policy is Policy.TIME_BASE:
                full = next((each for each in self._gauges() if each.full and not each.stuck), None)
                if full is None or not await self._trim(full):
                    return
                await self._measure()

    async def _measure(self) -> None:
        """Ask the file systems, in a thread."""
        online = [each for each in self._logs.describe() if each.offline is None]
        paths = [each.path for each in online]
        loop = asyncio.get_running_loop()
        spaces = await loop.run_in_executor(None, self._ask, paths)
        for gauge in self._directories.values():
            gauge.total = 0  # what is offline limits nothing
        for directory, space in zip(online, spaces, strict=True):
            if space is not None:
                gauge = self._directories[directory.path]
                gauge.used, gauge.total = space.total - space.free, space.total
                self._allocated.pop(directory.path, None)
                if gauge.room(self._rules) < gauge.total // _NEAR:
                    self._allocated[directory.path] = _allocated(directory)
                self._tell_of_no_space(directory.path, space.free)
        self._judge()
        if self._full or self._no_space:
            self._logs.remover.hurry()

    def _tell_of_no_space(self, path: str, free: int) -> None:
        """Say once that a volume is full in spite of all: the guard is off, or others fill it."""
        if free < _NO_SPACE and path not in self._no_space:
            self._no_space.add(path)
            log.error(
                "The volume of a log directory is full, what no longer fits is answered with "
                "KAFKA_STORAGE_ERROR path=%s free_bytes=%d",
                path,
                free,
            )
        elif free >= 2 * _NO_SPACE and path in self._no_space:
            self._no_space.remove(path)
            log.warning(
                "The volume of a log directory has space again path=%s free_bytes=%d", path, free
            )

    def _ask(self, paths: list[str]) -> list[DiskSpace | None]:
        spaces: list[DiskSpace | None] = []
        for path in paths:
            try:
                spaces.append(self._fs.disk_space(path))
            except OSError as error:
                log.warning("The space of a log directory is unknown: %s path=%s", error, path)
                spaces.append(None)
        return spaces

    def _judge(self, *, anew: bool = False) -> None:
        """Say what is full by what was measured and what has been allocated since."""
        rules = self._rules
        total = 0
        for directory in self._logs.describe():
            gauge = self._directories.get(directory.path)
            if rules.budget_bytes:
                total += sum(each.size for each in directory.logs)
            if gauge is None:
                continue
            used = gauge.used
            before = self._allocated.get(directory.path)
            if before is not None:
                self._allocated[directory.path] = allocated = _allocated(directory)
                used += max(allocated - before, 0)
            self._update(gauge, Usage(used, gauge.total), anew)
        self._update(self._budget, Usage(total, rules.budget_bytes), anew)
        self.credit = credit(self._gauges(), rules)

    def _update(self, gauge: Gauge, usage: Usage, anew: bool) -> None:
        rules = self._rules
        if not gauge.update(usage, rules, anew=anew):
            return
        facts = (
            f"used_bytes={gauge.used} total_bytes={gauge.total} percent={gauge.percent:.1f} "
            f"threshold={rules.threshold_percent} policy={rules.policy}"
        )
        if gauge.full:
            what = "producers are refused"
            if rules.policy is Policy.TIME_BASE:
                what = "the oldest records are deleted"
            log.warning("Capacity threshold reached, %s: %s %s", what, gauge.name, facts)
        else:
            log.warning("Usage is below the capacity threshold again: %s %s", gauge.name, facts)

    # -- deleting -----------------------------------------------------------------------------

    def _logs_of(self, gauge: Gauge) -> list[Log]:
        if gauge is self._budget:
            return list(self._logs)
        return [
            each
            for directory in self._logs.describe()
            if self._directories.get(directory.path) is gauge
            for each in directory.logs
        ]

    async def _trim(self, gauge: Gauge) -> bool:
        """Delete the oldest tenth of the records that fill ``gauge``; whether anything went."""
        candidates = self._logs_of(gauge)
        data = sum(each.size for each in candidates)
        deletable = sum(each.size for each in candidates if _may_lose(each))
        trim = Trim()
        if can_help(gauge, deletable, self._rules):
            for number, each in enumerate(candidates):
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
                if _may_lose(each):
                    trim.offer(each, _old_segments(each))
        freed = 0
        deletions: list[SegmentDeletion] = []
        for chosen, count in trim.take(to_free(data)).items():
            assert isinstance(chosen, Log)
            gone = self._delete(chosen, count)
            freed += sum(one.size for one in gone)
            deletions += gone
            await asyncio.sleep(0)
        if not deletions:
            gauge.stuck = gauge.full
            if gauge.stuck:
                log.error(
                    "Nothing more can be deleted, producers are refused: %s used_bytes=%d "
                    "total_bytes=%d deletable_bytes=%d",
                    gauge.name,
                    gauge.used,
                    gauge.total,
                    deletable,
                )
            return False
        # Not after file.delete.delay.ms: the space is wanted now, and who reads holds the file.
        await asyncio.get_running_loop().run_in_executor(None, self._remove, deletions)
        log.warning(
            "Oldest records deleted by capacity.policy=time_base: %s segments=%d bytes=%d "
            "data_bytes=%d",
            gauge.name,
            len(deletions),
            freed,
            data,
        )
        return True

    def _delete(self, each: Log, count: int) -> list[SegmentDeletion]:
        if each.offline is not None:  # deleted meanwhile, or its disk has failed
            return []
        cleaner = self._logs.cleaner
        if cleaner is not None and each.config.compact:
            cleaner.on_truncated(each)
        try:
            gone = each.delete_oldest(count, "capacity.policy=time_base", self._clock.wall_ms())
        except KafkaError as error:
            log.warning("Not deleted by capacity.policy: %s", error)
            return []
        topic, partition = each.topic_partition
        for deletion in gone:
            log.warning(
                "Records deleted by capacity.policy=time_base topic=%s partition=%d "
                "first_offset=%d last_offset=%d bytes=%d",
                topic,
                partition,
                deletion.base_offset,
                deletion.next_offset - 1,
                deletion.size,
            )
            self.deleted_segments += 1
            self.deleted_bytes += deletion.size
        if gone and self.on_deleted is not None:
            self.on_deleted(each.topic_partition, gone)
        return gone

    def _remove(self, deletions: list[SegmentDeletion]) -> None:
        for deletion in deletions:
            try:
                deletion.run(self._fs)
            except OSError as error:
                log.warning("Not removed, the next start tries again: %s", error)


def _allocated(directory: LogDirectory) -> int:
    return sum(each.allocated for each in directory.logs)


def _may_lose(each: Log) -> bool:
    """Whether records of a log are history, which may go, and not state, which may not."""
    return (
        each.offline is None
        and each.topic_partition.topic not in INTERNAL_TOPICS
        and "delete" in each.config.cleanup_policy
    )


def _old_segments(each: Log) -> Iterator[Old]:
    """The segments that may go, oldest first; the active one, too, when all in it is committed."""
    segments = each.segments
    last = len(segments) - 1
    for index in range(len(segments)):
        segment = segments[index]
        end = each.log_end_offset if index == last else segments[index + 1].base_offset
        if not segment.size or each.high_watermark < end:
            return
        try:
            timestamp = segment.largest_timestamp
        except (OSError, KafkaError) as error:
            log.warning("Left alone by capacity.policy: %s", error)
            return
        yield Old(timestamp, segment.size)
