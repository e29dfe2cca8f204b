"""DescribeClientQuotas (48): who is limited to what (KIP-546).

v1 flexible. The filter's components are joined by *and*; an entity that has names of further types
matches as well unless the filter is strict.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.quotas import admin
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k48_describe_client_quotas import (
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    EntityData,
    EntryData,
    ValueData,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 48


async def handle(
    broker: "Broker", request: "Request", body: DescribeClientQuotasRequest
) -> DescribeClientQuotasResponse:
    components = [
        admin.Component(each.entity_type, each.match_type, each.match) for each in body.components
    ]
    try:
        require_cluster(broker, request, Operation.DESCRIBE_CONFIGS)
        store = broker.quota_keeper.store
        found = await admin.describe(store, components, strict=body.strict)
    except KafkaError as error:
        return DescribeClientQuotasResponse(
            error_code=error.code, error_message=error.message, entries=None
        )
    return DescribeClientQuotasResponse(
        entries=[
            EntryData(
                entity=[
                    EntityData(entity_type=kind, entity_name=name) for kind, name in entity.items()
                ],
                values=[ValueData(key=key, value=value) for key, value in quotas.items()],
            )
            for entity, quotas in found
        ]
    )


def error_response(
    code: ErrorCode, body: DescribeClientQuotasRequest
) -> DescribeClientQuotasResponse:
    return DescribeClientQuotasResponse(error_code=code, entries=None)
