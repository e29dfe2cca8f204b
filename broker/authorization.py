"""What a principal may do, in the codes of the protocol (security reference §3.1).

Without an authorizer everybody may do everything; that is all there is so far.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kavka.broker.context import Broker


class Operation(IntEnum):
    """What may be done (``AclOperation``)."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


class Resource(IntEnum):
    """What it may be done to (``ResourceType``)."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4


NOT_ASKED: Final = -(2**31)
"""The bit field of authorized operations of a client that did not ask for it (KIP-430)."""

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


def _bits(operations: Iterable[Operation]) -> int:
    return sum(1 << operation for operation in operations)


_EVERYTHING: Final = {resource: _bits(supported) for resource, supported in _SUPPORTED.items()}


def authorized_operations(broker: "Broker", resource: Resource) -> int:
    """The bit field of what a client may do to a resource: bit n stands for operation n."""
    assert broker.authorizer is None, "nobody is restricted without an authorizer"
    return _EVERYTHING[resource]
