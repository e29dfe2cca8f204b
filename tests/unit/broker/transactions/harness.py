"""A transaction coordinator without broker: its log is a list, its leaders are made up."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NamedTuple, TypeVar

from kavka.broker.transactions import records
from kavka.broker.transactions.coordinator import TransactionCoordinator
from kavka.broker.transactions.marker_writer import MarkerResults, TxnMarker
from kavka.broker.transactions.messages import ProducerIdentity, Result, TransactionImage
from kavka.broker.transactions.settings import TransactionSettings
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition
from kavka.replication.metadata import PartitionState
from kavka.storage.clock import ManualClock
from tests.unit.broker.groups.harness import MemoryLog, Timers

NONE = ErrorCode.NONE
ME = 1
P0 = TopicPartition("t", 0)
P1 = TopicPartition("t", 1)
ELSEWHERE = TopicPartition("elsewhere", 0)

T = TypeVar("T")


class Written(NamedTuple):
    """A marker that a leader was asked to write."""

    node_id: int
    marker: TxnMarker
    partitions: frozenset[TopicPartition]


class Leaders:
    """Metadata, and the leaders it names.

    They answer at once, ``codes`` says with what (default NONE); with ``holds`` not before
    :meth:`answer`.
    """

    def __init__(self) -> None:
        self.leaders = {P0: ME, P1: ME, ELSEWHERE: 2}
        self.codes: dict[TopicPartition, ErrorCode] = {}
        self.holds = False
        self.written: list[Written] = []
        self.waiting: list[Callable[[], None]] = []

    def partition(self, name: str, index: int) -> PartitionState | None:
        leader = self.leaders.get(TopicPartition(name, index))
        return None if leader is None else PartitionState(leader, 0, (leader,), (leader,))

    def write(
        self,
        node_id: int,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        done: Callable[[MarkerResults], None],
    ) -> None:
        self.written.append(Written(node_id, marker, frozenset(partitions)))

        def answer() -> None:
            done({p: self.codes.get(p, NONE) for p in partitions})

        if self.holds:
            self.waiting.append(answer)
        else:
            answer()

    def answer(self) -> None:
        due, self.waiting = self.waiting, []
        for answer in due:
            answer()


class Harness:
    """A coordinator of all of ``partitions``, loaded and started; of none unless it ``leads``."""

    def __init__(
        self,
        settings: TransactionSettings | None = None,
        partitions: int = 1,
        log: MemoryLog | None = None,
        leads: bool = True,
    ) -> None:
        self.settings = settings or TransactionSettings()
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.log = log or MemoryLog()
        self.leaders = Leaders()
        self.threads: list[Callable[[], None]] = []
        self.in_thread = False  # True: loading stays there until run_threads()
        self.given_ids = 0
        self.before_next_id: Callable[[], None] | None = None
        self.transactions = TransactionCoordinator(
            self.settings,
            self.log,
            self.leaders,
            self.leaders,
            self.new_producer_id,
            self.clock,
            self.timers.call_later,
            self.offload,
            lambda: partitions,
        )
        self.transactions.start()
        for partition in range(partitions if leads else 0):
            self.transactions.on_elected(partition, 5)

    async def new_producer_id(self) -> int:
        self.given_ids += 1
        given = 1000 + self.given_ids
        await asyncio.sleep(0)
        if self.before_next_id is not None:
            self.before_next_id()
        return given

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

    def run_threads(self) -> None:
        while self.threads:
            self.threads.pop(0)()

    def reload(self, partition: int = 0, leader_epoch: int = 6) -> None:
        """Lose a partition and become its leader again."""
        self.transactions.on_resigned(partition)
        self.transactions.on_elected(partition, leader_epoch)

    # -- requests -----------------------------------------------------------------------------

    def init(
        self,
        name: str = "x",
        claim: ProducerIdentity | None = None,
        timeout_ms: int = 60_000,
    ) -> Result:
        return run(self.transactions.init_producer_id(name, timeout_ms, claim))

    def producer(self, name: str = "x") -> ProducerIdentity:
        result = self.init(name)
        assert result.error is NONE
        return result.identity

    def add(
        self, identity: ProducerIdentity, *partitions: TopicPartition, name: str = "x"
    ) -> ErrorCode | None:
        """The answer, None while there is none."""
        answers: list[ErrorCode] = []
        self.transactions.add_partitions(name, identity, partitions, answers.append)
        return answers[0] if answers else None

    def end(self, identity: ProducerIdentity, committed: bool, name: str = "x") -> ErrorCode | None:
        answers: list[Result] = []
        self.transactions.end(name, identity, committed, answers.append)
        return answers[0].error if answers else None

    # -- looking ------------------------------------------------------------------------------

    def image(self, name: str = "x") -> TransactionImage:
        error, transaction = self.transactions.describe(name)
        assert error is NONE
        assert transaction is not None
        return transaction.current

    def state(self, name: str = "x") -> str:
        return self.image(name).state.label

    def stored(self, partition: int = 0) -> list[tuple[str | None, str | None]]:
        """Records of the log: id and state, None for a tombstone."""
        return [
            (
                records.read_key(record.key or b""),
                None if record.value is None else records.read_value(record.value).state.label,
            )
            for record in self.log.records(partition)
        ]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
