"""LeaveGroup (13): members go, by themselves or put out by an administrator.

v0 base · v1 throttle · v2 throttle after the response · v3 several members, by id or instance id
(KIP-345) · v4 flexible · v5 reason (KIP-800).
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, is_allowed
from kavka.broker.groups.messages import Leave
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k13_leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 13
_FIRST_WITH_MEMBERS = 3


def handle(broker: "Broker", request: "Request", body: LeaveGroupRequest) -> LeaveGroupResponse:
    if not is_allowed(broker, request, Operation.READ, Resource.GROUP, body.group_id):
        return LeaveGroupResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if request.version < _FIRST_WITH_MEMBERS:
        error, errors = broker.groups.leave(body.group_id, [Leave(body.member_id)])
        return LeaveGroupResponse(error_code=errors[0] if error is ErrorCode.NONE else error)
    leaves = [
        Leave(member.member_id, member.group_instance_id, member.reason) for member in body.members
    ]
    error, errors = broker.groups.leave(body.group_id, leaves)
    return LeaveGroupResponse(
        error_code=error,
        members=[
            MemberResponse(
                member_id=leave.member_id, group_instance_id=leave.instance_id, error_code=code
            )
            for leave, code in zip(leaves, errors, strict=False)  # no errors beside a whole one
        ],
    )
