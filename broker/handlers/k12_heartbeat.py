"""Heartbeat (12): a member is alive; the answer tells it when to rejoin.

v0 base · v1 throttle · v2 throttle after the response · v3 instance id (KIP-345) · v4 flexible.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, is_allowed
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 12


def handle(broker: "Broker", request: "Request", body: HeartbeatRequest) -> HeartbeatResponse:
    if not is_allowed(broker, request, Operation.READ, Resource.GROUP, body.group_id):
        return HeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    return HeartbeatResponse(
        error_code=broker.groups.heartbeat(
            body.group_id, body.member_id, body.group_instance_id, body.generation_id
        )
    )
