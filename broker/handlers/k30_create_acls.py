"""CreateAcls (30): there is no authorizer yet, and Kafka without one says so too.

v1 pattern types (KIP-290) · v2 flexible · v3 user resources (KIP-373).
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.handlers.k29_describe_acls import NO_AUTHORIZER
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k30_create_acls import (
    AclCreationResult,
    CreateAclsRequest,
    CreateAclsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 30


def handle(broker: "Broker", request: "Request", body: CreateAclsRequest) -> CreateAclsResponse:
    return CreateAclsResponse(
        results=[
            AclCreationResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=NO_AUTHORIZER)
            for _ in body.creations
        ]
    )
