"""The members of one group and what is counted over them."""

from collections.abc import Iterable, Iterator

from kavka.broker.groups.member import Member, choose_protocol
from kavka.broker.groups.messages import JoinWaiter


class Roster:
    """Members by id in the order they came, who leads them, and which protocols all share.

    Whoever leads is a member; a roster with members has a leader.
    """

    __slots__ = ("_members", "_static_ids", "_support", "leader_id", "waiting_joins")

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._static_ids: dict[str, str] = {}  # instance id → member id
        self._support: dict[str, int] = {}  # protocol → how many members have it
        self.leader_id: str | None = None
        self.waiting_joins = 0  # members with a JoinGroup waiting for its answer

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __contains__(self, member_id: object) -> bool:
        return member_id in self._members

    def __getitem__(self, member_id: str) -> Member:
        return self._members[member_id]

    def get(self, member_id: str) -> Member | None:
        return self._members.get(member_id)

    def static_id(self, instance_id: str | None) -> str | None:
        """The member id that an instance id stands for now."""
        return None if instance_id is None else self._static_ids.get(instance_id)

    @property
    def leader(self) -> Member | None:
        return None if self.leader_id is None else self._members[self.leader_id]

    # -- coming and going -------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Take a member in; the first one leads."""
        assert member.member_id not in self._members
        assert member.join_waiter is None
        self._members[member.member_id] = member
        if member.instance_id is not None:
            assert member.instance_id not in self._static_ids
            self._static_ids[member.instance_id] = member.member_id
        self._count(member.protocol_names(), 1)
        if self.leader_id is None:
            self.leader_id = member.member_id

    def remove(self, member: Member) -> None:
        """Let a member go whose waiters have been answered; the oldest one left leads if need
        be."""
        assert member.join_waiter is None and member.sync_waiter is None
        del self._members[member.member_id]
        if member.instance_id is not None:
            del self._static_ids[member.instance_id]
        self._count(member.protocol_names(), -1)
        if self.leader_id == member.member_id:
            self.leader_id = next(iter(self._members), None)

    def rename(self, member: Member, new_id: str) -> None:
        """Give a static member that came back its new id, and its place as leader with it."""
        assert member.instance_id is not None
        old_id = member.member_id
        assert new_id not in self._members
        # Rebuilt, so that the member keeps its place in the order.
        self._members = {
            (new_id if key == old_id else key): value for key, value in self._members.items()
        }
        member.member_id = new_id
        self._static_ids[member.instance_id] = new_id
        if self.leader_id == old_id:
            self.leader_id = new_id

    # -- who waits --------------------------------------------------------------------------

    def set_join_waiter(self, member: Member, waiter: JoinWaiter) -> JoinWaiter | None:
        """Let a member wait for the rebalance; returns the waiter it had before."""
        before = member.join_waiter
        if before is None:
            self.waiting_joins += 1
        member.join_waiter = waiter
        return before

    def take_join_waiter(self, member: Member) -> JoinWaiter | None:
        waiter = member.join_waiter
        if waiter is not None:
            self.waiting_joins -= 1
            member.join_waiter = None
        return waiter

    def elect_joined_leader(self) -> bool:
        """Have a leader that has joined; False if nobody has."""
        leader = self.leader
        if leader is not None and leader.join_waiter is not None:
            return True
        for member in self:
            if member.join_waiter is not None:
                self.leader_id = member.member_id
                return True
        return False

    # -- protocols --------------------------------------------------------------------------

    def set_protocols(self, member: Member, protocols: tuple[tuple[str, bytes], ...]) -> None:
        self._count(member.protocol_names(), -1)
        member.protocols = protocols
        self._count(member.protocol_names(), 1)

    def shares_any(self, names: Iterable[str]) -> bool:
        """Whether all members have one of these protocols."""
        everybody = len(self._members)
        return any(self._support.get(name, 0) == everybody for name in names)

    def choose_protocol(self) -> str:
        """The protocol that all members have and most of them want."""
        leader = self.leader
        assert leader is not None
        everybody = len(self._members)
        candidates = {name for name, count in self._support.items() if count == everybody}
        return choose_protocol(self, candidates, leader)

    def _count(self, names: Iterable[str], step: int) -> None:
        for name in names:
            count = self._support.get(name, 0) + step
            if count:
                self._support[name] = count
            else:
                del self._support[name]

    # -- sums -------------------------------------------------------------------------------

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long the most patient member gives the others to rejoin."""
        return max((member.rebalance_timeout_ms for member in self), default=0)
