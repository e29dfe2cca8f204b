"""kio, a codec generated from Kafka's own message definitions, as an oracle for ours.

Strategies are built from our declarations; values are carried over to kio's classes field by
field. kio has richer types than the wire (durations, time zones, an enum of error codes), so a
field's strategy is narrowed to what the type kio gives it can hold.
"""

import dataclasses
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, get_args, get_origin
from uuid import UUID

from hypothesis import strategies as st
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import TZAware, i32Timedelta, i64Timedelta

from kavka.protocol.schema import ZERO_UUID, Field, Message, Struct

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799  # of the year 9999, where datetime ends
_LONGEST = 10**12  # milliseconds; kio goes through floats, which are exact only so far

_TEXTS = st.text(max_size=6) | st.sampled_from(["x" * 126, "x" * 127, "é" * 64, "z" * 20_000])
_BLOBS = st.binary(max_size=6) | st.sampled_from([bytes(126), b"a" * 127, b"b" * 40_000])
_INTEGERS = {
    kind: st.integers(low, high) | st.sampled_from([low, high, -1 if low else 1])
    for kind, low, high in (
        ("int8", -(1 << 7), (1 << 7) - 1),
        ("int16", -(1 << 15), (1 << 15) - 1),
        ("uint16", 0, (1 << 16) - 1),
        ("int32", -(1 << 31), (1 << 31) - 1),
        ("uint32", 0, (1 << 32) - 1),
        ("int64", -(1 << 63), (1 << 63) - 1),
    )
}
_ERRORS = st.sampled_from([int(code) for code in ErrorCode])
_MILLISECONDS = st.integers(-_LONGEST, _LONGEST)
_TIMESTAMPS = st.integers(0, _LAST_SECOND).map(lambda seconds: seconds * 1000)
_UUIDS = st.just(ZERO_UUID) | st.binary(min_size=16, max_size=16)


@dataclasses.dataclass(frozen=True)
class KioType:
    """The type of a field of a kio entity: ``leaf``, perhaps repeated, perhaps None."""

    leaf: Any
    optional: bool


def kio_type(annotation: Any) -> KioType:
    optional = False
    if get_origin(annotation) is UnionType:
        optional = True
        (annotation,) = (arg for arg in get_args(annotation) if arg is not NoneType)
    if get_origin(annotation) is tuple:
        annotation = kio_type(get_args(annotation)[0]).leaf
    return KioType(annotation, optional)


def kio_entity(cls: type[Message], folder: str, module: str, version: int) -> Any:
    """kio's class of one version of a message, None if it has none."""
    path = f"kio.schema.{folder}.v{version}"
    try:
        import_module(path)
    except ModuleNotFoundError:
        return None
    return getattr(import_module(f"{path}.{module}"), cls.__name__)


def paired_fields(
    cls: type[Struct], entity: Any, version: int
) -> Iterator[tuple[Field, Any, KioType]]:
    """Our fields of a version beside kio's; the names must agree."""
    ours = [field for field in cls.FIELDS if field.present(version)]
    theirs = dataclasses.fields(entity)
    names = [(field.name, other.name) for field, other in zip(ours, theirs, strict=True)]
    # kio drops the unit of what it makes a duration or a time, and splits "2pc" elsewhere.
    for mine, other in names:
        bare = mine.replace("_", "")
        assert other.replace("_", "") in (bare, bare.removesuffix("ms")), names
    for field, other in zip(ours, theirs, strict=True):
        yield field, other, kio_type(other.type)


Narrowings = dict[tuple[type[Struct], str], KioType]


def narrowings(cls: type[Struct], entity: Any, version: int) -> Narrowings:
    """Which kio type each field of a message has, nested structs included."""
    found: Narrowings = {}
    for field, _, theirs in paired_fields(cls, entity, version):
        found[cls, field.name] = theirs
        if isinstance(field.element, type):
            found |= narrowings(field.element, theirs.leaf, version)
    return found


