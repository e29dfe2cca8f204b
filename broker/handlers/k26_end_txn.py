"""EndTxn (26): commit or abort a transaction.

v0 base · v1 throttle after the response · v2 PRODUCER_FENCED · v3 flexible · v4
TRANSACTION_ABORTABLE (KIP-890). Answered when the decision is kept; the partitions get their
markers from then on.
"""

from typing import TYPE_CHECKING

from kavka.broker.request import Pending
from kavka.broker.transactions.messages import ProducerIdentity
from kavka.broker.transactions.versions import fenced_code
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k26_end_txn import EndTxnRequest, EndTxnResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 26
_FIRST_WITH_FENCED = 2


def handle(broker: "Broker", request: "Request", body: EndTxnRequest) -> Pending:
    pending = Pending()

    def decided(code: ErrorCode) -> None:
        code = fenced_code(code, request.version, _FIRST_WITH_FENCED)
        pending.complete(EndTxnResponse(error_code=code))

    broker.transactions.end(
        body.transactional_id,
        ProducerIdentity(body.producer_id, body.producer_epoch),
        body.committed,
        decided,
    )
    return pending
