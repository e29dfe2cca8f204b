"""DescribeCluster (60): brokers, controller and id of the cluster (KIP-700).

v0 flexible from the start · v1 endpoint type (KIP-919): this is an endpoint of brokers, there
are none of controllers. Needs no permission; who may not describe the cluster is told of no
operation that it may do.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import NOT_ASKED, cluster_operations
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k60_describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 60
_BROKERS: Final = 1
_CONTROLLERS: Final = 2


def handle(
    broker: "Broker", request: "Request", body: DescribeClusterRequest
) -> DescribeClusterResponse:
    if body.endpoint_type == _CONTROLLERS:
        raise KafkaError(ErrorCode.MISMATCHED_ENDPOINT_TYPE)
    if body.endpoint_type != _BROKERS:
        raise KafkaError(ErrorCode.UNSUPPORTED_ENDPOINT_TYPE)
    metadata = broker.metadata
    brokers = []
    for info in metadata.brokers.values():
        endpoint = info.endpoint(request.listener)
        if endpoint is not None:
            brokers.append(
                DescribeClusterBroker(
                    broker_id=info.id, host=endpoint.host, port=endpoint.port, rack=info.rack
                )
            )
    listed = any(each.broker_id == metadata.controller_id for each in brokers)
    operations = NOT_ASKED
    if body.include_cluster_authorized_operations:
        operations = cluster_operations(broker, request)
    return DescribeClusterResponse(
        cluster_id=metadata.cluster_id,
        controller_id=metadata.controller_id if listed else -1,
        brokers=brokers,
        cluster_authorized_operations=operations,
    )


_MESSAGES: Final = {
    ErrorCode.MISMATCHED_ENDPOINT_TYPE: "The request was sent to an endpoint of the wrong type.",
    ErrorCode.UNSUPPORTED_ENDPOINT_TYPE: "This endpoint type is not supported yet.",
}


def error_response(code: ErrorCode, body: DescribeClusterRequest) -> DescribeClusterResponse:
    return DescribeClusterResponse(
        error_code=code, error_message=_MESSAGES.get(code), endpoint_type=body.endpoint_type
    )
