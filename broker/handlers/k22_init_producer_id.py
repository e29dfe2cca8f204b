"""InitProducerId (22): an identity for an idempotent or transactional producer (KIP-98).

v0 base · v1 throttle after the response · v2 flexible · v3 current producer id and epoch
(KIP-360) · v4 PRODUCER_FENCED · v5 TRANSACTION_ABORTABLE (KIP-890). Without a transactional id
every request gets a new id with epoch 0, from any broker.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    CLUSTER_NAME,
    Operation,
    Resource,
    is_allowed,
    may_write_somewhere,
)
from kavka.broker.transactions.messages import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    NOBODY,
    ProducerIdentity,
    Result,
)
from kavka.broker.transactions.versions import fenced_code
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 22
_FIRST_WITH_FENCED = 4


async def handle(
    broker: "Broker", request: "Request", body: InitProducerIdRequest
) -> InitProducerIdResponse:
    refusal = _refusal(broker, request, body.transactional_id)
    if refusal is not None:
        return InitProducerIdResponse(error_code=refusal, producer_id=-1, producer_epoch=-1)
    result = await _identify(broker, body)
    return InitProducerIdResponse(
        error_code=fenced_code(result.error, request.version, _FIRST_WITH_FENCED),
        producer_id=result.identity.producer_id,
        producer_epoch=result.identity.epoch,
    )


def _refusal(
    broker: "Broker", request: "Request", transactional_id: str | None
) -> ErrorCode | None:
    if transactional_id is not None:
        if is_allowed(
            broker, request, Operation.WRITE, Resource.TRANSACTIONAL_ID, transactional_id
        ):
            return None
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    if may_write_somewhere(broker, request) or is_allowed(
        broker, request, Operation.IDEMPOTENT_WRITE, Resource.CLUSTER, CLUSTER_NAME
    ):
        return None
    return ErrorCode.CLUSTER_AUTHORIZATION_FAILED


async def _identify(broker: "Broker", body: InitProducerIdRequest) -> Result:
    claim: ProducerIdentity | None = ProducerIdentity(body.producer_id, body.producer_epoch)
    if claim == NOBODY:
        claim = None
    elif body.producer_id == NO_PRODUCER_ID or body.producer_epoch == NO_EPOCH:
        return Result(ErrorCode.INVALID_REQUEST)
    if body.transactional_id is not None:
        return await broker.transactions.init_producer_id(
            body.transactional_id, body.transaction_timeout_ms, claim
        )
    try:
        return Result(ErrorCode.NONE, ProducerIdentity(await broker.producer_ids.next(), 0))
    except KafkaError as error:
        return Result(error.code)
