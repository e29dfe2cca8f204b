"""What goes into a transaction and what comes out of it, free of the wire's versions.

A *waiter* is whatever the caller hands in to be answered later; the transaction keeps it and
gives it back in an :class:`Answer`, it never calls it.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from kavka.broker.transactions.state import TransactionState
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition

NO_PRODUCER_ID: Final = -1
NO_EPOCH: Final = -1
NOT_STARTED: Final = -1


class ProducerIdentity(NamedTuple):
    """A producer id and the epoch that tells its incarnations apart."""

    producer_id: int = NO_PRODUCER_ID
    epoch: int = NO_EPOCH


NOBODY: Final = ProducerIdentity()


class TransactionImage(NamedTuple):
    """What ``__transaction_state`` keeps of a transactional id. Times in ms since 1970."""

    producer_id: int
    producer_epoch: int
    timeout_ms: int
    state: TransactionState
    partitions: frozenset[TopicPartition]
    updated_ms: int
    start_ms: int = NOT_STARTED
    previous_id: int = NO_PRODUCER_ID
    """The id whose last epoch ended the transaction before (KIP-890, second protocol)."""
    next_id: int = NO_PRODUCER_ID
    """The id that takes over, with epoch 0, once this transaction is over (likewise)."""
    client_version: int = 0
    """The protocol of the present or last transaction: 2 if its end brings a new epoch, else 0."""

    @property
    def identity(self) -> ProducerIdentity:
        return ProducerIdentity(self.producer_id, self.producer_epoch)


class Result(NamedTuple):
    """The answer to a request; the identity only where a producer gets a new one."""

    error: ErrorCode
    identity: ProducerIdentity = NOBODY


Waiter: TypeAlias = Callable[[Result], None]


class Answer(NamedTuple):
    """Effect: a request has its answer."""

    waiter: Waiter
    result: Result


class Store(NamedTuple):
    """Effect: write ``image``, then call ``Transaction.stored`` with the outcome."""

    image: TransactionImage


class WriteMarkers(NamedTuple):
    """Effect: end the transaction on these partitions; each that is done comes back by
    ``Transaction.marked``."""

    identity: ProducerIdentity
    committed: bool
    partitions: frozenset[TopicPartition]


class CompleteLater(NamedTuple):
    """Effect: all partitions are marked but that could not be written; call
    ``Transaction.complete`` after a while."""


Effect: TypeAlias = Answer | Store | WriteMarkers | CompleteLater
