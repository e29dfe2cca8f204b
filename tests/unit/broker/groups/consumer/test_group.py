"""A consumer group by itself: single rules, then random members that must converge."""

import math
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kavka.broker.groups.consumer import records
from kavka.broker.groups.consumer.assignors import Topic
from kavka.broker.groups.consumer.group import Beat, ConsumerGroup, Decision, Reply
from kavka.broker.groups.consumer.member import (
    AWAY,
    JOINING,
    LEFT,
    NOTHING,
    MemberState,
    Slot,
    Slots,
)
from kavka.broker.groups.consumer.settings import ConsumerGroupSettings
from kavka.broker.groups.consumer.state import GroupData
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.messages import Moment
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import consumer_groups as stored

READS = frozenset({"t"})
REBALANCE_MS = 10_000


def slots(*partitions: int, topic: str = "t") -> Slots:
    return frozenset(Slot(topic_id(topic), partition) for partition in partitions)


def topic_id(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


class Driver:
    """A group with its log, and members that do as they are told."""

    def __init__(self, partitions: int = 6, **settings: object) -> None:
        self.settings = ConsumerGroupSettings(**settings)  # type: ignore[arg-type]
        self.topics = {"t": Topic(topic_id("t"), partitions)}
        self.version = 1
        self.seconds = 1000.0
        self.log: list[tuple[bytes, bytes | None]] = []
        self.group = ConsumerGroup("g", self.settings, self.now)
        self.epochs: dict[str, int] = {}
        self.owned: dict[str, Slots] = {}

    @property
    def now(self) -> Moment:
        return Moment(self.seconds, int(self.seconds * 1000))

    def find(self, names: frozenset[str]) -> Mapping[str, Topic]:
        return {name: topic for name, topic in self.topics.items() if name in names}

    def resize(self, partitions: int) -> None:
        self.topics["t"] = Topic(topic_id("t"), partitions)
        self.version += 1

    def send(self, beat: Beat) -> Reply:
        decision = self.group.heartbeat(beat, self.find, self.version)
        self.write(decision)
        self.group.carry_on(decision, beat, self.now)
        return decision.reply

    def write(self, decision: Decision) -> None:
        self.log += [records.record_of("g", update) for update in decision.updates]

    def join(self, member_id: str, topics: Iterable[str] = READS, **more: object) -> Reply:
        beat = Beat(
            member_id,
            JOINING,
            rebalance_timeout_ms=REBALANCE_MS,
            topics=frozenset(topics),
            owned=NOTHING,
        )
        reply = self.note(self.send(beat._replace(**more)))
        assert reply.assigned is not None
        self.owned[member_id] = reply.assigned
        return reply

    def beat(self, member_id: str, *, owned: Slots | None = None, **more: object) -> Reply:
        beat = Beat(member_id, self.epochs[member_id], owned=owned)
        return self.note(self.send(beat._replace(**more)))

    def note(self, reply: Reply) -> Reply:
        self.epochs[reply.member_id] = reply.epoch
        return reply

    def follow(self, member_id: str) -> Reply:
        """Heartbeats as a client sends them: it tells what it owns when that has changed."""
        reply = self.beat(member_id, owned=self.owned[member_id])
        while reply.assigned is not None and reply.assigned != self.owned[member_id]:
            self.owned[member_id] = reply.assigned
            reply = self.beat(member_id, owned=reply.assigned)
        return reply

    def settle(self) -> None:
        for _ in range(8):
            for member_id in sorted(self.group.data.members):
                self.follow(member_id)

    def assigned(self, member_id: str) -> Slots:
        return self.group.data.members[member_id].assigned

    def reload(self) -> None:
        """Another coordinator takes over, from the log, compacted."""
        data = GroupData()
        for key, value in dict(self.log).items():
            parsed = stored.decode_key(key)
            assert parsed is not None
            update = records.read_update(parsed, value)
            if update is not None:
                data.apply(update)
        for name in ("epoch", "target_epoch", "members", "instances", "holders"):
            assert getattr(data, name) == getattr(self.group.data, name), name
        assert {m: t for m, t in data.targets.items() if t} == {
            m: t for m, t in self.group.data.targets.items() if t
        }
        self.group = ConsumerGroup("g", self.settings, self.now, data)


def refused(driver: Driver, beat: Beat) -> ErrorCode:
    count = len(driver.log)
    with pytest.raises(KafkaError) as failure:
        driver.send(beat)
    assert len(driver.log) == count
    return failure.value.code


def test_the_first_member_gets_everything_at_once() -> None:
    driver = Driver()
    assert driver.group.state is GroupState.EMPTY
    assert driver.join("a") == Reply("a", 1, slots(*range(6)))
    assert driver.group.state is GroupState.STABLE
    assert driver.beat("a") == Reply("a", 1), "nothing has changed, nothing is said"
    written = len(driver.log)
    driver.beat("a")
    assert len(driver.log) == written


def test_a_newcomer_gets_only_what_was_given_up() -> None:
    driver = Driver()
    driver.join("a")
    assert driver.join("b") == Reply("b", 2, NOTHING)
    assert driver.group.state is GroupState.RECONCILING
    reply = driver.beat("a")
    assert reply.epoch == 1
    assert reply.assigned is not None
    assert len(reply.assigned) == 3
    given_up = slots(*range(6)) - reply.assigned
    assert driver.beat("b").assigned is None, "a has not said that it gave anything up"
    assert driver.beat("a", owned=slots(*range(6))).epoch == 1
    assert driver.beat("a", owned=reply.assigned) == Reply("a", 2)
    assert driver.beat("b") == Reply("b", 2, given_up)
    assert driver.group.state is GroupState.STABLE


def test_who_does_not_give_up_in_time_is_thrown_out() -> None:
    driver = Driver()
    driver.join("a")
    driver.join("b")
    driver.beat("a")
    assert driver.group.next_deadline() == driver.seconds + REBALANCE_MS / 1000
    driver.seconds += REBALANCE_MS / 1000
    assert driver.beat("a").assigned is None, "heartbeats alone do not help"
    decision = driver.group.on_time(driver.now)
    assert decision is not None
    driver.write(decision)
    driver.group.carry_on(decision, None, driver.now)
    assert driver.beat("b") == Reply("b", 3, slots(*range(6)))
    assert refused(driver, Beat("a", 1)) is ErrorCode.UNKNOWN_MEMBER_ID


def test_silence_ends_a_session() -> None:
    driver = Driver(session_timeout_ms=5_000)
    driver.join("a")
    driver.seconds += 4
    driver.beat("a")
    assert driver.group.next_deadline() == driver.seconds + 5
    driver.seconds += 4
    assert driver.group.on_time(driver.now) is None
    driver.seconds += 1
    decision = driver.group.on_time(driver.now)
    assert decision is not None
    driver.group.carry_on(decision, None, driver.now)
    assert driver.group.state is GroupState.EMPTY
    assert driver.group.next_deadline() == math.inf
    assert [event.reason for event in driver.group.history] == [
        "a member has joined",
        "a member did not come back",
    ]


def test_leaving() -> None:
    driver = Driver()
    driver.join("a")
    driver.join("b")
    driver.settle()
    assert driver.send(Beat("a", LEFT)) == Reply("a", LEFT)
    driver.settle()
    assert driver.assigned("b") == slots(*range(6))
    assert refused(driver, Beat("a", LEFT)) is ErrorCode.UNKNOWN_MEMBER_ID
    driver.send(Beat("b", LEFT))
    assert driver.group.state is GroupState.EMPTY
    assert driver.group.may_vanish
    driver.reload()


def test_epochs_fence() -> None:
    driver = Driver()
    driver.join("a")
    driver.join("b")
    driver.settle()
    epoch, owned = driver.epochs["a"], driver.assigned("a")
    assert refused(driver, Beat("a", epoch + 1)) is ErrorCode.FENCED_MEMBER_EPOCH
    assert refused(driver, Beat("a", epoch - 1)) is ErrorCode.FENCED_MEMBER_EPOCH
    assert refused(driver, Beat("x", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    driver.resize(7)
    driver.beat("b")
    driver.beat("a")
    assert driver.epochs["a"] == epoch + 1
    driver.send(Beat("a", epoch, owned=owned))  # it has not got the answer
    assert refused(driver, Beat("a", epoch, owned=slots(*range(9)))) is (
        ErrorCode.FENCED_MEMBER_EPOCH
    )


def test_a_topic_that_grows_or_comes_is_handed_out() -> None:
    driver = Driver(partitions=1)
    driver.join("a", ["t", "later"])
    assert driver.assigned("a") == slots(0)
    driver.resize(3)
    assert driver.beat("a").assigned == slots(0, 1, 2)
    driver.topics["later"] = Topic(topic_id("later"), 1)
    driver.version += 1
    assert driver.beat("a").assigned == slots(0, 1, 2) | slots(0, topic="later")
    del driver.topics["t"]
    driver.version += 1
    assert driver.beat("a").assigned == slots(0, topic="later")


def test_the_same_name_with_another_id_is_another_topic() -> None:
    driver = Driver(partitions=1)
    driver.join("a")
    driver.topics["t"] = Topic(topic_id("new"), 1)
    driver.version += 1
    reply = driver.beat("a")
    assert reply.assigned == NOTHING
    assert driver.beat("a", owned=NOTHING).assigned == slots(0, topic="new")


def test_a_static_member_comes_back_to_what_it_had() -> None:
    driver = Driver()
    driver.join("a", instance_id="i")
    driver.join("b")
    driver.settle()
    had, epoch = driver.assigned("a"), driver.group.data.epoch
    assert (
        refused(
            driver, Beat("a2", JOINING, "i", topics=READS, owned=NOTHING, rebalance_timeout_ms=1)
        )
        is ErrorCode.UNRELEASED_INSTANCE_ID
    )
    assert refused(driver, Beat("b", driver.epochs["b"], "i")) is ErrorCode.FENCED_INSTANCE_ID
    assert driver.send(Beat("a", AWAY, "i")) == Reply("a", AWAY)
    driver.beat("b")
    driver.reload()
    assert driver.join("a2", instance_id="i") == Reply("a2", epoch, had)
    assert driver.group.data.epoch == epoch, "nobody else noticed"
    assert refused(driver, Beat("a", epoch, "i")) is ErrorCode.FENCED_INSTANCE_ID


def test_the_assignor_that_most_ask_for() -> None:
    driver = Driver()
    assert driver.group.assignor() == "uniform"
    driver.join("a", assignor="range")
    assert driver.group.assignor() == "range"
    driver.join("b", assignor="uniform")
    assert driver.group.assignor() == "uniform", "the first of the settings"
    driver.join("c", assignor="range")
    assert driver.group.assignor() == "range"
    beat = Beat("d", JOINING, topics=READS, owned=NOTHING, assignor="mine")
    assert refused(driver, beat) is ErrorCode.UNSUPPORTED_ASSIGNOR


def test_a_full_group() -> None:
    driver = Driver(max_size=1)
    driver.join("a")
    driver.join("a")
    beat = Beat("b", JOINING, topics=READS, owned=NOTHING)
    assert refused(driver, beat) is ErrorCode.GROUP_MAX_SIZE_REACHED


def test_offsets_are_committed_in_the_present_epoch() -> None:
    driver = Driver()
    group = driver.group
    assert group.may_commit("", None, -1, driver.now) is ErrorCode.NONE, "a tool, nobody there"
    driver.join("a")
    assert group.may_commit("a", None, 1, driver.now) is ErrorCode.NONE
    assert group.may_commit("a", None, 0, driver.now) is ErrorCode.STALE_MEMBER_EPOCH
    assert group.may_commit("", None, -1, driver.now) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.may_commit_in_transaction("a", None, 0) is ErrorCode.ILLEGAL_GENERATION
    assert group.may_commit_in_transaction("", None, -1) is ErrorCode.NONE
    assert group.may_fetch(None, -1) is ErrorCode.NONE
    assert group.may_fetch("a", 1) is ErrorCode.NONE
    assert group.may_fetch("a", 2) is ErrorCode.STALE_MEMBER_EPOCH


class Members(RuleBasedStateMachine):
    """Members come, go, fall silent and lose answers; topics grow; coordinators change.

    What members hold never overlaps, whatever happens; and when all is quiet each has its target.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(partitions=5)
        self.names = iter(f"m{n}" for n in range(1000))

    def _pick(self, number: int) -> str | None:
        members = sorted(self.driver.group.data.members)
        return members[number % len(members)] if members else None

    @rule(topics=st.sets(st.sampled_from(["t", "u"]), min_size=1))
    def somebody_joins(self, topics: set[str]) -> None:
        if len(self.driver.group.data.members) < 5:
            self.driver.join(next(self.names), topics)

    @rule(number=st.integers(0, 9))
    def somebody_leaves(self, number: int) -> None:
        if (member_id := self._pick(number)) is not None:
            self.driver.send(Beat(member_id, LEFT))
            del self.driver.owned[member_id]

    @rule(number=st.integers(0, 9))
    def somebody_follows(self, number: int) -> None:
        if (member_id := self._pick(number)) is not None:
            self.driver.follow(member_id)

    @rule(number=st.integers(0, 9))
    def an_answer_is_lost(self, number: int) -> None:
        """The member tells again what it has, with the epoch it had."""
        driver = self.driver
        if (member_id := self._pick(number)) is not None:
            owned = driver.owned[member_id]
            beat = Beat(
                *(member_id, driver.epochs[member_id]),
                rebalance_timeout_ms=REBALANCE_MS,
                topics=driver.group.data.members[member_id].topics,
                owned=owned,
            )
            driver.send(beat)
            reply = driver.note(driver.send(beat))
            assert reply.assigned is not None
            driver.owned[member_id] = reply.assigned

    @rule(number=st.integers(0, 9), topics=st.sets(st.sampled_from(["t", "u"]), min_size=1))
    def somebody_reads_other_topics(self, number: int, topics: set[str]) -> None:
        if (member_id := self._pick(number)) is not None:
            reply = self.driver.beat(member_id, topics=frozenset(topics))
            if reply.assigned is not None:
                self.driver.owned[member_id] = reply.assigned

    @rule(partitions=st.integers(1, 9))
    def the_topic_changes(self, partitions: int) -> None:
        self.driver.resize(partitions)

    @rule()
    def the_other_topic_comes(self) -> None:
        self.driver.topics["u"] = Topic(topic_id("u"), 3)
        self.driver.version += 1

    @rule()
    def time_passes(self) -> None:
        driver = self.driver
        driver.seconds += REBALANCE_MS / 1000 + 1
        decision = driver.group.on_time(driver.now)
        if decision is not None:
            driver.write(decision)
            driver.group.carry_on(decision, None, driver.now)
            driver.owned = {
                member_id: owned
                for member_id, owned in driver.owned.items()
                if member_id in driver.group.data.members
            }

    @rule()
    def another_coordinator_takes_over(self) -> None:
        self.driver.reload()

    @invariant()
    def nobody_has_what_another_has(self) -> None:
        data = self.driver.group.data
        held = [slot for member in data.members.values() for slot in member.holds]
        assert len(held) == len(set(held)) == len(data.holders)
        owned = [slot for slots in self.driver.owned.values() for slot in slots]
        assert len(owned) == len(set(owned)), "as the members themselves see it"

    @invariant()
    def epochs_are_in_order(self) -> None:
        data = self.driver.group.data
        assert data.target_epoch <= data.epoch
        for member in data.members.values():
            assert member.epoch <= data.target_epoch

    def teardown(self) -> None:
        driver = self.driver
        driver.settle()
        data = driver.group.data
        for member_id, member in data.members.items():
            assert member.state is MemberState.STABLE
            assert member.epoch == data.target_epoch == data.epoch
            assert member.assigned == data.targets[member_id] == driver.owned[member_id]
        if data.members:
            assert driver.group.state is GroupState.STABLE
            read = frozenset().union(*(member.topics for member in data.members.values()))
            assert set(data.holders) == {
                Slot(topic.topic_id, partition)
                for topic in driver.find(read).values()
                for partition in range(topic.partitions)
            }


TestMembers = Members.TestCase
TestMembers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
