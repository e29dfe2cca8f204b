"""ExpireDelegationToken (40): no tokens are given out, see ``k38_create_delegation_token``.

v1 throttle after the response · v2 flexible.
"""

from typing import TYPE_CHECKING, Final

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k40_expire_delegation_token import (
    ExpireDelegationTokenRequest,
    ExpireDelegationTokenResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 40


def handle(
    broker: "Broker", request: "Request", body: ExpireDelegationTokenRequest
) -> ExpireDelegationTokenResponse:
    return ExpireDelegationTokenResponse(
        error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED, expiry_timestamp_ms=-1
    )
