"""The coordinator around the transactions: storing, loading, markers, time."""

import asyncio
import logging

import pytest

from kavka.broker.transactions import records
from kavka.broker.transactions.coordinator import state_error
from kavka.broker.transactions.housekeeping import TOMBSTONES_PER_BATCH
from kavka.broker.transactions.marker_writer import TxnMarker
from kavka.broker.transactions.markers import METADATA_SECONDS, RETRY_SECONDS
from kavka.broker.transactions.messages import (
    NOBODY,
    ProducerIdentity,
    Result,
    TransactionImage,
)
from kavka.broker.transactions.settings import TransactionSettings
from kavka.broker.transactions.state import TransactionState
from kavka.broker.transactions.transaction import LAST_EPOCH_FOR_PRODUCERS, MAX_EPOCH
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.topics import TopicPartition
from tests.unit.broker.groups.harness import MemoryLog
from tests.unit.broker.transactions.harness import (
    ELSEWHERE,
    ME,
    NONE,
    P0,
    P1,
    Harness,
    Written,
    run,
)

DAY_SECONDS = 86_400


# -- the ordinary way ---------------------------------------------------------------------------


def test_a_transaction_from_beginning_to_end() -> None:
    harness = Harness()
    identity = harness.producer()
    assert identity == ProducerIdentity(1001, 0)
    assert harness.add(identity, P0, ELSEWHERE) is NONE
    assert harness.end(identity, True) is NONE
    marker = TxnMarker(1001, 0, True, 5)
    assert sorted(harness.leaders.written) == [
        Written(1, marker, frozenset({P0})),
        Written(2, marker, frozenset({ELSEWHERE})),
    ]
    assert harness.stored() == [
        ("x", "Empty"),
        ("x", "Ongoing"),
        ("x", "PrepareCommit"),
        ("x", "CompleteCommit"),
    ]
    assert harness.add(identity, P1) is NONE
    assert harness.end(identity, False) is NONE
    assert harness.leaders.written[-1] == Written(ME, TxnMarker(1001, 0, False, 5), frozenset({P1}))
    assert harness.state() == "CompleteAbort"


def test_answers_wait_for_replication_and_markers_for_the_decision() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.log.replicates = False
    answers: list[Result] = []
    harness.transactions.end("x", identity, True, answers.append)
    assert answers == []
    assert harness.leaders.written == []
    harness.log.replicate()
    assert answers == [Result(NONE)]
    assert len(harness.leaders.written) == 1
    assert harness.state() == "PrepareCommit"
    harness.log.replicate()
    assert harness.state() == "CompleteCommit"


def test_the_decision_is_answered_before_the_markers_are_written() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.leaders.holds = True
    assert harness.end(identity, True) is NONE
    assert harness.add(identity, P1) is ErrorCode.CONCURRENT_TRANSACTIONS
    harness.leaders.answer()
    assert harness.add(identity, P1) is NONE


def test_a_name_belongs_to_the_partition_java_says() -> None:
    harness = Harness(partitions=50)
    assert harness.transactions.partition_of("my-txn") == 45
    harness.producer("my-txn")
    assert harness.stored(45) == [("my-txn", "Empty")]


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "x" * (limits.TRANSACTIONAL_ID_CHARACTERS_MAX + 1)])
def test_a_name_that_cannot_be(name: str) -> None:
    harness = Harness()
    refused = ErrorCode.INVALID_REQUEST
    assert harness.init(name) == Result(refused)
    assert harness.init(name, timeout_ms=0) == Result(refused)
    assert harness.add(NOBODY, P0, name=name) is refused
    assert harness.end(NOBODY, True, name=name) is refused
    assert harness.transactions.verify(name, NOBODY, [P0]) == {P0: refused}
    assert harness.transactions.describe(name) == (refused, None)


