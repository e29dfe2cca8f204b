"""JoinGroup (11): become, or remain, a member of a group; answered when the group is complete.

v0 base · v1 rebalance time-out of its own · v2 throttle · v3 throttle after the response · v4
MEMBER_ID_REQUIRED (KIP-394) · v5 instance id (KIP-345) · v6 flexible · v7 protocol type and
nullable protocol name · v8 reason (KIP-800) · v9 skip_assignment (KIP-814).
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, is_allowed
from kavka.broker.groups.messages import Join, JoinResult
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k11_join_group import (
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 11
_FIRST_WITH_REBALANCE_TIMEOUT = 1
_FIRST_WITH_MEMBER_ID_REQUIRED = 4
_FIRST_WITH_NULLABLE_PROTOCOL = 7
_FIRST_WITH_SKIP_ASSIGNMENT = 9


def handle(
    broker: "Broker", request: "Request", body: JoinGroupRequest
) -> JoinGroupResponse | Pending:
    version = request.version
    if not is_allowed(broker, request, Operation.READ, Resource.GROUP, body.group_id):
        return JoinGroupResponse(
            error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED,
            protocol_name=None if version >= _FIRST_WITH_NULLABLE_PROTOCOL else "",
        )
    pending = Pending()

    def joined(result: JoinResult) -> None:
        pending.complete(_response(result, version))

    broker.groups.join(body.group_id, _join(request, body), joined)
    return pending


def _join(request: "Request", body: JoinGroupRequest) -> Join:
    rebalance_timeout_ms = body.rebalance_timeout_ms
    if request.version < _FIRST_WITH_REBALANCE_TIMEOUT:
        rebalance_timeout_ms = body.session_timeout_ms
    return Join(
        body.member_id,
        body.group_instance_id,
        request.client_id,
        request.client_host,
        body.session_timeout_ms,
        rebalance_timeout_ms,
        body.protocol_type,
        tuple((protocol.name, protocol.metadata) for protocol in body.protocols),
        body.reason,
        needs_known_id=request.version >= _FIRST_WITH_MEMBER_ID_REQUIRED,
        can_skip_assignment=request.version >= _FIRST_WITH_SKIP_ASSIGNMENT,
    )


def _response(result: JoinResult, version: int) -> JoinGroupResponse:
    protocol = result.protocol
    if protocol is None and version < _FIRST_WITH_NULLABLE_PROTOCOL:
        protocol = ""
    return JoinGroupResponse(
        error_code=result.error,
        generation_id=result.generation,
        protocol_type=result.protocol_type,
        protocol_name=protocol,
        leader=result.leader,
        skip_assignment=result.skip_assignment,
        member_id=result.member_id,
        members=[
            JoinGroupResponseMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                metadata=member.metadata,
            )
            for member in result.members
        ],
    )
