"""A coordinator without broker: its log is a list, its clock is moved by hand."""

import heapq
from collections.abc import Callable, Iterable
from itertools import count

from kavka.broker.groups.coordinator import GroupCoordinator
from kavka.broker.groups.messages import Join, JoinResult, Sync, SyncResult
from kavka.broker.groups.offset_keeper import Commit, FetchedOffset, Results
from kavka.broker.groups.offsets import CommittedOffset
from kavka.broker.groups.settings import GroupSettings
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    Record,
    build_batch,
    iter_batches,
    iter_records,
    read_header,
    stamp,
)
from kavka.protocol.topics import TopicPartition
from kavka.storage.clock import ManualClock

AT_ONCE = GroupSettings(initial_rebalance_delay_ms=0)
T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)


class Timers:
    """``call_later`` on a clock that is moved by hand."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._numbers = count()

    class Handle:
        def __init__(self, timers: "Timers", number: int) -> None:
            self._timers = timers
            self._number = number

        def cancel(self) -> None:
            self._timers._cancelled.add(self._number)

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Timers.Handle":
        assert delay >= 0
        number = next(self._numbers)
        heapq.heappush(self._heap, (self.clock.monotonic() + delay, number, callback))
        return Timers.Handle(self, number)

    def advance(self, seconds: float) -> None:
        """Move on, calling what is due at its time."""
        end = self.clock.monotonic() + seconds
        while self._heap and self._heap[0][0] <= end:
            due, number, callback = heapq.heappop(self._heap)
            self.clock.advance(max(due - self.clock.monotonic(), 0.0))
            if number not in self._cancelled:
                callback()
        self.clock.advance(max(end - self.clock.monotonic(), 0.0))


class View:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def view(self) -> memoryview:
        return memoryview(self._data)


class MemoryLog:
    """Partitions of ``__consumer_offsets`` in memory.

    With ``replicates`` everything is replicated at once; otherwise who waits does so until
    :meth:`replicate`.
    """

    def __init__(self) -> None:
        self.batches: dict[int, list[bytes]] = {}
        self.ends: dict[int, int] = {}
        self.replicates = True
        self.waiting: list[tuple[int, Callable[[ErrorCode], None]]] = []
        self.refuse: ErrorCode | None = None  # what appends fail with
        self.refuse_reads: ErrorCode | None = None
        self.batches_a_read = 1_000_000

    def append(self, partition: int, batch: bytearray) -> int:
        if self.refuse is not None:
            raise KafkaError(self.refuse)
        header = read_header(batch)
        first = self.ends.get(partition, 0)
        stamp(batch, 0, first, 0)
        self.batches.setdefault(partition, []).append(bytes(batch))
        self.ends[partition] = first + header.last_offset_delta + 1
        return first

    def when_replicated(
        self,
        partition: int,
        end_offset: int,
        timeout_ms: int,
        callback: Callable[[ErrorCode], None],
    ) -> None:
        assert end_offset <= self.ends[partition]
        if self.replicates:
            callback(ErrorCode.NONE)
        else:
            self.waiting.append((partition, callback))

    def bounds(self, partition: int) -> tuple[int, int]:
        if self.refuse_reads is not None:
            raise KafkaError(self.refuse_reads)
        return 0, self.ends.get(partition, 0)

    def read(self, partition: int, offset: int, max_bytes: int) -> View | None:
        found = [b for b in self.batches.get(partition, []) if read_header(b).next_offset > offset]
        return View(b"".join(found[: self.batches_a_read])) if found else None

    # -- for tests --------------------------------------------------------------------------

    def replicate(self, code: ErrorCode = ErrorCode.NONE, number: int | None = None) -> None:
        """Answer the first ``number`` that wait (default: all)."""
        due = self.waiting[:number]
        del self.waiting[: len(due)]
        for _, callback in due:
            callback(code)

    def fail_partition(self, partition: int, code: ErrorCode) -> None:
        due = [entry for entry in self.waiting if entry[0] == partition]
        self.waiting = [entry for entry in self.waiting if entry[0] != partition]
        for _, callback in due:
            callback(code)

    def records(self, partition: int) -> list[Record]:
        data = b"".join(self.batches.get(partition, []))
        return [
            record
            for position, _, _ in iter_batches(data)
            for record in iter_records(data, position, read_header(data, position), 1 << 20)
        ]

    def append_records(
        self,
        partition: int,
        records: Iterable[tuple[bytes | None, bytes | None]],
        *,
        producer_id: int = -1,
        codec: int = 0,
    ) -> None:
        """Write records behind the coordinator's back, in a transaction if there is a producer."""
        numbered = [Record(i, 0, key, value) for i, (key, value) in enumerate(records)]
        batch = build_batch(
            numbered,
            base_offset=0,
            codec=codec,
            producer_id=producer_id,
            producer_epoch=0 if producer_id >= 0 else -1,
            transactional=producer_id >= 0,
        )
        self.append(partition, bytearray(batch))


