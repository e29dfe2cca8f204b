"""Layouts of the versions kio has forgotten.

Those that clients use are held against the hand-written classes of aiokafka, those between
brokers against layouts written down here from the definitions of Kafka 3.9.
"""

import re
from importlib import import_module
from typing import Any

import pytest
from aiokafka.protocol import types

from kavka.protocol import keys
from kavka.protocol.schema import Field, Message, Struct

MODULES = (
    *("admin", "commit", "coordination", "fetch", "group"),
    *("metadata", "offset", "produce", "transaction"),
)
PRIMITIVES = {
    types.Boolean: "bool",
    types.Int8: "int8",
    types.Int16: "int16",
    types.Int32: "int32",
    types.Int64: "int64",
    types.Float64: "float64",
    types.Bytes: "bytes",
    types.CompactBytes: "bytes",
}


# aiokafka makes the leader epoch of a partition eight bytes; kio and Kafka make it four.
WRONG_IN_AIOKAFKA = {"OffsetRequest_v4", "OffsetRequest_v5"}


def theirs(schema: Any) -> list[Any]:
    """The kinds of fields in wire order; arrays are lists, structs leave no trace."""
    if isinstance(schema, types.Schema):
        return [kind for field in schema.fields for kind in theirs(field)]
    if isinstance(schema, types.Array):
        return [theirs(schema.array_of)]
    if isinstance(schema, types.String):
        return ["string"]
    return [] if schema is types.TaggedFields else [PRIMITIVES[schema]]


def ours(declared: type[Struct] | Field | None, version: int) -> list[Any]:
    if isinstance(declared, Field):
        if declared.kind == "array":
            return [ours(declared.element, version)]
        return ["bytes" if declared.kind == "records" else declared.kind]
    assert declared is not None
    present = [field for field in declared.FIELDS if field.present(version)]
    return [kind for field in present for kind in ours(field, version)]


def cases() -> list[Any]:
    found = []
    for name in MODULES:
        module = import_module(f"aiokafka.protocol.{name}")
        for cls in vars(module).values():
            match = re.search(r"(Request|Response)_v(\d+)$", getattr(cls, "__name__", ""))
            if match and cls.__name__ not in WRONG_IN_AIOKAFKA:
                side, version = match[1] == "Response", int(match[2])
                mine = keys.message_classes(cls.API_KEY)[side]
                found.append(pytest.param(mine, version, cls.SCHEMA, id=cls.__name__))
    return found


@pytest.mark.parametrize(("cls", "version", "schema"), cases())
def test_same_layout_as_aiokafka(cls: type[Message], version: int, schema: Any) -> None:
    assert ours(cls, version) == theirs(schema)


INTER_BROKER = {
    ("LeaderAndIsrRequest", 0): "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4]] [i4 str i4]",
    ("LeaderAndIsrRequest", 1): "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4] b] [i4 str i4]",
    ("LeaderAndIsrRequest", 2): "i4 i4 i8 [str [i4 i4 i4 i4 [i4] i4 [i4] b]] [i4 str i4]",
    ("LeaderAndIsrRequest", 3): "i4 i4 i8 [str [i4 i4 i4 i4 [i4] i4 [i4] [i4] [i4] b]] [i4 str i4]",
    ("LeaderAndIsrRequest", 5): (
        "i4 i4 i8 i1 [str uuid [i4 i4 i4 i4 [i4] i4 [i4] [i4] [i4] b]] [i4 str i4]"
    ),
    ("LeaderAndIsrRequest", 7): (
        "i4 b i4 i8 i1 [str uuid [i4 i4 i4 i4 [i4] i4 [i4] [i4] [i4] b i1]] [i4 str i4]"
    ),
    ("LeaderAndIsrResponse", 4): "i2 [str i4 i2]",
    ("LeaderAndIsrResponse", 5): "i2 [uuid [i4 i2]]",
    ("StopReplicaRequest", 0): "i4 i4 b [str i4]",
    ("StopReplicaRequest", 1): "i4 i4 i8 b [str [i4]]",
    ("StopReplicaRequest", 3): "i4 i4 i8 [str [i4 i4 b]]",
    ("StopReplicaRequest", 4): "i4 b i4 i8 [str [i4 i4 b]]",
    ("StopReplicaResponse", 0): "i2 [str i4 i2]",
    ("UpdateMetadataRequest", 0): "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4]] [i4 str i4]",
    ("UpdateMetadataRequest", 1): "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4]] [i4 [i4 str i2]]",
    ("UpdateMetadataRequest", 2): "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4]] [i4 [i4 str i2] str]",
    ("UpdateMetadataRequest", 3): "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4]] [i4 [i4 str str i2] str]",
    ("UpdateMetadataRequest", 4): (
        "i4 i4 [str i4 i4 i4 i4 [i4] i4 [i4] [i4]] [i4 [i4 str str i2] str]"
    ),
    ("UpdateMetadataRequest", 5): (
        "i4 i4 i8 [str [i4 i4 i4 i4 [i4] i4 [i4] [i4]]] [i4 [i4 str str i2] str]"
    ),
    ("UpdateMetadataRequest", 7): (
        "i4 i4 i8 [str uuid [i4 i4 i4 i4 [i4] i4 [i4] [i4]]] [i4 [i4 str str i2] str]"
    ),
    ("UpdateMetadataResponse", 0): "i2",
    ("ControlledShutdownRequest", 0): "i4",
    ("ControlledShutdownRequest", 2): "i4 i8",
    ("ControlledShutdownResponse", 0): "i2 [str i4]",
}
SHORT = {"bool": "b", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "string": "str"}


def spelled(kinds: list[Any]) -> str:
    return " ".join(
        f"[{spelled(kind)}]" if isinstance(kind, list) else SHORT.get(kind, kind) for kind in kinds
    )


@pytest.mark.parametrize(("name", "version"), INTER_BROKER)
def test_layout_between_brokers(name: str, version: int) -> None:
    classes = {cls.__name__: cls for key in (4, 5, 6, 7) for cls in keys.message_classes(key)}
    assert spelled(ours(classes[name], version)) == INTER_BROKER[name, version]
