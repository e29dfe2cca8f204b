"""CreatePartitions (37), on the controller (KIP-195).

v1 throttle after the response · v2 flexible · v3 throttling error (KIP-599). The answer comes
when every added partition has a leader, or REQUEST_TIMED_OUT after ``timeout_ms``.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, Resource, denied_among
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k37_create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)
from kavka.replication.controller.operations import NewPartitions

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 37
_THROTTLING_ERROR_SINCE: Final = 3


async def handle(
    broker: "Broker", request: "Request", body: CreatePartitionsRequest
) -> CreatePartitionsResponse:
    if not broker.controller.active:
        return error_response(ErrorCode.NOT_CONTROLLER, body)
    times = Counter(topic.name for topic in body.topics)
    denied = denied_among(broker, request, Operation.ALTER, Resource.TOPIC, times)
    wanted = [
        NewPartitions(
            topic.name,
            topic.count,
            None
            if topic.assignments is None
            else [assignment.broker_ids for assignment in topic.assignments],
        )
        for topic in body.topics
        if times[topic.name] == 1 and topic.name not in denied
    ]
    permit = None
    if broker.quotas is not None:
        strict = request.version >= _THROTTLING_ERROR_SINCE
        permit = broker.quotas.mutations(request, strict=strict)
    outcomes = await broker.controller.create_partitions(
        wanted,
        timeout_ms=body.timeout_ms,
        validate_only=body.validate_only,
        permit=permit,
    )
    results: list[CreatePartitionsTopicResult] = []
    for name, count in times.items():
        result = CreatePartitionsTopicResult(name=name)
        if count > 1:
            result.error_code = ErrorCode.INVALID_REQUEST
            result.error_message = "Duplicate topic in request."
        elif name in denied:
            result.error_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            result.error_message = "The topic authorization is failed."
        else:
            error = outcomes[name]
            if error is not None:
                result.error_code, result.error_message = error.code, error.message
        results.append(result)
    if not body.validate_only:
        told = ((f"Topic:{result.name}", result.error_code) for result in results)
        audit_each(request, "CreatePartitions", told)
    return CreatePartitionsResponse(results=results)


def error_response(code: ErrorCode, body: CreatePartitionsRequest) -> CreatePartitionsResponse:
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(name=topic.name, error_code=code) for topic in body.topics
        ]
    )
