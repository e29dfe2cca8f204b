"""Writes the decoder of one message version: a flat function of unpacks and attribute stores.

A run of fixed-size fields and the length that follows it become one ``Struct.unpack_from``.

Reading past the end is found out late but always: unpacking and indexing fail by themselves,
slices come out short without a word, and as positions never go back, one comparison of the final
position with the end tells whether that happened. Element counts are held against the bytes that
are left before anything is made for them, so a short frame cannot ask for much memory or time; and
all of them together against a budget, so that a long one cannot either: an object takes thirty
times the bytes that announce it.
"""

from collections.abc import Callable
from struct import Struct as Packer
from struct import error as UnpackError
from typing import Any

from kavka.config.limits import ELEMENTS_PER_MESSAGE_MAX, STRING_BYTES_MAX
from kavka.protocol.errors import MalformedFrame
from kavka.protocol.primitives import MEND, RUN_LETTERS, read_uvarint, skip_tagged_fields
from kavka.protocol.schema import NEW, Buffer, Field, Message, Struct
from kavka.protocol.source import (
    LETTERS,
    SourceWriter,
    inline_fields,
    length_letter,
    struct_of,
    tagged_fields,
)

_HEAD = f"def run(buf, p=0, left={ELEMENTS_PER_MESSAGE_MAX}):"
_NUMBERS_PER_ELEMENT = 8  # numbers in arrays cost less than objects
# One type of buffer per decoder: bytes slice fastest, but record data must not be copied.
_BYTES = """\
    if type(buf) is not bytes: buf = bytes(buf)
    end = len(buf)"""
_VIEW = """\
    if type(buf) is not memoryview: buf = memoryview(buf)
    end = len(buf)"""
_TAIL = """\
    except (IndexError, UnpackError) as problem:
        raise MalformedFrame(f"{NAME} ends too early") from problem
    if p > end:
        raise MalformedFrame(f"{NAME} ends too early")
    return m"""


def compile_decoder(cls: type[Message], version: int) -> Callable[[Buffer, int], Any]:
    """The function that makes a message from the bytes of its body, starting at an offset.

    Bytes behind the message are ignored. It raises MalformedFrame for anything else than a
    well-formed body.
    """
    writer = _DecoderWriter(cls, version)
    writer.names.update(
        MalformedFrame=MalformedFrame,
        NAME=writer.name,
        UnpackError=UnpackError,
        new=object.__new__,
        read_uvarint=read_uvarint,
        skip_tagged_fields=skip_tagged_fields,
    )
    writer.struct(cls, "m")
    writer.flush()
    setup = _VIEW if writer.keeps_views else _BYTES
    decoder: Callable[[Buffer, int], Any] = writer.function(_HEAD, setup, _TAIL)
    return decoder


def _has_records(cls: type[Struct], version: int) -> bool:
    return any(
        field.kind == "records"
        or (isinstance(field.element, type) and _has_records(field.element, version))
        for field in cls.FIELDS
        if field.present(version)
    )


