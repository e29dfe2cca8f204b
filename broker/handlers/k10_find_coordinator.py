"""FindCoordinator (10): which broker coordinates a group or a transactional id.

v0 groups only · v1 key type, error message, throttle · v2 throttle after the response · v3
flexible · v4 several keys (KIP-699) · v5 TRANSACTION_ABORTABLE (KIP-890) · v6 share groups
(KIP-932, not offered). The first request creates the coordinator's topic.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    DENIED_BY_RESOURCE,
    DENIED_IN_WORDS,
    Operation,
    Resource,
    denied_among,
)
from kavka.broker.coordination import internal_topics
from kavka.broker.coordination.ownership import partition_for
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k10_find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.replication.metadata import BrokerEndpoint

KEY = 10
_TOPICS = {0: GROUP_METADATA_TOPIC, 1: TRANSACTION_STATE_TOPIC}  # by key type
_RESOURCES = {0: Resource.GROUP, 1: Resource.TRANSACTIONAL_ID}
_FIRST_WITH_KEYS = 4
_NOBODY = -1


async def handle(
    broker: "Broker", request: "Request", body: FindCoordinatorRequest
) -> FindCoordinatorResponse:
    topic = _TOPICS.get(body.key_type)
    keys = body.coordinator_keys if request.version >= _FIRST_WITH_KEYS else [body.key]
    if topic is None:
        found = [
            _error(key, ErrorCode.INVALID_REQUEST, f"unknown coordinator type {body.key_type}")
            for key in keys
        ]
    else:
        resource = _RESOURCES[body.key_type]
        denied = denied_among(broker, request, Operation.DESCRIBE, resource, keys)
        refusal = DENIED_BY_RESOURCE[resource]
        count = None
        if len(denied) < len(set(keys)):
            count = await internal_topics.partition_count(broker, topic)
        found = [
            _error(key, refusal, DENIED_IN_WORDS[refusal])
            if key in denied
            else _find(broker, request.listener, topic, count, key)
            for key in keys
        ]
    if request.version >= _FIRST_WITH_KEYS:
        return FindCoordinatorResponse(coordinators=found)
    (only,) = found
    return FindCoordinatorResponse(
        error_code=only.error_code,
        error_message=only.error_message,
        node_id=only.node_id,
        host=only.host,
        port=only.port,
    )


def _find(broker: "Broker", listener: str, topic: str, count: int | None, key: str) -> Coordinator:
    if count is not None:
        node = _leader(broker, listener, topic, partition_for(key, count))
        if node is not None:
            node_id, endpoint = node
            return Coordinator(key=key, node_id=node_id, host=endpoint.host, port=endpoint.port)
    return _error(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, "The coordinator is not available.")


def _leader(
    broker: "Broker", listener: str, topic: str, partition: int
) -> "tuple[int, BrokerEndpoint] | None":
    state = broker.metadata.partition(topic, partition)
    info = None if state is None else broker.metadata.brokers.get(state.leader)
    endpoint = None if info is None else info.endpoint(listener)
    return None if info is None or endpoint is None else (info.id, endpoint)


def _error(key: str, code: ErrorCode, message: str) -> Coordinator:
    return Coordinator(
        key=key, node_id=_NOBODY, host="", port=_NOBODY, error_code=code, error_message=message
    )
