"""AddPartitionsToTxn (24): a transactional producer is about to write to these partitions.

v0 base · v1 throttle after the response · v2 PRODUCER_FENCED · v3 flexible · v4 several
transactions, or only asking whether partitions are in them; from broker to broker (KIP-890) · v5
TRANSACTION_ABORTABLE.
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    Operation,
    Resource,
    denied_among,
    is_allowed,
    require_cluster,
)
from kavka.broker.request import Pending
from kavka.broker.transactions.messages import ProducerIdentity
from kavka.broker.transactions.versions import abortable_code, fenced_code
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k24_add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)
from kavka.protocol.topics import INTERNAL_TOPICS, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from kavka.broker.context import Broker
    from kavka.broker.request import Request

    Codes: TypeAlias = Mapping[TopicPartition, ErrorCode]

KEY = 24
_FIRST_WITH_FENCED = 2
_FIRST_WITH_MANY = 4
_FIRST_WITH_ABORTABLE = 5


def handle(broker: "Broker", request: "Request", body: AddPartitionsToTxnRequest) -> Pending:
    pending = Pending()
    if request.version < _FIRST_WITH_MANY:
        topics = body.v3_and_below_topics

        def added(codes: "Codes") -> None:
            pending.complete(
                AddPartitionsToTxnResponse(results_by_topic_v3_and_below=_topics(topics, codes))
            )

        _add_for_client(broker, request, body, added)
        return pending
    require_cluster(broker, request, Operation.CLUSTER_ACTION)
    if body.transactions:
        _Batch(request.version, body.transactions, pending).run(broker)
    else:
        pending.complete(AddPartitionsToTxnResponse())
    return pending


def _add_for_client(
    broker: "Broker",
    request: "Request",
    body: AddPartitionsToTxnRequest,
    done: "Callable[[Codes], None]",
) -> None:
    version = request.version
    partitions = _partitions(body.v3_and_below_topics)
    if not is_allowed(
        *(broker, request, Operation.WRITE, Resource.TRANSACTIONAL_ID),
        body.v3_and_below_transactional_id,
    ):
        done(dict.fromkeys(partitions, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED))
        return
    topics = (topic.name for topic in body.v3_and_below_topics)
    denied = denied_among(broker, request, Operation.WRITE, Resource.TOPIC, topics)
    errors = _unusable(broker, partitions)
    # The coordinators' own topics are not for clients.
    errors |= {
        partition: ErrorCode.TOPIC_AUTHORIZATION_FAILED
        for partition in partitions
        if partition.topic in INTERNAL_TOPICS or partition.topic in denied
    }
    if errors:
        done(_none_attempted(partitions, errors))
        return

    def stored(code: ErrorCode) -> None:
        done(dict.fromkeys(partitions, fenced_code(code, version, _FIRST_WITH_FENCED)))

    broker.transactions.add_partitions(
        body.v3_and_below_transactional_id,
        ProducerIdentity(body.v3_and_below_producer_id, body.v3_and_below_producer_epoch),
        partitions,
        stored,
    )


class _Batch:
    """Several transactions of one request, answered together."""

    def __init__(
        self,
        version: int,
        transactions: list[AddPartitionsToTxnTransaction],
        pending: Pending,
    ) -> None:
        self._version = version
        self._transactions = transactions
        self._pending = pending
        self._results: list[Codes | None] = [None] * len(transactions)
        self._missing = len(transactions)

    def run(self, broker: "Broker") -> None:
        for index, transaction in enumerate(self._transactions):
            partitions = _partitions(transaction.topics)
            identity = ProducerIdentity(transaction.producer_id, transaction.producer_epoch)
            errors = _unusable(broker, partitions)
            if errors:
                self._done(index, _none_attempted(partitions, errors))
            elif transaction.verify_only:
                codes = broker.transactions.verify(
                    transaction.transactional_id, identity, partitions
                )
                self._done(index, codes)
            else:
                broker.transactions.add_partitions(
                    transaction.transactional_id,
                    identity,
                    partitions,
                    partial(self._stored, index, partitions),
                    bumping=True,
                )

    def _stored(self, index: int, partitions: Iterable[TopicPartition], code: ErrorCode) -> None:
        self._done(index, dict.fromkeys(partitions, code))

    def _done(self, index: int, codes: "Codes") -> None:
        self._results[index] = {
            partition: abortable_code(code, self._version, _FIRST_WITH_ABORTABLE)
            for partition, code in codes.items()
        }
        self._missing -= 1
        if self._missing:
            return
        self._pending.complete(
            AddPartitionsToTxnResponse(
                results_by_transaction=[
                    AddPartitionsToTxnResult(
                        transactional_id=transaction.transactional_id,
                        topic_results=_topics(transaction.topics, result or {}),
                    )
                    for transaction, result in zip(self._transactions, self._results, strict=True)
                ]
            )
        )


def _partitions(topics: Iterable[AddPartitionsToTxnTopic]) -> list[TopicPartition]:
    return [TopicPartition(topic.name, index) for topic in topics for index in topic.partitions]


def _unusable(
    broker: "Broker", partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, ErrorCode]:
    return {
        partition: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        for partition in partitions
        if not broker.metadata.has_partition(*partition)
    }


def _none_attempted(partitions: Iterable[TopicPartition], errors: "Codes") -> "Codes":
    """One that cannot be added means that none is."""
    return {
        partition: errors.get(partition, ErrorCode.OPERATION_NOT_ATTEMPTED)
        for partition in partitions
    }


def _topics(
    topics: Iterable[AddPartitionsToTxnTopic], codes: "Codes"
) -> list[AddPartitionsToTxnTopicResult]:
    return [
        AddPartitionsToTxnTopicResult(
            name=topic.name,
            results_by_partition=[
                AddPartitionsToTxnPartitionResult(
                    partition_index=index,
                    partition_error_code=codes[TopicPartition(topic.name, index)],
                )
                for index in topic.partitions
            ],
        )
        for topic in topics
    ]


def error_response(code: ErrorCode, body: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse:
    return AddPartitionsToTxnResponse(error_code=code)
