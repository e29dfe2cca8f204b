"""One partition of ``__consumer_offsets``: the groups that belong to it."""

from typing import TypeAlias

from kavka.broker.coordination.ownership import OwnedPartition
from kavka.broker.groups.consumer.group import ConsumerGroup
from kavka.broker.groups.group import Group

AnyGroup: TypeAlias = Group | ConsumerGroup


class GroupPartition(OwnedPartition):
    """A partition led here, with its groups once it is loaded."""

    __slots__ = ("_in_transactions", "groups")

    def __init__(self, index: int, leader_epoch: int) -> None:
        super().__init__(index, leader_epoch)
        self.groups: dict[str, AnyGroup] = {}
        self._in_transactions: dict[int, set[str]] = {}  # producer id → groups

    def note_transaction(self, producer_id: int, group_id: str) -> None:
        """A producer has committed offsets of this group in a transaction that is open."""
        self._in_transactions.setdefault(producer_id, set()).add(group_id)

    def end_transaction(self, producer_id: int, committed: bool, marker_offset: int) -> None:
        """The marker at ``marker_offset`` of this partition ended a producer's transaction.

        What the producer has committed behind it belongs to its next transaction.
        """
        open_still = set()
        for group_id in self._in_transactions.pop(producer_id, ()):
            group = self.groups.get(group_id)
            if group is not None:
                group.offsets.end_transaction(producer_id, committed, marker_offset)
                if producer_id in group.offsets.open_producers:
                    open_still.add(group_id)
        if open_still:
            self._in_transactions[producer_id] = open_still
