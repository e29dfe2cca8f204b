"""Logs in a :class:`LogManager` that live through crashes.

A :class:`World` plays one random schedule, fully determined by its seed: threads are queues whose
jobs run when the schedule says so, the event loop's time stands still. A crash is a power loss or
the death of the process, between two steps or at any call of the file system, also in the middle
of the recovery from the crash before.
"""

import asyncio
import errno
import random
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

from kavka.config.broker import BrokerConfig
from kavka.config.topic import TopicConfig
from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import read_header, stamp
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import TopicPartition
from kavka.storage.append import AppendOrigin
from kavka.storage.checkpoints import HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS
from kavka.storage.clock import ManualClock
from kavka.storage.log import Log
from kavka.storage.manager import LogDirectoryError, LogManager
from tests.unit.storage.log_support import batch, topic_config
from tests.unit.storage.power_loss_check import History, Wrote, check_log
from tests.unit.storage.power_loss_fs import Killed, PowerLossFileSystem

SYNCED, LAZY = TopicPartition("synced", 0), TopicPartition("lazy", 0)


class Queue:
    """In the place of Workers: jobs wait until somebody runs them, in order if there is one
    thread."""

    all: "list[Queue]"

    def __init__(self, name: str, limit: int) -> None:
        self.one = limit == 1
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def run_one(self, rng: random.Random) -> None:
        self.jobs.pop(0 if self.one else rng.randrange(len(self.jobs)))()

    def stop(self) -> None:
        self.wait()

    def wait(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


class Inline(ThreadPoolExecutor):
    """Runs at once what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class World:
    """One schedule."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = ManualClock()
        self.loop = asyncio.SelectorEventLoop()
        self.loop.time = lambda: 0.0  # type: ignore[method-assign]
        self.loop.set_default_executor(Inline())
        self.loop.set_exception_handler(self._in_callback)
        self.trouble: BaseException | None = None
        self.loose = rng.random() < 0.2  # names of one directory survive in any order
        self.fs = PowerLossFileSystem(self.clock.wall_ms)
        self.fs.on_kill = random.Random(seed)
        self.config = BrokerConfig({"log.dirs": "/data", "log.cleaner.enable": "false"})
        segment_bytes = rng.choice((4_000, 12_000, 40_000, 300_000))
        common: dict[str, object] = {
            "segment_bytes": segment_bytes,
            "index_interval_bytes": rng.choice((60, 200, 4096)),
            "file_delete_delay_ms": 0,
            "retention_ms": -1,
        }
        self.configs = {
            SYNCED.topic: topic_config(flush_messages=rng.choice((1, 1, 1, 5)), **common),
            LAZY.topic: topic_config(**common),
        }
        self.histories = {tp: History([], 0, 0, 0) for tp in (SYNCED, LAZY)}
        self.epoch = 0
        self.queues: list[Queue] = []
        self.steps: list[str] = []
        self.crashes = 0
        self.power_losses = 0
        self.cuts = 0
        self.failed_starts = 0
        self.manager: LogManager

    # -- running it ---------------------------------------------------------------------------

    def play(self, length: int) -> None:
        try:
            with mock.patch("kavka.storage.manager.Workers", self._queue):
                self.start()
                for _ in range(length):
                    self.clock.advance(self.rng.choice((0.001, 0.001, 5.0)))
                    self.step()
                self.end()
        finally:
            self.abandon()
            self.loop.close()

    def _queue(self, name: str, limit: int) -> Queue:
        made = Queue(name, limit)
        self.queues.append(made)
        return made

    def _in_callback(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.trouble = error or AssertionError(context["message"])

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)
        if self.trouble is not None:
            raise self.trouble
        if self.fs.dead:
            raise Killed

    def turn(self) -> None:
        """Let the loop do what is due."""
        for _ in range(4):
            self.run(asyncio.sleep(0))

    def drain(self) -> None:
        """Let all threads finish."""
        self.turn()
        while any(queue.jobs for queue in self.queues):
            for queue in self.queues:
                while queue.jobs:
                    queue.run_one(self.rng)
                    self.turn()

    def note(self, text: str) -> None:
        self.steps.append(text)

    # -- start and end of a broker ------------------------------------------------------------

    def start(self) -> None:
        """Start, crash at it, start again … until it stands; then look at everything."""
        rng = self.rng
        tries = self.failed_starts
        while True:
            assert self.failed_starts < tries + 30, "it does not start any more"
            if self.crashes and rng.random() < 0.4:
                self.fs.kill_at = self.fs.calls + rng.choice((10, 60, 200)) * rng.randint(1, 5)
                self.fs.kill_at -= rng.randint(0, 9)
            elif self.crashes and rng.random() < 0.1:
                self.fail_soon(200)
            self.queues = []
            self.manager = LogManager(
                self.config, self.fs, self.clock, rng=random.Random(rng.random())
            )
            try:
                self.manager.open_directories()
                self.manager.claim(1, "cluster")
                self.run(self.manager.start(self.topic))
                self.require_online()
                for tp in self.histories:
                    log = self.manager.get_or_create(tp, self.configs[tp.topic])
                    log.leader_epochs.assign(self.epoch, log.log_end_offset)
                self.turn()
                self.require_online()
                self.fs.kill_at = None
                self.fs.failures.clear()
            except Killed:
                self.failed_starts += 1
                self.crash()
                continue
            except (OSError, KafkaError, LogDirectoryError) as error:
                self.note(f"start failed: {error}")
                self.failed_starts += 1
                self.fs.failures.clear()
                self.abandon()
                self.fs.restart()
                continue
            break
        for tp in self.histories:
            self.verify(tp)

    def require_online(self) -> None:
        if any(directory.offline for directory in self.manager.describe()):
            raise OSError("the directory is offline")

    def topic(self, name: str) -> TopicConfig:
        return self.configs[name]

    def log(self, tp: TopicPartition) -> Log:
        found = self.manager.get(tp)
        assert found is not None
        return found

    def abandon(self) -> None:
        """The process is gone; only the loop has to be cleared for the next."""
        self.fs.dead = True
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.queues = []
        self.trouble = None
        self.fs.dead = False

    def crash(self) -> None:
        """The process dies, or the power fails."""
        self.crashes += 1
        self.abandon()
        if self.rng.random() < 0.6:
            self.power_losses += 1
            self.note("power loss")
            on_kill = self.fs.on_kill
            self.fs = self.fs.crash(self.rng, ordered=not self.loose)
            self.fs.on_kill = on_kill
            for history in self.histories.values():
                history.kept = min(history.kept, history.promised)
        else:
            self.note("process killed")
            self.fs.restart()

    def restart(self) -> None:
        """A clean stop, unless something fails at it, and a start."""
        self.drain()
        self.run(self.manager.stop())
        self.fs.restart()  # what was to happen to the process must not happen to the next look
        clean = self.fs.exists("/data/.kafka_cleanshutdown")
        self.abandon()
        for tp, history in self.histories.items():
            log = self.log(tp)
            if clean:  # all is promised
                assert history.end == log.log_end_offset
                history.promised = history.kept = history.end
        if self.rng.random() < 0.3:
            self.crash()
        else:
            self.fs.restart()
        self.start()

    def end(self) -> None:
        """Everything can be written to, read and loaded again."""
        self.fs.failures.clear()
        self.fs.kill_at = None
        self.drain()  # what threads have met is told
        if any(self.log(tp).offline is not None for tp in self.histories):
            self.note("end after an error")
            self.crash()
            self.start()
        for tp in self.histories:
            self.append(tp)
            self.flush(tp)
        self.drain()
        for tp, history in self.histories.items():
            assert history.end == self.log(tp).log_end_offset
            assert history.end in (history.promised, history.promises_from)
        self.restart()

    # -- steps --------------------------------------------------------------------------------

    def step(self) -> None:
        rng = self.rng
        tp = rng.choice((SYNCED, LAZY))
        try:
            if self.log(tp).offline is not None and rng.random() < 0.5:
                self.note("crash after an error")
                raise Killed
            weights = [weight for weight, _ in STEPS]
            act = rng.choices([does for _, does in STEPS], weights)[0]
            self.note(f"{act.__name__} {tp.topic}")
            try:
                act(self, tp)
            except KafkaError as error:
                self.note(f"  refused: {error}")
            self.observe(tp)
        except Killed:
            self.note("killed")
            self.crash()
            self.start()

    def observe(self, tp: TopicPartition) -> None:
        """After a step that came to its end."""
        log, history = self.log(tp), self.histories[tp]
        if log.offline is None:
            assert log.log_end_offset == history.end, (log.log_end_offset, history.end)

    def append(self, tp: TopicPartition) -> None:
        """One append of one or several batches, by one of a few producers or by none."""
        rng, log = self.rng, self.log(tp)
        producer_id = rng.choice((-1, -1, -1, 7, 8, 9, 10))
        transactional = producer_id >= 9
        entry = log.producers.get(producer_id) if producer_id >= 0 else None
        epoch, sequence = (entry.epoch, entry.last_sequence + 1) if entry else (0, 0)
        if entry and entry.txn_first_offset < 0 and rng.random() < 0.1:
            epoch, sequence = epoch + 1, 0
        made, added = [], []
        offset = log.log_end_offset
        for _ in range(rng.choice((1, 1, 1, 1, 2, 5))):
            count = rng.randint(1, 3)
            size = rng.choice((1, 1, 60, 300, 900)) if rng.random() < 0.9 else 1_500
            values = [rng.randbytes(size) for _ in range(count)]
            if producer_id < 0 and rng.random() < 0.5:
                # Ends of batches that fall together with ends of pages are the worst.
                count = 1
                _, empty = batch(b"", timestamp=self.clock.wall_ms())
                values = [rng.randbytes(rng.choice((512, 1024)) - len(empty) - 2)]
            header, view = batch(
                *values,
                timestamp=self.clock.wall_ms() - rng.choice((0, 0, 3)),
                producer_id=producer_id,
                producer_epoch=epoch if producer_id >= 0 else -1,
                base_sequence=sequence if producer_id >= 0 else -1,
                transactional=transactional,
            )
            sequence += count
            stamp(view, 0, offset, self.epoch)
            made.append((header, view))
            added.append(Wrote(offset, offset + count, bytes(view)))
            offset += count
        if sum(len(one.data) for one in added) > log.config.segment_bytes:
            return
        self._append(
            tp, added, lambda: log.append_as_leader(made, self.epoch, self.clock.wall_ms())
        )

    def _append(self, tp: TopicPartition, added: list[Wrote], does: Callable[[], object]) -> None:
        log, history = self.log(tp), self.histories[tp]
        history.attempt(added)
        try:
            does()
        except KafkaError:
            if log.offline is None:  # nothing was written; else nobody knows
                history.undo(added)
            raise
        assert log.log_end_offset == added[-1].next
        history.end = history.kept = added[-1].next
        if log.config.flush_messages >= 1 << 40:
            log.advance_high_watermark(log.log_end_offset)
        elif log.unflushed >= log.config.flush_messages:
            self.flush(tp)

    def append_many(self, tp: TopicPartition) -> None:
        for _ in range(self.rng.randint(5, 40)):
            self.append(tp)

    def end_transaction(self, tp: TopicPartition) -> None:
        rng, log = self.rng, self.log(tp)
        open_ones = [entry for entry in log.producers.entries() if entry.txn_first_offset >= 0]
        if not open_ones:
            return
        entry = rng.choice(open_ones)
        marker = EndTxnMarker(rng.choice((ControlType.ABORT, ControlType.COMMIT)), 0)
        data = bytearray(
            build_end_txn_marker(
                marker,
                producer_id=entry.producer_id,
                producer_epoch=entry.epoch + rng.choice((0, 0, 1)),
                timestamp=self.clock.wall_ms(),
            )
        )
        offset = log.log_end_offset
        view = memoryview(data)
        stamp(view, 0, offset, self.epoch)
        pair = (read_header(view), view)
        self._append(
            tp,
            [Wrote(offset, offset + 1, bytes(data))],
            lambda: log.append_as_leader(
                [pair], self.epoch, self.clock.wall_ms(), AppendOrigin.COORDINATOR
            ),
        )

    def follow(self, tp: TopicPartition) -> None:
        """Batches come from a leader."""
        rng, log = self.rng, self.log(tp)
        offset, added = log.log_end_offset, []
        for _ in range(rng.randint(1, 4)):
            count = rng.randint(1, 3)
            values = [rng.randbytes(rng.choice((5, 200))) for _ in range(count)]
            _, view = batch(*values, timestamp=self.clock.wall_ms(), base_offset=offset)
            stamp(view, 0, offset, self.epoch)
            added.append(Wrote(offset, offset + count, bytes(view)))
            offset += count
        data = memoryview(b"".join(one.data for one in added))
        self._append(tp, added, lambda: log.append_as_follower(data))

    def flush(self, tp: TopicPartition) -> None:
        log, history = self.log(tp), self.histories[tp]

        def flushed() -> None:
            if log is not self.manager.get(tp) or log.offline is not None:
                return
            if log.recovery_point > history.promises_from:
                history.promised = max(history.promised, log.recovery_point)
            if log.config.flush_messages < 1 << 40:
                log.advance_high_watermark(
                    min(log.log_end_offset, log.recovery_point + log.config.flush_messages - 1)
                )

        self.manager.flusher.request(log, flushed)

    def new_epoch(self, tp: TopicPartition) -> None:
        self._elect()

    def work(self, tp: TopicPartition) -> None:
        """A thread does a job or two."""
        self.turn()
        for _ in range(self.rng.randint(1, 4)):
            waiting = [queue for queue in self.queues if queue.jobs]
            if waiting:
                self.rng.choice(waiting).run_one(self.rng)
                self.turn()

    def work_all(self, tp: TopicPartition) -> None:
        self.drain()

    def roll(self, tp: TopicPartition) -> None:
        self.log(tp).roll()

    def truncate(self, tp: TopicPartition) -> None:
        rng, log, history = self.rng, self.log(tp), self.histories[tp]
        end = log.log_end_offset
        target = max(0, end - rng.choice((1, 3, 10, 100)) * rng.randint(0, 3))
        if target >= end:
            return
        if target < log.segments.first.base_offset:
            self._truncate_fully(tp, target, lambda: log.truncate_to(target))
            return
        with self._attempt(tp):
            history.cut(target)
            log.truncate_to(target)
        history.end = history.kept = log.log_end_offset
        assert history.end == (history.batches[-1].next if history.batches else history.end)
        self._elect()

    def truncate_fully(self, tp: TopicPartition) -> None:
        log = self.log(tp)
        target = max(0, log.log_end_offset + self.rng.choice((-200, -30, 0, 50)))
        self._truncate_fully(tp, target, lambda: log.truncate_fully_and_start_at(target))

    def _truncate_fully(self, tp: TopicPartition, target: int, does: Callable[[], object]) -> None:
        log, history = self.log(tp), self.histories[tp]
        history.start = max(history.start, history.end, target)
        with self._attempt(tp):
            history.earlier.append(history.batches)
            history.batches = []
            history.kept = history.promised = 0
            history.promises_from = target
            does()
        history.end = log.log_end_offset
        # Without a file, for which there was no space, a checkpoint written later says where the
        # log begins anew. Nothing of it is lost with that.
        history.kept = history.end if log.segments.last.exists else 0
        self._elect()

    def recreate(self, tp: TopicPartition) -> None:
        """The topic is deleted, and there is a new one of its name."""
        history = self.histories[tp]
        history.start = max(history.start, history.end)
        with self._attempt(tp):
            history.earlier.append(history.batches)
            history.batches = []
            history.kept = history.promised = history.promises_from = 0
            assert self.manager.delete(tp)
        try:
            self.manager.get_or_create(tp, self.configs[tp.topic])
        except KafkaError as error:
            self.note(f"  not made again: {error}")
            raise Killed from error
        history.end = 0
        self._elect()

    @contextmanager
    def _attempt(self, tp: TopicPartition) -> Iterator[None]:
        """A truncation that is refused changes nothing, unless the log is offline then."""
        history = self.histories[tp]
        before = (history.batches, history.kept, history.promised, history.promises_from)
        try:
            yield
        except KafkaError:
            if self.log(tp).offline is None:
                history.batches, history.kept, history.promised, history.promises_from = before
            raise

    def _elect(self) -> None:
        """There is another leader: after a truncation, for one."""
        self.epoch += 1
        for tp in self.histories:
            log = self.log(tp)
            log.leader_epochs.assign(self.epoch, log.log_end_offset)

    def delete_records(self, tp: TopicPartition) -> None:
        log, history = self.log(tp), self.histories[tp]
        target = self.rng.randint(log.log_start_offset, log.high_watermark)
        history.start = max(history.start, target)
        log.increment_log_start_offset(target)

    def retention(self, tp: TopicPartition) -> None:
        log = self.log(tp)
        limit = self.rng.choice((0, 1, 2, 4)) * log.config.segment_bytes
        values: dict[str, object] = {
            name: getattr(log.config, name)
            for name in ("segment_bytes", "index_interval_bytes", "flush_messages")
        }
        changed = topic_config(
            **values, retention_ms=-1, file_delete_delay_ms=0, retention_bytes=limit
        )
        log.update_config(changed)
        for each in self.histories.values():  # who had such settings before is looked at, too
            each.start = max(each.start, each.end)
        try:
            self.run(self.manager.upkeep.check_retention())
        finally:
            for each, history in self.histories.items():
                history.removed = self.log(each).segments.first.base_offset

    def checkpoint(self, tp: TopicPartition) -> None:
        self.manager.checkpoint(
            self.rng.choice((RECOVERY_POINTS, RECOVERY_POINTS, LOG_START_OFFSETS, HIGH_WATERMARKS))
        )

    def write_back(self, tp: TopicPartition) -> None:
        self.fs.write_back(self.rng)

    def fail_soon(self, within: int = 15) -> None:
        number = self.fs.calls + self.rng.randint(1, within)
        self.fs.failures[number] = self.rng.choice((errno.ENOSPC, errno.ENOSPC, errno.EIO))

    def failure(self, tp: TopicPartition) -> None:
        self.fail_soon()

    def kill_soon(self, tp: TopicPartition) -> None:
        if self.fs.kill_at is None:
            self.fs.kill_at = self.fs.calls + self.rng.randint(1, self.rng.choice((5, 40)))

    def crash_now(self, tp: TopicPartition) -> None:
        raise Killed

    def restart_cleanly(self, tp: TopicPartition) -> None:
        if any(self.log(each).offline is not None for each in self.histories):
            raise Killed
        self.restart()

    def verify(self, tp: TopicPartition) -> None:
        """Look at a log that has just been loaded; what is there is its history from now on."""
        log, before = self.log(tp), self.histories[tp]
        after = self.histories[tp] = check_log(log, before, any_names=self.loose)
        if len(after.batches) < len(before.batches):
            self.cuts += 1


STEPS: list[tuple[int, Callable[[World, TopicPartition], None]]] = [
    (20, World.append),
    (6, World.append_many),
    (6, World.end_transaction),
    (4, World.follow),
    (6, World.flush),
    (3, World.new_epoch),
    (14, World.work),
    (5, World.work_all),
    (4, World.roll),
    (4, World.truncate),
    (1, World.truncate_fully),
    (2, World.recreate),
    (4, World.delete_records),
    (4, World.retention),
    (6, World.checkpoint),
    (6, World.write_back),
    (2, World.failure),
    (8, World.kill_soon),
    (4, World.crash_now),
    (3, World.restart_cleanly),
]
