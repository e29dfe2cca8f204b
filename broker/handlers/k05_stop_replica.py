"""StopReplica (5): the controller has replicas stopped, and deleted.

v1 broker epoch (KIP-380) · v2 flexible · v3 leader epoch and deletion by partition (KIP-570) ·
v4 KRaft flag. Refused by a broker that is its own controller: see ``k04_leader_and_isr``.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.cluster.hearing import hear
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 5


def handle(broker: "Broker", request: "Request", body: StopReplicaRequest) -> Pending:
    return hear(broker, request, body)


def error_response(code: ErrorCode, body: StopReplicaRequest) -> StopReplicaResponse:
    return StopReplicaResponse(error_code=code)
