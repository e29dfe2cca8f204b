"""CreateDelegationToken (38): tokens need a secret that all brokers share, and there is none.

v1 throttle after the response · v2 flexible · v3 tokens for others (KIP-373).
"""

from typing import TYPE_CHECKING, Final

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k38_create_delegation_token import (
    CreateDelegationTokenRequest,
    CreateDelegationTokenResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 38


def handle(
    broker: "Broker", request: "Request", body: CreateDelegationTokenRequest
) -> CreateDelegationTokenResponse:
    kind, _, name = request.principal.partition(":")
    return CreateDelegationTokenResponse(
        error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED,
        principal_type=kind,
        principal_name=name,
        token_requester_principal_type=kind,
        token_requester_principal_name=name,
        issue_timestamp_ms=-1,
        expiry_timestamp_ms=-1,
        max_timestamp_ms=-1,
    )
