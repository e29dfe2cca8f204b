"""DeleteTopics (20), on the controller (KIP-4).

v1 throttle · v2 throttle after the response · v3 TOPIC_DELETION_DISABLED · v4 flexible · v5
messages (KIP-599) · v6 by topic id (KIP-516).

The answer comes when nothing of the topics is left (but for replicas on dead brokers), or
REQUEST_TIMED_OUT after ``timeout_ms``: then they will go nevertheless.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, Resource, is_allowed, would_allow
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k20_delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from kavka.protocol.schema import ZERO_UUID

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 20
_DISABLED_SINCE: Final = 3
_THROTTLING_ERROR_SINCE: Final = 5


async def handle(
    broker: "Broker", request: "Request", body: DeleteTopicsRequest
) -> DeleteTopicsResponse:
    if not broker.controller.active:
        return error_response(ErrorCode.NOT_CONTROLLER, body)
    if not broker.config.get_bool("delete.topic.enable"):
        known = request.version >= _DISABLED_SINCE
        code = ErrorCode.TOPIC_DELETION_DISABLED if known else ErrorCode.INVALID_REQUEST
        return error_response(code, body)
    results: list[DeletableTopicResult] = []
    by_name: dict[str, DeletableTopicResult] = {}
    for topic in _topics(body):
        result = DeletableTopicResult(name=topic.name, topic_id=topic.topic_id)
        try:
            name = _name(broker, topic)
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
        else:
            if name in by_name:
                continue
            if not is_allowed(broker, request, Operation.DELETE, Resource.TOPIC, name):
                _hide(broker, request, result, name)
                results.append(result)
                continue
            by_name[name] = result
            result.name = name
            result.topic_id = broker.metadata.topic_id(name) or ZERO_UUID
        results.append(result)
    permitted = list(by_name)
    if broker.quotas is not None:
        permitted = _permitted(broker, request, by_name)
    outcomes = await broker.controller.delete_topics(permitted, timeout_ms=body.timeout_ms)
    for name, outcome in outcomes.items():
        if outcome is not None:
            by_name[name].error_code = outcome.code
            by_name[name].error_message = outcome.message
    audit_each(
        request,
        "DeleteTopics",
        (
            (f"Topic:{result.name or result.topic_id.hex()}", result.error_code)
            for result in results
        ),
    )
    return DeleteTopicsResponse(responses=results)


def _permitted(
    broker: "Broker", request: "Request", wanted: Mapping[str, DeletableTopicResult]
) -> list[str]:
    """The topics that the client's quota allows to be deleted now; the others fail (KIP-599)."""
    assert broker.quotas is not None
    strict = request.version >= _THROTTLING_ERROR_SINCE
    permit = broker.quotas.mutations(request, strict=strict)
    permitted: list[str] = []
    for name, result in wanted.items():
        topic = broker.metadata.topics.get(name)
        try:
            if permit is not None and topic is not None:
                permit(len(topic.partitions))
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
        else:
            permitted.append(name)
    return permitted


def _hide(broker: "Broker", request: "Request", result: DeletableTopicResult, name: str) -> None:
    """Refuse, without giving away the name behind an id to a client that may not know it."""
    result.error_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    if would_allow(broker, request, Operation.DESCRIBE, Resource.TOPIC, name):
        result.name = name


def _topics(body: DeleteTopicsRequest) -> list[DeleteTopicState]:
    """What is to be deleted: older versions list bare names."""
    return body.topics or [DeleteTopicState(name=name) for name in body.topic_names]


def _name(broker: "Broker", topic: DeleteTopicState) -> str:
    if topic.topic_id == ZERO_UUID:
        if topic.name is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Neither topic name nor id were specified.")
        return topic.name
    if topic.name is not None:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "Topic name and topic ID can not both be specified."
        )
    name = broker.metadata.topic_name(topic.topic_id)
    if name is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
    return name


def error_response(code: ErrorCode, body: DeleteTopicsRequest) -> DeleteTopicsResponse:
    return DeleteTopicsResponse(
        responses=[
            DeletableTopicResult(name=topic.name, topic_id=topic.topic_id, error_code=code)
            for topic in _topics(body)
        ]
    )
