"""What is done to logs from time to time: retention, flush.ms, checkpoints, producer expiry."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kavka.config.broker import BrokerConfig
from kavka.config.option import LONG_MAX
from kavka.protocol.errors import KafkaError
from kavka.storage.checkpoints import HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS
from kavka.storage.clock import Clock
from kavka.storage.log_state import LogState
from kavka.storage.retention import SEGMENTS_AT_ONCE

if TYPE_CHECKING:
    from kavka.storage.manager import LogManager

log = logging.getLogger("kavka.storage.upkeep")

FIRST_RUN: Final = 30.0  # seconds after start before most of it begins, as in Kafka
PRODUCER_EXPIRY_INTERVAL: Final = 600.0  # seconds
FLUSH_CHECK: Final = 1.0  # seconds
_AT_ONCE: Final = 20  # logs looked at before the loop gets its turn


class Upkeep:
    """Background work on all logs of a manager, on the loop in small pieces."""

    __slots__ = ("_clock", "_config", "_manager", "_tasks", "_timed")

    def __init__(self, manager: "LogManager", config: BrokerConfig, clock: Clock) -> None:
        self._manager = manager
        self._config = config
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._timed: set[LogState] = set()  # those with flush.ms

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the tasks, at the intervals of the broker's settings."""
        number = self._config.get_int
        checkpoint = self._manager.checkpoint

        def every(ms: float, first: float, work: Callable[[], object]) -> None:
            if ms < LONG_MAX:
                interval = max(ms / 1000, 0.001)
                self._tasks.append(loop.create_task(_repeat(interval, first, work)))

        every(number("log.retention.check.interval.ms"), FIRST_RUN, self.check_retention)
        every(
            number("log.flush.offset.checkpoint.interval.ms"),
            FIRST_RUN,
            lambda: checkpoint(RECOVERY_POINTS),
        )
        every(
            number("log.flush.start.offset.checkpoint.interval.ms"),
            FIRST_RUN,
            lambda: checkpoint(LOG_START_OFFSETS),
        )
        every(
            number("replica.high.watermark.checkpoint.interval.ms"),
            1.0,
            lambda: checkpoint(HIGH_WATERMARKS),
        )
        every(FLUSH_CHECK * 1000, FLUSH_CHECK, self.check_flush)
        every(PRODUCER_EXPIRY_INTERVAL * 1000, FIRST_RUN, self.expire_producers)

    async def end(self) -> None:
        """Stop the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def configured(self, changed: LogState) -> None:
        """A log is new or has other settings."""
        if changed.config.flush_ms < LONG_MAX:
            self._timed.add(changed)
        else:
            self._timed.discard(changed)

    def forget(self, gone: LogState) -> None:
        """A log is deleted."""
        self._timed.discard(gone)

    async def check_retention(self) -> None:
        """Delete what the topics' retention no longer covers, a few logs at a time."""
        manager = self._manager
        now_ms = self._clock.wall_ms()
        for number, each in enumerate([*manager]):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if each.config.compact and manager.cleaner is not None:  # which does it in its turn
                continue
            try:
                # Offline when it was deleted meanwhile, or its disk has failed.
                while each.offline is None:
                    gone = each.delete_old_segments(now_ms, SEGMENTS_AT_ONCE)
                    if not gone:
                        break
                    manager.remove_segments(gone)
                    await asyncio.sleep(0)
            except KafkaError as error:
                log.warning("Retention check failed: %s partition=%s", error, each.topic_partition)

    def check_flush(self) -> None:
        """Flush the logs of topics with ``flush.ms`` that have waited for so long."""
        now = self._clock.monotonic()
        for each in self._timed:
            if each.unflushed and (now - each.last_flushed) * 1000 >= each.config.flush_ms:
                self._manager.flusher.request(each)

    def expire_producers(self) -> None:
        """Forget idempotent producers that have been idle for long."""
        now_ms = self._clock.wall_ms()
        for each in self._manager:
            each.producers.remove_expired(now_ms)


async def _repeat(interval: float, first: float, work: Callable[[], object]) -> None:
    """Do ``work`` (a coroutine function or not) again and again; it handles its own errors."""
    await asyncio.sleep(first)
    while True:
        result = work()
        if asyncio.iscoroutine(result):
            await result
        await asyncio.sleep(interval)
