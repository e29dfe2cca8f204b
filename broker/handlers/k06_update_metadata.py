"""UpdateMetadata (6): the controller tells every broker the state of the cluster.

v1 several endpoints · v2 racks · v3 listener names · v4 offline replicas · v5 broker epoch,
grouped by topic (KIP-380) · v6 flexible · v7 topic ids · v8 KRaft flag. Refused by a broker
that is its own controller: see ``k04_leader_and_isr``.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.cluster.hearing import hear
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 6


def handle(broker: "Broker", request: "Request", body: UpdateMetadataRequest) -> Pending:
    return hear(broker, request, body)


def error_response(code: ErrorCode, body: UpdateMetadataRequest) -> UpdateMetadataResponse:
    return UpdateMetadataResponse(error_code=code)
