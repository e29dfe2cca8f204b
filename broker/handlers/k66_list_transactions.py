"""ListTransactions (66): the transactional ids coordinated here (KIP-664).

v0 base · v1 only transactions that have been running for longer than (KIP-994).
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, would_allow
from kavka.protocol.messages.k66_list_transactions import (
    ListTransactionsRequest,
    ListTransactionsResponse,
    TransactionState,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 66


def handle(
    broker: "Broker", request: "Request", body: ListTransactionsRequest
) -> ListTransactionsResponse:
    listing = broker.transactions.list_transactions(
        body.state_filters, body.producer_id_filters, body.duration_filter
    )
    return ListTransactionsResponse(
        error_code=listing.error,
        unknown_state_filters=listing.unknown_states,
        transaction_states=[
            TransactionState(
                transactional_id=transaction.transactional_id,
                producer_id=transaction.current.producer_id,
                transaction_state=transaction.current.state.label,
            )
            for transaction in listing.transactions
            if would_allow(
                broker,
                request,
                Operation.DESCRIBE,
                Resource.TRANSACTIONAL_ID,
                transaction.transactional_id,
            )
        ],
    )
