"""The next step of one member towards its target (KIP-848, reconciliation). Pure.

A member first gives up what is not its any more; only then does it reach the epoch of the target
and get what is new, and of that only what nobody else holds.
"""

from collections.abc import Callable

from kavka.broker.groups.consumer.member import NOTHING, Member, MemberState, Slot, Slots


def reconcile(
    member: Member,
    target: Slots,
    target_epoch: int,
    owned: Slots | None,
    is_free: Callable[[Slot], bool],
) -> Member:
    """The member after its heartbeat; the same object when nothing changes.

    ``owned`` is what the member says it has, None if it did not say. ``is_free`` tells whether no
    other member holds a partition.
    """
    epoch = member.epoch
    if member.state is MemberState.STABLE:
        if member.epoch == target_epoch:
            return member
    elif member.state is MemberState.UNREVOKED:
        if _holds_on(member.revoking, owned):
            return member
        epoch += 1  # it has done what it was told, even if there is more to give up
    assigned = member.assigned & target
    revoking = member.assigned - assigned
    if revoking and _holds_on(revoking, owned):
        return _replaced(member, epoch, MemberState.UNREVOKED, assigned, revoking)
    pending = target - assigned
    free = frozenset(slot for slot in pending if is_free(slot))
    state = MemberState.STABLE if free == pending else MemberState.UNRELEASED
    return _replaced(member, target_epoch, state, assigned | free, NOTHING)


def _holds_on(revoking: Slots, owned: Slots | None) -> bool:
    return owned is None or not revoking.isdisjoint(owned)


def _replaced(
    member: Member, epoch: int, state: MemberState, assigned: Slots, revoking: Slots
) -> Member:
    if (epoch, state, assigned, revoking) == (
        *(member.epoch, member.state, member.assigned, member.revoking),
    ):
        return member
    previous = member.epoch if epoch != member.epoch else member.previous_epoch
    return member._replace(
        epoch=epoch, previous_epoch=previous, state=state, assigned=assigned, revoking=revoking
    )
