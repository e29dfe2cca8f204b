"""One transactional id by itself: what it answers, what it stores, when markers go out."""

from collections.abc import Iterable

import pytest

from kavka.broker.transactions.messages import (
    NO_EPOCH,
    Answer,
    CompleteLater,
    Effect,
    ProducerIdentity,
    Result,
    Store,
    TransactionImage,
    WriteMarkers,
)
from kavka.broker.transactions.state import ALLOWED_FROM, BY_LABEL, TransactionState
from kavka.broker.transactions.transaction import (
    LAST_EPOCH_FOR_PRODUCERS,
    MAX_EPOCH,
    Transaction,
    is_running,
)
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition

NONE = ErrorCode.NONE
CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
FENCED = ErrorCode.PRODUCER_FENCED

P0 = TopicPartition("t", 0)
P1 = TopicPartition("t", 1)
NOW = 1_500_000_000_000


def nobody(result: Result) -> None:
    raise AssertionError("a pure transaction does not call its waiters")


class Driver:
    """A transaction whose stores succeed at once unless ``hold`` is set."""

    def __init__(self, transaction: Transaction | None = None) -> None:
        self.transaction = transaction or Transaction.new("x", 7, 60_000, NOW)
        self.stored: list[TransactionImage] = []
        self.markers: list[WriteMarkers] = []
        self.answers: list[Result] = []
        self.retries = 0
        self.hold = False

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Answer):
                self.answers.append(effect.result)
            elif isinstance(effect, WriteMarkers):
                self.markers.append(effect)
            elif isinstance(effect, CompleteLater):
                self.retries += 1
            else:
                assert isinstance(effect, Store)
                self.stored.append(effect.image)
                if not self.hold:
                    self.carry_out(self.transaction.stored(NONE))

    def finish(self, error: ErrorCode = NONE) -> None:
        """The record that is held is written, or is not."""
        self.hold = False
        self.carry_out(self.transaction.stored(error))

    @property
    def answer(self) -> Result:
        return self.answers[-1]

    @property
    def error(self) -> ErrorCode:
        return self.answers[-1].error

    @property
    def state(self) -> TransactionState:
        return self.transaction.current.state

    @property
    def identity(self) -> ProducerIdentity:
        return self.transaction.current.identity

    def init(
        self,
        claim: ProducerIdentity | None = None,
        fresh_id: int | None = None,
        timeout_ms: int = 60_000,
        now_ms: int = NOW,
    ) -> Result:
        count = len(self.answers)
        self.carry_out(self.transaction.init_producer(timeout_ms, claim, fresh_id, nobody, now_ms))
        assert self.hold or len(self.answers) == count + 1
        return self.answers[-1] if self.answers else Result(NONE)

    def add(
        self,
        *partitions: TopicPartition,
        identity: ProducerIdentity | None = None,
        now_ms: int = NOW,
    ) -> ErrorCode:
        self.carry_out(
            self.transaction.add_partitions(identity or self.identity, partitions, nobody, now_ms)
        )
        return self.answers[-1].error if self.answers else NONE

    def end(
        self, committed: bool, identity: ProducerIdentity | None = None, now_ms: int = NOW
    ) -> ErrorCode:
        self.carry_out(self.transaction.end(identity or self.identity, committed, nobody, now_ms))
        return self.answers[-1].error

    def end_and_bump(
        self,
        committed: bool,
        identity: ProducerIdentity | None = None,
        fresh_id: int | None = None,
    ) -> Result:
        self.carry_out(
            self.transaction.end_and_bump(
                identity or self.identity, committed, fresh_id, nobody, NOW + 5
            )
        )
        return self.answers[-1]

    def mark(self, *partitions: TopicPartition) -> None:
        self.carry_out(self.transaction.marked(partitions, NOW + 9))


def opened(*partitions: TopicPartition) -> Driver:
    """A producer with an open transaction."""
    driver = Driver()
    driver.init()
    driver.add(*(partitions or (P0, P1)))
    assert driver.state is TransactionState.ONGOING
    driver.stored.clear()
    driver.answers.clear()
    return driver


