"""A small world around one transactional id: producers, partitions, a log, coordinators that die.

What is true of Kafka's parts is true here: a record that is written may be reported as lost, a
marker that is on its way may arrive after its coordinator has died, and an answer may never
arrive. Producers behave as clients do: they ask again for what they have not been told, write
only after AddPartitions was answered, and give up when fenced.
"""

from collections.abc import Iterable
from typing import NamedTuple

from kavka.broker.transactions.messages import (
    Answer,
    CompleteLater,
    Effect,
    ProducerIdentity,
    Result,
    Store,
    TransactionImage,
    WriteMarkers,
)
from kavka.broker.transactions.state import TransactionState
from kavka.broker.transactions.transaction import Transaction
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition

TIMEOUT_MS = 1_000
PARTITIONS = [TopicPartition("t", index) for index in range(3)]

Attempt = tuple[int, int]
"""A producer's number and the running number of its transaction."""


class Marker(NamedTuple):
    """A marker on its way to a partition."""

    coordinator_epoch: int
    identity: ProducerIdentity
    committed: bool
    target: TopicPartition


class Append(NamedTuple):
    """A write that its leader may append by now, but has not."""

    identity: ProducerIdentity
    target: TopicPartition
    attempt: Attempt


class Producer:
    """A client of the first transaction protocol, or of the second (``bumping``), in which leaders
    add partitions for it and each end brings a new epoch."""

    def __init__(self, number: int, bumping: bool = False) -> None:
        self.number = number
        self.bumping = bumping
        self.begun = False  # it has tried to write; of the second protocol only
        self.identity: ProducerIdentity | None = None
        self.is_fenced = False
        self.transactions = 0
        self.added: set[TopicPartition] = set()  # in the present transaction
        self.decision: bool | None = None  # it is ending it this way

    @property
    def attempt(self) -> Attempt:
        return self.number, self.transactions


