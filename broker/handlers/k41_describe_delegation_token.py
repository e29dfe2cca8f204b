"""DescribeDelegationToken (41): no tokens are given out, see ``k38_create_delegation_token``.

v1 throttle after the response · v2 flexible · v3 requesters (KIP-373).
"""

from typing import TYPE_CHECKING, Final

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k41_describe_delegation_token import (
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
    return DescribeDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)
