"""EndTxn (26): commit or abort a transaction.

v0 base · v1 throttle after the response · v2 PRODUCER_FENCED · v3 flexible · v4
TRANSACTION_ABORTABLE (KIP-890) · v5 the producer goes on with a new epoch, or with a new id when
its epochs are used up (KIP-890). Answered when the decision is kept; the partitions get their
markers from then on.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, require
from kavka.broker.request import Pending
from kavka.broker.transactions.messages import ProducerIdentity, Result
from kavka.broker.transactions.versions import fenced_code
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k26_end_txn import EndTxnRequest, EndTxnResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 26
_FIRST_WITH_FENCED = 2
_FIRST_WITH_NEW_EPOCH = 5


def handle(broker: "Broker", request: "Request", body: EndTxnRequest) -> Pending:
    require(broker, request, Operation.WRITE, Resource.TRANSACTIONAL_ID, body.transactional_id)
    pending = Pending()

    def decided(result: Result) -> None:
        pending.complete(
            EndTxnResponse(
                error_code=fenced_code(result.error, request.version, _FIRST_WITH_FENCED),
                producer_id=result.identity.producer_id,
                producer_epoch=result.identity.epoch,
            )
        )

    broker.transactions.end(
        body.transactional_id,
        ProducerIdentity(body.producer_id, body.producer_epoch),
        body.committed,
        decided,
        bumping=request.version >= _FIRST_WITH_NEW_EPOCH,
    )
    return pending


def error_response(code: ErrorCode, body: EndTxnRequest) -> EndTxnResponse:
    return EndTxnResponse(error_code=code)