class Partition:
    """A leader: who has written, what is not decided yet, which coordinator was seen last."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}
        self.coordinators: dict[int, int] = {}
        self.open: dict[int, list[Attempt]] = {}

    def is_open(self, identity: ProducerIdentity) -> bool:
        return (
            bool(self.open.get(identity.producer_id))
            and self.epochs[identity.producer_id] == identity.epoch
        )


class World:
    """Everything, and the rules that must hold."""

    def __init__(self, first: TransactionImage | None = None) -> None:
        self.now_ms = 1_500_000_000_000
        self.producer_ids = 100
        self.log: list[TransactionImage] = [] if first is None else [first]
        self.coordinator_epoch = 0
        self.transaction: Transaction | None = None
        self.storing: TransactionImage | None = None
        self.must_complete = False
        self.network: list[Marker] = []
        self.appends: list[Append] = []
        self.partitions = {target: Partition() for target in PARTITIONS}
        self.producers: list[Producer] = []
        self.latest: ProducerIdentity | None = None  # what was given out last
        self.outcomes: dict[Attempt, bool] = {}
        self.told: dict[Attempt, bool] = {}
        self.load()

    # -- the coordinator ----------------------------------------------------------------------

    def load(self) -> None:
        self.coordinator_epoch += 1
        self.storing = None
        self.must_complete = False
        self.transaction = Transaction("x", self.log[-1]) if self.log else None
        if self.transaction is not None:
            self.carry_out(self.transaction.resume())

    def crash(self, is_written: bool) -> None:
        """The coordinator dies; the record under way is written or not, nobody is answered."""
        if self.storing is not None and is_written:
            self.log.append(self.storing)
        self.load()

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Answer):
                effect.waiter(effect.result)
            elif isinstance(effect, Store):
                assert self.storing is None, "one record at a time"
                self.storing = effect.image
            elif isinstance(effect, WriteMarkers):
                self.network += [
                    Marker(self.coordinator_epoch, effect.identity, effect.committed, target)
                    for target in sorted(effect.partitions)
                ]
            else:
                assert isinstance(effect, CompleteLater)
                self.must_complete = True

    def finish_store(self, error: ErrorCode, is_written: bool) -> None:
        image, self.storing = self.storing, None
        assert image is not None
        assert self.transaction is not None
        if is_written:
            self.log.append(image)
        self.carry_out(self.transaction.stored(error))
        if self.transaction.is_new:
            self.transaction = None

    def complete(self) -> None:
        assert self.transaction is not None
        self.must_complete = False
        self.carry_out(self.transaction.complete(self.now_ms))

    def time_out(self) -> None:
        self.now_ms += TIMEOUT_MS + 1
        if self.transaction is not None and self.transaction.has_timed_out(self.now_ms):
            self.carry_out(self.transaction.time_out(self.now_ms))

    # -- markers ------------------------------------------------------------------------------

    def deliver(self, number: int, is_answer_lost: bool) -> None:
        marker = self.network.pop(number)
        partition = self.partitions[marker.target]
        is_ours = marker.coordinator_epoch == self.coordinator_epoch
        refused = self.mark(partition, marker)
        if not is_ours:
            return
        assert not refused, "the present coordinator is never refused"
        if is_answer_lost:
            self.network.append(marker)
        else:
            assert self.transaction is not None
            self.carry_out(self.transaction.marked([marker.target], self.now_ms))

    def mark(self, partition: Partition, marker: Marker) -> bool:
        producer_id, epoch = marker.identity
        if epoch < partition.epochs.get(producer_id, -1):
            return True
        if marker.coordinator_epoch < partition.coordinators.get(producer_id, -1):
            return True
        partition.epochs[producer_id] = epoch
        partition.coordinators[producer_id] = marker.coordinator_epoch
        for attempt in partition.open.pop(producer_id, []):
            known = self.outcomes.setdefault(attempt, marker.committed)
            assert known == marker.committed, f"{attempt} ended in two ways"
            if attempt in self.told:
                assert self.told[attempt] == marker.committed, f"{attempt} was told otherwise"
        return False

    # -- producers ----------------------------------------------------------------------------

    def init(self, producer: Producer, goes_on: bool) -> None:
        claim = producer.identity if goes_on else None
        if self.transaction is None:
            self.producer_ids += 1
            self.transaction = Transaction.new("x", self.producer_ids, TIMEOUT_MS, self.now_ms)
        fresh_id = None
        if self.transaction.needs_producer_id(claim):
            self.producer_ids += 1
            fresh_id = self.producer_ids

        def answered(result: Result) -> None:
            if result.error is ErrorCode.NONE:
                assert producer.identity is None or result.identity != producer.identity
                producer.identity = self.latest = result.identity
                producer.begun = False
                producer.added.clear()
                producer.decision = None
            elif result.error is ErrorCode.PRODUCER_FENCED:
                assert goes_on
                producer.is_fenced = True

        self.carry_out(
            self.transaction.init_producer(TIMEOUT_MS, claim, fresh_id, answered, self.now_ms)
        )

    def add(self, producer: Producer, partitions: Iterable[TopicPartition]) -> None:
        assert producer.identity is not None
        wanted = set(partitions)

        def answered(result: Result) -> None:
            if result.error is ErrorCode.NONE:
                if not producer.added:
                    producer.transactions += 1
                producer.added |= wanted
            else:
                self.note_error(producer, result.error)

        if self.transaction is not None:
            self.carry_out(
                self.transaction.add_partitions(producer.identity, wanted, answered, self.now_ms)
            )

    def write(self, producer: Producer, target: TopicPartition) -> None:
        """Produce, with the leader asking the coordinator as ``verification.py`` does."""
        assert producer.identity is not None
        producer_id, epoch = producer.identity
        partition = self.partitions[target]
        if epoch < partition.epochs.get(producer_id, -1):
            producer.is_fenced = True
            return
        if not partition.is_open(producer.identity):
            if self.transaction is None:
                return
            outcome = self.transaction.verify(producer.identity, [target])
            if isinstance(outcome, ErrorCode):
                self.note_error(producer, outcome)
                return
            if target not in outcome:
                assert producer.identity != self.latest, "the present producer was answered"
                producer.is_fenced = True
                return
        assert producer.identity == self.latest, "a fenced producer has written"
        partition.epochs[producer_id] = epoch
        partition.open.setdefault(producer_id, []).append(producer.attempt)

    def write_directly(self, producer: Producer, target: TopicPartition) -> None:
        """Produce by the second protocol: the leader has the partition added, and then appends,
        however long that takes."""
        identity = producer.identity
        assert identity is not None
        if not producer.begun:
            producer.begun = True
            producer.transactions += 1
        attempt = producer.attempt
        partition = self.partitions[target]

        def answered(result: Result) -> None:
            if result.error is ErrorCode.NONE:
                self.appends.append(Append(identity, target, attempt))
                if producer.attempt == attempt:
                    producer.added.add(target)
            else:
                self.note_error(producer, result.error)

        if identity.epoch < partition.epochs.get(identity.producer_id, -1):
            producer.is_fenced = True
        elif partition.is_open(identity):
            self.appends.append(Append(identity, target, attempt))
        elif self.transaction is not None:
            self.carry_out(
                self.transaction.add_partitions(
                    identity, [target], answered, self.now_ms, bumping=True
                )
            )

    def append(self, number: int) -> None:
        append = self.appends.pop(number)
        producer_id, epoch = append.identity
        partition = self.partitions[append.target]
        if epoch >= partition.epochs.get(producer_id, -1):
            partition.epochs[producer_id] = epoch
            partition.open.setdefault(producer_id, []).append(append.attempt)

    def end_and_bump(self, producer: Producer) -> None:
        identity, committed, attempt = producer.identity, producer.decision, producer.attempt
        begun = producer.begun
        assert identity is not None
        assert committed is not None
        if self.transaction is None:
            return
        fresh_id = None
        if self.transaction.needs_producer_id_to_end(identity):
            self.producer_ids += 1
            fresh_id = self.producer_ids

        def answered(result: Result) -> None:
            if result.error is not ErrorCode.NONE:
                self.note_error(producer, result.error)
                return
            assert result.identity != identity
            if begun:
                self.told[attempt] = committed
                assert self.outcomes.get(attempt, committed) == committed
            if self.latest == identity:
                self.latest = result.identity
            producer.identity = result.identity
            producer.begun = False
            producer.added.clear()
            producer.decision = None

        self.carry_out(
            self.transaction.end_and_bump(identity, committed, fresh_id, answered, self.now_ms)
        )

    def end(self, producer: Producer) -> None:
        assert producer.identity is not None
        committed, attempt = producer.decision, producer.attempt
        assert committed is not None

        def answered(result: Result) -> None:
            if result.error is ErrorCode.NONE:
                self.told[attempt] = committed
                assert self.outcomes.get(attempt, committed) == committed
                producer.added.clear()
                producer.decision = None
            else:
                self.note_error(producer, result.error)

        if self.transaction is not None:
            self.carry_out(
                self.transaction.end(producer.identity, committed, answered, self.now_ms)
            )

    def note_error(self, producer: Producer, error: ErrorCode) -> None:
        if error in (ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_ID_MAPPING):
            producer.is_fenced = True
        else:
            assert error in (
                ErrorCode.CONCURRENT_TRANSACTIONS,
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
            ), f"producer {producer.number} was told {error.name}"

    # -- the end ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything come to rest, nobody dying any more, and look at what is left."""
        for _ in range(200):
            if self.storing is not None:
                self.finish_store(ErrorCode.NONE, True)
            elif self.appends:
                self.append(0)
            elif self.network:
                self.deliver(0, False)
            elif self.must_complete:
                self.complete()
            elif self.transaction is not None and (
                self.transaction.current.state is TransactionState.ONGOING
            ):
                self.time_out()
            else:
                break
        else:
            raise AssertionError("no rest")
        for target, partition in self.partitions.items():
            assert not any(partition.open.values()), f"{target} waits for an end that never comes"
        for attempt, committed in self.told.items():
            assert self.outcomes.get(attempt, committed) == committed
        assert self.transaction is None or not self.transaction.busy
