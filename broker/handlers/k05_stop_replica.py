"""StopReplica (5): the controller has replicas stopped, and deleted.

v1 broker epoch (KIP-380) · v2 flexible · v3 leader epoch and deletion by partition (KIP-570) ·
v4 KRaft flag. Refused by a broker that is its own controller: see ``k04_leader_and_isr``.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.replication.controller import shapes

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.replication.controller.channels import ControlResponse

KEY: Final = 5


def handle(
    broker: "Broker", request: "Request", body: StopReplicaRequest
) -> StopReplicaResponse | Pending:
    require_cluster(broker, request, Operation.CLUSTER_ACTION)
    if broker.config.embedded:
        return error_response(ErrorCode.STALE_CONTROLLER_EPOCH, body)
    shapes.from_wire(body, request.version)
    pending = Pending()

    def answer(response: "ControlResponse") -> None:
        if not pending.cancelled:
            pending.complete(shapes.response_to_wire(body, response, request.version))

    broker.inbox.send(body, answer)
    return pending


def error_response(code: ErrorCode, body: StopReplicaRequest) -> StopReplicaResponse:
    return StopReplicaResponse(error_code=code)
