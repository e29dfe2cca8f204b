"""LeaderAndIsr (4): the controller tells which partitions to lead and to follow.

v1 is_new · v2 broker epoch, grouped by topic (KIP-380) · v3 reassignment (KIP-455) · v4 flexible
· v5 topic ids · v6 recovery state · v7 KRaft flag.

What a controller says goes into the broker's inbox, behind what it has said before. A broker with
the embedded store is its own controller and is told without a network: whoever else claims to be
its controller is from another cluster, or an impostor.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.cluster.hearing import hear
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 4


def handle(broker: "Broker", request: "Request", body: LeaderAndIsrRequest) -> Pending:
    return hear(broker, request, body)


def error_response(code: ErrorCode, body: LeaderAndIsrRequest) -> LeaderAndIsrResponse:
    return LeaderAndIsrResponse(error_code=code)