def test_a_new_id_gets_epoch_0() -> None:
    driver = Driver()
    assert driver.transaction.is_new
    assert driver.init(timeout_ms=5_000) == Result(NONE, ProducerIdentity(7, 0))
    assert not driver.transaction.is_new
    assert driver.stored == [
        TransactionImage(7, 0, 5_000, TransactionState.EMPTY, frozenset(), NOW, -1)
    ]


def test_everybody_who_comes_later_fences_those_before() -> None:
    driver = Driver()
    first = driver.init().identity
    second = driver.init(timeout_ms=1_000).identity
    assert second == ProducerIdentity(7, 1)
    assert driver.transaction.current.timeout_ms == 1_000
    assert driver.add(P0, identity=first) is FENCED
    assert driver.end(True, identity=first) is FENCED
    assert driver.add(P0, identity=ProducerIdentity(8, 1)) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert driver.end(True, ProducerIdentity(8, 1)) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert driver.add(P0, identity=second) is NONE


@pytest.mark.parametrize("committed", [True, False])
def test_the_way_of_a_transaction(committed: bool) -> None:
    driver = Driver()
    identity = driver.init().identity
    assert driver.add(P0, now_ms=NOW + 1) is NONE
    assert driver.add(P1, now_ms=NOW + 2) is NONE
    stores = len(driver.stored)
    assert driver.add(P0, P1, now_ms=NOW + 3) is NONE
    assert len(driver.stored) == stores, "nothing new, nothing stored"
    open_image = driver.transaction.current
    assert open_image.partitions == {P0, P1}
    assert (open_image.start_ms, open_image.updated_ms) == (NOW + 1, NOW + 2)
    assert is_running(open_image)

    assert driver.end(committed, now_ms=NOW + 4) is NONE, "answered before the markers are written"
    decided = TransactionState.PREPARE_COMMIT if committed else TransactionState.PREPARE_ABORT
    assert driver.stored[-1] == open_image._replace(state=decided, updated_ms=NOW + 4)
    assert driver.markers == [WriteMarkers(identity, committed, frozenset({P0, P1}))]

    driver.mark(P0)
    assert driver.state is decided
    assert driver.transaction.partitions == {P1}
    driver.mark(P1)
    ended = TransactionState.COMPLETE_COMMIT if committed else TransactionState.COMPLETE_ABORT
    assert driver.stored[-1] == TransactionImage(7, 0, 60_000, ended, frozenset(), NOW + 9, NOW + 1)
    assert driver.transaction.current == driver.stored[-1]
    assert not is_running(driver.stored[-1])
    assert not driver.transaction.busy

    # Asked again, and asked for the opposite.
    assert driver.end(committed) is NONE
    assert driver.end(not committed) is ErrorCode.INVALID_TXN_STATE
    # The next one begins anew.
    assert driver.add(P1, now_ms=NOW + 20) is NONE
    assert driver.transaction.current.partitions == {P1}
    assert driver.transaction.current.start_ms == NOW + 20


def test_nothing_to_end_is_an_error() -> None:
    driver = Driver()
    driver.init()
    for committed in (True, False):
        assert driver.end(committed) is ErrorCode.INVALID_TXN_STATE


def test_a_transaction_without_partitions_is_done_at_once() -> None:
    driver = Driver()
    driver.init()
    assert driver.add() is NONE
    assert driver.state is TransactionState.ONGOING
    assert driver.end(True) is NONE
    assert driver.markers == []
    assert driver.state is TransactionState.COMPLETE_COMMIT


