"""A partition with followers: high watermark, in-sync set, epochs."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.schema import ZERO_UUID
from kavka.replication.partition import FoundState, IsrChange, Partition
from kavka.storage.clock import ManualClock
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.log import Log

LAG_MAX = 10.0
ME = 1


class FakeLog:
    """As much of a log as a partition looks at."""

    def __init__(self, flush_messages: int = 2**63 - 1, min_isr: int = 1) -> None:
        self.config = SimpleNamespace(
            flush_messages=flush_messages,
            min_insync_replicas=min_isr,
            cleanup_policy=frozenset({"delete"}),
        )
        self.topic_id = ZERO_UUID
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.recovery_point = 0
        self.high_watermark = 0
        self.leader_epochs = LeaderEpochCache("epochs")
        self.offline = None

    def advance_high_watermark(self, offset: int) -> None:
        if offset > self.high_watermark:
            self.high_watermark = min(offset, self.log_end_offset)

    def increment_log_start_offset(self, offset: int) -> None:
        self.log_start_offset = max(offset, self.log_start_offset)

    def append_as_leader(self, batches: object, epoch: int, now_ms: int, origin: object) -> None:
        self.log_end_offset += 1


class Case:
    """Partition orders-0 of brokers 1, 2 and 3, led by 1."""

    def __init__(
        self, isr: tuple[int, ...] = (1, 2, 3), end: int = 0, high: int = 0, **log: int
    ) -> None:
        self.clock = ManualClock()
        self.log = FakeLog(**log)
        self.log.log_end_offset = end
        self.log.high_watermark = high
        self.partition = Partition(
            "orders", b"\0" * 16, 0, ME, cast(Log, self.log), self.clock, LAG_MAX
        )
        self.partition.assign([1, 2, 3], isr, 1, 0)
        self.partition.become_leader(5)

    def append(self, count: int = 1, acks: int = -1) -> None:
        for _ in range(count):
            self.partition.append_as_leader([], acks, 0)

    def fetch(self, broker_id: int, offset: int) -> bool:
        return self.partition.follower_fetched(broker_id, offset, 0)

    @property
    def high(self) -> int:
        return self.partition.high_watermark


def test_alone_all_that_is_written_may_be_read() -> None:
    case = Case(isr=(1,))
    case.append(3)
    assert case.high == 3


def test_the_high_watermark_is_what_all_in_sync_have_asked_past() -> None:
    case = Case()
    case.append(5)
    assert case.high == 0
    assert not case.fetch(2, 5)
    assert case.high == 0
    assert case.fetch(3, 2)
    assert case.high == 2
    assert case.fetch(3, 5)
    assert case.high == 5
    assert not case.fetch(3, 5)


def test_a_broker_that_is_no_replica_is_told_to_look_again() -> None:
    case = Case()
    with pytest.raises(KafkaError) as raised:
        case.fetch(9, 0)
    assert raised.value.code is ErrorCode.UNKNOWN_LEADER_EPOCH


def test_a_new_leader_knows_nothing_of_its_followers() -> None:
    case = Case()
    case.append(3)
    case.fetch(2, 3)
    case.fetch(3, 3)
    case.partition.become_follower(2, 6)
    case.partition.assign([1, 2, 3], (1, 2, 3), 1, 1)
    case.partition.become_leader(7)
    case.append()
    case.fetch(2, 4)
    assert case.high == 3
    case.fetch(3, 4)
    assert case.high == 4


def test_a_leader_in_a_later_epoch_still_knows_its_followers() -> None:
    case = Case()
    case.append(3)
    case.fetch(2, 3)
    case.partition.assign([1, 2, 3], (1, 2), 1, 1)
    case.partition.become_leader(6)
    assert case.high == 3


def test_a_follower_that_stops_fetching_is_put_out() -> None:
    case = Case()
    case.append()
    case.fetch(2, 1)
    case.clock.advance(LAG_MAX)
    assert case.partition.shrink() is None
    case.fetch(2, 1)
    case.clock.advance(0.1)
    assert case.partition.shrink() == IsrChange((1, 2), 5, 1, 0)


def test_a_follower_that_has_everything_stays_however_long_it_is_silent() -> None:
    case = Case()
    case.append()
    case.fetch(2, 1)
    case.fetch(3, 1)
    case.clock.advance(100)
    assert case.partition.shrink() is None


def test_a_follower_always_a_moment_behind_stays_in_sync() -> None:
    """Under load each fetch asks for less than there is by then: being where the leader was at
    the fetch before is enough."""
    case = Case(isr=(1, 2))
    for number in range(100):
        case.append()
        case.fetch(2, number)
        case.clock.advance(1)
        assert case.partition.shrink() is None


def test_a_follower_that_falls_back_steadily_is_put_out() -> None:
    case = Case(isr=(1, 2))
    for number in range(30):
        case.append(2)
        case.fetch(2, number)
        case.clock.advance(1)
    assert case.partition.shrink() is not None


def test_while_a_follower_is_being_put_out_it_is_still_waited_for() -> None:
    case = Case()
    case.append()
    case.fetch(2, 1)
    case.clock.advance(LAG_MAX + 1)
    case.fetch(2, 1)
    change = case.partition.shrink()
    assert change is not None
    assert not case.partition.advance_high_watermark()
    assert case.partition.shrink() is None, "one change at a time"
    assert case.partition.isr_written(change, 4)
    assert case.partition.in_sync_replicas == [1, 2]
    assert case.partition.partition_epoch == 4
    assert case.partition.advance_high_watermark()
    assert case.high == 1


def test_while_a_follower_is_being_taken_in_it_is_waited_for_but_not_counted() -> None:
    case = Case(isr=(1, 2), min_isr=3)
    assert case.partition.wants_in_sync(3) is False, "it has not fetched yet"
    case.fetch(3, 0)
    assert case.partition.wants_in_sync(3)
    change = case.partition.expand(3)
    assert change == IsrChange((1, 2, 3), 5, 1, 0)
    with pytest.raises(KafkaError) as raised:
        case.append()
    assert raised.value.code is ErrorCode.NOT_ENOUGH_REPLICAS
    case.append(acks=1)
    case.clock.advance(LAG_MAX + 1)
    case.fetch(2, 1)
    assert case.high == 0
    case.partition.isr_written(change, 1)
    case.append()
    for follower in (2, 3):
        case.fetch(follower, 2)
    assert case.high == 2


def test_a_refused_change_leaves_the_old_set_and_waits_before_the_next() -> None:
    case = Case(isr=(1, 2))
    case.fetch(3, 0)
    change = case.partition.expand(3)
    case.partition.isr_refused(change, FoundState(2, 6, (2,), 8), 5.0)
    assert case.partition.in_sync_replicas == [1, 2]
    assert case.partition.partition_epoch == 0
    assert not case.partition.wants_in_sync(3)
    case.clock.advance(5)
    assert case.partition.wants_in_sync(3)


def test_a_state_of_the_same_epoch_is_gone_by_from_now_on() -> None:
    """Or a version that somebody else has counted up would keep the set as it is for ever."""
    case = Case(isr=(1, 2))
    case.fetch(3, 0)
    change = case.partition.expand(3)
    case.partition.isr_refused(change, FoundState(ME, 5, (1,), 8), 5.0)
    assert case.partition.in_sync_replicas == [1]
    case.clock.advance(5)
    assert case.partition.expand(3) == IsrChange((1, 3), 5, 1, 8)


def test_a_change_that_the_controller_has_overtaken_is_not_taken_over() -> None:
    case = Case(isr=(1, 2))
    case.fetch(3, 0)
    change = case.partition.expand(3)
    case.partition.assign([1, 2, 3], (1,), 2, 9)
    case.partition.become_leader(6)
    assert not case.partition.isr_written(change, 1)
    assert case.partition.in_sync_replicas == [1]


def test_in_sync_again_means_up_to_the_high_watermark_and_into_this_epoch() -> None:
    case = Case(isr=(1, 2), end=10, high=4)
    case.fetch(3, 5)
    assert not case.partition.wants_in_sync(3), "the leader began at 10"
    case.fetch(3, 10)
    assert case.partition.wants_in_sync(3)
    case.append(2)
    case.fetch(2, 12)
    case.clock.advance(LAG_MAX + 1)
    case.partition.advance_high_watermark()
    assert case.high == 12
    assert not case.partition.wants_in_sync(3)


def test_who_has_just_caught_up_is_waited_for_though_not_in_sync() -> None:
    case = Case(isr=(1,))
    case.append(3)
    case.fetch(2, 3)
    case.append()
    assert case.high == 3
    case.clock.advance(LAG_MAX + 1)
    assert case.partition.advance_high_watermark()
    assert case.high == 4


def test_too_few_in_sync_before_and_after_an_append() -> None:
    case = Case(min_isr=2)
    case.append()
    case.fetch(2, 1)
    case.fetch(3, 1)
    case.append()
    case.clock.advance(LAG_MAX + 1)
    change = case.partition.shrink()
    assert change is not None and change.isr == (1,)
    case.partition.require_enough_in_sync_after_append()
    case.partition.isr_written(change, 1)
    with pytest.raises(KafkaError) as raised:
        case.partition.require_enough_in_sync_after_append()
    assert raised.value.code is ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    with pytest.raises(KafkaError) as raised:
        case.append()
    assert raised.value.code is ErrorCode.NOT_ENOUGH_REPLICAS
    case.append(acks=1)


def test_with_synchronous_flush_the_leader_counts_itself_when_its_disk_has_it() -> None:
    case = Case(flush_messages=1)
    case.append(3)
    for follower in (2, 3):
        case.fetch(follower, 3)
    assert case.high == 0
    case.log.recovery_point = 2
    case.partition.advance_high_watermark()
    assert case.high == 2


def test_a_follower_takes_over_the_leaders_high_watermark_as_far_as_it_has_records() -> None:
    case = Case(end=3)
    case.partition.become_follower(2, 6)
    assert case.partition.follow_high_watermark(9)
    assert case.high == 3
    assert not case.partition.follow_high_watermark(2)
    assert case.high == 3


def test_a_new_leader_says_when_it_has_reached_what_the_one_before_had_shown() -> None:
    case = Case(end=10, high=4)
    assert not case.partition.is_settled
    case.fetch(2, 10)
    case.fetch(3, 10)
    assert case.partition.is_settled


def test_epochs_of_a_client_that_knows_less_or_more() -> None:
    case = Case()
    for epoch, code in ((4, ErrorCode.FENCED_LEADER_EPOCH), (6, ErrorCode.UNKNOWN_LEADER_EPOCH)):
        with pytest.raises(KafkaError) as raised:
            case.partition.require_leader(epoch)
        assert raised.value.code is code
    case.partition.require_leader(5)
    case.partition.become_follower(2, 6)
    with pytest.raises(KafkaError) as raised:
        case.partition.require_leader(6)
    assert raised.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_who_asks_for_less_than_all_in_sync_have_is_put_out_at_once() -> None:
    """Its disk has forgotten what it had: it must not be elected for what it was."""
    case = Case()
    case.append(3)
    for follower in (2, 3):
        case.fetch(follower, 3)
    assert not case.partition.has_lost(2)
    case.fetch(2, 1)
    assert case.partition.has_lost(2)
    assert case.partition.put_out(2) == IsrChange((1, 3), 5, 1, 0)
    assert case.partition.put_out(3) is None, "one change at a time"


def test_a_later_state_of_this_epoch_is_learnt_from_the_metadata() -> None:
    case = Case()
    assert not case.partition.learn(FoundState(ME, 5, (1, 2), 0))
    assert not case.partition.learn(FoundState(ME, 6, (1, 2), 4))
    assert not case.partition.learn(FoundState(2, 5, (1, 2), 4))
    assert case.partition.learn(FoundState(ME, 5, (1, 2), 4))
    assert (case.partition.in_sync_replicas, case.partition.partition_epoch) == ([1, 2], 4)


class Store:
    """The state node: a conditional write, and answers that come when they come."""

    def __init__(self) -> None:
        self.isr: tuple[int, ...] = (1, 2, 3)
        self.version = 0

    def write(self, change: IsrChange) -> int | None:
        if change.partition_epoch != self.version:
            return None
        self.version += 1
        self.isr = change.isr
        return self.version


class LeaderMachine(RuleBasedStateMachine):
    """Whatever happens: every member of the in-sync set that is in the store has all below the
    high watermark, so that any of them may be elected."""

    def __init__(self) -> None:
        super().__init__()
        self.case = Case()
        self.partition = self.case.partition
        self.store = Store()
        self.held = {2: 0, 3: 0}  # what followers have told that they have
        self.shown = 0
        self.under_way: list[tuple[IsrChange, Any]] = []  # change, and the store's answer

    @rule(count=st.integers(1, 3))
    def append(self, count: int) -> None:
        self.case.append(count, acks=1)

    @rule(broker=st.sampled_from([2, 3]), step=st.integers(0, 4))
    def fetch(self, broker: int, step: int) -> None:
        offset = min(self.held[broker] + step, self.case.log.log_end_offset)
        self.held[broker] = offset
        self.case.fetch(broker, offset)
        if self.partition.wants_in_sync(broker):
            self._write(self.partition.expand(broker))

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.case.clock.advance(seconds)

    @rule()
    def look_for_lagging(self) -> None:
        change = self.partition.shrink()
        if change is not None:
            self._write(change)
        self.partition.advance_high_watermark()

    def _write(self, change: IsrChange) -> None:
        self.under_way.append((change, None))

    @precondition(lambda self: self.under_way)
    @rule()
    def store_acts(self) -> None:
        change, answer = self.under_way[0]
        if answer is None:
            self.under_way[0] = (change, (self.store.write(change),))

    @precondition(lambda self: self.under_way and self.under_way[0][1] is not None)
    @rule()
    def answer_arrives(self) -> None:
        change, (version,) = self.under_way.pop(0)
        if version is not None:
            self.partition.isr_written(change, version)
        else:
            found = FoundState(ME, self.partition.leader_epoch, self.store.isr, self.store.version)
            self.partition.isr_refused(change, found, 1.0)
        self.partition.advance_high_watermark()

    @rule()
    def somebody_counts_the_version_up(self) -> None:
        self.store.version += 1

    @rule()
    def controller_begins_an_epoch(self) -> None:
        self.store.version += 1
        self.under_way.clear()
        self.partition.assign([1, 2, 3], self.store.isr, 1, self.store.version)
        self.partition.become_leader(self.partition.leader_epoch + 1)

    @invariant()
    def members_in_the_store_have_all_below_the_high_watermark(self) -> None:
        for broker in self.store.isr:
            if broker != ME:
                assert self.held[broker] >= self.partition.high_watermark

    @invariant()
    def high_watermark_never_goes_back(self) -> None:
        assert self.shown <= self.partition.high_watermark <= self.case.log.log_end_offset
        self.shown = self.partition.high_watermark


TestLeader = LeaderMachine.TestCase
TestLeader.settings = settings(deadline=None, max_examples=60, stateful_step_count=60)


# -- fetches that say nothing new -----------------------------------------------------------


def test_a_follower_at_rest_is_not_missed() -> None:
    case = Case()
    case.append(2)
    case.fetch(2, 2)
    case.fetch(3, 2)
    case.clock.advance(5 * LAG_MAX)  # nothing is written, and both ask all the time
    assert case.partition.is_at_rest(2, 2, 0, case.clock.monotonic())
    assert case.partition.is_at_rest(3, 2, 0, case.clock.monotonic())
    case.append()
    assert case.partition.shrink() is None
    case.clock.advance(LAG_MAX + 1)  # but now they are silent
    change = case.partition.shrink()
    assert change is not None and change.isr == (1,)


def test_looking_again_is_no_sign_of_life() -> None:
    case = Case()
    case.append(2)
    case.fetch(2, 2)
    case.fetch(3, 2)
    case.clock.advance(LAG_MAX + 1)
    assert case.partition.is_at_rest(2, 2, 0, None)
    assert case.partition.is_at_rest(3, 2, 0, case.clock.monotonic())
    case.append()
    change = case.partition.shrink()
    assert change is not None and change.isr == (1, 3)


@pytest.mark.parametrize(
    "happening",
    [
        lambda case: case.append(),
        lambda case: case.partition.become_follower(2, 6),
        lambda case: setattr(case.partition, "deleted", True),
        lambda case: setattr(case.log, "offline", "gone"),
        lambda case: case.partition.assign([1, 2, 3], (1, 3), 1, 1),
        lambda case: case.partition.assign([1, 3], (1, 3), 1, 1) or case.partition.become_leader(6),
    ],
    ids=["append", "follower", "deleted", "offline", "out of sync", "no replica"],
)
def test_what_happens_ends_the_rest(happening: Any) -> None:
    case = Case()
    case.append(2)
    case.fetch(2, 2)
    assert case.partition.is_at_rest(2, 2, 0, None)
    happening(case)
    assert not case.partition.is_at_rest(2, 2, 0, case.clock.monotonic())


@pytest.mark.parametrize(("offset", "start"), [(1, 0), (3, 0), (2, 1)])
def test_news_of_a_follower_are_looked_at(offset: int, start: int) -> None:
    case = Case()
    case.append(2)
    case.fetch(2, 2)
    assert not case.partition.is_at_rest(2, offset, start, case.clock.monotonic())
