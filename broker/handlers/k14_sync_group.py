"""SyncGroup (14): the leader brings the assignment, everybody takes their part of it.

v0 base · v1 throttle · v2 throttle after the response · v3 instance id (KIP-345) · v4 flexible ·
v5 protocol type and name, checked (KIP-559).
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, is_allowed
from kavka.broker.groups.messages import Sync, SyncResult
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k14_sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 14
_FIRST_WITH_PROTOCOL = 5


def handle(
    broker: "Broker", request: "Request", body: SyncGroupRequest
) -> SyncGroupResponse | Pending:
    if not is_allowed(broker, request, Operation.READ, Resource.GROUP, body.group_id):
        return SyncGroupResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if request.version >= _FIRST_WITH_PROTOCOL and (
        body.protocol_type is None or body.protocol_name is None
    ):
        return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    pending = Pending()

    def synced(result: SyncResult) -> None:
        pending.complete(
            SyncGroupResponse(
                error_code=result.error,
                protocol_type=result.protocol_type,
                protocol_name=result.protocol,
                assignment=result.assignment,
            )
        )

    sync = Sync(
        body.member_id,
        body.group_instance_id,
        body.generation_id,
        body.protocol_type,
        body.protocol_name,
        tuple((given.member_id, given.assignment) for given in body.assignments),
    )
    broker.groups.sync(body.group_id, sync, synced)
    return pending
