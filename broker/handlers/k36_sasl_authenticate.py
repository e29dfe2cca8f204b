"""SaslAuthenticate: one token of a SASL exchange.

v0 token and error message · v1 session lifetime (KIP-368) · v2 flexible. Tokens of an exchange go
to the listener's authenticator and never get here; what does is out of place.
"""

from typing import TYPE_CHECKING

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k36_sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request


def handle(
    broker: "Broker", request: "Request", body: SaslAuthenticateRequest
) -> SaslAuthenticateResponse:
    """Refuse: no exchange is under way."""
    return SaslAuthenticateResponse(
        error_code=ErrorCode.ILLEGAL_SASL_STATE,
        error_message="SaslAuthenticate request received after successful authentication",
    )
