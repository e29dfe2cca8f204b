"""A consumer group (KIP-848): heartbeats in, records and the answer out. Pure.

Three epochs drive it. Whatever changes what members should have (a member comes, goes or reads
other topics; a topic grows) raises the *group epoch*. The next heartbeat of anybody makes the
*target* for that epoch, by the assignor most members ask for. Then each member is led to its
target by its own heartbeats (``reconcile.py``), and with it to the target's epoch: its *member
epoch*. Who says it has an epoch that it was not given is fenced.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kavka.broker.groups.consumer.assignors import ASSIGNORS, Topic, Wish
from kavka.broker.groups.consumer.member import (
    AWAY,
    JOINING,
    LEFT,
    Member,
    MemberState,
    Slots,
)
from kavka.broker.groups.consumer.reconcile import reconcile
from kavka.broker.groups.consumer.settings import ConsumerGroupSettings
from kavka.broker.groups.consumer.state import (
    DropMember,
    GroupData,
    SetCurrent,
    SetGroup,
    SetMember,
    SetTarget,
    SetTargetEpoch,
    Update,
    current_of,
)
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.history import RebalanceEvent, RebalanceHistory
from kavka.broker.groups.messages import Moment
from kavka.broker.groups.offsets import GroupOffsets
from kavka.protocol.errors import ErrorCode, KafkaError

FindTopics = Callable[[frozenset[str]], Mapping[str, Topic]]
"""Of these topics those that exist."""


class Beat(NamedTuple):
    """A heartbeat. What is None has not changed since the last one."""

    member_id: str
    epoch: int
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] | None = None
    regex: str | None = None
    assignor: str | None = None
    owned: Slots | None = None

    @property
    def is_full(self) -> bool:
        """Whether the member tells everything, and so wants to be told everything."""
        return self.epoch == JOINING or (
            self.rebalance_timeout_ms != -1 and self.topics is not None and self.owned is not None
        )


class Reply(NamedTuple):
    """The answer to a heartbeat; ``assigned`` only if the member needs to be told."""

    member_id: str
    epoch: int
    assigned: Slots | None = None


class Decision(NamedTuple):
    """What a step comes to: records to write, the state they lead to, and what to answer."""

    updates: Sequence[Update]
    data: GroupData
    reply: Reply
    reason: str = ""  # why the group epoch was raised, if it was


class ConsumerGroup:
    """One group of the consumer protocol.

    A step computes a :class:`Decision` and changes nothing; :meth:`carry_on` makes it count, once
    its records are written.
    """

    __slots__ = (
        "_hash_of",
        "_revocations",
        "_sessions",
        "_settings",
        "data",
        "dead",
        "group_id",
        "history",
        "offsets",
        "state_timestamp_ms",
    )

    def __init__(
        self,
        group_id: str,
        settings: ConsumerGroupSettings,
        now: Moment,
        data: GroupData | None = None,
    ) -> None:
        """A new group, or with ``data`` one that was loaded; its members' sessions begin now."""
        self.group_id = group_id
        self.data = data or GroupData()
        self.offsets = GroupOffsets()
        self.history = RebalanceHistory()
        self.dead = False
        self.state_timestamp_ms: int | None = now.wall_ms
        self._settings = settings
        self._sessions: dict[str, float] = {}  # ends by member, the earliest first
        self._revocations: dict[str, tuple[int, float]] = {}  # member → its epoch, deadline
        # What the hash was computed of, as both parts hardly ever change.
        self._hash_of: tuple[int, frozenset[str], int] = (-1, frozenset(), 0)
        for member in self.data.members.values():
            self._renew_session(member, now)
            self._watch_revocation(member, now)

    # -- heartbeats ----------------------------------------------------------------------------

    def heartbeat(self, beat: Beat, find_topics: FindTopics, metadata_version: int) -> Decision:
        """A member's heartbeat. ``metadata_version`` changes when topics do.

        Raises KafkaError: UNKNOWN_MEMBER_ID, FENCED_MEMBER_EPOCH, FENCED_INSTANCE_ID,
        UNRELEASED_INSTANCE_ID, GROUP_MAX_SIZE_REACHED, UNSUPPORTED_ASSIGNOR.
        """
        if beat.assignor is not None and beat.assignor not in self._settings.assignors:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_ASSIGNOR,
                f"ServerAssignor {beat.assignor} is not supported. Supported assignors: "
                f"{', '.join(self._settings.assignors)}.",
            )
        work = _Work(self.data)
        if beat.epoch in (LEFT, AWAY):
            return self._leave(work, beat)
        before = self._present(work, beat)
        reason = self._take_note(work, beat, before)
        topics_hash = self._topics_hash(work.data, find_topics, metadata_version)
        if not reason and topics_hash != work.data.topics_hash:
            reason = "the topics that its members read have changed"
        if reason:
            work.do(SetGroup(work.data.epoch + 1, topics_hash))
        if work.data.epoch > work.data.target_epoch:
            self._make_target(work, find_topics)
        data = work.data
        member = data.members[beat.member_id]
        after = reconcile(
            member, data.target_of(member.member_id), data.target_epoch, beat.owned, data.is_free
        )
        if after is not member:
            work.do(SetCurrent(after.member_id, current_of(after)))
        must_tell = beat.is_full or after.assigned != member.assigned
        reply = Reply(after.member_id, after.epoch, after.assigned if must_tell else None)
        return Decision(work.updates, work.data, reply, reason)

    def _present(self, work: "_Work", beat: Beat) -> Member | None:
        """The member as it was; None for a new one. A static member may come under a new id."""
        members, instances = work.data.members, work.data.instances
        member = members.get(beat.member_id)
        if beat.instance_id is not None:
            holder = instances.get(beat.instance_id)
            if holder is not None and holder != beat.member_id:
                if beat.epoch != JOINING:
                    raise _fenced_instance(beat)
                if members[holder].epoch != AWAY:
                    raise KafkaError(
                        ErrorCode.UNRELEASED_INSTANCE_ID,
                        f"Static member {beat.member_id} with instance id {beat.instance_id} "
                        "cannot join the group because the instance id is owned by another member.",
                    )
                return self._replace_static(work, members[holder], beat)
        if member is None:
            if beat.epoch != JOINING:
                raise _unknown_member(beat)
            if len(members) >= self._settings.max_size:
                raise KafkaError(
                    ErrorCode.GROUP_MAX_SIZE_REACHED,
                    "The consumer group has reached its maximum capacity of "
                    f"{self._settings.max_size} members.",
                )
            return None
        _check_epoch(member, beat)
        return member

    def _replace_static(self, work: "_Work", away: Member, beat: Beat) -> Member:
        """Who comes in the place of a static member that is away has what it had."""
        target = work.data.target_of(away.member_id)
        work.do(SetCurrent(away.member_id, None))
        work.do(SetTarget(away.member_id, None))
        work.do(DropMember(away.member_id))
        member = away._replace(member_id=beat.member_id, epoch=JOINING)
        work.do(SetMember(member))
        work.do(SetTarget(member.member_id, target))
        work.do(SetCurrent(member.member_id, current_of(member)))
        return work.data.members[member.member_id]

    def _take_note(self, work: "_Work", beat: Beat, before: Member | None) -> str:
        """Keep what the member tells of itself; gives why that asks for a new assignment."""
        known = before or Member(beat.member_id)
        told = known._replace(
            instance_id=beat.instance_id or known.instance_id,
            rack_id=beat.rack_id or known.rack_id,
            client_id=beat.client_id,
            client_host=beat.client_host,
            topics=known.topics if beat.topics is None else beat.topics,
            regex=known.regex if beat.topics is None else beat.regex,
            assignor=beat.assignor or known.assignor,
            rebalance_timeout_ms=(
                known.rebalance_timeout_ms
                if beat.rebalance_timeout_ms == -1
                else beat.rebalance_timeout_ms
            ),
        )
        if before is None or told != known:
            work.do(SetMember(told))
        if before is None:
            return "a member has joined"
        return "a member reads other topics" if told.topics != known.topics else ""

    def _topics_hash(self, data: GroupData, find_topics: FindTopics, metadata_version: int) -> int:
        """A number that tells the topics the members read from others, as to ids and sizes."""
        names = data.topics
        version, hashed, value = self._hash_of
        if version != metadata_version or hashed != names:
            from hashlib import blake2b  # not at the start

            text = repr(sorted((name, *topic) for name, topic in find_topics(names).items()))
            value = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)
            self._hash_of = metadata_version, names, value
        return value

    def _make_target(self, work: "_Work", find_topics: FindTopics) -> None:
        data = work.data
        wishes = {
            member.member_id: Wish(
                member.topics, member.instance_id, data.target_of(member.member_id)
            )
            for member in data.members.values()
        }
        targets = ASSIGNORS[self.assignor(data)](wishes, find_topics(data.topics))
        for member_id, slots in targets.items():
            if data.targets.get(member_id) != slots:
                work.do(SetTarget(member_id, slots))
        work.do(SetTargetEpoch(data.epoch))

    def assignor(self, data: GroupData | None = None) -> str:
        """The assignor that most members ask for; the first of the settings if nobody does."""
        votes = Counter(
            member.assignor
            for member in (data or self.data).members.values()
            if member.assignor in self._settings.assignors
        )
        return max(self._settings.assignors, key=lambda name: votes[name])

    # -- leaving -------------------------------------------------------------------------------

    def _leave(self, work: "_Work", beat: Beat) -> Decision:
        member = work.data.members.get(beat.member_id)
        if beat.instance_id is not None:
            holder = work.data.instances.get(beat.instance_id)
            if holder is None:
                raise _unknown_member(beat)
            if holder != beat.member_id:
                raise _fenced_instance(beat)
        if member is None:
            raise _unknown_member(beat)
        reply = Reply(member.member_id, beat.epoch)
        if beat.epoch == AWAY:
            away = current_of(member)._replace(epoch=AWAY, previous_epoch=member.epoch)
            work.do(SetCurrent(member.member_id, away))
            return Decision(work.updates, work.data, reply)
        self._remove(work, [member.member_id])
        return Decision(work.updates, work.data, reply, "a member has left")

    def _remove(self, work: "_Work", member_ids: Sequence[str]) -> None:
        for member_id in member_ids:
            work.do(SetCurrent(member_id, None))
            work.do(SetTarget(member_id, None))
            work.do(DropMember(member_id))
        work.do(SetGroup(work.data.epoch + 1, work.data.topics_hash))

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Seconds at which :meth:`on_time` has something to do; infinity if never."""
        return min(
            next(iter(self._sessions.values()), math.inf),
            min((deadline for _, deadline in self._revocations.values()), default=math.inf),
        )

    def on_time(self, now: Moment) -> Decision | None:
        """Throw out who has been silent for too long, or does not give up what it must."""
        late = [member_id for member_id, at in self._sessions.items() if at <= now.seconds]
        late += [
            member_id
            for member_id, (_, at) in self._revocations.items()
            if at <= now.seconds and member_id not in late
        ]
        if not late:
            return None
        work = _Work(self.data)
        self._remove(work, late)
        return Decision(work.updates, work.data, Reply("", LEFT), "a member did not come back")

    def carry_on(self, decision: Decision, beat: Beat | None, now: Moment) -> None:
        """The records of ``decision`` are written: from now on it counts."""
        was_empty = not self.data.members
        self.data = decision.data
        if decision.updates:
            for member_id in self._sessions.keys() - self.data.members.keys():
                del self._sessions[member_id]
                self._revocations.pop(member_id, None)
        member = None if beat is None else self.data.members.get(beat.member_id)
        if member is not None:
            self._renew_session(member, now)
            self._watch_revocation(member, now)
        if decision.reason:
            who = beat or Beat("", LEFT)
            self.history.add(
                RebalanceEvent(
                    now.wall_ms,
                    *(self.data.epoch - 1, decision.reason),
                    *(who.member_id, who.client_id, who.client_host),
                )
            )
        if was_empty != (not self.data.members):
            self.state_timestamp_ms = now.wall_ms

    def _renew_session(self, member: Member, now: Moment) -> None:
        self._sessions.pop(member.member_id, None)
        self._sessions[member.member_id] = now.seconds + self._settings.session_timeout_ms / 1000

    def _watch_revocation(self, member: Member, now: Moment) -> None:
        if member.state is not MemberState.UNREVOKED or member.epoch < 0:
            self._revocations.pop(member.member_id, None)
            return
        watched = self._revocations.get(member.member_id)
        if watched is None or watched[0] != member.epoch:
            deadline = now.seconds + member.rebalance_timeout_ms / 1000
            self._revocations[member.member_id] = member.epoch, deadline

    # -- offsets -------------------------------------------------------------------------------

    def may_commit(
        self, member_id: str, instance_id: str | None, epoch: int, now: Moment
    ) -> ErrorCode:
        """Whether offsets may be committed under this name."""
        if self.dead:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if epoch < 0 and not self.data.members:
            return ErrorCode.NONE  # by a tool
        member = self.data.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE if epoch == member.epoch else ErrorCode.STALE_MEMBER_EPOCH

    def may_commit_in_transaction(
        self, member_id: str, instance_id: str | None, epoch: int
    ) -> ErrorCode:
        """Likewise; the transactional API has its own name for an old epoch."""
        if not self.dead and epoch < 0 and not member_id:
            return ErrorCode.NONE  # of a client from before KIP-447
        error = self.may_commit(member_id, instance_id, epoch, Moment(0, 0))
        return ErrorCode.ILLEGAL_GENERATION if error is ErrorCode.STALE_MEMBER_EPOCH else error

    def may_fetch(self, member_id: str | None, epoch: int) -> ErrorCode:
        """Whether offsets are told to this member; anybody who does not say who it is may ask."""
        if member_id is None and epoch < 0:
            return ErrorCode.NONE
        member = self.data.members.get(member_id or "")
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE if epoch == member.epoch else ErrorCode.STALE_MEMBER_EPOCH

    # -- looking -------------------------------------------------------------------------------

    @property
    def state(self) -> GroupState:
        """By the names that ConsumerGroupDescribe and ListGroups give."""
        data = self.data
        if self.dead:
            return GroupState.DEAD
        if not data.members:
            return GroupState.EMPTY
        if data.epoch > data.target_epoch:
            return GroupState.ASSIGNING
        for member in data.members.values():
            if member.state is not MemberState.STABLE or member.epoch != data.target_epoch:
                return GroupState.RECONCILING
        return GroupState.STABLE

    def subscribed_topics(self) -> frozenset[str]:
        return self.data.topics

    @property
    def may_vanish(self) -> bool:
        """Whether nothing is left that is worth keeping."""
        return not self.data.members and not self.offsets.in_use and not self.dead

    def bury(self, now: Moment) -> None:
        """Deleted or expired: late requests that still hold this object get an error."""
        assert not self.data.members
        self.dead = True
        self.state_timestamp_ms = now.wall_ms

    @property
    def generation(self) -> int:
        """The group epoch, where groups of both protocols are treated alike."""
        return self.data.epoch


class _Work:
    """A step in the making: the group's data as it will be, and the records that say so."""

    def __init__(self, data: GroupData) -> None:
        self.data = data
        self.updates: list[Update] = []

    def do(self, update: Update) -> None:
        if not self.updates:
            self.data = self.data.copy()
        self.updates.append(update)
        self.data.apply(update)


def _check_epoch(member: Member, beat: Beat) -> None:
    """A member has the epoch it was given, or the one before when the answer was lost."""
    if beat.epoch in (JOINING, member.epoch):
        return
    if beat.epoch == member.previous_epoch and (
        beat.owned is not None and beat.owned <= member.holds
    ):
        return
    how = "greater" if beat.epoch > member.epoch else "smaller"
    raise KafkaError(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {how} member epoch ({beat.epoch}) than the one known by "
        f"the group coordinator ({member.epoch}). The member must abandon all its partitions and "
        "rejoin.",
    )


def _unknown_member(beat: Beat) -> KafkaError:
    return KafkaError(
        ErrorCode.UNKNOWN_MEMBER_ID, f"Member {beat.member_id} is not a member of the group."
    )


def _fenced_instance(beat: Beat) -> KafkaError:
    return KafkaError(
        ErrorCode.FENCED_INSTANCE_ID,
        f"Static member {beat.member_id} with instance id {beat.instance_id} was fenced by another "
        "member.",
    )