def test_an_id_nobody_has_had() -> None:
    harness = Harness()
    identity = ProducerIdentity(1, 0)
    refused = ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert harness.add(identity, P0) is refused
    assert harness.end(identity, True) is refused
    assert harness.transactions.verify("x", identity, [P0, P1]) == {P0: refused, P1: refused}
    assert harness.transactions.describe("x") == (ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, None)
    assert harness.stored() == []


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_a_time_out_that_cannot_be(timeout_ms: int) -> None:
    harness = Harness()
    assert harness.init(timeout_ms=timeout_ms) == Result(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
    assert harness.given_ids == 0


@pytest.mark.parametrize(
    "refused",
    [
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ],
)
def test_who_cannot_answer_now_says_so(refused: ErrorCode) -> None:
    harness = Harness()
    identity = harness.producer()
    if refused is ErrorCode.COORDINATOR_NOT_AVAILABLE:
        harness.transactions.stop()
    elif refused is ErrorCode.NOT_COORDINATOR:
        harness.transactions.on_resigned(0)
    else:
        harness.in_thread = True
        harness.reload()
    assert harness.init() == Result(refused)
    assert harness.add(identity, P0) is refused
    assert harness.end(identity, True) is refused
    assert harness.transactions.verify("x", identity, [P0]) == {P0: refused}
    assert harness.transactions.describe("x") == (refused, None)
    if refused is not ErrorCode.NOT_COORDINATOR:
        assert harness.transactions.list_transactions((), (), -1).error is refused


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.CORRUPT_MESSAGE, ErrorCode.CORRUPT_MESSAGE),
    ],
)
def test_what_producers_are_told_of_a_failed_write(code: ErrorCode, told: ErrorCode) -> None:
    assert state_error(code) is told
    harness = Harness()
    harness.log.refuse = code
    assert harness.init() == Result(told)
    assert harness.transactions.describe("x") == (ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, None)
    harness.log.refuse = None
    identity = harness.producer()
    harness.log.refuse = code
    assert harness.add(identity, P0) is told
    harness.log.refuse = None
    assert harness.add(identity, P0) is NONE


def test_a_write_that_is_not_replicated_in_time() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.log.replicates = False
    answers: list[Result] = []
    harness.transactions.end("x", identity, True, answers.append)
    harness.log.replicate(ErrorCode.REQUEST_TIMED_OUT)
    assert answers == [Result(ErrorCode.COORDINATOR_NOT_AVAILABLE)]
    assert harness.leaders.written == []
    harness.log.replicates = True
    assert harness.end(identity, True) is NONE
    assert harness.state() == "CompleteCommit"


# -- identities ---------------------------------------------------------------------------------


def test_two_that_come_at_once_for_a_new_id() -> None:
    harness = Harness()

    async def both() -> list[Result]:
        init = harness.transactions.init_producer_id
        return list(await asyncio.gather(init("x", 1_000, None), init("x", 1_000, None)))

    first, second = run(both())
    assert first.error is second.error is NONE
    assert first.identity.producer_id == second.identity.producer_id
    assert {first.identity.epoch, second.identity.epoch} == {0, 1}


def test_leadership_that_goes_while_an_id_is_fetched() -> None:
    harness = Harness()
    harness.before_next_id = lambda: harness.transactions.on_resigned(0)
    assert harness.init() == Result(ErrorCode.NOT_COORDINATOR)
    assert harness.stored() == []


def test_no_producer_ids_to_be_had() -> None:
    harness = Harness()

    def fail() -> None:
        raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    harness.before_next_id = fail
    assert harness.init() == Result(ErrorCode.COORDINATOR_NOT_AVAILABLE)


def test_epochs_that_are_used_up_fetch_a_new_id() -> None:
    harness = Harness()
    identity = harness.producer()
    for _ in range(3):
        identity = harness.init(claim=identity).identity
    assert identity == ProducerIdentity(1001, 3)
    transaction = harness.transactions.describe("x")[1]
    assert transaction is not None
    transaction.current = transaction.current._replace(producer_epoch=32_766)
    assert harness.init().identity == ProducerIdentity(1002, 0)
    assert harness.given_ids == 2


def test_a_cancelled_wait_leaves_the_transaction_alone() -> None:
    harness = Harness()
    harness.log.replicates = False

    async def give_up() -> None:
        waiting = asyncio.ensure_future(harness.transactions.init_producer_id("x", 1_000, None))
        for _ in range(5):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(give_up())
    harness.log.replicate()
    assert harness.image().identity == ProducerIdentity(1001, 0)


# -- leadership ---------------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_stored() -> None:
    harness = Harness(partitions=3)
    names = [f"name-{number}" for number in range(20)]
    identities = {name: harness.producer(name) for name in names}
    for name in names[5:]:
        harness.add(identities[name], P0, P1, name=name)
    for name in names[10:]:
        harness.end(identities[name], len(name) % 2 == 0, name=name)
    before = {name: harness.image(name) for name in names}
    after = Harness(partitions=3, log=harness.log)
    assert {name: after.image(name) for name in names} == before
    assert after.leaders.written == []


