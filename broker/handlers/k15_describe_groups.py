"""DescribeGroups (15): state, protocol and members of groups.

v0 base · v1 throttle · v2 throttle after the response · v3 authorized operations (KIP-430) · v4
instance id (KIP-345) · v5 flexible. An unknown group is Dead, which is no error. A group is
described once, however often it is named: a short request must not ask for a huge answer.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    Operation,
    Resource,
    authorized_operations,
    denied_among,
)
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k15_describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 15


def handle(
    broker: "Broker", request: "Request", body: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    groups = dict.fromkeys(body.groups)
    denied = denied_among(broker, request, Operation.DESCRIBE, Resource.GROUP, groups)
    response = DescribeGroupsResponse()
    for group_id in groups:
        if group_id in denied:
            code = ErrorCode.GROUP_AUTHORIZATION_FAILED
            group = DescribedGroup(error_code=code, group_id=group_id)
        else:
            group = _describe(broker, group_id)
            if body.include_authorized_operations and group.error_code == ErrorCode.NONE:
                group.authorized_operations = authorized_operations(
                    broker, request, Resource.GROUP, group_id
                )
        response.groups.append(group)
    return response


def _describe(broker: "Broker", group_id: str) -> DescribedGroup:
    error, group = broker.groups.describe(group_id)
    return DescribedGroup(
        error_code=error,
        group_id=group_id,
        group_state=group.state,
        protocol_type=group.protocol_type,
        protocol_data=group.protocol,
        members=[
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata,
                member_assignment=member.assignment,
            )
            for member in group.members
        ],
    )
