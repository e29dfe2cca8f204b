"""InitProducerId (22): an identity for an idempotent producer (KIP-98).

v0 base · v1 throttle after the response · v2 flexible · v3 current producer id and epoch
(KIP-360) · v4 PRODUCER_FENCED · v5 TRANSACTION_ABORTABLE (KIP-890). Without a transactional id
every request gets a new id with epoch 0.
"""

from typing import TYPE_CHECKING

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 22


async def handle(
    broker: "Broker", request: "Request", body: InitProducerIdRequest
) -> InitProducerIdResponse:
    if body.transactional_id is None:
        producer_id = await broker.producer_ids.next()
        return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)
    if not body.transactional_id:
        return InitProducerIdResponse(error_code=ErrorCode.INVALID_REQUEST, producer_epoch=-1)
    # Transactions have no coordinator yet: the code that FindCoordinator gives for them.
    return InitProducerIdResponse(error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE, producer_epoch=-1)