@pytest.mark.parametrize("committed", [True, False])
def test_a_decided_transaction_is_taken_up_by_the_next_coordinator(
    committed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0, P1)
    harness.leaders.holds = True
    harness.end(identity, committed)
    after = Harness(log=harness.log)
    (written,) = after.leaders.written
    assert written == Written(ME, TxnMarker(1001, 0, committed, 5), frozenset({P0, P1}))
    assert after.state() == ("CompleteCommit" if committed else "CompleteAbort")
    assert "are taken up partition=0 transactions=1" in caplog.text
    # What the old one hears now is nothing to it.
    harness.transactions.on_resigned(0)
    stored = harness.stored()
    harness.leaders.answer()
    assert harness.stored() == stored


def test_markers_carry_the_leader_epoch_of_the_state_partition() -> None:
    harness = Harness()
    harness.reload(leader_epoch=9)
    identity = harness.producer()
    harness.add(identity, P0)
    harness.end(identity, True)
    assert harness.leaders.written[0].marker.coordinator_epoch == 9


def test_who_waits_for_a_record_is_told_when_leadership_goes() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.log.replicates = False
    answers: list[Result] = []
    harness.transactions.end("x", identity, True, answers.append)
    harness.transactions.on_resigned(0)
    harness.log.replicate(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert answers == [Result(ErrorCode.NOT_COORDINATOR)]
    assert harness.leaders.written == []


def test_the_end_that_cannot_be_written_is_tried_again() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.leaders.holds = True
    harness.end(identity, True)
    harness.log.refuse = ErrorCode.KAFKA_STORAGE_ERROR  # a full disk, say
    harness.leaders.answer()
    assert harness.state() == "PrepareCommit"
    harness.timers.advance(RETRY_SECONDS)
    assert harness.state() == "PrepareCommit"
    harness.log.refuse = None
    harness.timers.advance(RETRY_SECONDS)
    assert harness.state() == "CompleteCommit"


def test_a_partition_that_cannot_be_read_is_not_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryLog()
    Harness(log=log).producer("x")
    log.batches[0][0] = log.batches[0][0][:-1] + b"\xff"
    harness = Harness(log=log)
    assert harness.init() == Result(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert "Transactional ids could not be loaded" in caplog.text


def test_nonsense_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    log.append_records(0, [(b"\0\0\0\x01x", b"\0\x07?")])
    assert Harness(log=log).init().error is NONE
    assert "Records of no known kind were passed over partition=0 records=1" in caplog.text


def test_loading_says_how_much_it_found(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    harness = Harness()
    harness.producer("a")
    harness.producer("b")
    caplog.clear()
    after = Harness(log=harness.log)
    assert "Transactional ids loaded partition=0 found=2" in caplog.text
    run(after.transactions.loaded())


# -- markers ------------------------------------------------------------------------------------


def decided(harness: Harness, *partitions: TopicPartition) -> None:
    identity = harness.producer()
    assert harness.add(identity, *partitions) is NONE
    assert harness.end(identity, True) is NONE


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.BROKER_NOT_AVAILABLE,
        ErrorCode.UNKNOWN_SERVER_ERROR,
    ],
)
def test_a_marker_is_brought_until_it_stands(
    code: ErrorCode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    harness = Harness()
    harness.leaders.codes[P0] = code
    decided(harness, P0, P1)
    for tries in range(1, 5):
        assert len(harness.leaders.written) == tries
        assert harness.state() == "PrepareCommit"
        harness.timers.advance(RETRY_SECONDS)
    assert [w.partitions for w in harness.leaders.written[1:]] == [frozenset({P0})] * 4
    assert caplog.text.count("could not be written yet") == 1
    harness.leaders.codes.clear()
    harness.leaders.leaders[P0] = 3  # led elsewhere meanwhile
    harness.timers.advance(RETRY_SECONDS)
    assert harness.leaders.written[-1].node_id == 3
    assert harness.state() == "CompleteCommit"


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.INVALID_PRODUCER_EPOCH,
    ],
)
def test_a_partition_that_needs_no_marker(code: ErrorCode) -> None:
    harness = Harness()
    harness.leaders.codes[P0] = code
    decided(harness, P0, P1)
    assert harness.state() == "CompleteCommit"


