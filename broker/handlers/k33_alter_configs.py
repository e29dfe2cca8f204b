"""AlterConfigs: replace all overrides of topics, of this broker, or of all brokers.

v0 first · v1 as v0 · v2 flexible.

Versions 0 and 1 answer with 2.3's codes: INVALID_REQUEST for a bad value, UNKNOWN_SERVER_ERROR
for a missing topic, the last of two values counts. Version 2, which 2.3 does not have, answers
as later releases do: INVALID_CONFIG, UNKNOWN_TOPIC_OR_PARTITION, two values are an error.
An unknown topic setting is INVALID_CONFIG in all of them. Where 2.3 fails on a null value, the
answer is INVALID_REQUEST.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation
from kavka.broker.configs import ResourceType, collect
from kavka.broker.handlers.k32_describe_configs import is_known_type, require_for, type_name
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k33_alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 33
_MODERN_SINCE: Final = 2


async def handle(
    broker: "Broker", request: "Request", body: AlterConfigsRequest
) -> AlterConfigsResponse:
    """Alter each resource by itself; a request with a resource of unknown type fails whole."""
    strange = next((r for r in body.resources if not is_known_type(broker, r.resource_type)), None)
    if strange is not None:
        error = KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected resource type {type_name(strange.resource_type)}",
        )
        return AlterConfigsResponse(responses=[_response(r, error) for r in body.resources])
    modern = request.version >= _MODERN_SINCE
    # Of two changes of one resource the later counts, as in Kafka, which keeps them in a map.
    resources = {(r.resource_type, r.resource_name): r for r in body.resources}
    responses = [
        _response(resource, await _alter(broker, request, resource, body.validate_only, modern))
        for resource in resources.values()
    ]
    if not body.validate_only:
        audit_each(
            request,
            "AlterConfigs",
            (
                (f"{type_name(each.resource_type).title()}:{each.resource_name}", each.error_code)
                for each in responses
            ),
        )
    return AlterConfigsResponse(responses=responses)


async def _alter(
    broker: "Broker",
    request: "Request",
    resource: AlterConfigsResource,
    validate_only: bool,
    modern: bool,
) -> KafkaError | None:
    try:
        kind = ResourceType(resource.resource_type)
        require_for(broker, request, Operation.ALTER_CONFIGS, kind, resource.resource_name)
        if kind is ResourceType.BROKER_LOGGER:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                "AlterConfigs is deprecated and does not support the resource type BROKER_LOGGER",
            )
        overrides = collect(
            ((config.name, config.value) for config in resource.configs), refuse_twice=modern
        )
        await broker.configs.replace(
            kind,
            resource.resource_name,
            overrides,
            validate_only=validate_only,
            modern=modern,
        )
    except KafkaError as error:
        return error
    return None


def _response(
    resource: AlterConfigsResource, error: KafkaError | None
) -> AlterConfigsResourceResponse:
    return AlterConfigsResourceResponse(
        error_code=ErrorCode.NONE if error is None else error.code,
        error_message=None if error is None else error.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )
