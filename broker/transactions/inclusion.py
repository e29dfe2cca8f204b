"""Whether partitions are in a producer's transaction: asked of its coordinator, wherever that is.

Without this a batch that arrives after its transaction has ended (a producer that was fenced, a
request that was long under way) would begin a transaction that nobody ever ends, and no
read_committed consumer would get past it (KIP-890). Leaders ask for the first batch of a
transaction on a partition: as long as one is open there, epochs alone decide.

For clients of the second transaction protocol the leader does not only ask: it adds the partition.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from kavka.broker.transactions.messages import ProducerIdentity
from kavka.broker.transactions.records import by_topic
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k24_add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kavka.protocol.topics import TRANSACTION_STATE_TOPIC, TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.coordination.on_demand import OnDemand
    from kavka.broker.transactions.coordinator import TransactionCoordinator
    from kavka.replication.metadata import MetadataCache
    from kavka.replication.partition import Partition

Codes: TypeAlias = dict[TopicPartition, ErrorCode]
AskBroker: TypeAlias = Callable[
    [int, AddPartitionsToTxnRequest], Awaitable[AddPartitionsToTxnResponse | None]
]
"""Asks a broker by its id; None when no answer is to be had."""

_VERSION: Final = 5  # of AddPartitionsToTxn between brokers
_ATTEMPTS: Final = 20
_RETRY_SECONDS: Final = 0.02
_NOT_YET: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,  # it has moved
        # To the coordinator the topic is not known yet, or one of the others is not.
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.OPERATION_NOT_ATTEMPTED,
    }
)


def is_open(partition: "Partition", identity: ProducerIdentity) -> bool:
    """Whether the producer has a transaction on this partition already."""
    entry = partition.log.producers.get(identity.producer_id)
    return entry is not None and entry.txn_first_offset >= 0 and entry.epoch == identity.epoch


def _ended(partition: "Partition") -> int:
    return partition.log.producers.transactions_ended


def refusal(code: ErrorCode, *, knows_abortable: bool, bumping: bool) -> ErrorCode:
    """What a producer is told by a leader, NONE for a coordinator's NONE.

    NOT_ENOUGH_REPLICAS, which all clients retry, when nothing can be said yet;
    INVALID_PRODUCER_EPOCH for a fenced producer; TRANSACTION_ABORTABLE when the partition is not
    in the transaction, INVALID_TXN_STATE instead for clients that do not know that.
    """
    if code in _NOT_YET:
        return ErrorCode.NOT_ENOUGH_REPLICAS
    if code is ErrorCode.CONCURRENT_TRANSACTIONS and not bumping:
        return ErrorCode.NOT_ENOUGH_REPLICAS
    if code is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if code is ErrorCode.TRANSACTION_ABORTABLE and not knows_abortable:
        return ErrorCode.INVALID_TXN_STATE
    return code


class Inclusion:
    """Asks the coordinators of transactions, of which this broker has one itself.

    Without ``ask_broker`` others cannot be asked (``inter.broker.protocol.version`` is of before
    there was such a question), and whatever is theirs passes.
    """

    def __init__(
        self,
        coordinator: "OnDemand[TransactionCoordinator]",
        metadata: "MetadataCache",
        ask_broker: AskBroker | None = None,
        *,
        is_alone: bool = True,
    ) -> None:
        self._is_alone = is_alone
        self._on_demand = coordinator
        self._metadata = metadata
        self._ask_broker = ask_broker

    @property
    def can_add(self) -> bool:
        """Whether partitions can be added for clients of the second transaction protocol."""
        return self._is_alone or self._ask_broker is not None

    @property
    def _coordinator(self) -> "TransactionCoordinator":
        return self._on_demand.get()

    @classmethod
    def create(cls, broker: "Broker") -> "Inclusion":
        """That of a broker whose transaction coordinator can be asked for."""
        ask_broker: AskBroker | None = None
        if broker.peers is not None and broker.peers.fixed_versions is None:
            from kavka.broker.cluster.questions import Questions

            questions = Questions(broker.peers, broker.metadata)
            broker.peers.when_closed(questions.close)

            async def ask(
                broker_id: int, request: AddPartitionsToTxnRequest
            ) -> AddPartitionsToTxnResponse | None:
                return await questions.ask(broker_id, request, AddPartitionsToTxnResponse, _VERSION)

            ask_broker = ask
        return cls(
            broker.transactions_on_demand,
            broker.metadata,
            ask_broker,
            is_alone=broker.peers is None,
        )

    def verify_now(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Collection[TopicPartition],
    ) -> Codes | None:
        """What the coordinator of this broker says; None if another one has to be asked."""
        codes = self._coordinator.verify(transactional_id, identity, partitions)
        if ErrorCode.NOT_COORDINATOR not in codes.values():
            return codes
        return None if self._ask_broker is not None else dict.fromkeys(partitions, ErrorCode.NONE)

    async def ask(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Iterable["Partition"],
        *,
        add: bool,
    ) -> Codes:
        """The coordinator's word on each partition; with ``add`` it adds them.

        A marker that has come to a partition meanwhile may have ended the very transaction that
        was asked about, so that is asked again.
        """
        found: Codes = {}
        asked = {partition.topic_partition: partition for partition in partitions}
        while asked:
            ended = {tp: _ended(partition) for tp, partition in asked.items()}
            found |= await self._ask_patiently(transactional_id, identity, ended, add)
            asked = {
                tp: partition
                for tp, partition in asked.items()
                if found[tp] is ErrorCode.NONE and _ended(partition) != ended[tp]
            }
        return found

    async def _ask_patiently(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Collection[TopicPartition],
        add: bool,
    ) -> Codes:
        """Ask; an end of the transaction before that is still being written is waited for a
        while: who adds has been told already that it is decided."""
        for _ in range(_ATTEMPTS):
            codes = await self._ask_once(transactional_id, identity, partitions, add)
            if not add or ErrorCode.CONCURRENT_TRANSACTIONS not in codes.values():
                break
            await asyncio.sleep(_RETRY_SECONDS)
        return codes

    async def _ask_once(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Collection[TopicPartition],
        add: bool,
    ) -> Codes:
        if self._coordinator.status(transactional_id) is ErrorCode.NOT_COORDINATOR:
            return await self._ask_other(transactional_id, identity, partitions, add)
        if not add:
            return self._coordinator.verify(transactional_id, identity, partitions)
        answer: asyncio.Future[ErrorCode] = asyncio.get_running_loop().create_future()

        def added(code: ErrorCode) -> None:
            if not answer.done():
                answer.set_result(code)

        self._coordinator.add_partitions(
            transactional_id, identity, partitions, added, bumping=True
        )
        return dict.fromkeys(partitions, await answer)

    async def _ask_other(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Collection[TopicPartition],
        add: bool,
    ) -> Codes:
        if self._ask_broker is None:
            return dict.fromkeys(partitions, ErrorCode.NONE)
        index = self._coordinator.partition_of(transactional_id)
        state = self._metadata.partition(TRANSACTION_STATE_TOPIC, index)
        if state is None or state.leader < 0:
            return dict.fromkeys(partitions, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        response = await self._ask_broker(
            state.leader, _question(transactional_id, identity, partitions, add)
        )
        found = dict.fromkeys(partitions, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        if response is None:
            return found
        for transaction in response.results_by_transaction:
            for topic in transaction.topic_results:
                for result in topic.results_by_partition:
                    tp = TopicPartition(topic.name, result.partition_index)
                    found[tp] = ErrorCode(result.partition_error_code)
        return found


def _question(
    transactional_id: str,
    identity: ProducerIdentity,
    partitions: Collection[TopicPartition],
    add: bool,
) -> AddPartitionsToTxnRequest:
    return AddPartitionsToTxnRequest(
        transactions=[
            AddPartitionsToTxnTransaction(
                transactional_id=transactional_id,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                verify_only=not add,
                topics=[
                    AddPartitionsToTxnTopic(name=name, partitions=indexes)
                    for name, indexes in by_topic(partitions).items()
                ],
            )
        ]
    )