@pytest.mark.parametrize("step", ["init", "add", "end", "marking"])
def test_while_a_change_is_under_way_the_others_come_again(step: str) -> None:
    driver = opened(P0) if step in ("end", "marking") else Driver()
    if step == "add":
        driver.init()
    driver.hold = step != "marking"
    before = driver.transaction.current
    if step == "init":
        driver.init()
    elif step == "add":
        driver.add(P0)
    else:
        driver.carry_out(driver.transaction.end(driver.identity, True, nobody, NOW))
    answered = len(driver.answers)
    identity = driver.identity
    if step != "marking":
        assert driver.transaction.current == before, "not before it is stored"
    assert driver.transaction.busy
    assert driver.add(P1) is CONCURRENT
    assert driver.end(True) is CONCURRENT
    assert driver.end(False) is CONCURRENT
    assert driver.init().error is CONCURRENT
    assert driver.init(claim=identity).error is CONCURRENT
    assert not driver.transaction.has_timed_out(NOW + 10**9)
    assert not driver.transaction.is_expired(NOW + 10**12, 1)
    assert not driver.transaction.needs_producer_id(None)
    del driver.answers[answered:]
    if step == "marking":
        driver.mark(P0)
        assert driver.state is TransactionState.COMPLETE_COMMIT
    else:
        driver.finish()
        assert driver.error is NONE


