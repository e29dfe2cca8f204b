"""Random schedules: clients join, sync, die and return, the log is slow or fails, leaders change.

Whatever happens, a group keeps its invariants, every request is answered once and in the end, and
the records in the log say what the live coordinator says.
"""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kavka.broker.groups.core import GroupState
from kavka.broker.groups.group import Group
from kavka.broker.groups.messages import Join, JoinResult, Leave, Sync, SyncResult
from kavka.broker.groups.offset_keeper import Commit, Results
from kavka.broker.groups.offsets import CommittedOffset
from kavka.broker.groups.settings import GroupSettings
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition
from tests.unit.broker.groups.harness import Harness

GROUP = "g"
PROTOCOLS = [("range", "rr"), ("rr", "range"), ("range",), ("rr", "sticky", "range")]
FAILURES = [ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.REQUEST_TIMED_OUT]

clients = st.integers(0, 4)
partitions = st.builds(TopicPartition, st.sampled_from(["t", "u"]), st.integers(0, 1))


class Client:
    """A consumer that may be static; it knows what it was told last, and what it should do next."""

    def __init__(self, number: int) -> None:
        self.name = f"c{number}"
        self.instance_id = f"i{number}" if number % 2 else None
        self.member_id = ""
        self.ids = {""}  # all it ever had: a static member that returns has a new one
        self.generation = -1
        self.next_step = "join"
        self.waits = 0
        self.life = 0  # an answer to a request of an earlier life goes nowhere

    def forget(self) -> None:
        self.life += 1
        self.member_id = ""
        self.generation = -1
        self.next_step = "join"

    def joined(self, result: JoinResult) -> None:
        if result.error in (ErrorCode.NONE, ErrorCode.MEMBER_ID_REQUIRED):
            self.member_id = result.member_id
            self.generation = result.generation
        self.heard(result.error, "sync")

    def heard(self, error: ErrorCode, next_step: str) -> None:
        if error is ErrorCode.NONE:
            self.next_step = next_step
        elif error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.forget()
        else:
            self.next_step = "join"


class Waiting:
    """A request in the coordinator's hands."""

    def __init__(self, machine: "Schedules", client: Client) -> None:
        self.machine = machine
        self.client = client
        self.answered = False
        self.life = client.life
        self.generation = client.generation
        client.waits += 1
        machine.waiting.add(self)

    def __call__(self, result: JoinResult | SyncResult) -> None:
        assert not self.answered, "a request is answered once"
        self.answered = True
        self.client.waits -= 1
        self.machine.waiting.discard(self)
        if isinstance(result, JoinResult):
            self.machine.check_join(result)
            self.client.ids.add(result.member_id)
            if self.life == self.client.life:
                self.client.joined(result)
        else:
            self.machine.check_sync(self.client, self.generation, result)
            if self.life == self.client.life:
                self.client.heard(result.error, "work")


