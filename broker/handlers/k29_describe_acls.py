"""DescribeAcls (29): there is no authorizer yet, and Kafka without one says so too.

v1 pattern types (KIP-290) · v2 flexible · v3 user resources (KIP-373).
"""

from typing import TYPE_CHECKING, Final

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k29_describe_acls import DescribeAclsRequest, DescribeAclsResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 29
NO_AUTHORIZER: Final = "No Authorizer is configured on the broker"


def handle(broker: "Broker", request: "Request", body: DescribeAclsRequest) -> DescribeAclsResponse:
    return DescribeAclsResponse(error_code=ErrorCode.SECURITY_DISABLED, error_message=NO_AUTHORIZER)
