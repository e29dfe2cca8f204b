"""Moving a partition to another log directory while it is used (KIP-113).

A *future* log, ``<topic>-<partition>.<unique>-future`` in the target directory, takes a copy of
all records with their offsets. When it has nearly caught up the rest is copied and synced in one
step of the event loop, the future directory gets the partition's name, and the old one waits as
``-delete`` for its removal. That step comes between two requests, so clients see nothing of it.

A move that the end of the broker interrupts is not resumed: its future directory is removed at
the next start, and the partition is where it was.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage.clock import Clock
from kavka.storage.fs import File, FileSystem
from kavka.storage.log import Log
from kavka.storage.log_state import LogState
from kavka.storage.logdir import LogDirectory

if TYPE_CHECKING:
    from kavka.storage.manager import LogManager

log = logging.getLogger("kavka.storage.moves")

CHUNK: Final = 1 << 20  # bytes copied at a time
NEARLY: Final = 1 << 18  # bytes behind at which the rest is copied in one step
SYNCS: Final = 3  # at most, before that step: a fast producer writes more during each
_RATE: Final = "replica.alter.log.dirs.io.max.bytes.per.second"


class Move:
    """One partition on its way."""

    __slots__ = ("current", "cut_to", "future", "target", "task", "topic_partition")

    def __init__(self, current: Log, future: Log, target: LogDirectory) -> None:
        self.topic_partition = current.topic_partition
        self.current = current
        self.future = future
        self.target = target
        self.task: asyncio.Task[None] | None = None
        self.cut_to: int | None = None
        """Where the current log was cut since the copy was last brought into line with it."""

    @property
    def was_cut(self) -> bool:
        """Whether the copy has to be brought into line."""
        return self.cut_to is not None

    @property
    def lag(self) -> int:
        """Offsets that the future log is behind."""
        return max(self.current.log_end_offset - self.future.log_end_offset, 0)


class Mover:
    """All moves of a broker. For the event loop."""

    def __init__(
        self, manager: "LogManager", config: BrokerConfig, fs: FileSystem, clock: Clock
    ) -> None:
        self._manager = manager
        self._config = config
        self._fs = fs
        self._clock = clock
        self._moves: dict[TopicPartition, Move] = {}
        self.on_moved: Callable[[Log, Log], None] | None = None
        """Told of the log that was, and of the one that is in its place from now on."""

    def __iter__(self) -> Iterator[Move]:
        return iter(self._moves.values())

    def begin(self, current: Log, future: Log, target: LogDirectory) -> None:
        """Copy ``current`` into ``future``, an empty log in ``target``, then swap them."""
        move = Move(current, future, target)

        def failed(_: LogState, error: OSError) -> None:
            self._manager.directory_failed(target, error)

        future.on_storage_error = failed
        self._moves[move.topic_partition] = move
        move.task = asyncio.get_running_loop().create_task(self._run(move))
        log.info(
            "Move begins partition=%s from=%s to=%s bytes=%d",
            move.topic_partition,
            os.path.dirname(current.directory),
            target.path,
            current.size,
        )

    def target_of(self, topic_partition: TopicPartition) -> str | None:
        """The directory that a partition is being moved to."""
        move = self._moves.get(topic_partition)
        return None if move is None else move.target.path

    def cancel(self, topic_partition: TopicPartition) -> None:
        """Call a move off, if there is one: the partition stays where it is."""
        move = self._moves.pop(topic_partition, None)
        if move is not None:
            assert move.task is not None
            move.task.cancel()
            self._drop(move)
            log.info("Move called off partition=%s", topic_partition)

    def on_truncated(self, truncated: LogState) -> None:
        """A log was cut: what was copied from there on may not be what stands there soon."""
        move = self._moves.get(truncated.topic_partition)
        if move is not None and move.current is truncated:
            end = truncated.log_end_offset
            move.cut_to = end if move.cut_to is None else min(move.cut_to, end)

    async def stop(self) -> None:
        """Call off all moves."""
        tasks = [move.task for move in self if move.task is not None]
        for topic_partition in list(self._moves):
            self.cancel(topic_partition)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self, move: Move) -> None:
        move.future.abandon()
        self._manager.remover.remove_directory(move.future.directory, 0)

    # -- copying ------------------------------------------------------------------------------

    async def _run(self, move: Move) -> None:
        try:
            await self._copy(move)
            self._manager.finish_move(move)
        except (KafkaError, OSError) as error:
            log.error("Move failed: %s partition=%s", error, move.topic_partition)
            if self._moves.get(move.topic_partition) is move:
                del self._moves[move.topic_partition]
                self._drop(move)
            return
        del self._moves[move.topic_partition]
        log.info("Moved partition=%s to=%s", move.topic_partition, move.target.path)

    async def _copy(self, move: Move) -> None:
        loop = asyncio.get_running_loop()
        future = move.future
        began, copied = self._clock.monotonic(), 0
        synced = -1  # bytes copied when they were last synced
        syncs = 0
        while True:
            self._require_online(move)
            if move.cut_to is not None:
                future.truncate_to(move.cut_to)
                move.cut_to = None
            pieces = self._next_pieces(move)
            if sum(size for _, _, size in pieces) <= NEARLY:
                if syncs and (copied - synced <= NEARLY or syncs == SYNCS):
                    return
                # Nearly all is on disk before the step in which the loop waits for the rest.
                job = future.begin_flush()
                synced = copied
                syncs += 1
                await loop.run_in_executor(None, job.run)
                future.finish_flush(job)
                continue
            for data in await loop.run_in_executor(None, self._read, pieces):
                self._require_online(move)
                if move.was_cut:
                    break  # what was read may be gone
                future.append_as_follower(memoryview(data))
                copied += len(data)
            due = began + copied / self._config.get_int(_RATE)
            await asyncio.sleep(max(due - self._clock.monotonic(), 0))

    def _read(self, pieces: list[tuple[File, int, int]]) -> list[bytearray]:
        return [bytearray(self._fs.pread(file, size, at)) for file, at, size in pieces]

    def _next_pieces(self, move: Move) -> list[tuple[File, int, int]]:
        """File, position and size of what comes next, about :data:`CHUNK` bytes if there are.

        The first one holds at least one whole batch.
        """
        offset = move.future.log_end_offset
        pieces: list[tuple[File, int, int]] = []
        left = CHUNK
        for segment in move.current.segments.reaching(offset):
            position = segment.find_position(offset)
            if position < segment.size and left > 0:
                size = min(max(left, segment.batch_size_at(position)), segment.size - position)
                pieces.append((segment.file(), position, size))
                left -= size
        return pieces

    def catch_up(self, move: Move) -> None:
        """Copy what is left, on the loop."""
        future, end_offset = move.future, move.current.log_end_offset
        while pieces := self._next_pieces(move):
            for data in self._read(pieces):
                future.append_as_follower(memoryview(data))
        if future.log_end_offset < end_offset:  # its last records are no more
            if any(segment.size for segment in move.current.segments):
                future.roll(base_offset=end_offset)  # compacted: the name tells where it ends
            else:
                future.truncate_fully_and_start_at(end_offset)

    def _require_online(self, move: Move) -> None:
        for one in (move.current, move.future):
            if one.offline is not None:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, one.offline)
