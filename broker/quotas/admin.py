"""What DescribeClientQuotas and AlterClientQuotas do (KIP-546), by the rules of a broker that keeps
its metadata in ZooKeeper (``ZkAdminManager``).
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.quotas.connections import canonical
from kavka.broker.quotas.entities import (
    CLIENT_QUOTAS,
    IP_QUOTAS,
    NOBODY,
    ClientEntity,
    NumberType,
    client_entity,
    entity_name,
    parse_limit,
)
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.controller.patience import in_time, store_failure
from kavka.replication.store.base import StoreError
from kavka.replication.znodes import EntityType, desanitize, sanitize

if TYPE_CHECKING:
    from kavka.replication.controller.configs import ConfigStore

USER: Final = "user"
CLIENT_ID: Final = "client-id"
IP: Final = "ip"

Entity = dict[str, str | None]
"""Names by type; None is the default of a type."""

_EXACT, _DEFAULT, _ANY = range(3)
_ROUNDING: Final = 1e-6
_LARGEST: Final[dict[NumberType, float]] = {"LONG": 2**63 - 1, "INT": 2**31 - 1}


class Component(NamedTuple):
    """One condition of a filter: what an entity's name of this type must be."""

    entity_type: str
    match_type: int
    name: str | None

    def matches(self, entity: Entity) -> bool:
        if self.entity_type not in entity:
            return False
        return self.match_type == _ANY or entity[self.entity_type] == self.name


class Step(NamedTuple):
    """One quota to be set, or removed."""

    key: str
    value: float
    remove: bool


def _refused(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)


# -- describe -----------------------------------------------------------------------------------


def check_filter(components: Sequence[Component]) -> None:
    """Raise KafkaError for a filter that makes no sense."""
    seen: set[str] = set()
    for component in components:
        kind = component.entity_type
        if not kind:
            raise _refused("Unexpected empty filter component entity type")
        if kind not in (USER, CLIENT_ID, IP):
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"Custom entity type '{kind}' not supported"
            )
        if kind in seen:
            raise _refused(f"Duplicate {kind} filter component entity type")
        if component.match_type not in (_EXACT, _DEFAULT, _ANY):
            raise _refused(f"Unexpected match type: {component.match_type}")
        if component.match_type == _EXACT and component.name is None:
            raise _refused(f"The {kind} filter component has no name to match")
        seen.add(kind)
    if IP in seen and len(seen) > 1:
        raise _refused(
            "Invalid entity filter component combination, IP filter component should not be used "
            "with user or clientId filter component."
        )


async def describe(
    store: "ConfigStore", components: Sequence[Component], *, strict: bool
) -> list[tuple[Entity, dict[str, float]]]:
    """The quotas of all entities that match every component (and have no other type of name if
    ``strict``). Raises KafkaError.
    """
    components = [
        each._replace(name=None) if each.match_type == _DEFAULT else each for each in components
    ]
    check_filter(components)
    asked = {component.entity_type for component in components}
    found: list[tuple[Entity, dict[str, float]]] = []
    for entity_type in _types_of(asked):
        try:
            async with in_time():
                nodes = await store.read_all(entity_type)
        except StoreError as error:
            raise store_failure(error) from None
        for node, overrides in nodes.items():
            entity = _named(entity_type, node)
            if entity is None or (strict and entity.keys() != asked):
                continue
            quotas = _quotas(overrides, IP_QUOTAS if entity_type == "ips" else CLIENT_QUOTAS)
            if quotas and all(component.matches(entity) for component in components):
                found.append((entity, quotas))
    return found


def _types_of(asked: set[str]) -> tuple[EntityType, ...]:
    if not asked:
        return "users", "clients", "ips"
    if IP in asked:
        return ("ips",)
    return ("users",) if USER in asked else ("users", "clients")


def _named(entity_type: EntityType, node: str) -> Entity | None:
    if entity_type == "ips":
        return {IP: desanitize(node)}
    entity = client_entity(entity_type, node)
    if entity is None:
        return None
    named: Entity = {}
    if entity.user != NOBODY:
        named[USER] = desanitize(entity.user)
    if entity.client_id != NOBODY:
        named[CLIENT_ID] = desanitize(entity.client_id)
    return named


def _quotas(overrides: Mapping[str, str], known: Mapping[str, NumberType]) -> dict[str, float]:
    limits = {key: parse_limit(overrides[key]) for key in known if key in overrides}
    return {key: limit for key, limit in limits.items() if limit is not None}


# -- alter --------------------------------------------------------------------------------------


async def alter(
    store: "ConfigStore",
    named: Sequence[tuple[str, str | None]],
    steps: Sequence[Step],
    *,
    validate_only: bool,
) -> None:
    """Set and remove quotas of the entity that these types and names stand for.

    Raises KafkaError; then nothing of it is done.
    """
    entity_type, node, known = _target(named)
    written = [(step.key, None if step.remove else _written(step, known)) for step in steps]

    def change(overrides: dict[str, str]) -> None:
        for key, value in written:
            if value is None:
                overrides.pop(key, None)
            else:
                overrides[key] = value

    if validate_only:
        return
    try:
        async with in_time():
            await store.update(entity_type, node, change)
    except StoreError as error:
        raise store_failure(error) from None


def _target(
    named: Sequence[tuple[str, str | None]],
) -> tuple[EntityType, str, Mapping[str, NumberType]]:
    if not named:
        raise _refused("Invalid empty client quota entity")
    entity: Entity = {}
    for kind, name in named:
        if kind not in (USER, CLIENT_ID, IP):
            raise _refused(f"Unhandled client quota entity type: {kind}")
        if kind in entity:
            raise _refused(f"Duplicate {kind} in the client quota entity")
        if name == "":
            raise _refused(f"Empty {kind} not supported")
        entity[kind] = name
    if IP not in entity:
        nodes = {kind: sanitize(name) for kind, name in entity.items()}
        of = ClientEntity(nodes.get(USER, NOBODY), nodes.get(CLIENT_ID, NOBODY))
        return *entity_name(of), CLIENT_QUOTAS
    if len(entity) > 1:
        raise _refused(
            "Invalid quota entity combination, IP entity should not be used with user or clientId "
            "entity."
        )
    address = entity[IP]
    if address is not None and canonical(address) is None:
        raise _refused(f"{address} is not a valid IP address.")
    return "ips", sanitize(address and canonical(address)), IP_QUOTAS


def _written(step: Step, known: Mapping[str, NumberType]) -> str:
    """The value of a quota as the store has it."""
    kind = known.get(step.key)
    if kind is None:
        raise _refused(f"Invalid configuration key {step.key}")
    value = step.value
    if not isfinite(value) or value < 0:
        raise _refused(f"Configuration {step.key} must not be negative, and finite")
    if kind == "DOUBLE":
        return repr(value)
    whole = int(value + _ROUNDING)
    if abs(whole - value) > _ROUNDING:
        raise _refused(f"Configuration {step.key} must be a {kind} value")
    if whole > _LARGEST[kind]:
        # As a double the largest number is one more than it is.
        if value > float(_LARGEST[kind]):
            raise _refused(f"Configuration {step.key} must be a {kind} value")
        whole = int(_LARGEST[kind])
    return str(whole)
