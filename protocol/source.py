"""Python source being written line by line, and what the encoder and decoder writers share."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from struct import Struct as Packer
from typing import Any, Final

from kavka.protocol.primitives import Runs
from kavka.protocol.schema import Field, Message, Struct

# Kinds of a fixed size, by the letter of the struct module; all numbers are big-endian.
LETTERS: Final = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}


def length_letter(field: Field) -> str:
    """What a length looks like before flexible versions."""
    return "h" if field.kind == "string" else "i"


def inline_fields(cls: type[Struct], version: int) -> list[Field]:
    """The fields outside of the tagged section, in wire order."""
    return [f for f in cls.FIELDS if f.tag is None and f.present(version)]


def tagged_fields(cls: type[Struct], version: int) -> list[Field]:
    """The fields inside the tagged section, in the order of their tags."""
    tagged = [f for f in cls.FIELDS if f.tag is not None and f.present(version)]
    return sorted(tagged, key=lambda f: f.tag or 0)


def struct_of(field: Field) -> type[Struct]:
    assert isinstance(field.element, type), field
    return field.element


@cache
def _runs(method: str, letter: str, prefix: str) -> Runs:
    return Runs(method, letter, prefix)


class SourceWriter:
    """Collects the body of one function for one message class and version.

    Runs of fixed-size fields are held back in ``pending`` as (struct letter, expression), until
    something of variable size ends the run; then they become one pack or unpack call.
    """

    def __init__(self, cls: type[Message], version: int) -> None:
        self.cls = cls
        self.version = version
        self.flexible = cls.is_flexible(version)
        self.names: dict[str, Any] = {}
        self.pending: list[tuple[str, str]] = []
        self._lines: list[str] = []
        self._depth = 2
        self._count = 0

    def line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def bind(self, name: str, value: object) -> str:
        """Give the source a global name for an object."""
        known = self.names.setdefault(name, value)
        assert known is value, name
        return name

    def packer(self, method: str, letters: str) -> str:
        """The name of a bound method of the packer for ``letters``."""
        name = f"{method}_{letters.replace('?', 'z')}"
        if name not in self.names:
            self.names[name] = getattr(Packer(">" + letters), method)
        return name

    def runs(self, method: str, letter: str, prefix: str = "") -> str:
        """The name of a table of packers for arrays of numbers, by the length of the array."""
        name = f"runs_{method}_{prefix}_{letter}".replace("?", "z")
        if name not in self.names:
            self.names[name] = _runs(method, letter, prefix)
        return name

    def function(self, head: str, setup: str, tail: str) -> Any:
        """Compile the collected lines as the ``try`` body of a function and return it."""
        source = "\n".join([head, setup, "    try:", *self._lines, tail])
        code = compile(source, f"<{self.cls.__name__} v{self.version}>", "exec")
        exec(code, self.names)
        return self.names["run"]
