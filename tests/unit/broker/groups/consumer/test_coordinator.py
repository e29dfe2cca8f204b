"""Consumer groups in their coordinator: storing, loading, deadlines, both protocols beside."""

from collections.abc import Mapping

import pytest

from kavka.broker.groups.consumer.assignors import Topic
from kavka.broker.groups.consumer.coordinator import Outcome
from kavka.broker.groups.consumer.group import Beat, ConsumerGroup, Reply
from kavka.broker.groups.consumer.member import JOINING, LEFT, NOTHING, Slot
from kavka.broker.groups.coordinator import GroupCoordinator
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.settings import GroupSettings
from kavka.protocol.errors import ErrorCode
from tests.unit.broker.groups.harness import AT_ONCE, T0, Harness, MemoryLog

TOPIC_ID = b"t" * 16
EVERYTHING = frozenset(Slot(TOPIC_ID, partition) for partition in range(4))


class OneTopic:
    """The topic ``t`` of four partitions."""

    version = 1

    def find(self, names: frozenset[str]) -> Mapping[str, Topic]:
        return {"t": Topic(TOPIC_ID, 4)} if "t" in names else {}

    def matching(self, regex: str) -> frozenset[str]:
        return frozenset("t") if regex == "t+" else frozenset()


class ConsumerHarness(Harness):
    """A coordinator that knows a topic."""

    def __init__(self, log: MemoryLog | None = None, settings: GroupSettings = AT_ONCE) -> None:
        super().__init__(settings, log=log)
        self.groups = GroupCoordinator(
            self.settings,
            self.log,
            self.clock,
            self.timers.call_later,
            self.offload,
            lambda: 1,
            lambda: "random",
            topics=OneTopic(),
        )
        self.groups.start()
        self.groups.on_elected(0, 0)

    def beat(self, beat: Beat, group: str = "g") -> Outcome | None:
        """The answer, None while there is none."""
        outcomes: list[Outcome] = []
        self.groups.consumers.heartbeat(group, beat, outcomes.append)
        return outcomes[0] if outcomes else None

    def join_consumer(self, member_id: str = "a", **more: object) -> Reply:
        beat = Beat(
            member_id,
            JOINING,
            rebalance_timeout_ms=10_000,
            topics=frozenset("t"),
            owned=NOTHING,
        )
        outcome = self.beat(beat._replace(**more))
        assert outcome is not None
        assert outcome.error is ErrorCode.NONE, outcome
        assert outcome.reply is not None
        return outcome.reply

    @property
    def group(self) -> ConsumerGroup:
        group = self.groups.find("g")
        assert isinstance(group, ConsumerGroup)
        return group


