"""Every version of every message that kio knows too: the same bytes from the same values."""

import dataclasses
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from kio.schema.index import api_key_map, schema_name_map
from kio.static.primitive import TZAware

from kavka.protocol import codec, keys
from kavka.protocol.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from kavka.protocol.schema import Message, Struct
from tests.unit.protocol.kio_oracle import (
    Narrowings,
    kio_decode,
    kio_encode,
    kio_entity,
    narrowings,
    paired_fields,
    seen_at,
    structs,
    to_kio,
)

# Inter-broker requests of ZooKeeper mode, gone from the definitions kio is made of.
GONE_IN_4_0 = {4, 5, 6, 7}


def declared_keys() -> list[int]:
    known = []
    for key in keys.APIS:
        try:
            keys.message_classes(key)
        except KeyError:
            continue
        known.append(key)
    return known


CASES = [
    pytest.param(cls, api_key_map[key], module, id=cls.__name__)
    for key in declared_keys()
    if key not in GONE_IN_4_0
    for cls, module in zip(keys.message_classes(key), ("request", "response"), strict=True)
] + [
    pytest.param(cls, folder, "data", id=cls.__name__)
    for cls, folder in (
        (ConsumerProtocolSubscription, "consumer_protocol_subscription"),
        (ConsumerProtocolAssignment, "consumer_protocol_assignment"),
    )
]


def check_declarations(cls: type[Struct], entity: Any, version: int) -> None:
    """Defaults and nullability, which no single value shows."""
    defaults = to_kio(cls(), entity, version)
    for field, other, theirs in paired_fields(cls, entity, version):
        name = f"{cls.__name__}.{field.name} v{version}"
        if theirs.leaf not in (UUID, TZAware) and field.tag is None:
            # For kio those two are None for a zero that the wire carries.
            assert field.nullable(version) == theirs.optional, name
        if other.default is not dataclasses.MISSING:
            assert getattr(defaults, other.name) == other.default, name
        if isinstance(field.element, type):
            check_declarations(field.element, theirs.leaf, version)


@pytest.mark.parametrize(("cls", "folder", "module"), CASES)
def test_encodes_and_decodes_like_kio(cls: type[Message], folder: str, module: str) -> None:
    entities: dict[int, Any] = {}
    narrow: Narrowings = {}
    for version in range(cls.MIN_VERSION, cls.MAX_VERSION + 1):
        entity = kio_entity(cls, folder, module, version)
        if entity is not None:
            entities[version] = entity
            narrow |= narrowings(cls, entity, version)
            check_declarations(cls, entity, version)
    assert set(entities) == set(schema_name_map[folder]), "a version that only kio has"

    @settings(
        max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(structs(cls, narrow))
    def check(message: Message) -> None:
        for version, entity in entities.items():
            expected = seen_at(message, version)
            theirs = to_kio(expected, entity, version)
            encoded = codec.encode(expected, version)
            assert encoded == kio_encode(theirs), version
            assert codec.decode(cls, encoded, version) == expected, version
            assert kio_decode(entity, encoded) == theirs, version

    check()