def test_a_coordinator_that_another_one_has_replaced_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness = Harness()
    harness.leaders.codes[P0] = ErrorCode.TRANSACTION_COORDINATOR_FENCED
    decided(harness, P0, P1)
    harness.timers.advance(60)
    assert len(harness.leaders.written) == 1
    assert harness.state() == "PrepareCommit"
    assert "Another coordinator ends this transaction" in caplog.text


def test_a_partition_without_leader_is_waited_for() -> None:
    harness = Harness()
    harness.leaders.leaders[P0] = -1
    decided(harness, P0)
    harness.timers.advance(3_600)
    assert harness.leaders.written == []
    harness.leaders.leaders[P0] = ME
    harness.timers.advance(RETRY_SECONDS)
    assert harness.state() == "CompleteCommit"


def test_a_deleted_partition_gets_no_marker() -> None:
    harness = Harness()
    harness.timers.advance(METADATA_SECONDS)
    identity = harness.producer()
    harness.add(identity, P0, P1)
    del harness.leaders.leaders[P0]
    harness.end(identity, True)
    assert [w.partitions for w in harness.leaders.written] == [frozenset({P1})]
    assert harness.state() == "CompleteCommit"


def test_right_after_the_start_an_unknown_partition_need_not_be_deleted() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.leaders.holds = True
    harness.end(identity, False)
    after = Harness(log=harness.log, leads=False)
    del after.leaders.leaders[P0]
    after.transactions.on_elected(0, 6)
    after.timers.advance(METADATA_SECONDS / 2)
    assert after.leaders.written == []
    after.leaders.leaders[P0] = ME
    after.timers.advance(RETRY_SECONDS)
    assert len(after.leaders.written) == 1
    assert after.state() == "CompleteAbort"


def test_markers_stop_when_leadership_goes() -> None:
    harness = Harness()
    harness.leaders.codes[P0] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    decided(harness, P0)
    harness.transactions.on_resigned(0)
    harness.timers.advance(60)
    assert len(harness.leaders.written) == 1


# -- time ---------------------------------------------------------------------------------------


def test_transactions_that_take_too_long_are_aborted() -> None:
    harness = Harness(TransactionSettings(timeout_check_interval_ms=10_000))
    slow, fast = harness.producer("slow"), harness.init("fast", timeout_ms=5_000).identity
    harness.add(slow, P0, name="slow")
    harness.add(fast, P1, name="fast")
    harness.timers.advance(9)
    assert harness.state("fast") == "Ongoing", "looked at every ten seconds"
    harness.timers.advance(1)
    assert harness.state("fast") == "CompleteAbort"
    assert harness.state("slow") == "Ongoing"
    assert harness.leaders.written == [
        Written(ME, TxnMarker(fast.producer_id, 1, False, 5), frozenset({P1}))
    ]
    assert harness.end(fast, True, "fast") is ErrorCode.PRODUCER_FENCED
    harness.timers.advance(60)
    assert harness.state("slow") == "CompleteAbort"


def test_ids_that_nobody_uses_are_forgotten() -> None:
    harness = Harness()
    old = harness.producer("old")
    ended = harness.producer("ended")
    harness.add(ended, P0, name="ended")
    harness.end(ended, True, "ended")
    harness.timers.advance(DAY_SECONDS)
    harness.producer("young")
    harness.timers.advance(6 * DAY_SECONDS + 3_600)
    assert harness.stored()[-2:] == [("old", None), ("ended", None)]
    listed = harness.transactions.list_transactions((), (), -1)
    assert [t.transactional_id for t in listed.transactions] == ["young"]
    assert harness.add(old, P0, name="old") is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    after = Harness(log=harness.log)
    assert after.transactions.describe("old")[0] is ErrorCode.TRANSACTIONAL_ID_NOT_FOUND


def test_an_id_whose_tombstone_is_not_written_stays() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.timers.advance(7 * DAY_SECONDS - 60)
    harness.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
    harness.timers.advance(7_200)
    harness.log.refuse = None
    assert harness.add(identity, P0) is NONE
    harness.log.replicates = False
    harness.timers.advance(30 * DAY_SECONDS)
    assert harness.log.waiting, "aborted for its time-out"


