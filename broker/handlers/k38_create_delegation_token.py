"""CreateDelegationToken (38): give out a secret that stands for a user for some time (KIP-48).

v1 throttle after the response · v2 flexible · v3 tokens for others (KIP-373).
"""

from typing import TYPE_CHECKING, Final

from kavka.broker import audit
from kavka.broker.authorization import Operation, Resource, require
from kavka.broker.security.token_requests import asker, require_authenticated, token_store, users
from kavka.broker.security.tokens import USER, Principal, Token
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k38_create_delegation_token import (
    CreateDelegationTokenRequest,
    CreateDelegationTokenResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 38
_NEVER: Final = -1


async def handle(
    broker: "Broker", request: "Request", body: CreateDelegationTokenRequest
) -> CreateDelegationTokenResponse:
    requester = asker(request)
    owner = requester
    try:
        require_authenticated(request)
        renewers = users(body.renewers)
        if body.owner_principal_name:
            owner = Principal(body.owner_principal_type or USER, body.owner_principal_name)
        if owner != requester:
            if owner.kind != USER:
                raise KafkaError(ErrorCode.INVALID_PRINCIPAL_TYPE)
            require(broker, request, Operation.CREATE_TOKENS, Resource.USER, str(owner))
        store = token_store(broker)
        token = store.tokens.issue(store.new_id(), owner, requester, renewers, body.max_lifetime_ms)
        await store.put(token)
    except KafkaError as error:
        audit.audit(request, "CreateDelegationToken", str(owner), error.code)
        return _refused(error.code, owner, requester)
    audit.audit(request, "CreateDelegationToken", f"{owner} token={token.token_id}")
    return _answer(token, store.tokens.hmac_of(token.token_id))


def _answer(token: Token, secret: bytes) -> CreateDelegationTokenResponse:
    return CreateDelegationTokenResponse(
        principal_type=token.owner.kind,
        principal_name=token.owner.name,
        token_requester_principal_type=token.requester.kind,
        token_requester_principal_name=token.requester.name,
        issue_timestamp_ms=token.issue_ms,
        expiry_timestamp_ms=token.expiry_ms,
        max_timestamp_ms=token.max_ms,
        token_id=token.token_id,
        hmac=secret,
    )


def _refused(
    code: ErrorCode, owner: Principal, requester: Principal
) -> CreateDelegationTokenResponse:
    return CreateDelegationTokenResponse(
        error_code=code,
        principal_type=owner.kind,
        principal_name=owner.name,
        token_requester_principal_type=requester.kind,
        token_requester_principal_name=requester.name,
        issue_timestamp_ms=_NEVER,
        expiry_timestamp_ms=_NEVER,
        max_timestamp_ms=_NEVER,
    )
