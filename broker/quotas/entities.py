"""Whom quotas are set for and what they limit (``QuotaConfigs``, KIP-13, KIP-55, KIP-599, KIP-612).

Users, client ids and addresses go by the names of their nodes in the store, in which
``<default>`` cannot be anybody's own name.
"""

from typing import Final, Literal, NamedTuple

from kavka.replication.znodes import DEFAULT_ENTITY, EntityType

PRODUCER_BYTE_RATE: Final = "producer_byte_rate"
CONSUMER_BYTE_RATE: Final = "consumer_byte_rate"
REQUEST_PERCENTAGE: Final = "request_percentage"
CONTROLLER_MUTATION_RATE: Final = "controller_mutation_rate"
CONNECTION_CREATION_RATE: Final = "connection_creation_rate"

NumberType = Literal["LONG", "DOUBLE", "INT"]

CLIENT_QUOTAS: Final[dict[str, NumberType]] = {
    PRODUCER_BYTE_RATE: "LONG",
    CONSUMER_BYTE_RATE: "LONG",
    REQUEST_PERCENTAGE: "DOUBLE",
    CONTROLLER_MUTATION_RATE: "DOUBLE",
}
"""What users and client ids can be limited in, and the type of the limit's value."""

IP_QUOTAS: Final[dict[str, NumberType]] = {CONNECTION_CREATION_RATE: "INT"}
"""What addresses can be limited in."""

NOBODY: Final = "/"
"""In place of a user or a client id: the entity has none. No node is called that; the empty name is
that of clients that do not tell theirs."""

_CLIENTS: Final = "/clients/"


class ClientEntity(NamedTuple):
    """A user, a client id, or a client id of a user."""

    user: str = NOBODY
    client_id: str = NOBODY


def client_entity(entity_type: EntityType, name: str) -> ClientEntity | None:
    """What an entity of the store stands for; None when it is none that has quotas."""
    if entity_type == "clients":
        return ClientEntity(client_id=name)
    user, separator, client_id = name.partition(_CLIENTS)
    if not separator:
        return ClientEntity(user=user) if "/" not in user else None
    return ClientEntity(user, client_id) if client_id and "/" not in client_id else None


def entity_name(entity: ClientEntity) -> tuple[EntityType, str]:
    """Type and name in the store: what :func:`client_entity` takes."""
    if entity.user == NOBODY:
        return "clients", entity.client_id
    if entity.client_id == NOBODY:
        return "users", entity.user
    return "users", f"{entity.user}{_CLIENTS}{entity.client_id}"


def candidates(user: str, client_id: str) -> tuple[tuple[ClientEntity, ClientEntity], ...]:
    """The entities whose quota may apply to a client, in Kafka's order of precedence, each with
    the key that what the client does is counted under.
    """
    default = DEFAULT_ENTITY
    pair = ClientEntity(user, client_id)
    of_user, of_client = ClientEntity(user=user), ClientEntity(client_id=client_id)
    return (
        (pair, pair),
        (ClientEntity(user, default), pair),
        (of_user, of_user),
        (ClientEntity(default, client_id), pair),
        (ClientEntity(default, default), pair),
        (ClientEntity(user=default), of_user),
        (of_client, of_client),
        (ClientEntity(client_id=default), of_client),
    )


def parse_limit(text: str) -> float | None:
    """A limit's value from the store; None for what is no number."""
    try:
        limit = float(text)
    except ValueError:
        return None
    return limit if limit == limit else None  # not a number is not a limit
