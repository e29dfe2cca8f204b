"""UpdateMetadata (6): the controller tells every broker the state of the cluster.

v1 several endpoints · v2 racks · v3 listener names · v4 offline replicas · v5 broker epoch,
grouped by topic (KIP-380) · v6 flexible · v7 topic ids · v8 KRaft flag. Refused by a broker
that is its own controller: see ``k04_leader_and_isr``.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)
from kavka.replication.controller import shapes

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.replication.controller.channels import ControlResponse

KEY: Final = 6


def handle(
    broker: "Broker", request: "Request", body: UpdateMetadataRequest
) -> UpdateMetadataResponse | Pending:
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


def error_response(code: ErrorCode, body: UpdateMetadataRequest) -> UpdateMetadataResponse:
    return UpdateMetadataResponse(error_code=code)
