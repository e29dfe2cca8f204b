"""Who shall lead: the controller's choices, each a pure function of what it knows.

In all of them ``replicas`` are a partition's replicas in the order of its assignment, whose
first member is the preferred leader; ``isr`` are those in sync, ``live`` the brokers alive.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

NO_LEADER: Final = -1


class Choice(NamedTuple):
    """A leader, and who is in sync under it."""

    leader: int
    isr: tuple[int, ...]


def elect_first(replicas: Sequence[int], live: Collection[int]) -> Choice | None:
    """The first leader of a new partition: nothing is written yet, so all who live are in sync."""
    isr = tuple(replica for replica in replicas if replica in live)
    return Choice(isr[0], isr) if isr else None


def elect_offline(
    replicas: Sequence[int], isr: Sequence[int], live: Collection[int], *, unclean: bool
) -> Choice | None:
    """A leader for a partition whose leader is gone.

    Only a replica in sync has every acknowledged record. ``unclean`` allows another one when
    none of those is alive, and loses what only they had.
    """
    alive_in_sync = tuple(replica for replica in isr if replica in live)
    for replica in replicas:
        if replica in alive_in_sync:
            return Choice(replica, alive_in_sync)
    if unclean:
        for replica in replicas:
            if replica in live:
                return Choice(replica, (replica,))
    return None


def elect_preferred(
    replicas: Sequence[int], isr: Sequence[int], live: Collection[int]
) -> Choice | None:
    """The preferred leader, if it can lead."""
    preferred = replicas[0] if replicas else NO_LEADER
    return Choice(preferred, tuple(isr)) if preferred in live and preferred in isr else None


def elect_for_reassignment(
    target: Sequence[int], isr: Sequence[int], live: Collection[int]
) -> Choice | None:
    """A leader among the replicas that a partition is moved to."""
    for replica in target:
        if replica in live and replica in isr:
            return Choice(replica, tuple(isr))
    return None


def elect_for_shutdown(
    replicas: Sequence[int],
    isr: Sequence[int],
    live: Collection[int],
    shutting_down: Collection[int],
) -> Choice | None:
    """A leader to take over from one that wants to stop."""
    remaining = tuple(replica for replica in isr if replica not in shutting_down)
    for replica in replicas:
        if replica in live and replica in remaining:
            return Choice(replica, remaining)
    return None


def without_replica(leader: int, isr: Sequence[int], gone: int) -> Choice:
    """What is left when a replica goes offline.

    The last one in sync stays on the list although it is gone: it alone has everything.
    """
    remaining = tuple(isr) if tuple(isr) == (gone,) else tuple(r for r in isr if r != gone)
    return Choice(NO_LEADER if leader == gone else leader, remaining)
