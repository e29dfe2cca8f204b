"""What goes into a group and what comes out of it, free of the wire's versions.

A *waiter* is whatever the caller hands in to be answered later; the group keeps it and gives it
back in an :class:`Answer`, it never calls it.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from kavka.broker.groups.image import GroupImage
from kavka.protocol.errors import ErrorCode

UNKNOWN_MEMBER_ID: Final = ""  # of a member that has not been given an id yet
NO_GENERATION: Final = -1


class Moment(NamedTuple):
    """One reading of both clocks: ``seconds`` for time-outs, ``wall_ms`` for what is stored."""

    seconds: float
    wall_ms: int


class Join(NamedTuple):
    """A JoinGroup request.

    ``protocols`` are names with the member's metadata, most wanted first. ``needs_known_id``
    (KIP-394, v4+): a new member must come back with the id it is given. ``can_skip_assignment``
    (v9+): a returning static leader can be told that it leads but need not assign.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    reason: str | None = None
    needs_known_id: bool = False
    can_skip_assignment: bool = False


class JoinedMember(NamedTuple):
    """A member as the leader is told of it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


class JoinResult(NamedTuple):
    """The answer to a JoinGroup; with an error, only ``member_id`` says something."""

    error: ErrorCode
    member_id: str
    generation: int = NO_GENERATION
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    members: tuple[JoinedMember, ...] = ()
    skip_assignment: bool = False


class Sync(NamedTuple):
    """A SyncGroup request; protocol type and name are None before v5."""

    member_id: str
    instance_id: str | None
    generation: int
    protocol_type: str | None
    protocol: str | None
    assignments: tuple[tuple[str, bytes], ...] = ()


class SyncResult(NamedTuple):
    """The answer to a SyncGroup."""

    error: ErrorCode
    assignment: bytes = b""
    protocol_type: str | None = None
    protocol: str | None = None


class Leave(NamedTuple):
    """One member that leaves; an administrator names a static member by its instance id only."""

    member_id: str
    instance_id: str | None = None
    reason: str | None = None


JoinWaiter: TypeAlias = Callable[[JoinResult], None]
SyncWaiter: TypeAlias = Callable[[SyncResult], None]


class AnswerJoin(NamedTuple):
    """Effect: a JoinGroup has its answer."""

    waiter: JoinWaiter
    result: JoinResult


class AnswerSync(NamedTuple):
    """Effect: a SyncGroup has its answer."""

    waiter: SyncWaiter
    result: SyncResult


class StoreGroup(NamedTuple):
    """Effect: write ``image``, then call ``Group.stored`` with ``ticket`` and the outcome."""

    ticket: int
    image: GroupImage


Effect: TypeAlias = AnswerJoin | AnswerSync | StoreGroup


class MemberDescription(NamedTuple):
    """A member as DescribeGroups shows it; metadata and assignment only of Stable groups."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


class GroupDescription(NamedTuple):
    """A group as DescribeGroups shows it."""

    state: str
    protocol_type: str = ""
    protocol: str = ""
    members: tuple[MemberDescription, ...] = ()


class GroupListing(NamedTuple):
    """A group as ListGroups shows it."""

    group_id: str
    protocol_type: str
    state: str
    type: str
