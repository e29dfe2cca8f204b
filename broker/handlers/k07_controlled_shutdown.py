"""ControlledShutdown (7): a broker that wants to stop asks the controller to relieve it.

v0 its own header without client id · v1 the usual header · v2 broker epoch (KIP-380) · v3
flexible. The answer names the partitions that it leads still, because no other replica can.

The controller itself does not ask over the network: a request in its own name comes from a
stranger, and would leave a lone broker without any leader.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k07_controlled_shutdown import (
    ControlledShutdownRequest,
    ControlledShutdownResponse,
    RemainingPartition,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 7


async def handle(
    broker: "Broker", request: "Request", body: ControlledShutdownRequest
) -> ControlledShutdownResponse:
    require_cluster(broker, request, Operation.CLUSTER_ACTION)
    if broker.controller.active and body.broker_id == broker.node_id:
        raise KafkaError(ErrorCode.STALE_BROKER_EPOCH)
    remaining = await broker.controller.controlled_shutdown(body.broker_id, body.broker_epoch)
    return ControlledShutdownResponse(
        remaining_partitions=[
            RemainingPartition(topic_name=tp.topic, partition_index=tp.partition)
            for tp in remaining
        ]
    )


def error_response(code: ErrorCode, body: ControlledShutdownRequest) -> ControlledShutdownResponse:
    return ControlledShutdownResponse(error_code=code)
