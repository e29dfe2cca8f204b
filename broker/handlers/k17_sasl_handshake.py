"""SaslHandshake: choose a SASL mechanism.

v0 raw tokens follow · v1 SaslAuthenticate requests follow (KIP-152). An exchange is the listener's
business and over before requests get here; one that comes later, or on a listener without SASL,
is refused as Kafka does.
"""

from typing import TYPE_CHECKING

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request


def handle(
    broker: "Broker", request: "Request", body: SaslHandshakeRequest
) -> SaslHandshakeResponse:
    """Refuse: there is nothing to shake hands for."""
    return SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)
