"""DeleteGroups (42): remove groups without members and all their offsets.

v0 base (KIP-229) · v1 throttle after the response · v2 flexible.
"""

from typing import TYPE_CHECKING

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
    pending = Pending()

    def deleted(results: dict[str, ErrorCode]) -> None:
        pending.complete(
            DeleteGroupsResponse(
                results=[
                    DeletableGroupResult(group_id=group_id, error_code=code)
                    for group_id, code in results.items()
                ]
            )
        )

    broker.groups.offsets.delete_groups(body.groups_names, deleted)
    return pending
