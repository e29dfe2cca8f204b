"""What a group is at any moment, and what every part of it needs: checks, timers, effects.

The rules that move it are in ``rebalance.py`` and ``group.py``, whose head explains them.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeAlias

from kavka.broker.groups.history import RebalanceHistory
from kavka.broker.groups.image import GroupImage, MemberImage
from kavka.broker.groups.member import Member
from kavka.broker.groups.messages import (
    UNKNOWN_MEMBER_ID,
    AnswerJoin,
    AnswerSync,
    Effect,
    GroupDescription,
    JoinResult,
    JoinWaiter,
    Moment,
    StoreGroup,
    SyncResult,
)
from kavka.broker.groups.offsets import GroupOffsets
from kavka.broker.groups.roster import Roster
from kavka.broker.groups.settings import GroupSettings
from kavka.broker.groups.subscription import CONSUMER_PROTOCOL, subscribed_topics
from kavka.protocol.errors import ErrorCode

WhenStored: TypeAlias = Callable[[ErrorCode, Moment], None]


class GroupState(StrEnum):
    """States by the names DescribeGroups and ListGroups give them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    ASSIGNING = "Assigning"  # this and the next one only of the consumer protocol
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"


ALLOWED_FROM: Final = {
    GroupState.EMPTY: {GroupState.PREPARING},
    GroupState.PREPARING: {GroupState.STABLE, GroupState.COMPLETING, GroupState.EMPTY},
    GroupState.COMPLETING: {GroupState.PREPARING},
    GroupState.STABLE: {GroupState.COMPLETING},
    GroupState.DEAD: set(GroupState) - {GroupState.DEAD},
}
"""Which states a state can be entered from."""


