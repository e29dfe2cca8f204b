"""Java's ``.properties`` text: what ``java.util.Properties`` reads and writes.

One difference: files are read as UTF-8 where they are that, as Latin-1 (Java's choice) otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

_BLANKS: Final = " \t\f"
_LETTERS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class Property(NamedTuple):
    """One entry, with the line it begins on (counted from 1)."""

    name: str
    value: str
    line: int


class PropertiesError(ValueError):
    """A text that Java would not read either; the message names the line."""


def decode(data: bytes) -> str:
    """The text of a file."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse(text: str) -> list[Property]:
    """All entries in order; of entries with the same name Java keeps the last.

    Raises PropertiesError for a malformed ``\\uXXXX``.
    """
    properties = []
    for number, line in _logical_lines(text):
        name, value = _split(line)
        try:
            properties.append(Property(_unescape(name), _unescape(value), number))
        except ValueError as error:
            raise PropertiesError(f"line {number}: {error}") from None
    return properties


def _natural_lines(text: str) -> Iterator[tuple[int, str]]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return enumerate(lines, start=1)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without blank ones and comments, with their continuations joined."""
    begun = 0
    joined = ""
    for number, line in _natural_lines(text):
        line = line.lstrip(_BLANKS)
        if not joined:
            if not line or line[0] in "#!":
                continue
            begun = number
        # An odd number of backslashes at the end: the last one escapes the line's end.
        continued = (len(line) - len(line.rstrip("\\"))) % 2 == 1
        joined += line[:-1] if continued else line
        if not continued:
            yield begun, joined
            joined = ""
    if joined:
        yield begun, joined


def _split(line: str) -> tuple[str, str]:
    """Name and value: parted by the first bare ``=``, ``:`` or blank."""
    end = 0
    while end < len(line) and line[end] not in _BLANKS + "=:":
        end += 2 if line[end] == "\\" else 1
    name, rest = line[:end], line[end:].lstrip(_BLANKS)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_BLANKS)
    return name, rest


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    result = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\" and position < len(text):
            char = text[position]
            position += 1
            if char == "u":
                digits = text[position : position + 4]
                if len(digits) < 4 or not all(d in "0123456789abcdefABCDEF" for d in digits):
                    raise ValueError("Malformed \\uxxxx encoding.")
                char = chr(int(digits, 16))
                position += 4
            else:
                char = _LETTERS.get(char, char)
        elif char == "\\":
            break  # a backslash at the end of the text escapes nothing
        result.append(char)
    # Java's characters are UTF-16 units: two escapes may be one character.
    return "".join(result).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def render(properties: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """The text of a file that reads as these entries, in ASCII as ``Properties.store`` writes."""
    entries = properties.items() if isinstance(properties, Mapping) else properties
    return "".join(
        f"{_escape(name, name=True)}={_escape(value, name=False)}\n" for name, value in entries
    )


def _escape(text: str, name: bool) -> str:
    letters = {value: letter for letter, value in _LETTERS.items()}
    result = []
    for position, char in enumerate(text):
        if char == " ":
            result.append("\\ " if name or position == 0 else " ")
        elif char in letters:
            result.append("\\" + letters[char])
        elif char in "\\=:#!":
            result.append("\\" + char)
        elif " " < char <= "~":
            result.append(char)
        else:
            units = char.encode("utf-16-be")
            result += [f"\\u{units[i : i + 2].hex().upper()}" for i in range(0, len(units), 2)]
    return "".join(result)
