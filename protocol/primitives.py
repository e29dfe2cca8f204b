"""The wire's variable-length integers, packers for runs of equal numbers, and mended text."""

import codecs
from collections.abc import Callable, Sequence
from struct import Struct as Packer
from typing import Any, Final

from kavka.protocol.errors import MalformedFrame

BYTE: Final = tuple(bytes((value,)) for value in range(256))

MEND: Final = "kavka.mend"
"""How decoders treat text that is not UTF-8: it is not refused, as in Java, but gets a question
mark for each wrong byte. Java's U+FFFD is longer than what it stands for: a name could become too
long for the response that repeats it."""


def _mend(problem: UnicodeError) -> tuple[str, int]:
    assert isinstance(problem, UnicodeDecodeError)
    return "?" * (problem.end - problem.start), problem.end


codecs.register_error(MEND, _mend)

_MAX_UVARINT_BYTES: Final = 5
_KEPT_RUN_LENGTHS: Final = 256


def uvarint(value: int) -> bytes:
    """Encode an unsigned number seven bits at a time, lowest first (KIP-482)."""
    if value < 0x80:
        return BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(buf: Sequence[int], pos: int) -> tuple[int, int]:
    """Decode an unsigned 32-bit varint: the value and the position behind it.

    Raises IndexError at the end of the buffer and MalformedFrame past 32 bits.
    """
    value = shift = 0
    start = pos
    while True:
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if pos - start == _MAX_UVARINT_BYTES:
            raise MalformedFrame("a varint has more than five bytes")
    if value > 0xFFFFFFFF:
        raise MalformedFrame("a varint does not fit 32 bits")
    return value, pos


def skip_tagged_fields(buf: Sequence[int], pos: int, count: int) -> int:
    """Step over ``count`` tagged fields; the position behind them."""
    for _ in range(count):
        _tag, pos = read_uvarint(buf, pos)
        size, pos = read_uvarint(buf, pos)
        pos += size
    return pos


class Runs(dict[int, Callable[..., Any]]):
    """A packer's ``method`` for ``n`` numbers of one kind, by ``n``: an array is one call.

    The array may follow a run of other things, given by its letters.
    """

    def __init__(self, method: str, letter: str, prefix: str = "") -> None:
        self._method = method
        self._letter = letter
        self._prefix = prefix

    def __missing__(self, count: int) -> Callable[..., Any]:
        packer = Packer(f">{self._prefix}{count}{self._letter}")
        method: Callable[..., Any] = getattr(packer, self._method)
        if count <= _KEPT_RUN_LENGTHS:
            self[count] = method
        return method


# Letters of the struct module for what arrays of numbers are made of.
RUN_LETTERS: Final = frozenset("bhHiIqd?")
