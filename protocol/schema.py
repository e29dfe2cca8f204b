"""How a message is declared: once, as a typed class that is data, constructor and Python type.

    class PartitionProduceData(Struct):
        index: int = int32()
        records: Buffer | None = record_data(nullable=True)

    class ProduceRequest(Message, key=0, versions=(0, 13), flexible=9):
        transactional_id: str | None = string(since=3, nullable=True, default=None)
        acks: int = int16()
        ...

Names, order, version ranges and defaults are those of Kafka's own message definitions (its
``clients/src/main/resources/common/message``), in snake_case. ``codec`` compiles the declarations
into encoders and decoders.

A field that is set although the version being written lacks it is left out silently: a broker
writes one response and lets the client's version decide how much of it is seen. A field that the
version being read lacks gets its default. A tagged struct that is not sent is None, not a struct
full of defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    dataclass_transform,
    overload,
)

Buffer: TypeAlias = bytes | bytearray | memoryview

ZERO_UUID: Final = bytes(16)
NEWEST: Final = 32767  # the highest version an int16 can hold: "until further notice"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound="Struct")


class _New:
    """Stands for a default that must be made anew for each object: an empty list, a struct."""

    def __repr__(self) -> str:
        return "NEW"


NEW: Final = _New()


class Field:
    """One declared field. Versions are those of the message, also for fields of nested structs.

    ``nullable_since`` is the first version in which null is a legal value, None when it never is.
    ``tag`` is the number of a tagged field; such fields exist in flexible versions only.
    ``element`` is the struct of kinds ``struct`` and ``array``, or the field an array repeats.
    """

    __slots__ = ("default", "element", "kind", "name", "nullable_since", "since", "tag", "until")

    def __init__(
        self,
        kind: str,
        since: int = 0,
        until: int = NEWEST,
        nullable: bool = False,
        nullable_since: int | None = None,
        tag: int | None = None,
        default: object = None,
        element: type[Struct] | Field | None = None,
    ) -> None:
        self.name = ""
        self.kind = kind
        self.since = since
        self.until = until
        self.nullable_since = since if nullable else nullable_since
        self.tag = tag
        self.default = default
        self.element = element

    def present(self, version: int) -> bool:
        return self.since <= version <= self.until

    def nullable(self, version: int) -> bool:
        return self.nullable_since is not None and version >= self.nullable_since

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class StructType(type):
    """Turns the fields of a class body into slots and a ``FIELDS`` tuple in wire order."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> StructType:
        # A struct that inherited fields would need a rule for their order on the wire.
        assert not any(getattr(base, "FIELDS", ()) for base in bases), f"{name} extends a struct"
        fields = []
        for key, value in list(namespace.items()):
            if isinstance(value, Field):
                value.name = key
                fields.append(value)
                del namespace[key]
        namespace["FIELDS"] = tuple(fields)
        namespace["__slots__"] = tuple(field.name for field in fields)
        return super().__new__(mcs, name, bases, namespace, **options)


