"""One member of a classic group."""

from collections.abc import Container, Iterable
from typing import Final

from kavka.broker.groups.image import MemberImage
from kavka.broker.groups.messages import (
    Join,
    JoinedMember,
    JoinWaiter,
    MemberDescription,
    SyncWaiter,
)

# A JoinGroup of before v4 has no id that its client could say again, so a dead client and a
# patient one look the same; this long it may wait for the rebalance to end.
NEW_MEMBER_PATIENCE_SECONDS: Final = 300.0


class Member:
    """A member: who it is, what it can do, what it was assigned, and what it is waiting for.

    ``deadline`` (seconds) is when its session ends; it does not count while the member is
    ``excused``. ``owes_sync``: it has been told of the generation and not yet sent SyncGroup.
    """

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "deadline",
        "instance_id",
        "is_new",
        "join_waiter",
        "member_id",
        "owes_sync",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_waiter",
    )

    def __init__(
        self,
        member_id: str,
        instance_id: str | None,
        client_id: str,
        client_host: str,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        protocols: tuple[tuple[str, bytes], ...],
    ) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.client_id = client_id
        self.client_host = client_host
        self.session_timeout_ms = session_timeout_ms
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.protocols = protocols
        self.assignment = b""
        self.is_new = False
        self.owes_sync = False
        self.deadline = 0.0
        self.join_waiter: JoinWaiter | None = None
        self.sync_waiter: SyncWaiter | None = None

    @classmethod
    def from_join(cls, member_id: str, join: Join) -> "Member":
        return cls(
            member_id,
            join.instance_id,
            join.client_id,
            join.client_host,
            join.session_timeout_ms,
            join.rebalance_timeout_ms,
            join.protocols,
        )

    @classmethod
    def from_image(cls, image: MemberImage, protocol: str) -> "Member":
        member = cls(
            image.member_id,
            image.instance_id,
            image.client_id,
            image.client_host,
            image.session_timeout_ms,
            image.rebalance_timeout_ms,
            ((protocol, image.subscription),),
        )
        member.assignment = image.assignment
        return member

    @property
    def is_static(self) -> bool:
        """Whether it has a group.instance.id (KIP-345): it may be absent for its session."""
        return self.instance_id is not None

    @property
    def excused(self) -> bool:
        """Whether its session cannot end now: it waits for an answer from the group.

        A new member is not excused, its patience ends at ``deadline``.
        """
        return not self.is_new and (self.join_waiter is not None or self.sync_waiter is not None)

    def protocol_names(self) -> set[str]:
        return {name for name, _ in self.protocols}

    def metadata(self, protocol: str) -> bytes:
        """Its metadata for a protocol it supports."""
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        raise AssertionError(f"{self.member_id} does not support {protocol}")

    def vote(self, candidates: Container[str]) -> str:
        """The first protocol in its list that is a candidate."""
        for name, _ in self.protocols:
            if name in candidates:
                return name
        raise AssertionError(f"{self.member_id} supports none of the candidates")

    def joined(self, protocol: str) -> JoinedMember:
        return JoinedMember(self.member_id, self.instance_id, self.metadata(protocol))

    def describe(self, protocol: str | None) -> MemberDescription:
        """As DescribeGroups shows it, with metadata and assignment if a protocol is given."""
        return MemberDescription(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            b"" if protocol is None else self.metadata(protocol),
            b"" if protocol is None else self.assignment,
        )

    def image(self, protocol: str, assignment: bytes) -> MemberImage:
        return MemberImage(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.metadata(protocol),
            assignment,
        )


def choose_protocol(members: Iterable[Member], candidates: Container[str], leader: Member) -> str:
    """The candidate most members vote for; the leader's preference decides a tie."""
    votes: dict[str, int] = {}
    for member in members:
        name = member.vote(candidates)
        votes[name] = votes.get(name, 0) + 1
    most = max(votes.values())
    return leader.vote([name for name, count in votes.items() if count == most])
