"""A member of a consumer group: what it told of itself, and how far it is with its assignment."""

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

JOINING: Final = 0
LEFT: Final = -1
AWAY: Final = -2
"""Epochs of a heartbeat that are none: it wants in, it leaves, it (a static one) will be back."""


class Slot(NamedTuple):
    """A partition of a topic as members own it; topics go by id, so that a new topic of an old
    name is another one."""

    topic_id: bytes
    partition: int


Slots: TypeAlias = frozenset[Slot]

NOTHING: Final[Slots] = frozenset()


def by_topic(slots: Slots) -> dict[bytes, list[int]]:
    """Partitions by topic id, both in ascending order."""
    topics: dict[bytes, list[int]] = {}
    for topic_id, partition in sorted(slots):
        topics.setdefault(topic_id, []).append(partition)
    return topics


class MemberState(IntEnum):
    """How far a member is on its way to its target, by the number that is stored.

    STABLE: it has all of its target that it can have now. UNREVOKED: it must give up partitions
    first. UNRELEASED: it waits for partitions that others have not given up yet.
    """

    STABLE = 0
    UNREVOKED = 1
    UNRELEASED = 2


class Member(NamedTuple):
    """One member; replaced, never changed. Times in milliseconds."""

    member_id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    regex: str | None = None
    """What ``topics`` are the matches of, for a member that named no topics."""
    assignor: str | None = None
    rebalance_timeout_ms: int = -1
    epoch: int = JOINING
    previous_epoch: int = LEFT
    state: MemberState = MemberState.STABLE
    assigned: Slots = NOTHING
    revoking: Slots = NOTHING
    """What it has been told to give up, and has not said that it did."""

    @property
    def holds(self) -> Slots:
        """What nobody else may be given."""
        return self.assigned | self.revoking
