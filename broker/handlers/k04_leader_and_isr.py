"""LeaderAndIsr (4): the controller tells which partitions to lead and to follow.

v1 is_new · v2 broker epoch, grouped by topic (KIP-380) · v3 reassignment (KIP-455) · v4 flexible
· v5 topic ids · v6 recovery state · v7 KRaft flag.

What a controller says goes into the broker's inbox, behind what it has said before. A broker with
the embedded store is its own controller and is told without a network: whoever else claims to be
its controller is from another cluster, or an impostor.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kavka.replication.controller import shapes

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.replication.controller.channels import ControlResponse

KEY: Final = 4


def handle(
    broker: "Broker", request: "Request", body: LeaderAndIsrRequest
) -> LeaderAndIsrResponse | Pending:
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


def error_response(code: ErrorCode, body: LeaderAndIsrRequest) -> LeaderAndIsrResponse:
    return LeaderAndIsrResponse(error_code=code)
