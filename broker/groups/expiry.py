"""Which committed offsets are too old (KIP-211). Pure.

* An offset that came with a retention of its own lives until then.
* Members present: an offset lives as long as it is wanted. Only a Stable consumer group tells
  what it wants: offsets of topics it does not subscribe to (any more) go (2.4+).
* All members gone: the time counts from when the group became Empty.
* Never any members (offsets kept by hand): the time counts from each commit.
"""

from kavka.broker.groups.core import GroupState
from kavka.broker.groups.group import Group
from kavka.broker.groups.offsets import NO_EXPIRY, CommittedOffset
from kavka.broker.groups.partition import AnyGroup
from kavka.protocol.topics import TopicPartition


def expired_offsets(group: AnyGroup, now_ms: int, retention_ms: int) -> list[TopicPartition]:
    """The partitions whose offsets are to be deleted; never one with a commit under way."""
    keep_topics: frozenset[str] = frozenset()
    empty_since_ms: int | None = None
    if group.state is GroupState.EMPTY:
        if not isinstance(group, Group) or group.protocol_type is not None:
            empty_since_ms = group.state_timestamp_ms
    elif group.state is GroupState.STABLE:
        subscribed = group.subscribed_topics()
        if subscribed is None:
            return []
        keep_topics = subscribed
    else:
        return []

    def is_expired(value: CommittedOffset) -> bool:
        if value.expire_timestamp != NO_EXPIRY:
            return now_ms >= value.expire_timestamp
        since = value.commit_timestamp if empty_since_ms is None else empty_since_ms
        return now_ms - since >= retention_ms

    offsets = group.offsets
    return [
        partition
        for partition, value in offsets
        if partition.topic not in keep_topics
        and not offsets.is_in_flight(partition)
        and is_expired(value)
    ]
