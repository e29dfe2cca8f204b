"""ExpireDelegationToken (40): let a token end sooner, or at once.

v1 throttle after the response · v2 flexible.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker import audit
from kavka.broker.security.token_requests import asker, require_authenticated, token_store
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k40_expire_delegation_token import (
    ExpireDelegationTokenRequest,
    ExpireDelegationTokenResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 40


async def handle(
    broker: "Broker", request: "Request", body: ExpireDelegationTokenRequest
) -> ExpireDelegationTokenResponse:
    try:
        require_authenticated(request)
        store = token_store(broker)
        token, over = store.tokens.expired(asker(request), body.hmac, body.expiry_time_period_ms)
        await (store.remove(token) if over else store.put(token))
    except KafkaError as error:
        audit.audit(request, "ExpireDelegationToken", "DelegationToken:?", error.code)
        return error_response(error.code, body)
    audit.audit(request, "ExpireDelegationToken", f"DelegationToken:{token.token_id}")
    return ExpireDelegationTokenResponse(expiry_timestamp_ms=token.expiry_ms)


def error_response(
    code: ErrorCode, body: ExpireDelegationTokenRequest
) -> ExpireDelegationTokenResponse:
    return ExpireDelegationTokenResponse(error_code=code, expiry_timestamp_ms=-1)
