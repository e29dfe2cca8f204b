"""One partition of ``__transaction_state``: the transactional ids that belong to it."""

from kavka.broker.coordination.ownership import OwnedPartition
from kavka.broker.transactions.transaction import Transaction


class TransactionPartition(OwnedPartition):
    """A partition led here, with its transactional ids once it is loaded.

    Its leader epoch is the coordinator epoch of their markers.
    """

    __slots__ = ("transactions",)

    def __init__(self, index: int, leader_epoch: int) -> None:
        super().__init__(index, leader_epoch)
        self.transactions: dict[str, Transaction] = {}
