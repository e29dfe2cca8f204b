"""DescribeTransactions (65): the state of transactional ids coordinated here (KIP-664). v0 only."""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, is_allowed, would_allow
from kavka.broker.transactions.records import by_topic
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k65_describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TopicData,
    TransactionState,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 65


def handle(
    broker: "Broker", request: "Request", body: DescribeTransactionsRequest
) -> DescribeTransactionsResponse:
    describe = Operation.DESCRIBE
    response = DescribeTransactionsResponse()
    for transactional_id in body.transactional_ids:
        answer = TransactionState(transactional_id=transactional_id)
        response.transaction_states.append(answer)
        if not is_allowed(broker, request, describe, Resource.TRANSACTIONAL_ID, transactional_id):
            answer.error_code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            continue
        answer.error_code, transaction = broker.transactions.describe(transactional_id)
        if transaction is not None:
            image = transaction.current
            answer.transaction_state = image.state.label
            answer.transaction_timeout_ms = image.timeout_ms
            answer.transaction_start_time_ms = image.start_ms
            answer.producer_id = image.producer_id
            answer.producer_epoch = image.producer_epoch
            answer.topics = [
                TopicData(topic=topic, partitions=indexes)
                for topic, indexes in by_topic(transaction.partitions).items()
                if would_allow(broker, request, describe, Resource.TOPIC, topic)
            ]
    return response
