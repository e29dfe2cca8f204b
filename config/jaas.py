"""JAAS login entries, as they stand in ``sasl.jaas.config``: ``module flag name="value" … ;``

Read as Kafka reads them (``JaasConfig``, on Java's ``StreamTokenizer``), but that a quote must
end: Java lets the line's end do. Errors never quote a value, which may be a password.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_FLAGS: Final = ("required", "requisite", "sufficient", "optional")
_WORD: Final = re.compile(r"[A-Za-z0-9_$.+\-\u00a0-\U0010ffff]+")
_BLANK: Final = re.compile(r"(?:[\x00-\x20]|//[^\r\n]*|/\*.*?\*/)+", re.DOTALL)
_ESCAPES: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip
_OCTAL: Final = re.compile(r"[0-3][0-7]{0,2}|[4-7][0-7]?")
_USER: Final = "user_"


class JaasError(ValueError):
    """A text that is no JAAS entry; the message says what is missing, without its values."""


class JaasEntry(NamedTuple):
    """One login module with its options."""

    module: str
    flag: str
    options: dict[str, str]

    def __repr__(self) -> str:  # values may be passwords
        return f"<JaasEntry {self.module} {' '.join(self.options)}>"

    @property
    def users(self) -> dict[str, str]:
        """Passwords by name, of the options ``user_<name>``."""
        return {
            name.removeprefix(_USER): value
            for name, value in self.options.items()
            if name.startswith(_USER)
        }


def parse(text: str) -> list[JaasEntry]:
    """The entries of a text. Raises JaasError."""
    tokens = _tokens(text)
    entries = []
    for module, is_text in tokens:
        if not is_text:
            raise JaasError("a login module is expected where a JAAS entry begins")
        flag, _ = next(tokens, ("", False))
        if flag.lower() not in _FLAGS:
            raise JaasError(
                f"the login module of a JAAS entry must be followed by {' or '.join(_FLAGS)}"
            )
        entries.append(JaasEntry(module, flag.lower(), _options(tokens)))
    if not entries:
        raise JaasError("a JAAS entry must name a login module")
    return entries


def parse_one(text: str) -> JaasEntry:
    """The only entry of a ``sasl.jaas.config``. Raises JaasError."""
    entries = parse(text)
    if len(entries) > 1:
        raise JaasError(f"there are {len(entries)} login modules where one is expected")
    return entries[0]


def _options(tokens: Iterator[tuple[str, bool]]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, is_text in tokens:
        if name == ";" and not is_text:
            return options
        equals = next(tokens, ("", False))
        value, value_is_text = next(tokens, ("", False))
        if not is_text or equals != ("=", False) or not value_is_text:
            named = f"option {name}" if is_text else "an option"
            raise JaasError(f'{named} of a JAAS entry must be written as name="value"')
        options[name] = value
    raise JaasError("a JAAS entry must end with a semicolon")


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Words and quoted texts (True), and single other characters (False)."""
    position = 0
    while position < len(text):
        if blank := _BLANK.match(text, position):
            position = blank.end()
        elif word := _WORD.match(text, position):
            position = word.end()
            yield word[0], True
        elif text[position] in "\"'":
            value, position = _quoted(text, position)
            yield value, True
        else:
            yield text[position], False
            position += 1


def _quoted(text: str, start: int) -> tuple[str, int]:
    """The value of the quote that begins at ``start``, and where it has ended."""
    quote, position = text[start], start + 1
    value: list[str] = []
    while position < len(text):
        char = text[position]
        position += 1
        if char == quote:
            return "".join(value), position
        if char in "\r\n":
            break
        if char == "\\" and position < len(text):
            if octal := _OCTAL.match(text, position):
                char = chr(int(octal[0], 8))
                position = octal.end()
            else:
                char = _ESCAPES.get(text[position], text[position])
                position += 1
        value.append(char)
    raise JaasError("a quote in a JAAS entry does not end")
