"""What is stored of a consumer group, and how each stored record changes it. Pure.

The coordinator writes :class:`Update` s and applies them; a new coordinator reads the same ones and
applies them. So both know the same.
"""

from typing import NamedTuple, TypeAlias

from kavka.broker.groups.consumer.member import NOTHING, Member, MemberState, Slot, Slots


class SetGroup(NamedTuple):
    """The group is at this epoch; ``topics_hash`` tells the topics it was made for from others."""

    epoch: int
    topics_hash: int


class SetMember(NamedTuple):
    """What a member told of itself. Its epoch and assignment stay as they are."""

    member: Member


class DropMember(NamedTuple):
    """A member is gone; its target and its assignment went before."""

    member_id: str


class SetTarget(NamedTuple):
    """What a member is to have in the end; None when it is gone."""

    member_id: str
    slots: Slots | None


class SetTargetEpoch(NamedTuple):
    """All targets are those of this group epoch."""

    epoch: int


class SetCurrent(NamedTuple):
    """How far a member is; None when it is gone."""

    member_id: str
    current: "Current | None"


class Current(NamedTuple):
    """A member's epoch and what it has."""

    epoch: int
    previous_epoch: int
    state: MemberState
    assigned: Slots
    revoking: Slots


Update: TypeAlias = SetGroup | SetMember | DropMember | SetTarget | SetTargetEpoch | SetCurrent


class GroupData:
    """Members, targets and epochs of one group."""

    __slots__ = (
        "_topics",
        "epoch",
        "holders",
        "instances",
        "members",
        "target_epoch",
        "targets",
        "topics_hash",
    )

    def __init__(self) -> None:
        self.epoch = 0
        self.topics_hash = 0
        self.target_epoch = 0
        self.members: dict[str, Member] = {}
        self.instances: dict[str, str] = {}  # instance id → member id
        self.targets: dict[str, Slots] = {}
        self.holders: dict[Slot, str] = {}  # by what members have or are giving up
        self._topics: frozenset[str] | None = None

    def copy(self) -> "GroupData":
        """One that can be changed without this one."""
        twin = GroupData()
        twin.epoch, twin.topics_hash = self.epoch, self.topics_hash
        twin.target_epoch = self.target_epoch
        twin.members, twin.instances = dict(self.members), dict(self.instances)
        twin.targets, twin.holders = dict(self.targets), dict(self.holders)
        twin._topics = self._topics
        return twin

    @property
    def topics(self) -> frozenset[str]:
        """What the members read, all together."""
        if self._topics is None:
            self._topics = frozenset().union(*(m.topics for m in self.members.values()))
        return self._topics

    def is_free(self, slot: Slot) -> bool:
        """Whether no member has the partition."""
        return slot not in self.holders

    def target_of(self, member_id: str) -> Slots:
        return self.targets.get(member_id, NOTHING)

    def apply(self, update: Update) -> None:
        match update:
            case SetGroup(epoch, topics_hash):
                self.epoch, self.topics_hash = epoch, topics_hash
            case SetMember(told):
                self._set_member(told)
            case DropMember(member_id):
                self._drop(member_id)
            case SetTarget(member_id, slots):
                if slots is None:
                    self.targets.pop(member_id, None)
                else:
                    self.targets[member_id] = slots
            case SetTargetEpoch(epoch):
                self.target_epoch = epoch
            case SetCurrent(member_id, current):
                self._set_current(member_id, current)

    def _set_member(self, told: Member) -> None:
        self._topics = None
        known = self.members.get(told.member_id)
        if known is not None:
            if known.instance_id is not None:
                self.instances.pop(known.instance_id, None)
            told = told._replace(
                epoch=known.epoch,
                previous_epoch=known.previous_epoch,
                state=known.state,
                assigned=known.assigned,
                revoking=known.revoking,
            )
        self.members[told.member_id] = told
        if told.instance_id is not None:
            self.instances[told.instance_id] = told.member_id

    def _drop(self, member_id: str) -> None:
        self._topics = None
        self._set_current(member_id, None)
        member = self.members.pop(member_id, None)
        if member is not None and self.instances.get(member.instance_id or "") == member_id:
            del self.instances[member.instance_id or ""]

    def _set_current(self, member_id: str, current: Current | None) -> None:
        member = self.members.get(member_id)
        if member is None:
            if current is None:
                return
            # What it told of itself stands further on: compaction has moved that.
            member = self.members[member_id] = Member(member_id)
        for slot in member.holds:
            if self.holders.get(slot) == member_id:
                del self.holders[slot]
        current = current or _NOTHING_YET
        member = self.members[member_id] = member._replace(**current._asdict())
        for slot in member.holds:
            self.holders[slot] = member_id


_NOTHING_YET = Current(
    Member("").epoch, Member("").previous_epoch, MemberState.STABLE, NOTHING, NOTHING
)


def current_of(member: Member) -> Current:
    """What is stored of how far a member is."""
    return Current(
        member.epoch, member.previous_epoch, member.state, member.assigned, member.revoking
    )