def test_answers_wait_for_replication() -> None:
    harness = ConsumerHarness()
    harness.log.replicates = False
    outcomes: list[Outcome] = []
    beat = Beat("a", JOINING, rebalance_timeout_ms=1, topics=frozenset("t"), owned=NOTHING)
    harness.groups.consumers.heartbeat("g", beat, outcomes.append)
    assert outcomes == []
    harness.log.replicate()
    assert outcomes == [Outcome(ErrorCode.NONE, Reply("a", 1, EVERYTHING))]
    harness.groups.consumers.heartbeat("h", beat, outcomes.append)
    harness.log.replicate(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert outcomes[1] == Outcome(ErrorCode.NOT_COORDINATOR)


def test_there_may_be_only_so_many_groups() -> None:
    harness = ConsumerHarness(settings=GroupSettings(max_count=1))
    harness.join_consumer()
    beat = Beat("a", JOINING, rebalance_timeout_ms=1, topics=frozenset("t"), owned=NOTHING)
    outcome = harness.beat(beat, "another")
    assert outcome is not None
    assert outcome.error is ErrorCode.POLICY_VIOLATION
    assert harness.join_consumer("b").member_id == "b"


def test_what_cannot_be_written_does_not_count() -> None:
    harness = ConsumerHarness()
    harness.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
    beat = Beat("a", JOINING, rebalance_timeout_ms=1, topics=frozenset("t"), owned=NOTHING)
    assert harness.beat(beat) == Outcome(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert harness.groups.find("g") is None
    harness.log.refuse = None
    assert harness.join_consumer() == Reply("a", 1, EVERYTHING)


def test_a_group_is_there_after_a_restart() -> None:
    harness = ConsumerHarness()
    harness.join_consumer("a")
    harness.join_consumer("b", instance_id="i", regex="t+", topics=None)
    harness.beat(Beat("a", 1))
    assert harness.commit(42, member_id="a", generation=1) is ErrorCode.NONE
    again = ConsumerHarness(harness.log)
    assert again.group.data.members == harness.group.data.members
    assert again.group.data.targets == harness.group.data.targets
    assert again.group.state is harness.group.state is GroupState.RECONCILING
    assert again.fetch() == 42
    assert again.group.data.members["b"].regex == "t+"
    reply = again.beat(Beat("a", 1, owned=again.group.data.members["a"].assigned))
    assert reply == Outcome(ErrorCode.NONE, Reply("a", 2)), "nobody had to join again"


def test_sessions_end_by_themselves() -> None:
    harness = ConsumerHarness()
    harness.join_consumer("a")
    harness.join_consumer("b")
    harness.timers.advance(30)
    assert harness.beat(Beat("b", 2)) == Outcome(ErrorCode.NONE, Reply("b", 2))
    harness.timers.advance(16)
    assert list(harness.group.data.members) == ["b"]
    harness.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
    harness.timers.advance(60)
    assert list(harness.group.data.members) == ["b"], "it could not be written"
    harness.log.refuse = None
    harness.timers.advance(2)
    assert harness.group.state is GroupState.EMPTY


def test_a_member_without_an_id_is_given_one() -> None:
    harness = ConsumerHarness()
    assert harness.join_consumer("").member_id == "random"


def test_offsets_are_fenced_by_epochs() -> None:
    harness = ConsumerHarness()
    harness.join_consumer("a")
    assert harness.commit(1, member_id="a", generation=0) is ErrorCode.STALE_MEMBER_EPOCH
    assert harness.commit(1) is ErrorCode.UNKNOWN_MEMBER_ID
    keeper = harness.groups.offsets
    assert keeper.may_fetch("g", "a", 1) is ErrorCode.NONE
    assert keeper.may_fetch("g", "a", 2) is ErrorCode.STALE_MEMBER_EPOCH
    assert keeper.may_fetch("classic", "a", 2) is ErrorCode.NONE


def test_topics_by_expression_only_as_far_as_the_member_may_read() -> None:
    harness = ConsumerHarness()
    assert harness.join_consumer("a", regex="t+", topics=None).assigned == EVERYTHING
    outcomes: list[Outcome] = []
    harness.groups.consumers.heartbeat(
        "g", Beat("a", 1), outcomes.append, lambda topic: topic != "t"
    )
    assert outcomes[0].reply == Reply("a", 1, NOTHING)


# -- both protocols -------------------------------------------------------------------------------


def test_members_of_the_other_protocol_are_refused() -> None:
    harness = ConsumerHarness()
    harness.join_consumer()
    assert harness.join().joined.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert harness.sync("a", 1).synced.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.groups.heartbeat("g", "a", None, 1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.groups.describe("g")[1].state is GroupState.DEAD
    harness.stable("classic")
    beat = Beat("a", JOINING, rebalance_timeout_ms=1, topics=frozenset("t"), owned=NOTHING)
    outcome = harness.beat(beat, "classic")
    assert outcome is not None
    assert outcome.error is ErrorCode.GROUP_ID_NOT_FOUND
    assert harness.groups.consumers.describe("classic") == (ErrorCode.GROUP_ID_NOT_FOUND, None)
    assert harness.groups.list_groups([], ["Consumer"])[1] == [
        ("g", "consumer", "Stable", "Consumer")
    ]
    assert harness.groups.list_groups([], ["classic"])[1] == [
        ("classic", "consumer", "Stable", "Classic")
    ]


def test_an_empty_group_changes_its_protocol_and_keeps_its_offsets() -> None:
    harness = ConsumerHarness()
    member_id = harness.stable()
    assert harness.commit(7, member_id=member_id, generation=1) is ErrorCode.NONE
    harness.timers.advance(11)
    assert harness.join_consumer() == Reply("a", 1, EVERYTHING)
    assert harness.fetch() == 7
    assert ConsumerHarness(harness.log).group.data.members.keys() == {"a"}
    harness.beat(Beat("a", LEFT))
    assert harness.stable()
    assert harness.fetch() == 7
    again = ConsumerHarness(harness.log)
    assert again.groups.describe("g")[1].state is GroupState.STABLE
    assert again.fetch() == 7


@pytest.mark.parametrize("has_offsets", [True, False])
def test_an_empty_group_can_be_deleted(has_offsets: bool) -> None:
    harness = ConsumerHarness()
    harness.join_consumer()
    if has_offsets:
        assert harness.commit(7, member_id="a", generation=1) is ErrorCode.NONE
    assert harness.delete_groups("g") == {"g": ErrorCode.NON_EMPTY_GROUP}
    assert harness.delete_offsets("g", T0) == (
        *(ErrorCode.NONE, {T0: ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC}),
    )
    harness.beat(Beat("a", LEFT))
    assert harness.delete_groups("g") == {"g": ErrorCode.NONE}
    assert harness.groups.find("g") is None
    again = ConsumerHarness(harness.log)
    assert again.groups.find("g") is None
    assert again.fetch() == -1
