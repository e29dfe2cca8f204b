"""A bound on what the members of all groups together may make the broker remember.

A subscription is as large as its client likes, and there may be as many groups as there are
names. So joins are counted by their size. What has left since is only found out by looking at all
groups, which is done when the budget seems to be used up, and then once a second.
"""

from collections.abc import Callable, Iterable
from typing import Final

from kavka.broker.groups.group import Group
from kavka.broker.groups.messages import Join
from kavka.broker.groups.partition import AnyGroup

_BYTES_PER_MEMBER: Final = 2_000  # what a member without subscription costs, with its group
_RECOUNT_SECONDS: Final = 1.0


class MemberBudget:
    """Admits joins as long as what all members hold stays within ``limit`` bytes."""

    def __init__(self, groups: Callable[[], Iterable[AnyGroup]], limit: int) -> None:
        self._groups = groups
        self._limit = limit
        self._held = 0  # at most: nobody tells of those who leave
        self._recount_at = 0.0

    def admits(self, join: Join, now: float) -> bool:
        """Count a join in, or say that there is no room for it; ``now`` in seconds."""
        return self._admits_bytes(_size(join.protocols), now)

    def admits_consumer(self, topics: Iterable[str], now: float) -> bool:
        """Likewise, of the consumer protocol."""
        return self._admits_bytes(_size_of_topics(topics), now)

    def _admits_bytes(self, size: int, now: float) -> bool:
        if self._held + size > self._limit and now >= self._recount_at:
            self._held = self._count()
            self._recount_at = now + _RECOUNT_SECONDS
        if self._held + size > self._limit:
            return False
        self._held += size
        return True

    def _count(self) -> int:
        total = 0
        for group in self._groups():
            if not isinstance(group, Group):
                members = group.data.members.values()
                total += sum(_size_of_topics(member.topics) for member in members)
                continue
            total += len(group.pending_members) * _BYTES_PER_MEMBER
            total += sum(
                _size(member.protocols) + len(member.assignment) for member in group.members
            )
        return total


def _size_of_topics(topics: Iterable[str]) -> int:
    return _BYTES_PER_MEMBER + sum(map(len, topics))


def _size(protocols: Iterable[tuple[str, bytes]]) -> int:
    return _BYTES_PER_MEMBER + sum(len(name) + len(metadata) for name, metadata in protocols)
