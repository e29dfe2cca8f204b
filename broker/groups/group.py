"""A consumer group of the classic protocol: a pure state machine.

Rules of the game
-----------------
Members join, the group agrees on who they are (a *generation*), the leader says who gets what,
and everybody goes to work until something changes::

    Empty ──join──▶ PreparingRebalance ──all joined, or time is up──▶ CompletingRebalance
      ▲                 ▲        │                                        │
      └──nobody left────┼────────┘        leader's SyncGroup, stored      │
                        │                                                 ▼
                        └──────── a member joins, leaves, changes ───── Stable

    any state ──deleted, expired, or the coordinator moved──▶ Dead

* PreparingRebalance: JoinGroups wait. From Empty the wait is ``group.initial.rebalance.delay.ms``,
  longer while members of a brand-new group keep coming; otherwise it ends when every known member
  has rejoined and every promised id was used, at the latest after the largest rebalance time-out.
  Dynamic members that are not back by then are out; static ones (KIP-345) keep their place until
  their session ends.
* CompletingRebalance: SyncGroups wait for the leader's. The generation counts only once it is
  written to ``__consumer_offsets``; then everybody gets their part. Who never sends SyncGroup is
  out after the rebalance time-out.
* Sessions end when nothing is heard of a member for its session time-out. A member that waits for
  an answer cannot be heard, so its session does not end.

Every method takes the moment it happens at and gives effects (answers, records to store) for the
caller to carry out. Times to act by are told by :meth:`Group.next_deadline`, and come as
:meth:`Group.on_time`. Nothing here waits, writes or reads a clock.

Where releases of Kafka differ, the later behaviour is followed, because the earlier one loses
assignments or loops: Heartbeat while the leader assigns is accepted (2.7+); a static member that
returns then starts a new rebalance (2.4+); a static member's new id is stored before it is told
(2.4+); SyncGroup has a time limit (3.1+).
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from kavka.broker.groups.core import GroupState
from kavka.broker.groups.image import GroupImage
from kavka.broker.groups.member import NEW_MEMBER_PATIENCE_SECONDS, Member
from kavka.broker.groups.messages import (
    UNKNOWN_MEMBER_ID,
    AnswerJoin,
    Effect,
    Join,
    JoinResult,
    JoinWaiter,
    Leave,
    Moment,
)
from kavka.broker.groups.rebalance import RebalancingGroup
from kavka.broker.groups.settings import GroupSettings
from kavka.config import limits
from kavka.protocol.errors import ErrorCode

log = logging.getLogger("kavka.groups")


class _Return(NamedTuple):
    """A static member that came back to a Stable group, and how to take that back."""

    generation: int
    join: Join
    member: Member
    waiter: JoinWaiter
    old_id: str
    old_leader: str
    old_protocols: tuple[tuple[str, bytes], ...]
    old_session_timeout_ms: int
    old_rebalance_timeout_ms: int


class Group(RebalancingGroup):
    """One group: its members, its generation, and its committed offsets."""

    __slots__ = ()

    @classmethod
    def restore(
        cls,
        group_id: str,
        image: GroupImage,
        settings: GroupSettings,
        new_member_id: Callable[[str], str],
        now: Moment,
    ) -> "Group":
        """Make the group that ``image`` was written of; its members' sessions begin now."""
        group = cls(group_id, settings, new_member_id, now)
        group.protocol_type = image.protocol_type or None
        group.generation = image.generation
        group.protocol = image.protocol
        if image.members and group.protocol is None:
            group.protocol = ""  # no Kafka writes this, but a record can say it
        group.state_timestamp_ms = image.state_timestamp_ms
        for stored in image.members:
            member = Member.from_image(stored, image.protocol or "")
            group.members.add(member)
            group._touch(member, now)
        if image.members:
            group.state = GroupState.STABLE
            if image.leader in group.members:
                group.members.leader_id = image.leader
            if len(image.members) > settings.max_size:
                group._prepare_rebalance(now, "the group is over its maximum size", None)
        return group

    # -- joining -------------------------------------------------------------------------------

    def join(self, join: Join, waiter: JoinWaiter, now: Moment) -> list[Effect]:
        """A JoinGroup; the waiter is answered now or at the end of the rebalance."""
        if self.state is GroupState.DEAD:
            self._refuse(waiter, ErrorCode.COORDINATOR_NOT_AVAILABLE, join.member_id)
        elif not self._has_room(join):
            member = self.members.get(join.member_id)
            if member is not None:
                self._drop(member)
            self.pending_members.pop(join.member_id, None)
            self._refuse(waiter, ErrorCode.GROUP_MAX_SIZE_REACHED)
        elif not self._can_work_with(join):
            self._refuse(waiter, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, join.member_id)
        elif join.member_id == UNKNOWN_MEMBER_ID:
            self._join_unknown(join, waiter, now)
        elif join.member_id in self.pending_members and join.instance_id is None:
            self._add(join.member_id, join, waiter, now)
        else:
            error = self._check_member(join.member_id, join.instance_id)
            if error is not ErrorCode.NONE:
                self._refuse(waiter, error, join.member_id)
            else:
                self._rejoin(self.members[join.member_id], join, waiter, now)
        self._complete_if_all_joined(now)
        return self._take_effects()

    def _has_room(self, join: Join) -> bool:
        if self.state is GroupState.EMPTY:
            return True
        known_id = join.member_id or self.members.static_id(join.instance_id) or ""
        member = self.members.get(known_id)
        if self.state is GroupState.PREPARING:
            # Counts who has rejoined, not who is known: when max.size was lowered, the last
            # to rejoin are those who have to go.
            waits = member is not None and member.join_waiter is not None
            return waits or self.members.waiting_joins < self._settings.max_size
        return member is not None or len(self.members) < self._settings.max_size

    def _can_work_with(self, join: Join) -> bool:
        names = {name for name, _ in join.protocols}
        if not self.members:
            return bool(join.protocol_type) and bool(names)
        return join.protocol_type == self.protocol_type and self.members.shares_any(names)

    def _join_unknown(self, join: Join, waiter: JoinWaiter, now: Moment) -> None:
        new_id = self._new_member_id(join.instance_id or join.client_id)
        old_id = self.members.static_id(join.instance_id)
        if old_id is not None:
            self._replace_static(self.members[old_id], new_id, join, waiter, now)
        elif join.needs_known_id and join.instance_id is None:
            if len(self.pending_members) >= limits.PENDING_MEMBERS_PER_GROUP_MAX:
                self._refuse(waiter, ErrorCode.GROUP_MAX_SIZE_REACHED)
                return
            deadline = now.seconds + join.session_timeout_ms / 1000
            self.pending_members[new_id] = deadline
            self._wake_by(deadline)
            self._refuse(waiter, ErrorCode.MEMBER_ID_REQUIRED, new_id)
        else:
            self._add(new_id, join, waiter, now)

    def _add(self, member_id: str, join: Join, waiter: JoinWaiter, now: Moment) -> None:
        self.pending_members.pop(member_id, None)
        member = Member.from_join(member_id, join)
        member.is_new = True
        member.deadline = now.seconds + NEW_MEMBER_PATIENCE_SECONDS
        self._wake_by(member.deadline)
        if self.state is GroupState.PREPARING and self.generation == 0:
            self._newcomers = True
        if not self.members:
            self.protocol_type = join.protocol_type
        self.members.add(member)
        self.members.set_join_waiter(member, waiter)
        self._maybe_prepare_rebalance(now, _with_reason("a member joined", join.reason), member)

    def _rejoin(self, member: Member, join: Join, waiter: JoinWaiter, now: Moment) -> None:
        """JoinGroup of a member of the group: it may only want to hear the answer again."""
        changed = member.protocols != join.protocols
        leads = self.members.leader_id == member.member_id
        # Nobody but the leader rejoins a Stable group without wanting a rebalance.
        settled = self.state is GroupState.STABLE and not leads
        if not changed and (settled or self.state is GroupState.COMPLETING):
            self._effects.append(AnswerJoin(waiter, self._current_generation(member)))
        else:
            if changed:
                reason = "a member changed its metadata"
            else:
                # The leader rejoins to have changed metadata of topics taken into account.
                reason = "the leader rejoined" if leads else "a member rejoined"
            self._update(member, join, waiter)
            self._maybe_prepare_rebalance(now, _with_reason(reason, join.reason), member)

    def _update(self, member: Member, join: Join, waiter: JoinWaiter) -> None:
        self.members.set_protocols(member, join.protocols)
        member.session_timeout_ms = join.session_timeout_ms
        member.rebalance_timeout_ms = join.rebalance_timeout_ms
        before = self.members.set_join_waiter(member, waiter)
        if before is not None:
            # The client gave up on this one (its connection broke) and asked again.
            self._refuse(before, ErrorCode.REBALANCE_IN_PROGRESS, member.member_id)

    # -- static members that return (KIP-345) --------------------------------------------------

    def _replace_static(
        self, member: Member, new_id: str, join: Join, waiter: JoinWaiter, now: Moment
    ) -> None:
        """A static member came back without its id: whoever has the old id is fenced."""
        back = _Return(
            self.generation,
            join,
            member,
            waiter,
            member.member_id,
            self.members.leader_id or "",
            member.protocols,
            member.session_timeout_ms,
            member.rebalance_timeout_ms,
        )
        self._dismiss(member, ErrorCode.FENCED_INSTANCE_ID)
        self.members.rename(member, new_id)
        self._update(member, join, waiter)
        member.client_id = join.client_id
        member.client_host = join.client_host
        self._touch(member, now)
        log.info(
            "Static member returned group=%.128s instance=%.128s old=%.128s new=%.128s state=%s",
            *(self.group_id, member.instance_id, back.old_id, new_id, self.state),
        )
        if self.state is GroupState.STABLE and self.members.choose_protocol() == self.protocol:
            # No rebalance: it is told its old assignment, once its new id is in the log.
            # Otherwise a coordinator that takes over would fence it.
            self._store(self.image(), partial(self._return_stored, back))
        elif self.state is not GroupState.PREPARING:
            # While the leader assigns it does so for the old id.
            reason = _with_reason("a static member returned", join.reason)
            self._maybe_prepare_rebalance(now, reason, member)

    def _return_stored(self, back: _Return, error: ErrorCode, now: Moment) -> None:
        member = back.member
        if (
            member.join_waiter is not back.waiter
            or self.state is not GroupState.STABLE
            or self.generation != back.generation
        ):
            return  # overtaken by a rebalance, which answers it, or by another return
        self.members.take_join_waiter(member)
        if error is ErrorCode.NONE:
            self._effects.append(AnswerJoin(back.waiter, self._return_result(back)))
        else:
            self.members.set_protocols(member, back.old_protocols)
            member.session_timeout_ms = back.old_session_timeout_ms
            member.rebalance_timeout_ms = back.old_rebalance_timeout_ms
            self.members.rename(member, back.old_id)
            self._refuse(back.waiter, error)
        self._touch(member, now)

    def _return_result(self, back: _Return) -> JoinResult:
        result = self._current_generation(back.member)
        if back.join.can_skip_assignment:
            # It has to know that it leads, to watch over the topics' metadata.
            leads = result.leader == back.member.member_id
            return result._replace(skip_assignment=leads)
        # Before v9 a leader that knows it leads would assign, and a Stable group would ignore
        # it. So it is told the leader's old id, which is nobody's.
        return result._replace(leader=back.old_leader, members=())

    # -- being alive ---------------------------------------------------------------------------

    def heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, now: Moment
    ) -> ErrorCode:
        """A Heartbeat; REBALANCE_IN_PROGRESS is how members learn that they have to rejoin."""
        error = self._check_generation(member_id, instance_id, generation)
        if error is not ErrorCode.NONE:
            return error
        self._touch(self.members[member_id], now)
        if self.state is GroupState.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def may_commit(
        self, member_id: str, instance_id: str | None, generation: int, now: Moment
    ) -> ErrorCode:
        """Whether offsets may be committed under this name; an accepted one is a sign of life.

        During PreparingRebalance members still commit what they have done. An Empty group takes
        commits without generation: of consumers that manage themselves, and of tools.
        """
        if self.state is GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if generation < 0 and self.state is GroupState.EMPTY:
            return ErrorCode.NONE
        error = self._check_generation(member_id, instance_id, generation)
        if error is not ErrorCode.NONE:
            return error
        if self.state is GroupState.COMPLETING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        self._touch(self.members[member_id], now)
        return ErrorCode.NONE

    def may_commit_in_transaction(
        self, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode:
        """Whether offsets may be committed in a transaction under this name.

        Clients of before KIP-447 give none; their transactional id is all that fences them.
        """
        if self.state is GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if generation < 0 and self.state is GroupState.EMPTY:
            return ErrorCode.NONE
        if generation < 0 and not member_id and instance_id is None:
            return ErrorCode.NONE
        return self._check_generation(member_id, instance_id, generation)

    def on_time(self, now: Moment) -> list[Effect]:
        """Act on every deadline that has passed."""
        if self.state is GroupState.DEAD:
            self._wake_at = math.inf
            return self._take_effects()
        for member_id, deadline in list(self.pending_members.items()):
            if deadline <= now.seconds:
                del self.pending_members[member_id]
        for member in list(self.members):
            if self.members.get(member.member_id) is not member:
                continue  # left out by the rebalance that another one's end completed
            if not member.excused and member.deadline <= now.seconds:
                log.info(
                    "Session ended group=%.128s member=%.128s client=%.128s host=%s",
                    *(self.group_id, member.member_id, member.client_id, member.client_host),
                )
                self._remove(member, "a member's session ended", now)
        self._complete_if_all_joined(now)
        if self.state is GroupState.PREPARING and self._rebalance_deadline <= now.seconds:
            self._rebalance_time_is_up(now)
        if self._sync_deadline <= now.seconds:
            self._sync_time_is_up(now)
        self._wake_at = min(
            self._rebalance_deadline,
            self._sync_deadline,
            min(self.pending_members.values(), default=math.inf),
            min((m.deadline for m in self.members if not m.excused), default=math.inf),
        )
        return self._take_effects()

    # -- leaving -------------------------------------------------------------------------------

    def leave(
        self, leaves: Sequence[Leave], now: Moment
    ) -> tuple[ErrorCode, list[ErrorCode], list[Effect]]:
        """A LeaveGroup: an error for all, errors one by one, and effects."""
        if self.state is GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE, [], []
        errors = [self._leave_one(leave, now) for leave in leaves]
        return ErrorCode.NONE, errors, self._take_effects()

    def _leave_one(self, leave: Leave, now: Moment) -> ErrorCode:
        member_id: str | None = leave.member_id
        if member_id == UNKNOWN_MEMBER_ID:
            member_id = self.members.static_id(leave.instance_id)
            if member_id is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
        elif self.pending_members.pop(leave.member_id, None) is not None:
            self._complete_if_all_joined(now)
            return ErrorCode.NONE
        else:
            error = self._check_member(leave.member_id, leave.instance_id)
            if error is not ErrorCode.NONE:
                return error
        assert member_id is not None
        reason = _with_reason("a member left", leave.reason)
        self._remove(self.members[member_id], reason, now)
        return ErrorCode.NONE

    def _remove(self, member: Member, reason: str, now: Moment) -> None:
        self._drop(member)
        self._maybe_prepare_rebalance(now, reason, member)
        self._complete_if_all_joined(now)


def _with_reason(reason: str, told: str | None) -> str:
    """Add the reason the client told, if any (KIP-800)."""
    return f"{reason}: {told}" if told else reason
