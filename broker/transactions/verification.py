"""Whether a transactional batch belongs to a transaction that its coordinator knows of (KIP-890).

Without this a batch that arrives after its transaction has ended (a producer that was fenced, a
request that was long under way) would begin a transaction that nobody ever ends, and no
read_committed consumer would get past it. Asked only for the first batch of a transaction on a
partition: as long as one is open there, epochs alone decide.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.transactions.messages import ProducerIdentity
from kavka.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from kavka.broker.transactions.coordinator import TransactionCoordinator
    from kavka.replication.partition import Partition

_PASSING: Final = (
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
)


def verify_append(
    coordinator: "TransactionCoordinator",
    partition: "Partition",
    transactional_id: str,
    identity: ProducerIdentity,
    *,
    knows_abortable: bool,
) -> ErrorCode:
    """NONE when the producer may append to ``partition`` in its transaction.

    NOT_ENOUGH_REPLICAS, which all clients retry, when that cannot be said yet;
    INVALID_PRODUCER_EPOCH for a fenced producer; TRANSACTION_ABORTABLE when the partition is not
    in the transaction, INVALID_TXN_STATE instead unless the client ``knows_abortable``.
    """
    entry = partition.log.producers.get(identity.producer_id)
    if entry is not None and entry.txn_first_offset >= 0 and entry.epoch == identity.epoch:
        return ErrorCode.NONE
    target = partition.topic_partition
    code = coordinator.verify(transactional_id, identity, (target,))[target]
    if code is ErrorCode.NOT_COORDINATOR:
        return ErrorCode.NONE  # another broker's business, which cannot be asked from here yet
    if code in _PASSING:
        return ErrorCode.NOT_ENOUGH_REPLICAS
    if code is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if code is ErrorCode.TRANSACTION_ABORTABLE and not knows_abortable:
        return ErrorCode.INVALID_TXN_STATE
    return code
