"""DescribeAcls (29): the ACLs that a filter selects, by what they are about.

v0 literal patterns only · v1 pattern types (KIP-290) · v2 flexible · v3 user resources (KIP-373).
Without an authorizer there are none, which is an error of its own.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import DENIED_IN_WORDS, Operation, require_cluster
from kavka.broker.security.acl.wire import NO_AUTHORIZER, filter_from
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k29_describe_acls import (
    AclDescription,
    DescribeAclsRequest,
    DescribeAclsResource,
    DescribeAclsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.broker.security.acl.model import Pattern

KEY: Final = 29


def handle(broker: "Broker", request: "Request", body: DescribeAclsRequest) -> DescribeAclsResponse:
    require_cluster(broker, request, Operation.DESCRIBE)
    acls = None if broker.authorizer is None else broker.authorizer.acls
    if acls is None:
        code = ErrorCode.SECURITY_DISABLED
        return DescribeAclsResponse(error_code=code, error_message=NO_AUTHORIZER)
    try:
        wanted = filter_from(body)
    except KafkaError as error:
        return DescribeAclsResponse(error_code=error.code, error_message=error.message)
    resources: dict[Pattern, DescribeAclsResource] = {}
    for pattern, entry in acls.find(wanted):
        resource = resources.get(pattern)
        if resource is None:
            resource = resources[pattern] = DescribeAclsResource(
                resource_type=pattern.resource,
                resource_name=pattern.name,
                pattern_type=pattern.type,
            )
        resource.acls.append(
            AclDescription(
                principal=entry.principal,
                host=entry.host,
                operation=entry.operation,
                permission_type=entry.permission,
            )
        )
    return DescribeAclsResponse(resources=list(resources.values()))


def error_response(code: ErrorCode, body: DescribeAclsRequest) -> DescribeAclsResponse:
    return DescribeAclsResponse(error_code=code, error_message=DENIED_IN_WORDS.get(code))