def test_a_dying_id_is_not_shown() -> None:
    harness = Harness()
    harness.producer()
    harness.log.replicates = False
    harness.timers.advance(7 * DAY_SECONDS + 3_600)
    assert harness.transactions.describe("x")[0] is ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    assert harness.transactions.list_transactions((), (), -1).transactions == []
    assert harness.init().error is ErrorCode.CONCURRENT_TRANSACTIONS
    harness.log.replicate()
    harness.log.replicates = True
    assert harness.init().identity == ProducerIdentity(1002, 0)


def test_many_tombstones_are_several_batches() -> None:
    harness = Harness()

    async def come() -> None:
        for number in range(TOMBSTONES_PER_BATCH + 1):
            await harness.transactions.init_producer_id(str(number), 1_000, None)

    run(come())
    before = len(harness.log.batches[0])
    harness.timers.advance(7 * DAY_SECONDS + 3_600)
    assert len(harness.log.batches[0]) == before + 2
    assert harness.transactions.list_transactions((), (), -1).transactions == []


def test_after_the_stop_nothing_happens_by_time() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    harness.transactions.stop()
    stored = harness.stored()
    harness.timers.advance(30 * DAY_SECONDS)
    assert harness.stored() == stored


# -- looking ------------------------------------------------------------------------------------


def test_listing() -> None:
    harness = Harness(partitions=2)
    identities = {name: harness.producer(name) for name in ("a", "b", "c", "d")}
    harness.add(identities["b"], P0, name="b")
    harness.timers.advance(5)
    harness.add(identities["c"], P0, name="c")
    harness.add(identities["d"], P0, name="d")
    harness.end(identities["d"], True, "d")

    def listed(*states: str, ids: tuple[int, ...] = (), longer_than_ms: int = -1) -> set[str]:
        listing = harness.transactions.list_transactions(states, ids, longer_than_ms)
        assert listing.error is NONE
        return {transaction.transactional_id for transaction in listing.transactions}

    assert listed() == {"a", "b", "c", "d"}
    assert listed("Ongoing") == {"b", "c"}
    assert listed("Empty", "CompleteCommit") == {"a", "d"}
    assert listed("Nonsense") == set()
    unknown = harness.transactions.list_transactions(["Nonsense", "Dead"], (), -1)
    assert unknown.unknown_states == ["Nonsense"]
    assert listed(ids=(identities["a"].producer_id, 5)) == {"a"}
    assert listed(longer_than_ms=0) == {"b"}
    assert listed(longer_than_ms=4_999) == {"b"}
    assert listed(longer_than_ms=5_000) == set()


def test_a_decided_transaction_shows_the_partitions_it_waits_for() -> None:
    harness = Harness()
    harness.leaders.codes[P1] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    decided(harness, P0, P1)
    error, transaction = harness.transactions.describe("x")
    assert error is NONE
    assert transaction is not None
    assert transaction.partitions == {P1}


def test_verification() -> None:
    harness = Harness()
    identity = harness.producer()
    harness.add(identity, P0)
    assert harness.transactions.verify("x", identity, [P0, P1]) == {
        P0: NONE,
        P1: ErrorCode.TRANSACTION_ABORTABLE,
    }
    later = ProducerIdentity(identity.producer_id, 1)
    assert harness.transactions.verify("x", later, [P0]) == {P0: ErrorCode.PRODUCER_FENCED}


@pytest.mark.parametrize("lost", [False, True])
def test_used_up_epochs_bring_a_new_producer_id_with_the_end(lost: bool) -> None:
    """By the second protocol of KIP-890; while the id is fetched leadership may go."""
    worn = TransactionImage(
        *(7, LAST_EPOCH_FOR_PRODUCERS, 60_000, TransactionState.ONGOING, frozenset({P0})),
        *(0, 0, -1, -1, 2),
    )
    log = MemoryLog()
    record = Record(0, 0, records.transaction_key("x"), records.transaction_value(worn), ())
    log.append(0, bytearray(build_batch([record], base_offset=0)))
    harness = Harness(log=log)
    answers: list[Result] = []

    async def end() -> None:
        if lost:
            harness.before_next_id = lambda: harness.transactions.on_resigned(0)
        harness.transactions.end("x", worn.identity, True, answers.append, bumping=True)
        while not answers:
            await asyncio.sleep(0)

    run(end())
    if lost:
        assert answers == [Result(ErrorCode.NOT_COORDINATOR)]
    else:
        assert answers == [Result(NONE, ProducerIdentity(1001, 0))]
        assert harness.image().identity == (1001, 0)
        assert harness.leaders.written[0].marker.producer_epoch == MAX_EPOCH
