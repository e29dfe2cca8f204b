"""How a group agrees on a generation: wait for the members, choose, assign.

See the head of ``group.py`` for the whole.
"""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Final

from kavka.broker.groups.core import ALLOWED_FROM, GroupCore, GroupState
from kavka.broker.groups.history import RebalanceEvent
from kavka.broker.groups.member import Member
from kavka.broker.groups.messages import (
    AnswerJoin,
    AnswerSync,
    Effect,
    JoinResult,
    Moment,
    Sync,
    SyncResult,
    SyncWaiter,
)
from kavka.broker.groups.settings import GroupSettings
from kavka.protocol.errors import ErrorCode

log = logging.getLogger("kavka.groups")

# Between two looks whether an absent static member has returned, should the members' own
# rebalance time-out be nothing.
MIN_WAIT_FOR_STATIC_MS: Final = 1_000


class RebalancingGroup(GroupCore):
    """The part of a group that takes it from one generation to the next."""

    __slots__ = ("_delay_left_ms", "_initial", "_newcomers", "_storing_generation")

    def __init__(
        self,
        group_id: str,
        settings: GroupSettings,
        new_member_id: Callable[[str], str],
        now: Moment,
    ) -> None:
        super().__init__(group_id, settings, new_member_id, now)
        self._initial = False  # the rebalance began in Empty
        self._delay_left_ms = 0  # how much longer the initial delay may become
        self._newcomers = False  # members came during the initial delay
        self._storing_generation = -1  # whose assignment is on its way to the log

    # -- waiting for the members ---------------------------------------------------------------

    def _maybe_prepare_rebalance(self, now: Moment, reason: str, cause: Member | None) -> None:
        if self.state in ALLOWED_FROM[GroupState.PREPARING]:
            self._prepare_rebalance(now, reason, cause)

    def _prepare_rebalance(self, now: Moment, reason: str, cause: Member | None) -> None:
        event = RebalanceEvent(
            now.wall_ms,
            self.generation,
            reason,
            "" if cause is None else cause.member_id,
            "" if cause is None else cause.client_id,
            "" if cause is None else cause.client_host,
        )
        self.history.add(event)
        log.info(
            "Rebalance started group=%.128s generation=%d reason=%.256r member=%.128s "
            "client=%.128s host=%s",
            self.group_id,
            *(event.generation, event.reason, event.member_id),
            *(event.client_id, event.client_host),
        )
        if self.state is GroupState.COMPLETING:
            self._abandon_assignment(ErrorCode.REBALANCE_IN_PROGRESS, now)
        self._sync_deadline = math.inf
        timeout_ms = self.members.rebalance_timeout_ms
        self._initial = self.state is GroupState.EMPTY
        if self._initial:
            delay_ms = self._settings.initial_rebalance_delay_ms
            self._delay_left_ms = max(timeout_ms - delay_ms, 0)
            self._newcomers = False
            timeout_ms = delay_ms
        self._set_rebalance_deadline(now, timeout_ms)
        self._transition(GroupState.PREPARING, now)
        if self._initial and timeout_ms == 0:
            self._complete_rebalance(now)
        else:
            self._complete_if_all_joined(now)

    def _set_rebalance_deadline(self, now: Moment, timeout_ms: int) -> None:
        self._rebalance_deadline = now.seconds + timeout_ms / 1000
        self._wake_by(self._rebalance_deadline)

    def _complete_if_all_joined(self, now: Moment) -> None:
        if (
            self.state is GroupState.PREPARING
            and not self._initial
            and not self.pending_members
            and self.members.waiting_joins == len(self.members)
        ):
            self._complete_rebalance(now)

    def _rebalance_time_is_up(self, now: Moment) -> None:
        if self._initial and self._newcomers and self._delay_left_ms > 0:
            self._newcomers = False
            delay_ms = min(self._settings.initial_rebalance_delay_ms, self._delay_left_ms)
            self._delay_left_ms -= delay_ms
            self._set_rebalance_deadline(now, delay_ms)
        else:
            self._complete_rebalance(now)

    def _complete_rebalance(self, now: Moment) -> None:
        for member in list(self.members):
            if member.join_waiter is None and not member.is_static:
                log.info(
                    "Member left out, it did not rejoin in time "
                    "group=%.128s member=%.128s client=%.128s",
                    *(self.group_id, member.member_id, member.client_id),
                )
                self._drop(member)
        self._initial = False
        if not self.members:
            self._rebalance_deadline = math.inf
            self._become_empty(now)
        elif self.members.elect_joined_leader():
            self._rebalance_deadline = math.inf
            self._begin_generation(now)
        else:
            # Only absent static members: wait until one returns or all sessions have ended.
            timeout_ms = max(self.members.rebalance_timeout_ms, MIN_WAIT_FOR_STATIC_MS)
            self._set_rebalance_deadline(now, timeout_ms)

    def _become_empty(self, now: Moment) -> None:
        self.generation += 1
        self.protocol = None
        self._transition(GroupState.EMPTY, now)
        log.info("Group is empty group=%.128s generation=%d", self.group_id, self.generation)
        self._store(self.image(), self._empty_group_stored)

    def _empty_group_stored(self, error: ErrorCode, now: Moment) -> None:
        if error is not ErrorCode.NONE:
            # A failover would bring the last generation back, whose members are gone and time
            # out. So nothing waits for this.
            log.warning("Empty group not stored group=%.128s error=%s", self.group_id, error.name)

    # -- the new generation --------------------------------------------------------------------

    def _begin_generation(self, now: Moment) -> None:
        self.generation += 1
        self.protocol = self.members.choose_protocol()
        self._transition(GroupState.COMPLETING, now)
        log.info(
            "Generation begun group=%.128s generation=%d members=%d protocol=%.128s leader=%.128s",
            *(self.group_id, self.generation, len(self.members)),
            *(self.protocol, self.members.leader_id),
        )
        for member in self.members:
            member.owes_sync = False
            member.assignment = b""
            waiter = self.members.take_join_waiter(member)
            if waiter is None:
                continue  # a static member that is absent: its session goes on as it was
            self._effects.append(AnswerJoin(waiter, self._current_generation(member)))
            member.is_new = False
            member.owes_sync = True
            self._touch(member, now)
        self._sync_deadline = now.seconds + self.members.rebalance_timeout_ms / 1000
        self._wake_by(self._sync_deadline)

    def _current_generation(self, member: Member) -> JoinResult:
        leads = self.members.leader_id == member.member_id
        assert self.protocol is not None
        protocol = self.protocol
        return JoinResult(
            ErrorCode.NONE,
            member.member_id,
            self.generation,
            self.protocol_type,
            protocol,
            self.members.leader_id or "",
            tuple(other.joined(protocol) for other in self.members) if leads else (),
        )

    # -- assigning -----------------------------------------------------------------------------

    def sync(self, sync: Sync, waiter: SyncWaiter, now: Moment) -> list[Effect]:
        """A SyncGroup; the waiter is answered now or when the leader's assignment is stored."""
        error = self._check_sync(sync)
        if error is not ErrorCode.NONE:
            self._effects.append(AnswerSync(waiter, SyncResult(error)))
            return self._take_effects()
        member = self.members[sync.member_id]
        member.owes_sync = False
        if self.state is GroupState.STABLE:
            self._effects.append(AnswerSync(waiter, self._assignment(member)))
            self._touch(member, now)
            return self._take_effects()
        before, member.sync_waiter = member.sync_waiter, waiter
        if before is not None:
            refusal = SyncResult(ErrorCode.REBALANCE_IN_PROGRESS)
            self._effects.append(AnswerSync(before, refusal))
        if self.members.leader_id == member.member_id:
            self._store_assignment(sync, now)
        return self._take_effects()

    def _store_assignment(self, sync: Sync, now: Moment) -> None:
        if self._storing_generation == self.generation:
            return  # the leader only asks again
        self._storing_generation = self.generation
        given = dict(sync.assignments)
        assignments = {m.member_id: given.get(m.member_id, b"") for m in self.members}
        self._store(
            self.image(assignments, now),
            partial(self._assignment_stored, self.generation, assignments),
        )

    def _check_sync(self, sync: Sync) -> ErrorCode:
        error = self._check_generation(sync.member_id, sync.instance_id, sync.generation)
        if error is not ErrorCode.NONE:
            return error
        if sync.protocol_type is not None and sync.protocol_type != self.protocol_type:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if sync.protocol is not None and sync.protocol != self.protocol:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if self.state is GroupState.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def _assignment(self, member: Member) -> SyncResult:
        return SyncResult(ErrorCode.NONE, member.assignment, self.protocol_type, self.protocol)

    def _assignment_stored(
        self, generation: int, assignments: dict[str, bytes], error: ErrorCode, now: Moment
    ) -> None:
        if self.state is not GroupState.COMPLETING or self.generation != generation:
            return  # overtaken by a rebalance
        if error is not ErrorCode.NONE:
            self._abandon_assignment(error, now)
            reason = f"the assignment could not be stored ({error.name})"
            self._maybe_prepare_rebalance(now, reason, None)
            return
        self._transition(GroupState.STABLE, now)
        for member in self.members:
            member.assignment = assignments[member.member_id]
            waiter, member.sync_waiter = member.sync_waiter, None
            if waiter is not None:
                self._effects.append(AnswerSync(waiter, self._assignment(member)))
                self._touch(member, now)

    def _abandon_assignment(self, error: ErrorCode, now: Moment) -> None:
        for member in self.members:
            member.assignment = b""
            waiter, member.sync_waiter = member.sync_waiter, None
            if waiter is not None:
                self._effects.append(AnswerSync(waiter, SyncResult(error)))
                self._touch(member, now)

    def _sync_time_is_up(self, now: Moment) -> None:
        self._sync_deadline = math.inf
        late = [member for member in self.members if member.owes_sync]
        for member in late:
            self._drop(member)
        if late:
            names = ", ".join(member.member_id for member in late[:3])
            reason = f"{len(late)} members did not send SyncGroup in time ({names})"
            self._maybe_prepare_rebalance(now, reason, late[0])
