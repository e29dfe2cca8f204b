"""AlterClientQuotas (49): set and remove limits of users, client ids and addresses (KIP-546).

v1 flexible. Any broker may do it; each entity has a result of its own.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.quotas import admin
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k49_alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityData,
    EntryData,
    EntryResult,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 49


async def handle(
    broker: "Broker", request: "Request", body: AlterClientQuotasRequest
) -> AlterClientQuotasResponse:
    try:
        require_cluster(broker, request, Operation.ALTER_CONFIGS)
    except KafkaError as error:
        return _failed(error, body)
    results = [await _alter(broker, entry, body.validate_only) for entry in body.entries]
    if not body.validate_only:
        audit_each(
            request,
            "AlterClientQuotas",
            ((_shown(result.entity), result.error_code) for result in results),
        )
    return AlterClientQuotasResponse(entries=results)


async def _alter(broker: "Broker", entry: EntryData, validate_only: bool) -> EntryResult:
    result = EntryResult(entity=entry.entity)
    named = [(each.entity_type, each.entity_name) for each in entry.entity]
    steps = [admin.Step(step.key, step.value, step.remove) for step in entry.ops]
    try:
        await admin.alter(broker.quota_keeper.store, named, steps, validate_only=validate_only)
    except KafkaError as error:
        result.error_code, result.error_message = error.code, error.message
    return result


def _shown(entity: list[EntityData]) -> str:
    names = ",".join(f"{each.entity_type}={each.entity_name or '<default>'}" for each in entity)
    return f"ClientQuota:{names}"


def _failed(error: KafkaError, body: AlterClientQuotasRequest) -> AlterClientQuotasResponse:
    return AlterClientQuotasResponse(
        entries=[
            EntryResult(error_code=error.code, error_message=error.message, entity=entry.entity)
            for entry in body.entries
        ]
    )


def error_response(code: ErrorCode, body: AlterClientQuotasRequest) -> AlterClientQuotasResponse:
    return _failed(KafkaError(code), body)
