"""Writes the encoder of one message version: a flat function of packs and appends.

A run of fixed-size fields and the length that follows it become one ``Struct.pack``; nested
structs and arrays are inlined as loops. What comes out is 3-9 times faster than walking the
declaration for every message.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import Struct as Packer
from struct import error as PackError
from typing import Any

from kavka.protocol.primitives import BYTE, RUN_LETTERS, uvarint
from kavka.protocol.schema import Field, Message, Struct
from kavka.protocol.source import (
    LETTERS,
    SourceWriter,
    inline_fields,
    length_letter,
    struct_of,
    tagged_fields,
)
from kavka.protocol.unencodable import describe_problem

_HEAD = "def run(m):"
_SETUP = "    parts = []; w = parts.append"
_TAIL = """\
    except (AttributeError, IndexError, TypeError, ValueError, PackError) as problem:
        raise ValueError(describe_problem(m, VERSION)) from problem"""


def compile_encoder(cls: type[Message], version: int) -> Callable[[Any], bytes]:
    """The function that turns a message into the bytes of its body.

    It raises ValueError, naming the field, for a value that cannot be written.
    """
    writer = _EncoderWriter(cls, version)
    writer.names.update(
        BYTE=BYTE,
        PackError=PackError,
        VERSION=version,
        describe_problem=describe_problem,
        tagged=_tagged,
        uvarint=uvarint,
    )
    writer.struct(cls, "m")
    writer.finish()
    setup = _SETUP if writer.uses_parts else ""
    encoder: Callable[[Any], bytes] = writer.function(_HEAD, setup, _TAIL)
    return encoder


def _tagged(tag: int, parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    return uvarint(tag) + uvarint(len(body)) + body


class _EncoderWriter(SourceWriter):
    def __init__(self, cls: type[Message], version: int) -> None:
        super().__init__(cls, version)
        self._append = "w"
        self.uses_parts = False

    def finish(self) -> None:
        if not self.uses_parts:  # one pack call is the whole message
            self.line(f"return {self._packed()}")
            return
        self._flush()
        self.line("return b''.join(parts)")

    def struct(self, cls: type[Struct], value: str) -> None:
        for field in inline_fields(cls, self.version):
            self._field(field, f"{value}.{field.name}")
        if self.flexible:
            self._tagged_section(cls, value)

    def _field(self, field: Field, value: str) -> None:
        if field.kind in LETTERS:
            self.pending.append((LETTERS[field.kind], value))
        elif field.kind == "struct":
            self._nested(field, value)
        else:
            self._sized(field, value)

    def _nested(self, field: Field, value: str) -> None:
        if not field.nullable(self.version):
            self.struct(struct_of(field), value)
            return
        local = self.fresh("s")
        self.line(f"{local} = {value}")
        with self._either_or(f"if {local} is None:", ("b", "-1")):
            self.pending.append(("b", "1"))
            self.struct(struct_of(field), local)

    def _sized(self, field: Field, value: str) -> None:
        local = self.fresh("x")
        if field.nullable(self.version):
            self.line(f"{local} = {value}")
            null = ("B", "0") if self.flexible else (length_letter(field), "-1")
            with self._either_or(f"if {local} is None:", null):
                self._present(field, local, local)
        else:
            self._present(field, value, local)

    def _present(self, field: Field, value: str, local: str) -> None:
        """Write the length and contents of something that is not null."""
        encoded = f"{value}.encode()" if field.kind == "string" else value
        if encoded != local:
            self.line(f"{local} = {encoded}")
        if isinstance(field.element, Field) and LETTERS.get(field.element.kind) in RUN_LETTERS:
            self._numbers(LETTERS[field.element.kind], local)
            return
        self._length(field, local)
        if field.kind == "array":
            self._elements(field, local)
        else:
            self._write(local)

    def _length(self, field: Field, local: str) -> None:
        if not self.flexible:
            self.pending.append((length_letter(field), f"len({local})"))
            self._flush()
            return
        count = self.fresh("n")
        self.line(f"{count} = len({local}) + 1")
        long = f"uvarint({count})"
        if self.pending:
            long = f"{self._packed()} + {long}"
            short = self._packed(("B", count))
        else:
            short = f"BYTE[{count}]"
        self._write(f"{short} if {count} < 128 else {long}")
        self.pending.clear()

    def _numbers(self, letter: str, local: str) -> None:
        """Write the pending run, the length and all elements of an array in one call."""
        count = self.fresh("n")
        self.line(f"{count} = len({local})")
        run, values = self._run(("B", f"{count} + 1") if self.flexible else ("i", count))
        whole = f"{self.runs('pack', letter, run)}[{count}]({values}, *{local})"
        if self.flexible:
            elements = f"{self.runs('pack', letter)}[{count}](*{local})"
            before = [self._packed()] if self.pending else []
            long = " + ".join([*before, f"uvarint({count} + 1)", elements])
            whole = f"{whole} if {count} < 127 else {long}"
        self._write(whole)
        self.pending.clear()

    def _elements(self, field: Field, local: str) -> None:
        element = field.element
        item = self.fresh("e")
        with self.block(f"for {item} in {local}:"):
            if isinstance(element, Field):
                self._field(element, item)
            else:
                self.struct(struct_of(field), item)
            self._flush()

    def _tagged_section(self, cls: type[Struct], value: str) -> None:
        fields = tagged_fields(cls, self.version)
        if not fields:
            self.pending.append(("B", "0"))
            return
        conditions = {field: self._differs_from_default(field, value) for field in fields}
        nothing_set = f"if not ({' or '.join(conditions.values())}):"
        with self._either_or(nothing_set, ("B", "0")):
            self._flush()
            section = self.fresh("t")
            self.line(f"{section} = []")
            for field, condition in conditions.items():
                with self.block(f"if {condition}:"):
                    self._tagged_field(field, f"{value}.{field.name}", section)
            self._write(f"uvarint(len({section}))")
            self._write(f"b''.join({section})")

    def _tagged_field(self, field: Field, value: str, section: str) -> None:
        parts, outer = self.fresh("p"), self._append
        self._append = f"{parts}.append"
        self.line(f"{parts} = []")
        if field.kind == "struct":
            self.struct(struct_of(field), value)
        else:
            self._field(field, value)
        self._flush()
        self._append = outer
        self.line(f"{section}.append(tagged({field.tag}, {parts}))")

    def _differs_from_default(self, field: Field, value: str) -> str:
        value = f"{value}.{field.name}"
        if field.kind == "array":
            return value
        if field.kind == "struct":
            default = self.bind(f"default_{self.fresh('d')}", struct_of(field)())
            return f"({value} is not None and {value} != {default})"
        if field.default is None:
            return f"{value} is not None"
        return f"{value} != {field.default!r}"

    @contextmanager
    def _either_or(self, condition: str, marker: tuple[str, str]) -> Iterator[None]:
        """If the condition holds, only the marker is written; else what the body writes.

        The pending run is written in both branches, together with what follows it there.
        """
        run = list(self.pending)
        with self.block(condition):
            self.pending.append(marker)
            self._flush()
        self.pending = run
        with self.block("else:"):
            yield
            self._flush()

    def _flush(self) -> None:
        if self.pending:
            self._write(self._packed())
            self.pending.clear()

    def _write(self, expression: str) -> None:
        self.uses_parts = True
        self.line(f"{self._append}({expression})")

    def _packed(self, *extra: tuple[str, str]) -> str:
        """An expression for the bytes of the pending run."""
        letters, values = self._run(*extra)
        if values.replace(", ", "").replace("-", "").isdigit():
            return repr(Packer(">" + letters).pack(*map(int, values.split(", "))))
        return f"{self.packer('pack', letters)}({values})"

    def _run(self, *extra: tuple[str, str]) -> tuple[str, str]:
        run = [*self.pending, *extra]
        return "".join(letter for letter, _ in run), ", ".join(value for _, value in run)