class GroupCore:
    """One group: its members, its generation, and its committed offsets.

    ``new_member_id`` makes a fresh id from a prefix (client id or instance id).
    """

    __slots__ = (
        "_effects",
        "_new_member_id",
        "_next_ticket",
        "_rebalance_deadline",
        "_settings",
        "_stores",
        "_sync_deadline",
        "_wake_at",
        "generation",
        "group_id",
        "history",
        "members",
        "offsets",
        "pending_members",
        "protocol",
        "protocol_type",
        "state",
        "state_timestamp_ms",
    )

    def __init__(
        self,
        group_id: str,
        settings: GroupSettings,
        new_member_id: Callable[[str], str],
        now: Moment,
    ) -> None:
        self.group_id = group_id
        self.state = GroupState.EMPTY
        self.state_timestamp_ms: int | None = now.wall_ms
        self.generation = 0
        self.protocol_type: str | None = None  # None: offsets only, never had members
        self.protocol: str | None = None
        self.members = Roster()
        self.pending_members: dict[str, float] = {}  # promised id → seconds it is kept until
        self.offsets = GroupOffsets()
        self.history = RebalanceHistory()
        self._settings = settings
        self._new_member_id = new_member_id
        self._effects: list[Effect] = []
        self._stores: dict[int, WhenStored] = {}  # by ticket
        self._next_ticket = 0
        self._wake_at = math.inf  # no deadline is earlier
        self._rebalance_deadline = math.inf
        self._sync_deadline = math.inf

    # -- checks --------------------------------------------------------------------------------

    def _check_member(self, member_id: str, instance_id: str | None) -> ErrorCode:
        if instance_id is not None:
            current = self.members.static_id(instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        if member_id not in self.members:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE

    def _check_generation(
        self, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode:
        if self.state is GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        error = self._check_member(member_id, instance_id)
        if error is ErrorCode.NONE and generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return error

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Seconds before which :meth:`on_time` need not be called; infinity if never.

        It may be too early (heartbeats have moved what it was set for), never too late.
        """
        return self._wake_at

    def _touch(self, member: Member, now: Moment) -> None:
        """A sign of life: the session begins again."""
        if not member.is_new:
            member.deadline = now.seconds + member.session_timeout_ms / 1000
            self._wake_by(member.deadline)

    def _wake_by(self, deadline: float) -> None:
        self._wake_at = min(self._wake_at, deadline)

    # -- storing -------------------------------------------------------------------------------

    def image(
        self, assignments: dict[str, bytes] | None = None, now: Moment | None = None
    ) -> GroupImage:
        """The group as it is stored; with the assignments that will make it Stable at ``now``."""
        members: tuple[MemberImage, ...] = ()
        if self.members:
            assert self.protocol is not None
            members = tuple(
                member.image(
                    self.protocol,
                    member.assignment if assignments is None else assignments[member.member_id],
                )
                for member in self.members
            )
        return GroupImage(
            self.protocol_type,
            self.generation,
            self.protocol,
            self.members.leader_id,
            self.state_timestamp_ms if now is None else now.wall_ms,
            members,
        )

    def stored(self, ticket: int, error: ErrorCode, now: Moment) -> list[Effect]:
        """What became of a :class:`StoreGroup`."""
        when_stored = self._stores.pop(ticket)
        if self.state is not GroupState.DEAD:
            when_stored(error, now)
        return self._take_effects()

    def _store(self, image: GroupImage, when_stored: WhenStored) -> None:
        self._next_ticket += 1
        self._stores[self._next_ticket] = when_stored
        self._effects.append(StoreGroup(self._next_ticket, image))

    # -- the end -------------------------------------------------------------------------------

    def unload(self) -> list[Effect]:
        """The coordinator of this group is elsewhere now: everybody who waits is sent there."""
        for member in self.members:
            self._dismiss(member, ErrorCode.NOT_COORDINATOR)
        self.state = GroupState.DEAD
        self._wake_at = math.inf
        return self._take_effects()

    @property
    def may_vanish(self) -> bool:
        """Whether nothing is left that is worth keeping: no members, none coming, no offsets."""
        return (
            self.state is GroupState.EMPTY and not self.pending_members and not self.offsets.in_use
        )

    def bury(self, now: Moment) -> None:
        """Deleted or expired: late requests that still hold this object get 15."""
        assert self.state is GroupState.EMPTY
        self._transition(GroupState.DEAD, now)
        self._wake_at = math.inf

    # -- looking -------------------------------------------------------------------------------

    def describe(self) -> GroupDescription:
        """As DescribeGroups shows it: metadata and assignments only when Stable."""
        protocol = self.protocol if self.state is GroupState.STABLE else None
        return GroupDescription(
            self.state,
            self.protocol_type or "",
            protocol or "",
            tuple(member.describe(protocol) for member in self.members),
        )

    @property
    def is_consumer_group(self) -> bool:
        """Whether its members are consumers, not Connect workers or schema registries."""
        return self.protocol_type == CONSUMER_PROTOCOL

    def subscribed_topics(self) -> frozenset[str] | None:
        """The topics its consumers subscribe to; None when that cannot be told."""
        if not self.is_consumer_group:
            return None
        topics: set[str] = set()
        for member in self.members:
            # All assignors of a consumer come with the same topics.
            of_member = subscribed_topics(member.protocols[0][1])
            if of_member is None:
                return None
            topics |= of_member
        return frozenset(topics)

    # -- effects -------------------------------------------------------------------------------

    def _transition(self, state: GroupState, now: Moment) -> None:
        assert self.state in ALLOWED_FROM[state], f"{self.group_id}: {self.state} to {state}"
        self.state = state
        self.state_timestamp_ms = now.wall_ms

    def _dismiss(self, member: Member, error: ErrorCode) -> None:
        join_waiter = self.members.take_join_waiter(member)
        if join_waiter is not None:
            # Unknown: it has to come back without its id.
            known_id = "" if error is ErrorCode.UNKNOWN_MEMBER_ID else member.member_id
            self._refuse(join_waiter, error, known_id)
        sync_waiter, member.sync_waiter = member.sync_waiter, None
        if sync_waiter is not None:
            self._effects.append(AnswerSync(sync_waiter, SyncResult(error)))

    def _drop(self, member: Member) -> None:
        """Take a member out; whatever it waits for, it learns that it is not known here."""
        self._dismiss(member, ErrorCode.UNKNOWN_MEMBER_ID)
        self.members.remove(member)

    def _refuse(
        self, waiter: JoinWaiter, error: ErrorCode, member_id: str = UNKNOWN_MEMBER_ID
    ) -> None:
        self._effects.append(AnswerJoin(waiter, JoinResult(error, member_id)))

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
