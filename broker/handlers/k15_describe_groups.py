"""DescribeGroups (15): state, protocol and members of groups.

v0 base · v1 throttle · v2 throttle after the response · v3 authorized operations (KIP-430) · v4
instance id (KIP-345) · v5 flexible. An unknown group is Dead, which is no error.
"""

from typing import TYPE_CHECKING

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
_NOT_ASKED = -(2**31)
_READ, _DELETE, _DESCRIBE = 3, 6, 8  # codes of ACL operations that groups know
_EVERYTHING = 1 << _READ | 1 << _DELETE | 1 << _DESCRIBE


def handle(
    broker: "Broker", request: "Request", body: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    # Without an authorizer everybody may do everything.
    operations = _EVERYTHING if body.include_authorized_operations else _NOT_ASKED
    return DescribeGroupsResponse(
        groups=[_describe(broker, group_id, operations) for group_id in body.groups]
    )


def _describe(broker: "Broker", group_id: str, operations: int) -> DescribedGroup:
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
        authorized_operations=operations if error is ErrorCode.NONE else _NOT_ASKED,
    )