@dataclass_transform(kw_only_default=True, eq_default=False)
class Struct(metaclass=StructType):
    """A group of fields: constructed by keyword, every field has a default, attributes mutable."""

    FIELDS: ClassVar[tuple[Field, ...]]

    if not TYPE_CHECKING:

        def __init__(self, **values: object) -> None:
            # Constructors are compiled when first needed, so that importing a message is cheap.
            cls = type(self)
            cls.__init__ = _compile_init(cls)
            cls.__init__(self, **values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in self.FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = []
        for field in self.FIELDS:
            value = getattr(self, field.name)
            if field.kind in ("bytes", "records") and value is not None:
                # Lengths only: record data floods a log line and credentials must not reach it.
                shown.append(f"{field.name}=<{len(value)} bytes>")
            else:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class Message(Struct):
    """A struct that is sent or stored on its own.

    ``key`` is the API key of a request or response and absent for stored records and headers,
    ``versions`` the first and last version the declaration describes, ``flexible`` the first
    version with compact lengths and tagged fields (KIP-482), None when there is none.
    """

    API_KEY: ClassVar[int | None]
    MIN_VERSION: ClassVar[int]
    MAX_VERSION: ClassVar[int]
    FLEXIBLE_SINCE: ClassVar[int]
    ENCODERS: ClassVar[dict[int, Callable[[Any], bytes]]]
    DECODERS: ClassVar[dict[int, Callable[[Buffer, int], Any]]]

    def __init_subclass__(
        cls, *, versions: tuple[int, int], key: int | None = None, flexible: int | None = None
    ) -> None:
        cls.API_KEY = key
        cls.MIN_VERSION, cls.MAX_VERSION = versions
        cls.FLEXIBLE_SINCE = NEWEST + 1 if flexible is None else flexible
        cls.ENCODERS = {}
        cls.DECODERS = {}

    @classmethod
    def is_flexible(cls, version: int) -> bool:
        return version >= cls.FLEXIBLE_SINCE


def _compile_init(cls: type[Struct]) -> Callable[..., None]:
    """Write the constructor of a struct class; mutable defaults are made anew for each object."""
    names: dict[str, Any] = {"NEW": NEW}
    parameters, body = ["self"], []
    if cls.FIELDS:
        parameters.append("*")
    for field in cls.FIELDS:
        value = name = field.name
        if field.default is NEW:
            made = "[]"
            if field.kind == "struct":
                made = f"_{name}()"
                names[f"_{name}"] = field.element
            value = f"{made} if {name} is NEW else {name}"
        parameters.append(f"{name}={field.default!r}")
        body.append(f"    self.{name} = {value}")
    source = [f"def __init__({', '.join(parameters)}):", *(body or ["    pass"])]
    exec("\n".join(source), names)
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


if TYPE_CHECKING:  # typing's classes are slow to make, and nothing needs them at run time

    class _Scalar(Protocol[T_co]):
        def __call__(
            self,
            *,
            since: int = 0,
            until: int = NEWEST,
            tag: int | None = None,
            default: Any = ...,
        ) -> T_co: ...

    class _Sized(Protocol[T_co]):
        """A specifier of something with a length, which is where null has its place on the wire."""

        @overload
        def __call__(
            self, *, since: int = 0, until: int = NEWEST, tag: int | None = None, default: Any = ...
        ) -> T_co: ...
        @overload
        def __call__(
            self,
            *,
            nullable: Literal[True],
            since: int = 0,
            until: int = NEWEST,
            tag: int | None = None,
            default: Any = ...,
        ) -> T_co | None: ...
        @overload
        def __call__(
            self,
            *,
            nullable_since: int,
            since: int = 0,
            until: int = NEWEST,
            tag: int | None = None,
            default: Any = ...,
        ) -> T_co | None: ...


def _specifier(kind: str, zero: object) -> Any:
    def specify(*, default: object = zero, **options: Any) -> Field:
        return Field(kind, default=default, **options)

    specify.__name__ = kind
    return specify


# The specifiers claim to return the value of the field they declare, so that a class body with
# `index: int = int32()` type-checks and a constructor argument is optional.
boolean: Final[_Scalar[bool]] = _specifier("bool", False)
int8: Final[_Scalar[int]] = _specifier("int8", 0)
int16: Final[_Scalar[int]] = _specifier("int16", 0)
uint16: Final[_Scalar[int]] = _specifier("uint16", 0)
int32: Final[_Scalar[int]] = _specifier("int32", 0)
uint32: Final[_Scalar[int]] = _specifier("uint32", 0)
int64: Final[_Scalar[int]] = _specifier("int64", 0)
float64: Final[_Scalar[float]] = _specifier("float64", 0.0)
uuid: Final[_Scalar[bytes]] = _specifier("uuid", ZERO_UUID)
string: Final[_Sized[str]] = _specifier("string", "")
binary: Final[_Sized[bytes]] = _specifier("bytes", b"")
# Decodes to a view of the received buffer, not to a copy.
record_data: Final[_Sized[Buffer]] = _specifier("records", None)


@overload
def array(
    element: Callable[..., T], *, since: int = 0, until: int = NEWEST, tag: int | None = None
) -> list[T]: ...
@overload
def array(
    element: Callable[..., T],
    *,
    nullable: Literal[True],
    since: int = 0,
    until: int = NEWEST,
    default: None = ...,
) -> list[T] | None: ...
@overload
def array(
    element: Callable[..., T],
    *,
    nullable_since: int,
    since: int = 0,
    until: int = NEWEST,
    default: None = ...,
) -> list[T] | None: ...
def array(element: Callable[..., Any], *, default: Any = NEW, **options: Any) -> Any:
    """A list of structs, or of what a specifier declares: ``array(int32)``."""
    return Field(
        "array",
        default=default,
        element=element if isinstance(element, type) else element(),
        **options,
    )


@overload
def nested(element: type[S], *, since: int = 0, until: int = NEWEST) -> S: ...
@overload
def nested(element: type[S], *, tag: int, since: int = 0, until: int = NEWEST) -> S | None: ...
@overload
def nested(
    element: type[S], *, nullable: Literal[True], since: int = 0, until: int = NEWEST
) -> S | None: ...
def nested(element: type[S], **options: Any) -> Any:
    """A single struct. One that may be missing (null, or an unsent tag) is None by default."""
    may_miss = options.get("tag") is not None or options.get("nullable", False)
    return Field("struct", default=None if may_miss else NEW, element=element, **options)
