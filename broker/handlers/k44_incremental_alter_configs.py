"""IncrementalAlterConfigs: set, delete, append to, subtract from single settings (KIP-339).

v0 first · v1 flexible.

Version 0 answers with 2.3's codes, version 1 with those of later releases (see AlterConfigs).
Beyond 2.3 in both: a list that has no override yet is appended to from its default, and loggers
of the broker can be changed (KIP-412).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kavka.broker import authorization, loggers
from kavka.broker.audit import audit_each
from kavka.broker.configs import Change, Operation, ResourceType
from kavka.broker.handlers.k32_describe_configs import is_known_type, require_for, type_name
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k44_incremental_alter_configs import (
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 44
_MODERN_SINCE: Final = 1


async def handle(
    broker: "Broker", request: "Request", body: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """Change each resource by itself; a request with a resource of unknown type fails whole."""
    strange = next((r for r in body.resources if not is_known_type(broker, r.resource_type)), None)
    if strange is not None:
        error = KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected resource type {type_name(strange.resource_type)}",
        )
        return IncrementalAlterConfigsResponse(
            responses=[_response(r, error) for r in body.resources]
        )
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
            "IncrementalAlterConfigs",
            (
                (f"{type_name(each.resource_type).title()}:{each.resource_name}", each.error_code)
                for each in responses
            ),
        )
    return IncrementalAlterConfigsResponse(responses=responses)


async def _alter(
    broker: "Broker",
    request: "Request",
    resource: AlterConfigsResource,
    validate_only: bool,
    modern: bool,
) -> KafkaError | None:
    changes = [Change(c.name, c.config_operation, c.value) for c in resource.configs]
    try:
        kind = ResourceType(resource.resource_type)
        alter = authorization.Operation.ALTER_CONFIGS
        require_for(broker, request, alter, kind, resource.resource_name)
        if kind is ResourceType.BROKER_LOGGER:
            broker.configs.require_this_broker(resource.resource_name)
            _change_loggers(changes, validate_only)
        else:
            await broker.configs.change(
                kind, resource.resource_name, changes, validate_only=validate_only, modern=modern
            )
    except KafkaError as error:
        return error
    return None


def _change_loggers(changes: Sequence[Change], validate_only: bool) -> None:
    """All or none: every change is checked before the first is made."""
    for change in changes:
        loggers.require(change.name)
        if change.operation == Operation.SET and change.value is not None:
            loggers.require_level(change.name, change.value)
        elif change.operation == Operation.DELETE:
            loggers.require_parent(change.name)
        else:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Only setting and deleting is allowed for the level of logger {change.name}",
            )
    if validate_only:
        return
    for change in changes:
        if change.value is not None and change.operation == Operation.SET:
            loggers.set_level(change.name, change.value)
        else:
            loggers.unset_level(change.name)


def _response(
    resource: AlterConfigsResource, error: KafkaError | None
) -> AlterConfigsResourceResponse:
    return AlterConfigsResourceResponse(
        error_code=ErrorCode.NONE if error is None else error.code,
        error_message=None if error is None else error.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )
