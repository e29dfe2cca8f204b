"""Finds out, after an encoder failed, which field of a message was to blame."""

from typing import Final

from kavka.protocol.schema import Buffer, Field, Message, Struct

_RANGES: Final = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
_MAX_CLASSIC_STRING: Final = 32767


def describe_problem(message: Message, version: int) -> str:
    """One sentence that names the first field whose value this version cannot carry."""
    name = f"{type(message).__name__} v{version}"
    problem = _in_struct(message, version, message.is_flexible(version))
    return f"{name} cannot be encoded: {problem or 'the reason is not in its fields'}"


def _in_struct(struct: Struct, version: int, flexible: bool) -> str | None:
    for field in struct.FIELDS:
        if field.present(version):
            value = getattr(struct, field.name, None)
            problem = _in_value(field, value, version, flexible)
            if problem:
                return f"{field.name}{problem}"
    return None


def _in_value(field: Field, value: object, version: int, flexible: bool) -> str | None:
    if value is None:
        may_be_null = field.nullable(version) or (field.kind == "struct" and field.tag is not None)
        return None if may_be_null else " is null"
    if field.kind == "array":
        return _in_array(field, value, version, flexible)
    if field.kind == "struct":
        problem = "" if isinstance(value, Struct) else " is not a struct"
        if isinstance(value, Struct):
            inner = _in_struct(value, version, flexible)
            problem = f".{inner}" if inner else ""
        return problem or None
    return _in_scalar(field.kind, value, flexible)


def _in_array(field: Field, value: object, version: int, flexible: bool) -> str | None:
    if not isinstance(value, list | tuple):
        return f" is a {type(value).__name__}, not a list"
    for index, item in enumerate(value):
        if isinstance(field.element, Field):
            problem = _in_value(field.element, item, version, flexible)
        elif isinstance(item, Struct):
            inner = _in_struct(item, version, flexible)
            problem = f".{inner}" if inner else None
        else:
            problem = " is not a struct"
        if problem:
            return f"[{index}]{problem}"
    return None


def _in_scalar(kind: str, value: object, flexible: bool) -> str | None:
    if kind in _RANGES:
        low, high = _RANGES[kind]
        if not isinstance(value, int):
            return f" is a {type(value).__name__}, not an {kind}"
        return None if low <= value <= high else f" does not fit an {kind}: {value}"
    if kind == "string":
        if not isinstance(value, str):
            return f" is a {type(value).__name__}, not a string"
        if not flexible and len(value.encode(errors="replace")) > _MAX_CLASSIC_STRING:
            return " is longer than 32767 bytes"
        try:
            value.encode()
        except UnicodeEncodeError:
            return " holds a lone surrogate"
        return None
    if kind in ("bytes", "records", "uuid") and not isinstance(value, Buffer):
        return f" is a {type(value).__name__}, not bytes"
    return None
