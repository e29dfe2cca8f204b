"""DescribeDelegationToken (41): the tokens of users, with their secrets, for those whose they are.

v1 throttle after the response · v2 flexible · v3 requesters (KIP-373).
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, Resource, would_allow
from kavka.broker.security.token_requests import asker, require_authenticated, token_store
from kavka.broker.security.tokens import Principal, Token
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k41_describe_delegation_token import (
    DescribedDelegationToken,
    DescribedDelegationTokenRenewer,
    DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 41


def handle(
    broker: "Broker", request: "Request", body: DescribeDelegationTokenRequest
) -> DescribeDelegationTokenResponse:
    require_authenticated(request)
    store = token_store(broker)
    owners = None
    if body.owners is not None:
        owners = [Principal(each.principal_type, each.principal_name) for each in body.owners]
        if not owners:
            return DescribeDelegationTokenResponse()

    def may_describe(token_id: str) -> bool:
        return would_allow(broker, request, Operation.DESCRIBE, Resource.DELEGATION_TOKEN, token_id)

    found = store.tokens.visible(asker(request), owners, may_describe)
    return DescribeDelegationTokenResponse(
        tokens=[_described(token, store.tokens.hmac_of(token.token_id)) for token in found]
    )


def _described(token: Token, secret: bytes) -> DescribedDelegationToken:
    return DescribedDelegationToken(
        principal_type=token.owner.kind,
        principal_name=token.owner.name,
        token_requester_principal_type=token.requester.kind,
        token_requester_principal_name=token.requester.name,
        issue_timestamp=token.issue_ms,
        expiry_timestamp=token.expiry_ms,
        max_timestamp=token.max_ms,
        token_id=token.token_id,
        hmac=secret,
        renewers=[
            DescribedDelegationTokenRenewer(
                principal_type=renewer.kind, principal_name=renewer.name
            )
            for renewer in token.renewers
        ],
    )


def error_response(
    code: ErrorCode, body: DescribeDelegationTokenRequest
) -> DescribeDelegationTokenResponse:
    return DescribeDelegationTokenResponse(error_code=code)
