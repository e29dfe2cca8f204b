"""What ``__consumer_offsets`` keeps of a group, as plain values.

A group becomes an image when it is written and is made from one when it is loaded; the wire
format is the concern of ``records.py``.
"""

from typing import NamedTuple


class MemberImage(NamedTuple):
    """A stored member. ``subscription`` is its metadata for the group's chosen protocol."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupImage(NamedTuple):
    """A stored generation of a group.

    ``state_timestamp_ms`` is when the group entered the state it was stored in, None in records
    of before Kafka 2.1. Without members the group is Empty, otherwise Stable.
    """

    protocol_type: str | None
    generation: int
    protocol: str | None
    leader: str | None
    state_timestamp_ms: int | None
    members: tuple[MemberImage, ...] = ()
