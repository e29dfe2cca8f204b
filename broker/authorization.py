"""What handlers ask before they do something: may this client do that? (security reference §3.5)

Without an authorizer everybody may do everything, and asking costs a comparison. With one, who may
not is answered with the error code of the resource's kind, whether the resource exists or not, and
gets a line in the audit log.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kavka.broker.security.acl.model import CLUSTER_NAME, Operation, Resource
from kavka.protocol import keys
from kavka.protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.broker.security.acl.authorizer import Authorizer

__all__ = [
    "CLUSTER_NAME",
    "NOT_ASKED",
    "Operation",
    "Resource",
    "authorized_operations",
    "cluster_operations",
    "denied_among",
    "is_allowed",
    "may_write_somewhere",
    "require",
    "require_cluster",
    "would_allow",
]

NOT_ASKED: Final = -(2**31)
"""The bit field of authorized operations of a client that did not ask for it (KIP-430)."""

DENIED_BY_RESOURCE: Final = {
    Resource.TOPIC: ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    Resource.GROUP: ErrorCode.GROUP_AUTHORIZATION_FAILED,
    Resource.CLUSTER: ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    Resource.TRANSACTIONAL_ID: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    Resource.DELEGATION_TOKEN: ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
    Resource.USER: ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
}
"""What a client is told that may not do something to a resource of this kind."""

DENIED_IN_WORDS: Final = {
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: "Topic authorization failed.",
    ErrorCode.GROUP_AUTHORIZATION_FAILED: "Group authorization failed.",
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: "Cluster authorization failed.",
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Transactional Id authorization failed.",
}
"""The same in Kafka's words, where an answer has a place for them."""

_O = Operation
_SUPPORTED: Final = {
    Resource.TOPIC: (
        *(_O.READ, _O.WRITE, _O.CREATE, _O.DELETE, _O.ALTER, _O.DESCRIBE),
        *(_O.DESCRIBE_CONFIGS, _O.ALTER_CONFIGS),
    ),
    Resource.GROUP: (_O.READ, _O.DELETE, _O.DESCRIBE),
    Resource.CLUSTER: (
        *(_O.CREATE, _O.ALTER, _O.DESCRIBE, _O.CLUSTER_ACTION),
        *(_O.DESCRIBE_CONFIGS, _O.ALTER_CONFIGS, _O.IDEMPOTENT_WRITE),
    ),
}
_NONE_DENIED: Final[frozenset[str]] = frozenset()


def _bits(operations: Iterable[Operation]) -> int:
    return sum(1 << operation for operation in operations)


_EVERYTHING: Final = {resource: _bits(supported) for resource, supported in _SUPPORTED.items()}


def would_allow(
    broker: "Broker", request: "Request", operation: Operation, resource: Resource, name: str
) -> bool:
    """Whether the client may do it; for filtering, where nothing was asked for that is refused."""
    authorizer = broker.authorizer
    if authorizer is None:
        return True
    return connection_may(authorizer, request.connection, operation, resource, name)


def connection_may(
    authorizer: "Authorizer",
    connection: "Connection",
    operation: Operation,
    resource: Resource,
    name: str,
) -> bool:
    """:func:`would_allow` where there is no request, only its connection."""
    return _admitted(authorizer, connection) and authorizer.allowed(
        connection.principal, connection.client_host, operation, resource, name
    )


def _admitted(authorizer: "Authorizer", connection: "Connection") -> bool:
    """Whether the client may use the listener it came in by."""
    return not authorizer.by_listener or authorizer.admits(
        connection.endpoint.name, connection.principal
    )


def is_allowed(
    broker: "Broker", request: "Request", operation: Operation, resource: Resource, name: str
) -> bool:
    """Whether the client may do what it asks for; if not, the audit log has it."""
    if broker.authorizer is None or would_allow(broker, request, operation, resource, name):
        return True
    from kavka.broker.audit import audit_denied

    shown = CLUSTER_NAME if resource is Resource.CLUSTER else name
    action = keys.api_name(request.key)
    audit_denied(request, action, operation.word, f"{resource.word}:{shown}")
    return False


def require(
    broker: "Broker", request: "Request", operation: Operation, resource: Resource, name: str
) -> None:
    """Raise KafkaError with the code of the resource's kind unless the client may do it."""
    if not is_allowed(broker, request, operation, resource, name):
        raise KafkaError(DENIED_BY_RESOURCE[resource])


def require_cluster(broker: "Broker", request: "Request", operation: Operation) -> None:
    """Raise CLUSTER_AUTHORIZATION_FAILED unless the client may do it to the cluster."""
    require(broker, request, operation, Resource.CLUSTER, CLUSTER_NAME)


def denied_among(
    broker: "Broker",
    request: "Request",
    operation: Operation,
    resource: Resource,
    names: Iterable[str],
) -> frozenset[str]:
    """Those of ``names`` to which the client may not do what it asks for."""
    if broker.authorizer is None:
        return _NONE_DENIED
    return frozenset(
        name
        for name in dict.fromkeys(names)
        if not is_allowed(broker, request, operation, resource, name)
    )


def may_write_somewhere(broker: "Broker", request: "Request") -> bool:
    """Whether the client may write to any topic: then it may do so idempotently (KIP-679)."""
    authorizer = broker.authorizer
    if authorizer is None:
        return True
    connection = request.connection
    if not _admitted(authorizer, connection):
        return False
    return authorizer.allowed_some(
        connection.principal, connection.client_host, Operation.WRITE, Resource.TOPIC
    )


def authorized_operations(
    broker: "Broker", request: "Request", resource: Resource, name: str
) -> int:
    """The bit field of what a client may do to a resource: bit n stands for operation n."""
    if broker.authorizer is None:
        return _EVERYTHING[resource]
    return _bits(
        operation
        for operation in _SUPPORTED[resource]
        if would_allow(broker, request, operation, resource, name)
    )


def cluster_operations(broker: "Broker", request: "Request") -> int:
    """The bit field for the cluster: empty for who may not even describe it."""
    if not would_allow(broker, request, Operation.DESCRIBE, Resource.CLUSTER, CLUSTER_NAME):
        return 0
    return authorized_operations(broker, request, Resource.CLUSTER, CLUSTER_NAME)
