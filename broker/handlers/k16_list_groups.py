"""ListGroups (16): the groups this broker coordinates.

v0 base · v1 throttle · v2 throttle after the response · v3 flexible · v4 filter by state, state
in the answer (KIP-518) · v5 filter by type, type in the answer (KIP-848). While groups are being
loaded the list comes with COORDINATOR_LOAD_IN_PROGRESS and is incomplete.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import CLUSTER_NAME, Operation, Resource, would_allow
from kavka.protocol.messages.k16_list_groups import (
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 16


def handle(broker: "Broker", request: "Request", body: ListGroupsRequest) -> ListGroupsResponse:
    error, groups = broker.groups.list_groups(body.states_filter, body.types_filter)
    describe = Operation.DESCRIBE
    if not would_allow(broker, request, describe, Resource.CLUSTER, CLUSTER_NAME):
        groups = [
            group
            for group in groups
            if would_allow(broker, request, describe, Resource.GROUP, group.group_id)
        ]
    return ListGroupsResponse(
        error_code=error,
        groups=[
            ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type,
                group_state=group.state,
                group_type=group.type,
            )
            for group in groups
        ],
    )
