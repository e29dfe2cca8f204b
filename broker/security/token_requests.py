"""What the four requests for delegation tokens have in common (KIP-48, ``KafkaApis``)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from kavka.broker.request import ANONYMOUS
from kavka.broker.security.tokens import USER, Principal, principal
from kavka.protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.broker.security.token_store import TokenStore


class NamedPrincipal(Protocol):
    """A principal as requests name it."""

    principal_type: str
    principal_name: str


def require_authenticated(request: "Request") -> None:
    """Only who has shown more than a token may ask, and not where everybody can listen.

    Raises KafkaError DELEGATION_TOKEN_REQUEST_NOT_ALLOWED.
    """
    connection = request.connection
    protocol = connection.endpoint.protocol
    if (
        connection.by_token
        or protocol == "PLAINTEXT"
        or (protocol == "SSL" and connection.principal == ANONYMOUS)
    ):
        raise KafkaError(ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED)


def token_store(broker: "Broker") -> "TokenStore":
    """Raises KafkaError DELEGATION_TOKEN_AUTH_DISABLED where no tokens are given out."""
    tokens = broker.logins.tokens
    if tokens is None:
        raise KafkaError(ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)
    return tokens


def asker(request: "Request") -> Principal:
    return principal(request.principal)


def users(named: Iterable[NamedPrincipal]) -> list[Principal]:
    """The principals that are named. Raises KafkaError INVALID_PRINCIPAL_TYPE for others."""
    principals = [Principal(each.principal_type, each.principal_name) for each in named]
    if any(each.kind != USER for each in principals):
        raise KafkaError(ErrorCode.INVALID_PRINCIPAL_TYPE)
    return principals