class Schedules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[Waiting] = set()
        self.clients = [Client(number) for number in range(5)]
        # What was chosen and what leaders have said, by generation.
        self.protocol_of: dict[int, str | None] = {}
        self.assigned: dict[int, list[dict[str, bytes]]] = {}
        self.highest_generation = 0
        self.life_of_group: Group | None = None
        # A record that was written, but whose replication failed: a reload believes it.
        self.log_knows_more = False

    @initialize(delay=st.sampled_from([0, 3_000]), max_size=st.sampled_from([3, 100]))
    def start(self, delay: int, max_size: int) -> None:
        self.harness = Harness(GroupSettings(initial_rebalance_delay_ms=delay, max_size=max_size))

    @property
    def group(self) -> Group | None:
        return self.harness.groups.find(GROUP)

    def look_at_group(self) -> Group | None:
        """The group; one that was deleted and made again, or loaded, counts from its own start."""
        group = self.group
        if group is not self.life_of_group:
            self.life_of_group = group
            self.protocol_of.clear()
            self.highest_generation = 0
        return group

    # -- what clients hear ------------------------------------------------------------------

    def check_join(self, result: JoinResult) -> None:
        self.look_at_group()
        if result.error is ErrorCode.NONE:
            known = self.protocol_of.setdefault(result.generation, result.protocol)
            assert known == result.protocol, "one protocol a generation"
            if result.members:
                assert result.leader == result.member_id
                assert result.member_id in {m.member_id for m in result.members}
        elif result.error is ErrorCode.MEMBER_ID_REQUIRED:
            assert result.member_id

    def check_sync(self, client: Client, generation: int, result: SyncResult) -> None:
        if result.error is ErrorCode.NONE:
            said = {
                given.get(member_id, b"")
                for given in self.assigned[generation]
                for member_id in client.ids
            }
            assert result.assignment in said, "assignments come from the leader"

    # -- what clients do --------------------------------------------------------------------

    @rule(
        number=clients,
        protocols=st.sampled_from(PROTOCOLS),
        version=st.sampled_from([3, 4, 9]),
        forgets=st.booleans(),
        metadata=st.sampled_from([b"", b"x"]),
        session=st.sampled_from([6_000, 30_000]),
    )
    def join(
        self,
        number: int,
        protocols: tuple[str, ...],
        version: int,
        forgets: bool,
        metadata: bytes,
        session: int,
    ) -> None:
        client = self.clients[number]
        if forgets:
            client.forget()  # it was restarted
        self.send_join(client, protocols, version, metadata, session)

    def send_join(
        self,
        client: Client,
        protocols: tuple[str, ...] = ("range", "rr"),
        version: int = 9,
        metadata: bytes = b"",
        session: int = 30_000,
    ) -> None:
        join = Join(
            client.member_id,
            client.instance_id,
            client.name,
            "/127.0.0.1",
            session,
            8_000,
            "consumer",
            tuple((name, metadata) for name in protocols),
            needs_known_id=version >= 4,
            can_skip_assignment=version >= 9,
        )
        self.harness.groups.join(GROUP, join, Waiting(self, client))

    @rule(number=clients)
    def sync(self, number: int) -> None:
        self.send_sync(self.clients[number])

    def send_sync(self, client: Client) -> None:
        group = self.group
        assignments: dict[str, bytes] = {}
        if group is not None and group.members.leader_id == client.member_id:
            assignments = {
                m.member_id: f"{m.member_id}@{client.generation}".encode() for m in group.members
            }
            self.assigned.setdefault(client.generation, []).append(assignments)
        sync = Sync(
            client.member_id,
            client.instance_id,
            client.generation,
            None,
            None,
            tuple(assignments.items()),
        )
        self.harness.groups.sync(GROUP, sync, Waiting(self, client))

    @rule(number=clients)
    def heartbeat(self, number: int) -> None:
        self.send_heartbeat(self.clients[number])

    def send_heartbeat(self, client: Client) -> None:
        code = self.harness.groups.heartbeat(
            GROUP, client.member_id, client.instance_id, client.generation
        )
        client.heard(code, client.next_step)
        group = self.group
        if code in (ErrorCode.NONE, ErrorCode.REBALANCE_IN_PROGRESS):
            assert group is not None
            assert client.member_id in group.members
            assert client.generation == group.generation

    def go_on(self, client: Client) -> None:
        """What a proper consumer does next."""
        if client.waits:
            return
        if client.next_step == "join":
            self.send_join(client)
        elif client.next_step == "sync":
            self.send_sync(client)
        else:
            self.send_heartbeat(client)

    @rule(number=clients)
    def one_goes_on(self, number: int) -> None:
        self.go_on(self.clients[number])

    @rule(few=st.integers(1, 5), turns=st.integers(1, 6), seconds=st.sampled_from([0.0, 1.0]))
    def some_go_on(self, few: int, turns: int, seconds: float) -> None:
        for _ in range(turns):
            for client in self.clients[:few]:
                self.go_on(client)
            self.harness.timers.advance(seconds)

    @rule(turns=st.integers(4, 8))
    def all_go_on(self, turns: int) -> None:
        self.some_go_on(5, turns, 1.0)

    @rule(number=clients, by_instance=st.booleans())
    def leave(self, number: int, by_instance: bool) -> None:
        client = self.clients[number]
        leave = Leave("" if by_instance else client.member_id, client.instance_id)
        _, errors = self.harness.groups.leave(GROUP, [leave])
        if errors == [ErrorCode.NONE]:
            group = self.group
            assert group is not None
            assert group.members.static_id(client.instance_id) is None
            assert by_instance or client.member_id not in group.members

    @rule(
        number=clients,
        partition=partitions,
        offset=st.integers(0, 100),
        simple=st.booleans(),
        group_id=st.sampled_from([GROUP, "simple"]),
    )
    def commit(
        self, number: int, partition: TopicPartition, offset: int, simple: bool, group_id: str
    ) -> None:
        client = self.clients[number]
        member_id = "" if simple else client.member_id
        generation = -1 if simple else client.generation
        before = self.harness.groups.find(group_id)
        state = None if before is None else before.state
        known = before is not None and member_id in before.members
        current = None if before is None else before.generation
        value = CommittedOffset(offset, commit_timestamp=self.harness.clock.wall_ms())
        appended = self.harness.log.ends.get(0, 0)

        def done(results: Results) -> None:
            if results[partition] is ErrorCode.NONE:
                assert (generation < 0 and state in (None, GroupState.EMPTY)) or (
                    known and generation == current
                ), "commits are fenced"

        self.harness.groups.offsets.commit(
            Commit(group_id, member_id, None, generation, [(partition, value)]), done
        )
        if state is GroupState.COMPLETING:
            assert self.harness.log.ends.get(0, 0) == appended, "nobody commits while assigning"

    # -- what happens to them ---------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 3.0, 7.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.harness.timers.advance(seconds)

    @rule(slow=st.booleans())
    def log_slows_down_or_catches_up(self, slow: bool) -> None:
        self.harness.log.replicates = not slow
        if not slow:
            self.harness.log.replicate()

    @precondition(lambda self: self.harness.log.waiting)
    @rule(code=st.sampled_from([ErrorCode.NONE, *FAILURES]))
    def log_answers_one(self, code: ErrorCode) -> None:
        if code is not ErrorCode.NONE:
            self.log_knows_more = True
        self.harness.log.replicate(code, 1)

    @rule(code=st.sampled_from([None, None, None, *FAILURES]))
    def log_refuses_or_not(self, code: ErrorCode | None) -> None:
        if code is not None:
            self.log_knows_more = True  # and the group knows more than the log: an Empty one
        self.harness.log.refuse = code

    @rule(days=st.sampled_from([0, 0, 0, 8]))
    def offsets_expire(self, days: int) -> None:
        self.harness.clock.advance(days * 86_400)
        self.harness.groups.offsets.expire()

    @rule()
    def group_is_deleted(self) -> None:
        self.harness.groups.offsets.delete_groups([GROUP, "simple"], lambda results: None)

    @rule()
    def leadership_moves_and_returns(self) -> None:
        self.harness.groups.on_resigned(0)
        assert not self.waiting, "who waited is told"
        self.harness.log.fail_partition(0, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self.harness.groups.on_elected(0, 1)
        self.log_knows_more = self.harness.log.refuse is not None
        # A reload may go back to an earlier generation, the last one that was stored.
        group = self.look_at_group()
        if group is not None and group.members:
            self.assigned.setdefault(group.generation, []).append(
                {m.member_id: m.assignment for m in group.members}
            )

    # -- what always holds ------------------------------------------------------------------

    @invariant()
    def groups_are_consistent(self) -> None:
        if not hasattr(self, "harness"):
            return
        for group in self.harness.groups.groups():
            check_group(group)
        group = self.look_at_group()
        if group is not None:
            assert group.generation >= self.highest_generation, "generations only grow"
            self.highest_generation = group.generation

    @invariant()
    def the_log_says_the_same(self) -> None:
        if not hasattr(self, "harness") or self.harness.log.waiting or self.log_knows_more:
            return
        live = self.harness.groups
        loaded = Harness(self.harness.settings, log=self.harness.log).groups
        for name in (GROUP, "simple"):
            here, there = live.find(name), loaded.find(name)
            offsets = {} if here is None else dict(here.offsets)
            assert offsets == ({} if there is None else dict(there.offsets))
            if here is None or here.generation == 0:
                assert there is None or there.generation == 0
            elif here.state in (GroupState.STABLE, GroupState.EMPTY):
                assert there is not None
                assert there.image()._replace(state_timestamp_ms=0) == (
                    here.image()._replace(state_timestamp_ms=0)
                )

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        # Nobody says anything any more, and the log works: all is answered, all members go.
        self.harness.log.refuse = None
        self.harness.log.replicates = True
        self.harness.log.replicate()
        self.harness.timers.advance(400)
        assert not self.waiting, "every request is answered in the end"
        group = self.group
        if group is not None:
            assert group.state is GroupState.EMPTY
            assert not group.pending_members


def check_group(group: Group) -> None:
    members = list(group.members)
    ids = [member.member_id for member in members]
    leader = group.members.leader_id
    assert (leader in ids) if members else leader is None
    assert len(set(ids)) == len(ids)
    assert not set(ids) & set(group.pending_members)
    assert group.members.waiting_joins == sum(m.join_waiter is not None for m in members)
    for member in members:
        if member.instance_id is not None:
            assert group.members.static_id(member.instance_id) == member.member_id
        assert member.sync_waiter is None or group.state is GroupState.COMPLETING
        assert not (member.join_waiter is not None and member.sync_waiter is not None)
        if member.join_waiter is not None and group.state is not GroupState.PREPARING:
            # Only a static member that returned, until its new id is stored.
            assert group.state is GroupState.STABLE
            assert member.is_static
        assert not member.is_new or member.join_waiter is not None
    if members:
        group.members.choose_protocol()  # there is one that all have
    match group.state:
        case GroupState.EMPTY | GroupState.DEAD:
            assert not members
            assert group.protocol is None
        case GroupState.COMPLETING | GroupState.STABLE:
            assert members
            assert group.protocol is not None
            assert all(group.protocol in member.protocol_names() for member in members)
        case GroupState.PREPARING:
            # Without members the initial delay may still run.
            assert members or group.next_deadline() < math.inf


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
