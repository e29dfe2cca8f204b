"""RenewDelegationToken (39): let a token be valid longer, but not longer than its longest life.

v1 throttle after the response · v2 flexible.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker import audit
from kavka.broker.security.token_requests import asker, require_authenticated, token_store
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k39_renew_delegation_token import (
    RenewDelegationTokenRequest,
    RenewDelegationTokenResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 39


async def handle(
    broker: "Broker", request: "Request", body: RenewDelegationTokenRequest
) -> RenewDelegationTokenResponse:
    try:
        require_authenticated(request)
        store = token_store(broker)
        token = store.tokens.renewed(asker(request), body.hmac, body.renew_period_ms)
        await store.put(token)
    except KafkaError as error:
        audit.audit(request, "RenewDelegationToken", "DelegationToken:?", error.code)
        return error_response(error.code, body)
    audit.audit(request, "RenewDelegationToken", f"DelegationToken:{token.token_id}")
    return RenewDelegationTokenResponse(expiry_timestamp_ms=token.expiry_ms)


def error_response(
    code: ErrorCode, body: RenewDelegationTokenRequest
) -> RenewDelegationTokenResponse:
    return RenewDelegationTokenResponse(error_code=code, expiry_timestamp_ms=-1)
