"""DeleteGroups (42): remove groups without members and all their offsets.

v0 base (KIP-229) · v1 throttle after the response · v2 flexible.
"""

from typing import TYPE_CHECKING

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, Resource, denied_among
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k42_delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 42


def handle(broker: "Broker", request: "Request", body: DeleteGroupsRequest) -> Pending:
    groups = dict.fromkeys(body.groups_names)
    denied = denied_among(broker, request, Operation.DELETE, Resource.GROUP, groups)
    refused = dict.fromkeys(denied, ErrorCode.GROUP_AUTHORIZATION_FAILED)
    pending = Pending()

    def deleted(results: dict[str, ErrorCode]) -> None:
        audit_each(
            request,
            "DeleteGroups",
            ((f"Group:{group_id}", code) for group_id, code in results.items()),
        )
        pending.complete(
            DeleteGroupsResponse(
                results=[
                    DeletableGroupResult(group_id=group_id, error_code=code)
                    for group_id, code in (results | refused).items()
                ]
            )
        )

    allowed = [group_id for group_id in groups if group_id not in denied]
    broker.groups.offsets.delete_groups(allowed, deleted)
    return pending
