"""DescribeConfigs: the settings of topics, of this broker, and of its loggers.

v0 is_default · v1 sources and synonyms (KIP-226) · v2 as v1 · v3 types and documentation
(KIP-569) · v4 flexible.

A resource that is of no known type fails the whole request with INVALID_REQUEST, as in Kafka.
Broker loggers (KIP-412) are younger than 2.3 and hidden when ``compatibility`` says so.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker import loggers
from kavka.broker.authorization import Operation, Resource, require, require_cluster
from kavka.broker.configs import Entry, ResourceType, Source
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k32_describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 32


async def handle(
    broker: "Broker", request: "Request", body: DescribeConfigsRequest
) -> DescribeConfigsResponse:
    """Describe each resource by itself: one that fails leaves the others alone."""
    strange = next((r for r in body.resources if not is_known_type(broker, r.resource_type)), None)
    if strange is not None:
        error = KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected resource type {type_name(strange.resource_type)} for resource "
            f"{strange.resource_name}",
        )
        return DescribeConfigsResponse(results=[_failed(r, error) for r in body.resources])
    # As in Kafka, which keeps them in a map: a resource is described once.
    resources = {(r.resource_type, r.resource_name): r for r in body.resources}
    return DescribeConfigsResponse(
        results=[
            await _describe(broker, request, resource, body) for resource in resources.values()
        ]
    )


def require_for(
    broker: "Broker", request: "Request", operation: Operation, kind: ResourceType, name: str
) -> None:
    """Raise KafkaError unless the client may do it: to the topic, or to the cluster if the
    resource is a broker.
    """
    if kind is ResourceType.TOPIC:
        require(broker, request, operation, Resource.TOPIC, name)
    else:
        require_cluster(broker, request, operation)


def is_known_type(broker: "Broker", resource_type: int) -> bool:
    """Whether this broker has settings of resources of the type."""
    if resource_type == ResourceType.BROKER_LOGGER:
        return broker.config.get_str("compatibility") == "latest"
    return resource_type in (ResourceType.TOPIC, ResourceType.BROKER)


def type_name(resource_type: int) -> str:
    """The type in Kafka's word; what it does not know it calls UNKNOWN."""
    if resource_type in tuple(ResourceType):
        return ResourceType(resource_type).name
    return ResourceType.UNKNOWN.name


async def _describe(
    broker: "Broker",
    request: "Request",
    resource: DescribeConfigsResource,
    body: DescribeConfigsRequest,
) -> DescribeConfigsResult:
    kind = ResourceType(resource.resource_type)
    try:
        require_for(broker, request, Operation.DESCRIBE_CONFIGS, kind, resource.resource_name)
        entries = await _entries(broker, kind, resource)
    except KafkaError as error:
        return _failed(resource, error)
    keys = None if resource.configuration_keys is None else set(resource.configuration_keys)
    return DescribeConfigsResult(
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[_result(entry, body) for entry in entries if keys is None or entry.name in keys],
    )


async def _entries(
    broker: "Broker", kind: ResourceType, resource: DescribeConfigsResource
) -> list[Entry]:
    name = resource.resource_name
    if kind is ResourceType.TOPIC:
        return await broker.configs.describe_topic(name)
    if kind is ResourceType.BROKER:
        return broker.configs.describe_broker(name)
    broker.configs.require_this_broker(name)
    return [
        Entry(logger, level, Source.DYNAMIC_BROKER_LOGGER_CONFIG)
        for logger, level in loggers.levels().items()
    ]


def _result(entry: Entry, body: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.read_only,
        is_default=entry.source is Source.DEFAULT_CONFIG,
        config_source=entry.source,
        is_sensitive=entry.sensitive,
        synonyms=[
            DescribeConfigsSynonym(name=s.name, value=s.value, source=s.source)
            for s in (entry.synonyms if body.include_synonyms else ())
        ],
        config_type=entry.type,
        documentation=entry.documentation if body.include_documentation else None,
    )


def _failed(resource: DescribeConfigsResource, error: KafkaError) -> DescribeConfigsResult:
    return DescribeConfigsResult(
        error_code=error.code,
        error_message=error.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )
