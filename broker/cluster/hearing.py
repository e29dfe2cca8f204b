"""What controllers say to this broker over the network."""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.controller import shapes

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.replication.controller.channels import ControlRequest, ControlResponse


def hear(broker: "Broker", request: "Request", body: "ControlRequest") -> Pending:
    """Put a controller's request into the inbox, behind what was said before.

    Raises KafkaError: CLUSTER_AUTHORIZATION_FAILED, and STALE_CONTROLLER_EPOCH for a lone broker,
    which is its own only controller.
    """
    require_cluster(broker, request, Operation.CLUSTER_ACTION)
    if broker.config.embedded:
        raise KafkaError(ErrorCode.STALE_CONTROLLER_EPOCH)
    shapes.from_wire(body, request.version)
    pending = Pending()

    def answer(response: "ControlResponse") -> None:
        if not pending.cancelled:
            pending.complete(shapes.response_to_wire(body, response, request.version))

    broker.inbox.send(body, answer)
    return pending