def structs(cls: type[Struct], narrow: Narrowings) -> st.SearchStrategy[Any]:
    """Messages with every field set that any version has, nulls wherever one allows them."""
    return st.builds(
        cls,
        **{
            field.name: _values(field, narrow.get((cls, field.name)), narrow)
            for field in cls.FIELDS
        },
    )


def _values(field: Field, theirs: KioType | None, narrow: Narrowings) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any]
    if field.kind == "array":
        if isinstance(field.element, Field):
            values = st.lists(_values(field.element, theirs, narrow), max_size=4)
        else:
            assert field.element is not None
            values = st.lists(structs(field.element, narrow), max_size=2)
    elif field.kind == "struct":
        assert isinstance(field.element, type)
        values = structs(field.element, narrow)
    else:
        values = _scalars(field.kind, theirs)
    if field.nullable_since is not None or (field.kind == "struct" and field.tag is not None):
        values = st.none() | values
    return values


def _scalars(kind: str, theirs: KioType | None) -> st.SearchStrategy[Any]:
    leaf = theirs.leaf if theirs else None
    if leaf is ErrorCode:
        return _ERRORS
    if leaf is i64Timedelta:
        return _MILLISECONDS
    if leaf is TZAware:
        return _TIMESTAMPS | st.just(-1) if theirs and theirs.optional else _TIMESTAMPS
    if kind in _INTEGERS:
        return _INTEGERS[kind]
    return {
        "bool": st.booleans(),
        "float64": st.floats(allow_nan=False, allow_infinity=False),
        "uuid": _UUIDS,
        "string": _TEXTS,
        "bytes": _BLOBS,
        "records": _BLOBS,
    }[kind]


def seen_at(struct: Any, version: int) -> Any:
    """What is left of a struct after a trip through one version: the expected decoding."""
    kept, defaults = {}, type(struct)()
    for field in struct.FIELDS:
        value = getattr(struct, field.name)
        if not field.present(version):
            value = getattr(defaults, field.name)
        elif value is None:
            if not (field.nullable(version) or field.tag is not None):
                value = {"string": "", "bytes": b"", "records": b"", "array": []}[field.kind]
        elif field.kind == "struct":
            value = seen_at(value, version)
            if field.tag is not None and value == type(value)():
                value = None
        elif field.kind == "array" and not isinstance(field.element, Field):
            value = [seen_at(item, version) for item in value]
        kept[field.name] = value
    return type(struct)(**kept)


def to_kio(struct: Any, entity: Any, version: int) -> Any:
    """The same message as an object of kio."""
    values = {}
    for field, other, theirs in paired_fields(type(struct), entity, version):
        value = getattr(struct, field.name)
        if value is None and field.tag is not None and field.kind == "struct":
            value = other.default
        elif isinstance(value, list):
            value = tuple(_kio_value(item, theirs, version) for item in value)
        else:
            value = _kio_value(value, theirs, version)
        values[other.name] = value
    return entity(**values)


def _kio_value(value: Any, theirs: KioType, version: int) -> Any:
    leaf = theirs.leaf
    if isinstance(value, Struct):
        return to_kio(value, leaf, version)
    if leaf in (i32Timedelta, i64Timedelta):
        return timedelta(milliseconds=value)
    if leaf is TZAware:
        return None if value == -1 and theirs.optional else _EPOCH + timedelta(milliseconds=value)
    if leaf is ErrorCode:
        return ErrorCode(value)
    if leaf is UUID:
        return None if value == ZERO_UUID else UUID(bytes=value)
    return value


def kio_encode(entity: Any) -> bytes:
    out = io.BytesIO()
    entity_writer(type(entity))(out, entity)
    return out.getvalue()


def kio_decode(entity: Any, data: bytes) -> Any:
    decoded, size = entity_reader(entity)(data, 0)
    assert size == len(data)
    return decoded