@pytest.mark.parametrize("step", ["init", "add", "end", "fence"])
def test_a_failed_write_changes_nothing(step: str) -> None:
    driver = opened(P0) if step in ("end", "fence") else Driver()
    if step == "add":
        driver.init()
    driver.hold = True
    before = driver.transaction.current
    if step in ("init", "fence"):
        driver.init()
    elif step == "add":
        driver.add(P0)
    else:
        driver.carry_out(driver.transaction.end(driver.identity, True, nobody, NOW))
    driver.answers.clear()
    driver.finish(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert driver.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert len(driver.answers) == 1
    assert driver.transaction.current == before
    assert not driver.transaction.busy
    assert driver.markers == []
    assert driver.transaction.is_new == (step == "init")


# -- fencing an open transaction --------------------------------------------------------------


def test_a_new_producer_aborts_the_open_transaction_and_comes_again() -> None:
    driver = opened(P0, P1)
    assert driver.init().error is CONCURRENT
    assert driver.state is TransactionState.PREPARE_ABORT
    fence = ProducerIdentity(7, 1)
    assert driver.markers == [WriteMarkers(fence, False, frozenset({P0, P1}))]
    assert driver.init().error is CONCURRENT, "while partitions are marked"
    driver.mark(P0, P1)
    assert driver.state is TransactionState.COMPLETE_ABORT
    assert driver.init() == Result(NONE, ProducerIdentity(7, 2)), "nobody has had epoch 1"


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() -> None:
    driver = opened(P0)
    producer = driver.identity
    end = NOW + 60_000
    assert not driver.transaction.has_timed_out(end)
    assert driver.transaction.has_timed_out(end + 1)
    driver.carry_out(driver.transaction.time_out(end + 1))
    assert driver.answers == []
    assert driver.markers == [WriteMarkers(ProducerIdentity(7, 1), False, frozenset({P0}))]
    driver.mark(P0)
    assert driver.state is TransactionState.COMPLETE_ABORT
    assert driver.end(True, producer) is FENCED
    assert driver.init(claim=producer).error is FENCED
    assert not driver.transaction.has_timed_out(end + 10**9), "only what is open"


def test_a_failed_fence_can_be_tried_again_without_using_up_epochs() -> None:
    driver = opened(P0)
    for _ in range(3):
        driver.hold = True
        driver.carry_out(driver.transaction.init_producer(1_000, None, None, nobody, NOW))
        assert driver.stored[-1].producer_epoch == 1
        driver.finish(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert driver.add(P1) is NONE, "the producer goes on"


# -- going on after an error (KIP-360) ---------------------------------------------------------


def test_a_producer_that_says_who_it_was_gets_the_next_epoch() -> None:
    driver = Driver()
    first = driver.init().identity
    second = driver.init(claim=first)
    assert second == Result(NONE, ProducerIdentity(7, 1))
    # The answer was lost: it asks again and gets the same.
    assert driver.init(claim=first) == second
    assert driver.init(claim=second.identity).identity == ProducerIdentity(7, 2)
    assert driver.init(claim=first).error is FENCED
    assert driver.init(claim=ProducerIdentity(8, 2)).error is FENCED


def test_a_producer_that_was_fenced_cannot_come_back() -> None:
    driver = Driver()
    first = driver.init().identity
    second = driver.init().identity  # another producer, which does not say who it was
    assert driver.init(claim=first).error is FENCED
    assert driver.init(claim=second).error is NONE


def test_a_fenced_producer_does_not_abort_the_transaction_of_the_one_that_fenced_it() -> None:
    driver = Driver()
    first = driver.init().identity
    driver.init()
    driver.add(P0)
    assert driver.init(claim=first).error is FENCED
    assert driver.state is TransactionState.ONGOING
    assert driver.init(claim=driver.identity).error is CONCURRENT, "its own is aborted first"
    assert driver.state is TransactionState.PREPARE_ABORT


def test_a_lost_answer_is_not_asked_for_again_within_a_transaction() -> None:
    driver = Driver()
    first = driver.init().identity
    driver.init(claim=first)
    driver.add(P0)
    assert driver.init(claim=first).error is FENCED
    assert driver.state is TransactionState.ONGOING


def test_a_claim_to_a_new_id_is_believed() -> None:
    driver = Driver()
    assert driver.init(claim=ProducerIdentity(3, 4)) == Result(NONE, ProducerIdentity(7, 0))
    assert driver.init(claim=ProducerIdentity(3, 4)).error is FENCED


# -- the last epoch ----------------------------------------------------------------------------


def worn(epoch: int = LAST_EPOCH_FOR_PRODUCERS) -> Driver:
    image = TransactionImage(7, epoch, 60_000, TransactionState.EMPTY, frozenset(), NOW)
    return Driver(Transaction("x", image))


def test_used_up_epochs_mean_a_new_producer_id() -> None:
    driver = worn(LAST_EPOCH_FOR_PRODUCERS - 1)
    assert not driver.transaction.needs_producer_id(None)
    assert driver.init().identity == ProducerIdentity(7, LAST_EPOCH_FOR_PRODUCERS)
    assert driver.transaction.needs_producer_id(None)
    assert driver.init(fresh_id=8).identity == ProducerIdentity(8, 0)


def test_a_producer_with_the_last_epoch_can_still_be_fenced() -> None:
    driver = worn()
    driver.add(P0)
    assert not driver.transaction.needs_producer_id(None), "the transaction comes first"
    assert driver.init().error is CONCURRENT
    assert driver.markers[0].identity == ProducerIdentity(7, MAX_EPOCH)
    driver.mark(P0)
    assert driver.transaction.needs_producer_id(None)
    assert driver.init(fresh_id=8).identity == ProducerIdentity(8, 0)


def test_going_on_with_used_up_epochs() -> None:
    driver = worn()
    last = driver.identity
    assert driver.transaction.needs_producer_id(last)
    assert not driver.transaction.needs_producer_id(ProducerIdentity(7, 3))
    fresh = driver.init(claim=last, fresh_id=8)
    assert fresh.identity == ProducerIdentity(8, 0)
    assert not driver.transaction.needs_producer_id(last)
    assert driver.init(claim=last) == fresh, "the answer was lost"
    assert driver.init(claim=fresh.identity).identity == ProducerIdentity(8, 1)


def test_a_lost_answer_with_the_last_epoch() -> None:
    driver = worn(LAST_EPOCH_FOR_PRODUCERS - 1)
    before = driver.identity
    first = driver.init(claim=before)
    assert first.identity.epoch == LAST_EPOCH_FOR_PRODUCERS
    assert not driver.transaction.needs_producer_id(before)
    assert driver.init(claim=before) == first


# -- verification (KIP-890) --------------------------------------------------------------------


# -- the second protocol (KIP-890) ----------------------------------------------------------------


def bumping(*partitions: TopicPartition, epoch: int = 4) -> Driver:
    """A producer of the second protocol with an open transaction."""
    image = TransactionImage(7, epoch, 60_000, TransactionState.EMPTY, frozenset(), NOW)
    driver = Driver(Transaction("x", image))
    driver.carry_out(
        driver.transaction.add_partitions(
            driver.identity, partitions or (P0,), nobody, NOW, bumping=True
        )
    )
    assert driver.error is NONE
    return driver


@pytest.mark.parametrize("committed", [True, False])
def test_every_end_brings_a_new_epoch_and_the_markers_carry_it(committed: bool) -> None:
    driver = bumping(P0, P1)
    before, after = ProducerIdentity(7, 4), ProducerIdentity(7, 5)
    assert driver.end_and_bump(committed) == Result(NONE, after)
    assert driver.markers == [WriteMarkers(after, committed, frozenset({P0, P1}))]
    assert driver.end_and_bump(committed, before).error is CONCURRENT
    assert driver.end_and_bump(committed, after).error is CONCURRENT
    driver.mark(P0, P1)
    assert driver.end_and_bump(committed, before) == Result(NONE, after), "the answer was lost"
    assert driver.end_and_bump(not committed, before).error is FENCED
    assert driver.identity == after
    assert driver.transaction.current.client_version == 2


def test_a_transaction_that_is_not_there_can_be_aborted_but_not_committed() -> None:
    driver = Driver()
    driver.init()
    assert driver.end_and_bump(True).error is ErrorCode.INVALID_TXN_STATE
    for epoch in (1, 2):
        assert driver.end_and_bump(False) == Result(NONE, ProducerIdentity(7, epoch))
        assert driver.state is TransactionState.COMPLETE_ABORT
    assert driver.end_and_bump(True).error is ErrorCode.INVALID_TXN_STATE
    assert driver.markers == []


def test_who_was_fenced_by_a_new_producer_ends_nothing() -> None:
    driver = Driver()
    driver.init()
    zombie = driver.identity
    driver.init()
    assert driver.end_and_bump(False, zombie).error is FENCED
    driver.add(P0)
    assert driver.end_and_bump(True, zombie).error is FENCED
    assert driver.end(True) is NONE
    driver.mark(P0)
    # The other was of the first protocol: its end did not make the zombie's identity the present.
    assert driver.end_and_bump(True, zombie).error is FENCED


def test_who_took_too_long_goes_on_after_an_abort() -> None:
    driver = bumping()
    late = driver.identity
    driver.carry_out(driver.transaction.time_out(NOW + 60_001))
    driver.mark(P0)
    assert driver.end_and_bump(True, late).error is FENCED
    assert driver.end_and_bump(False, late) == Result(NONE, ProducerIdentity(7, 5))


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_the_end_with_the_last_epoch_brings_a_new_producer_id(is_reloaded: bool) -> None:
    driver = bumping(epoch=LAST_EPOCH_FOR_PRODUCERS)
    before, after = driver.identity, ProducerIdentity(99, 0)
    assert driver.transaction.needs_producer_id_to_end(before)
    assert driver.end_and_bump(True, fresh_id=99) == Result(NONE, after)
    assert driver.markers[0].identity == (7, MAX_EPOCH)
    if is_reloaded:
        driver = Driver(Transaction("x", driver.stored[-1]))
        driver.carry_out(driver.transaction.resume())
    assert driver.end_and_bump(True, before).error is CONCURRENT
    driver.mark(P0)
    assert driver.identity == after
    assert driver.end_and_bump(True, before) == Result(NONE, after)
    assert driver.end_and_bump(True, ProducerIdentity(7, 3)).error is (
        ErrorCode.INVALID_PRODUCER_ID_MAPPING
    )


def test_the_epoch_that_is_kept_back_is_given_to_nobody() -> None:
    driver = bumping(epoch=LAST_EPOCH_FOR_PRODUCERS)
    late = driver.identity
    driver.carry_out(driver.transaction.time_out(NOW + 60_001))
    driver.mark(P0)
    assert driver.identity.epoch == MAX_EPOCH
    assert driver.end_and_bump(False, late).error is FENCED


def test_verification() -> None:
    driver = opened(P0)
    verify = driver.transaction.verify
    assert verify(driver.identity, [P0, P1]) == {P0}
    assert verify(ProducerIdentity(8, 0), [P0]) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert verify(ProducerIdentity(7, 5), [P0]) is FENCED
    driver.hold = True
    driver.add(P1)
    assert verify(driver.identity, [P0, P1]) == {P0}, "not before it is stored"
    driver.finish()
    assert verify(driver.identity, [P0, P1]) == {P0, P1}
    driver.hold = True
    driver.carry_out(driver.transaction.end(driver.identity, True, nobody, NOW))
    assert verify(driver.identity, [P0]) is CONCURRENT, "its markers may come any moment"
    driver.finish()
    assert verify(driver.identity, [P0]) is CONCURRENT
    driver.mark(P0, P1)
    assert verify(driver.identity, [P0]) == frozenset()


# -- expiry, crashes ---------------------------------------------------------------------------


def test_expiry() -> None:
    driver = Driver()
    driver.init()
    transaction = driver.transaction
    assert not transaction.is_expired(NOW + 999, 1_000)
    assert transaction.is_expired(NOW + 1_000, 1_000)
    transaction.expire()
    assert transaction.is_dying
    assert driver.add(P0) is CONCURRENT
    driver.finish(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert not transaction.is_dying
    assert driver.add(P0) is NONE
    assert not transaction.is_expired(NOW + 10**12, 1_000), "it is open"
    driver.end(False)
    assert not transaction.is_expired(NOW + 10**12, 1_000), "it is being aborted"
    driver.mark(P0)
    assert transaction.is_expired(NOW + 10**12, 1_000)
    transaction.expire()
    assert transaction.stored(NONE) == []


@pytest.mark.parametrize("committed", [True, False])
def test_a_decided_transaction_is_taken_up_after_a_crash(committed: bool) -> None:
    driver = opened(P0, P1)
    driver.end(committed)
    driver.mark(P0)
    after = Driver(Transaction("x", driver.transaction.current))
    after.carry_out(after.transaction.resume())
    assert after.markers == driver.markers, "all partitions again: who knows which have theirs"
    after.mark(P1, P0)
    assert after.state.label == ("CompleteCommit" if committed else "CompleteAbort")
    assert Transaction("x", after.transaction.current).resume() == []


def test_an_open_transaction_is_left_open_after_a_crash() -> None:
    driver = opened(P0)
    after = Transaction("x", driver.transaction.current)
    assert after.resume() == []
    assert after.has_timed_out(NOW + 60_001)


def test_the_end_is_written_again_until_it_stands() -> None:
    driver = opened(P0)
    driver.end(True)
    for retries in range(1, 4):
        driver.hold = True
        if retries == 1:
            driver.mark(P0)
        else:
            driver.carry_out(driver.transaction.complete(NOW))
        driver.finish(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        assert driver.retries == retries
        assert driver.state is TransactionState.PREPARE_COMMIT
        assert driver.end(True) is CONCURRENT
    driver.carry_out(driver.transaction.complete(NOW))
    assert driver.state is TransactionState.COMPLETE_COMMIT


# -- tables ------------------------------------------------------------------------------------


def test_numbers_and_names_are_kafkas() -> None:
    assert [(state.value, state.label) for state in TransactionState] == [
        (0, "Empty"),
        (1, "Ongoing"),
        (2, "PrepareCommit"),
        (3, "PrepareAbort"),
        (4, "CompleteCommit"),
        (5, "CompleteAbort"),
        (6, "Dead"),
        (7, "PrepareEpochFence"),
    ]
    assert BY_LABEL["PrepareAbort"] is TransactionState.PREPARE_ABORT
    # PREPARE_EPOCH_FENCE is no state of its own here.
    assert ALLOWED_FROM.keys() == set(TransactionState) - {TransactionState.PREPARE_EPOCH_FENCE}
    assert NO_EPOCH == -1