class _DecoderWriter(SourceWriter):
    """``pending`` holds (struct letter, target of the assignment)."""

    def __init__(self, cls: type[Message], version: int) -> None:
        super().__init__(cls, version)
        self.name = f"{cls.__name__} v{version}"
        self.keeps_views = _has_records(cls, version)

    def struct(self, cls: type[Struct], target: str) -> None:
        """Make an object and read its fields; all slots get a value."""
        self.line(f"{target} = new({self._class(cls)})")
        self._absent_fields(cls, target)
        for field in inline_fields(cls, self.version):
            self._field(field, f"{target}.{field.name}")
        if self.flexible:
            self._tagged_section(cls, target)

    def flush(self) -> None:
        """Unpack the pending run."""
        if not self.pending:
            return
        letters = "".join(letter for letter, _ in self.pending)
        targets = ", ".join(target for _, target in self.pending)
        if letters == "B":
            self.line(f"{targets} = buf[p]")
        else:
            comma = "," if len(self.pending) == 1 else ""
            self.line(f"{targets}{comma} = {self.packer('unpack_from', letters)}(buf, p)")
        self.line(f"p += {Packer('>' + letters).size}")
        self.pending.clear()

    def _class(self, cls: type[Struct]) -> str:
        return self.bind(f"C_{cls.__name__}", cls)

    def _absent_fields(self, cls: type[Struct], target: str) -> None:
        for field in cls.FIELDS:
            if field.tag is None and not field.present(self.version):
                self._default(field, f"{target}.{field.name}")
        for field in cls.FIELDS:
            if field.tag is not None:
                self._default(field, f"{target}.{field.name}")

    def _default(self, field: Field, target: str) -> None:
        value = repr(field.default)
        if field.default is NEW:
            value = f"{self._class(struct_of(field))}()" if field.kind == "struct" else "[]"
        self.line(f"{target} = {value}")

    def _field(self, field: Field, target: str) -> None:
        if field.kind in LETTERS:
            self.pending.append((LETTERS[field.kind], target))
        elif field.kind == "struct":
            self._nested(field, target)
        else:
            self._sized(field, target)

    def _nested(self, field: Field, target: str) -> None:
        local = self.fresh("s")
        if not field.nullable(self.version):
            self.struct(struct_of(field), local)
            self.line(f"{target} = {local}")
            return
        marker = self.fresh("n")
        self.pending.append(("b", marker))
        self.flush()
        with self.block(f"if {marker} < 0:"):
            self.line(f"{target} = None")
        with self.block("else:"):
            self.struct(struct_of(field), local)
            self.flush()
            self.line(f"{target} = {local}")

    def _sized(self, field: Field, target: str) -> None:
        count = self.fresh("n")
        if self.flexible:
            self.pending.append(("B", count))
            self.flush()
            with self.block(f"if {count} > 127:"):
                self.line(f"{count}, p = read_uvarint(buf, p - 1)")
                if field.kind == "string":  # Java's limit too
                    with self.block(f"if {count} > {STRING_BYTES_MAX + 1}:"):
                        self._malformed(f"{field.name or 'an element'} is too long a string")
            self.line(f"{count} -= 1")
        else:
            self.pending.append((length_letter(field), count))
            self.flush()
        with self.block(f"if {count} < 0:"):
            if field.nullable(self.version):
                self.line(f"{target} = None")
            else:
                self._malformed(f"{field.name or 'an element'} is null")
        if not field.nullable(self.version):
            self._contents(field, target, count)
            return
        with self.block("else:"):
            self._contents(field, target, count)

    def _contents(self, field: Field, target: str, count: str) -> None:
        if field.kind == "array":
            self._elements(field, target, count)
            return
        end = self.fresh("e")
        taken = f"buf[p:{end}]"
        if field.kind == "string":
            # As in the Java broker, text that is not UTF-8 is mended rather than refused.
            taken = (
                f'str({taken}, "utf-8", "{MEND}")'
                if self.keeps_views
                else f'{taken}.decode("utf-8", "{MEND}")'
            )
        elif field.kind == "bytes" and self.keeps_views:
            taken = f"bytes({taken})"
        self.line(f"{end} = p + {count}")
        self.line(f"{target} = {taken}")
        self.line(f"p = {end}")

    def _elements(self, field: Field, target: str, count: str) -> None:
        element = field.element
        smallest = self._smallest(element)
        is_run = isinstance(element, Field) and LETTERS.get(element.kind) in RUN_LETTERS
        cost = f"{count} // {_NUMBERS_PER_ELEMENT}" if is_run else count
        # One condition, as this is the path of every nested array.
        with self.block(f"if {count} * {smallest} > end - p or (left := left - {cost}) < 0:"):
            with self.block("if left < 0:"):
                self._malformed(f"{field.name} has more elements than one message may")
            self._malformed(f"{field.name} has more elements than the frame can hold")
        if isinstance(element, Field) and is_run:
            letter = LETTERS[element.kind]
            runs = self.runs("unpack_from", letter)
            self.line(f"{target} = [*{runs}[{count}](buf, p)]")
            self.line(f"p += {count} * {smallest}")
            return
        items = self.fresh("x")
        self.line(f"{items} = {target} = []")
        fixed = None if isinstance(element, Field) else self._fixed_run(struct_of(field))
        if fixed:
            self._fixed_elements(struct_of(field), fixed, items, count)
            return
        item = self.fresh("o")
        with self.block(f"for _ in range({count}):"):
            if isinstance(element, Field):
                self._field(element, item)
            else:
                self.struct(struct_of(field), item)
            self.flush()
            self.line(f"{items}.append({item})")

    def _fixed_run(self, cls: type[Struct]) -> str | None:
        """The struct letters of a class all of whose bytes are at fixed places."""
        fields = inline_fields(cls, self.version)
        if self.flexible or any(field.kind not in LETTERS for field in fields):
            return None
        return "".join(LETTERS[field.kind] for field in fields)

    def _fixed_elements(self, cls: type[Struct], letters: str, items: str, count: str) -> None:
        item, end = self.fresh("o"), self.fresh("e")
        targets = "".join(f"{item}.{field.name}, " for field in inline_fields(cls, self.version))
        values = self.fresh("v")
        self.line(f"{end} = p + {count} * {Packer('>' + letters).size}")
        unpack = self.packer("iter_unpack", letters)
        with self.block(f"for {values} in {unpack}(buf[p:{end}]):"):
            self.line(f"{item} = new({self._class(cls)})")
            self._absent_fields(cls, item)
            self.line(f"{targets} = {values}")
            self.line(f"{items}.append({item})")
        self.line(f"p = {end}")

    def _tagged_section(self, cls: type[Struct], target: str) -> None:
        count = self.fresh("n")
        self.pending.append(("B", count))
        self.flush()
        fields = tagged_fields(cls, self.version)
        with self.block(f"if {count}:"):
            with self.block(f"if {count} > 127:"):
                self.line(f"{count}, p = read_uvarint(buf, p - 1)")
            with self.block(f"if (left := left - {count}) < 0:"):
                self._malformed("there are more tagged fields than one message may have")
            if not fields:
                self.line(f"p = skip_tagged_fields(buf, p, {count})")
                return
            tag, end = self.fresh("t"), self.fresh("e")
            with self.block(f"for _ in range({count}):"):
                self.line(f"{tag}, p = read_uvarint(buf, p)")
                self.line(f"{end}, p = read_uvarint(buf, p)")
                self.line(f"{end} += p")
                for index, field in enumerate(fields):
                    branch = "elif" if index else "if"
                    with self.block(f"{branch} {tag} == {field.tag}:"):
                        self._tagged_field(field, f"{target}.{field.name}")
                with self.block("else:"):
                    self.line(f"p = {end}")
                with self.block(f"if p != {end}:"):
                    self._malformed("a tagged field is not as long as it says")

    def _tagged_field(self, field: Field, target: str) -> None:
        if field.kind == "struct":
            local = self.fresh("s")
            self.struct(struct_of(field), local)
            self.flush()
            self.line(f"{target} = {local}")
        else:
            self._field(field, target)
            self.flush()

    def _smallest(self, element: type[Struct] | Field | None) -> int:
        """The fewest bytes an array element can take; never 0, or counts would be unbounded."""
        if isinstance(element, Field):
            return self._smallest_field(element)
        assert element is not None
        fields = inline_fields(element, self.version)
        total = sum(map(self._smallest_field, fields)) + self.flexible
        assert total > 0, f"{element.__name__} has no fields in version {self.version}"
        return total

    def _smallest_field(self, field: Field) -> int:
        if field.kind in LETTERS:
            return Packer(">" + LETTERS[field.kind]).size
        if field.kind == "struct":
            return 1 if field.nullable(self.version) else self._smallest(field.element)
        if self.flexible:
            return 1
        return 2 if field.kind == "string" else 4

    def _malformed(self, reason: str) -> None:
        self.line(f"raise MalformedFrame({f'{self.name}: {reason}'!r})")
