"""CreateTopics (19), on the controller (KIP-4).

v1 validate_only and messages · v2 throttle · v3 throttle after the response · v4 -1 means the
broker's defaults (KIP-464) · v5 flexible; counts and settings in the answer (KIP-525) · v6
throttling error (KIP-599) · v7 topic ids (KIP-516).

The answer comes when every partition has a leader, or REQUEST_TIMED_OUT after ``timeout_ms``:
then the topic is there nevertheless, or soon will be.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import (
    CLUSTER_NAME,
    Operation,
    Resource,
    denied_among,
    would_allow,
)
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.replication.controller.operations import CreatedTopic, NewTopic

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 19
_DEFAULTS_SINCE: Final = 4
_CONFIGS_SINCE: Final = 5
_THROTTLING_ERROR_SINCE: Final = 6


async def handle(
    broker: "Broker", request: "Request", body: CreateTopicsRequest
) -> CreateTopicsResponse:
    if not broker.controller.active:
        return error_response(ErrorCode.NOT_CONTROLLER, body)
    times = Counter(topic.name for topic in body.topics)
    denied = _denied(broker, request, times)
    results: dict[int, CreatableTopicResult] = {}
    wanted: dict[int, NewTopic] = {}
    for place, topic in enumerate(body.topics):
        if times[topic.name] > 1:
            results[place] = CreatableTopicResult(
                name=topic.name,
                error_code=ErrorCode.INVALID_REQUEST,
                error_message="Found multiple entries for this topic.",
            )
            continue
        if topic.name in denied:
            results[place] = CreatableTopicResult(
                name=topic.name,
                error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
                error_message="Authorization failed.",
            )
            continue
        try:
            wanted[place] = _new_topic(topic, request.version)
        except KafkaError as error:
            results[place] = CreatableTopicResult(
                name=topic.name, error_code=error.code, error_message=error.message
            )
    permit = None
    if broker.quotas is not None:
        strict = request.version >= _THROTTLING_ERROR_SINCE
        permit = broker.quotas.mutations(request, strict=strict)
    created = await broker.controller.create_topics(
        list(wanted.values()),
        timeout_ms=body.timeout_ms,
        validate_only=body.validate_only,
        permit=permit,
    )
    for place, outcome in zip(wanted, created, strict=True):
        results[place] = _result(broker, request, outcome)
    topics = [results[place] for place in range(len(body.topics))]
    if not body.validate_only:
        outcomes = ((f"Topic:{topic.name}", topic.error_code) for topic in topics)
        audit_each(request, "CreateTopics", outcomes)
    return CreateTopicsResponse(topics=topics)


def _denied(broker: "Broker", request: "Request", names: Iterable[str]) -> frozenset[str]:
    """Those of ``names`` that the client may not create."""
    create = Operation.CREATE
    if would_allow(broker, request, create, Resource.CLUSTER, CLUSTER_NAME):
        return frozenset()
    return denied_among(broker, request, create, Resource.TOPIC, names)


def _new_topic(topic: CreatableTopic, version: int) -> NewTopic:
    assignment = {each.partition_index: each.broker_ids for each in topic.assignments}
    if len(assignment) < len(topic.assignments):
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "A partition is assigned more than once."
        )
    partitions, replication_factor = topic.num_partitions, topic.replication_factor
    if version < _DEFAULTS_SINCE and not assignment:
        # -1 had no meaning then but "no number": the check for numbers above 0 refuses it.
        partitions, replication_factor = max(partitions, 0), max(replication_factor, 0)
    return NewTopic(
        topic.name,
        partitions,
        replication_factor,
        assignment or None,
        {config.name: config.value for config in topic.configs},
    )


def _result(broker: "Broker", request: "Request", outcome: CreatedTopic) -> CreatableTopicResult:
    error = outcome.error
    if error is not None:
        return CreatableTopicResult(
            name=outcome.name,
            error_code=error.code,
            error_message=error.message,
            topic_id=outcome.topic_id,
        )
    name = outcome.name
    describe_configs = Operation.DESCRIBE_CONFIGS
    if not would_allow(broker, request, describe_configs, Resource.TOPIC, name):
        return CreatableTopicResult(
            name=name,
            topic_id=outcome.topic_id,
            topic_config_error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            configs=None,
        )
    result = CreatableTopicResult(
        name=name,
        topic_id=outcome.topic_id,
        num_partitions=outcome.partitions,
        replication_factor=outcome.replication_factor,
    )
    if request.version >= _CONFIGS_SINCE:
        result.configs = [
            CreatableTopicConfigs(
                name=entry.name,
                value=entry.value,
                read_only=entry.read_only,
                config_source=entry.source,
                is_sensitive=entry.sensitive,
            )
            for entry in broker.configs.topic_entries(outcome.configs)
        ]
    return result


def error_response(code: ErrorCode, body: CreateTopicsRequest) -> CreateTopicsResponse:
    return CreateTopicsResponse(
        topics=[CreatableTopicResult(name=topic.name, error_code=code) for topic in body.topics]
    )
