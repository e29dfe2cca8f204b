"""Random schedules of producers, crashes and late markers, and every crash in a fixed one.

Whatever happens, each transaction ends on all its partitions in one way, in the way its producer
was told, and no partition waits for ever.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kavka.broker.transactions.messages import TransactionImage
from kavka.broker.transactions.state import TransactionState
from kavka.broker.transactions.transaction import LAST_EPOCH_FOR_PRODUCERS
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition
from tests.unit.broker.transactions.world import PARTITIONS, TIMEOUT_MS, Producer, World

NUMBERS = st.integers(0, 7)


class Schedules(RuleBasedStateMachine):
    """Rules are things that can happen; each picks among those that can now."""

    world: World

    @initialize(epoch=st.sampled_from([None, 0, LAST_EPOCH_FOR_PRODUCERS - 2]))
    def begin(self, epoch: int | None) -> None:
        first = None
        if epoch is not None:
            first = TransactionImage(
                7, epoch, TIMEOUT_MS, TransactionState.EMPTY, frozenset(), 1_400_000_000_000
            )
        self.world = World(first)

    # -- producers ----------------------------------------------------------------------------

    def _pick(self, number: int, ready: list[Producer]) -> Producer | None:
        return ready[number % len(ready)] if ready else None

    @property
    def _alive(self) -> list[Producer]:
        return [p for p in self.world.producers if p.identity is not None and not p.is_fenced]

    @rule(bumping=st.booleans())
    def a_producer_starts(self, bumping: bool) -> None:
        if len(self.world.producers) < 5:
            producer = Producer(len(self.world.producers), bumping)
            self.world.producers.append(producer)
            self.world.init(producer, False)

    @rule(number=NUMBERS)
    def a_producer_asks_again_for_its_identity(self, number: int) -> None:
        waiting = [p for p in self.world.producers if p.identity is None]
        if producer := self._pick(number, waiting):
            self.world.init(producer, False)

    @rule(number=NUMBERS)
    def a_producer_goes_on_with_a_new_epoch(self, number: int) -> None:
        between = [p for p in self._alive if not (p.added or p.begun)]
        if producer := self._pick(number, between):
            self.world.init(producer, True)

    @rule(number=NUMBERS, partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1))
    def a_producer_adds_partitions(self, number: int, partitions: set) -> None:
        writing = [p for p in self._alive if p.decision is None and not p.bumping]
        if producer := self._pick(number, writing):
            self.world.add(producer, partitions)

    @rule(number=NUMBERS, which=NUMBERS)
    def a_producer_writes(self, number: int, which: int) -> None:
        writing = [p for p in self._alive if p.added and p.decision is None and not p.bumping]
        if producer := self._pick(number, writing):
            self.world.write(producer, sorted(producer.added)[which % len(producer.added)])

    @rule(number=NUMBERS, committed=st.booleans())
    def a_producer_ends_its_transaction(self, number: int, committed: bool) -> None:
        ending = [p for p in self._alive if p.added and not p.bumping]
        if producer := self._pick(number, ending):
            if producer.decision is None:
                producer.decision = committed
            self.world.end(producer)

    @rule(number=NUMBERS, which=st.sampled_from(PARTITIONS))
    def a_producer_writes_directly(self, number: int, which: TopicPartition) -> None:
        writing = [p for p in self._alive if p.decision is None and p.bumping]
        if producer := self._pick(number, writing):
            self.world.write_directly(producer, which)

    @precondition(lambda self: self.world.appends)
    @rule(number=NUMBERS)
    def a_write_is_appended(self, number: int) -> None:
        self.world.append(number % len(self.world.appends))

    @rule(number=NUMBERS, committed=st.booleans())
    def a_producer_ends_its_transaction_and_goes_on(self, number: int, committed: bool) -> None:
        if producer := self._pick(number, [p for p in self._alive if p.bumping]):
            if producer.decision is None:
                # Whose writes have all failed has nothing to commit.
                producer.decision = committed and bool(producer.added)
            self.world.end_and_bump(producer)

    # -- the coordinator and the network ------------------------------------------------------

    @precondition(lambda self: self.world.storing is not None)
    @rule()
    def the_record_is_kept(self) -> None:
        self.world.finish_store(ErrorCode.NONE, True)

    @precondition(lambda self: self.world.storing is not None)
    @rule(is_written=st.booleans())
    def the_record_is_lost_or_seems_so(self, is_written: bool) -> None:
        self.world.finish_store(ErrorCode.COORDINATOR_NOT_AVAILABLE, is_written)

    @precondition(lambda self: self.world.network)
    @rule(number=NUMBERS, is_answer_lost=st.booleans())
    def a_marker_arrives(self, number: int, is_answer_lost: bool) -> None:
        self.world.deliver(number % len(self.world.network), is_answer_lost)

    @precondition(lambda self: self.world.must_complete)
    @rule()
    def the_end_is_tried_again(self) -> None:
        self.world.complete()

    @rule(is_written=st.booleans())
    def the_coordinator_dies(self, is_written: bool) -> None:
        self.world.crash(is_written)

    @rule()
    def time_passes(self) -> None:
        self.world.time_out()

    # -- what holds ---------------------------------------------------------------------------

    @invariant()
    def only_a_written_decision_is_told_to_partitions(self) -> None:
        for marker in self.world.network:
            if marker.coordinator_epoch == self.world.coordinator_epoch:
                transaction = self.world.transaction
                assert transaction is not None
                decided = (
                    TransactionState.PREPARE_COMMIT
                    if marker.committed
                    else TransactionState.PREPARE_ABORT
                )
                assert transaction.current.state is decided
                assert transaction.current in self.world.log

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            # Nor does anything change by a load of what is in the log now.
            self.world.crash(False)
            self.world.settle()


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


# -- every crash in a fixed schedule ------------------------------------------------------------


class Dying(World):
    """A world whose coordinator dies at the n-th record, before or after it is written."""

    def __init__(self, die_at: int, is_written: bool) -> None:
        self.die_at = die_at
        self.is_written = is_written
        self.records = 0
        super().__init__()

    def pump(self, markers: bool = True) -> None:
        """Let happen what is under way."""
        while self.storing is not None or self.must_complete or (markers and self.network):
            if self.storing is not None:
                self.records += 1
                if self.records == self.die_at:
                    self.crash(self.is_written)
                else:
                    self.finish_store(ErrorCode.NONE, True)
            elif self.must_complete:
                self.complete()
            else:
                self.deliver(len(self.network) - 1, False)


def play(world: Dying) -> None:
    """Two producers, one after the other: commit, abort, a transaction that is fenced, commit."""
    for number in range(2):
        producer = Producer(number)
        world.producers.append(producer)
        while producer.identity is None:
            world.init(producer, False)
            world.pump()
        for committed in (True, False, True):
            for target in PARTITIONS:
                while target not in producer.added and not producer.is_fenced:
                    world.add(producer, [target])
                    world.pump()
                world.write(producer, target)
            if number == 0 and committed and producer.transactions > 2:
                break  # left open: the next producer fences it
            producer.decision = committed
            while producer.added and not producer.is_fenced:
                world.end(producer)
                world.pump()
            assert not producer.is_fenced


@pytest.mark.parametrize("is_written", [True, False])
def test_a_crash_at_every_record(is_written: bool) -> None:
    untouched = Dying(0, is_written)
    play(untouched)
    untouched.settle()
    assert untouched.records > 25
    expected = {
        (0, 1): True,
        (0, 2): False,
        (0, 3): False,  # fenced
        (1, 1): True,
        (1, 2): False,
        (1, 3): True,
    }
    assert untouched.outcomes == expected
    for die_at in range(1, untouched.records + 1):
        world = Dying(die_at, is_written)
        play(world)
        world.settle()
        assert world.coordinator_epoch == 2
        assert world.outcomes == expected, f"died at record {die_at}"