class Answer:
    """A request that waits: ``result`` is what it got, None until then."""

    def __init__(self) -> None:
        self.result: JoinResult | SyncResult | None = None

    def __call__(self, result: JoinResult | SyncResult) -> None:
        assert self.result is None, "a request is answered once"
        self.result = result

    @property
    def joined(self) -> JoinResult:
        assert isinstance(self.result, JoinResult)
        return self.result

    @property
    def synced(self) -> SyncResult:
        assert isinstance(self.result, SyncResult)
        return self.result


class Harness:
    """A coordinator of all of ``partitions``, loaded and started."""

    def __init__(
        self, settings: GroupSettings = AT_ONCE, partitions: int = 1, log: MemoryLog | None = None
    ) -> None:
        self.settings = settings
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.log = log or MemoryLog()
        self.threads: list[Callable[[], None]] = []  # work handed to threads
        self.in_thread = False  # True: it stays there until run_threads()
        self.partitions = partitions
        numbers = count(1)
        self.groups = GroupCoordinator(
            settings,
            self.log,
            self.clock,
            self.timers.call_later,
            self.offload,
            lambda: partitions,
            lambda: str(next(numbers)),
        )
        self.groups.start()
        for partition in range(partitions):
            self.groups.on_elected(partition, 0)

    def offload(self, work: Callable[[], int], done: Callable[[int | BaseException], None]) -> None:
        def run() -> None:
            try:
                outcome: int | BaseException = work()
            except Exception as error:
                outcome = error
            done(outcome)

        if self.in_thread:
            self.threads.append(run)
        else:
            run()

    def run_threads(self, number: int = 1) -> None:
        for _ in range(number):
            self.threads.pop(0)()

    def reload(self, partition: int = 0) -> None:
        """Lose a partition and become its leader again."""
        self.groups.on_resigned(partition)
        self.groups.on_elected(partition, 1)

    # -- requests ---------------------------------------------------------------------------

    def join(
        self,
        group: str = "g",
        member_id: str = "",
        *,
        instance_id: str | None = None,
        client_id: str = "c",
        session_ms: int = 10_000,
        protocol_type: str = "consumer",
        metadata: bytes = b"",
        version: int = 3,
    ) -> Answer:
        answer = Answer()
        join = Join(
            member_id,
            instance_id,
            client_id,
            "/127.0.0.1",
            session_ms,
            60_000,
            protocol_type,
            (("range", metadata),),
            needs_known_id=version >= 4,
            can_skip_assignment=version >= 9,
        )
        self.groups.join(group, join, answer)
        return answer

    def sync(
        self,
        member_id: str,
        generation: int,
        group: str = "g",
        assignments: dict[str, bytes] | None = None,
    ) -> Answer:
        answer = Answer()
        sync = Sync(member_id, None, generation, None, None, tuple((assignments or {}).items()))
        self.groups.sync(group, sync, answer)
        return answer

    def stable(self, group: str = "g", metadata: bytes = b"") -> str:
        """Make a Stable group of one member; gives its id."""
        joined = self.join(group, metadata=metadata).joined
        assert joined.error is ErrorCode.NONE
        synced = self.sync(
            joined.member_id, joined.generation, group, {joined.member_id: b"all"}
        ).synced
        assert synced.assignment == b"all"
        return joined.member_id

    def start_commit(
        self,
        offsets: dict[TopicPartition, CommittedOffset],
        group: str = "g",
        member_id: str = "",
        generation: int = -1,
    ) -> list[Results]:
        """Commit; the list gets the results when they are there."""
        results: list[Results] = []
        self.groups.offsets.commit(
            Commit(group, member_id, None, generation, list(offsets.items())), results.append
        )
        return results

    def commit(
        self,
        offset: int,
        partition: TopicPartition = T0,
        group: str = "g",
        member_id: str = "",
        generation: int = -1,
    ) -> ErrorCode:
        value = CommittedOffset(offset, commit_timestamp=self.clock.wall_ms())
        (results,) = self.start_commit({partition: value}, group, member_id, generation)
        return results[partition]

    def fetch(self, group: str = "g", partition: TopicPartition = T0) -> int | ErrorCode:
        """The committed offset, -1 for none, or what went wrong."""
        error, found = self.groups.offsets.fetch(group, [partition])
        if error is not ErrorCode.NONE:
            return error
        (only,) = found
        assert isinstance(only, FetchedOffset)
        if only.error is not ErrorCode.NONE:
            return only.error
        return -1 if only.value is None else only.value.offset

    def delete_groups(self, *groups: str) -> dict[str, ErrorCode]:
        results: list[dict[str, ErrorCode]] = []
        self.groups.offsets.delete_groups(groups, results.append)
        (only,) = results
        return only

    def delete_offsets(self, group: str, *partitions: TopicPartition) -> tuple[ErrorCode, Results]:
        results: list[tuple[ErrorCode, Results]] = []
        self.groups.offsets.delete_offsets(
            group, partitions, lambda error, outcome: results.append((error, outcome))
        )
        (only,) = results
        return only
