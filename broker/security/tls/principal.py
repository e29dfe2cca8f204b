"""Who a client certificate belongs to: its subject as Java writes it, and the mapping rules.

The text is RFC 2253 as ``X500Principal.getName()`` makes it, since ACLs name users by it; the
rules are those of ``ssl.principal.mapping.rules`` (KIP-371).
"""

import re
from typing import Final

from kavka.broker.security.tls import der
from kavka.config.option import ConfigError

_KEY: Final = "ssl.principal.mapping.rules"

_KEYWORDS: Final = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
# UTF8, Printable, Teletex, IA5, General, Universal, BMPString: Java shows these as text, and takes
# the bytes of any for UTF-8. Other types are shown as their encoding.
_TEXTS: Final = frozenset((0x0C, 0x13, 0x14, 0x16, 0x1B, 0x1C, 0x1E))
_ESCAPED: Final = ',=+<>#;"\\'


class NoPrincipal(Exception):
    """No user can be made of a certificate."""


def distinguished_name(certificate: bytes) -> str:
    """The subject of a certificate (DER). Raises DerError for one that is malformed."""
    names = [
        "+".join(_attribute(body) for _, body, _ in der.elements(relative))
        for _, relative, _ in der.elements(der.subject(certificate))
    ]
    return ",".join(reversed(names))


def _attribute(body: bytes) -> str:
    (_, identifier, _), (tag, value, encoded) = der.elements(body)
    dotted = der.object_identifier(identifier)
    keyword = _KEYWORDS.get(dotted)
    if keyword is None or tag not in _TEXTS:
        return f"{keyword or dotted}=#{encoded.hex()}"
    return f"{keyword}={_escaped(value.decode('utf-8', 'replace'))}"


def _escaped(text: str) -> str:
    out = "".join(
        f"\\{char}" if char in _ESCAPED else "\\00" if char == "\0" else char for char in text
    )
    lead = len(out) - len(out.lstrip(" \r"))
    trail = len(out.rstrip(" \r"))
    return "".join(
        f"\\{char}" if index < lead or index >= trail else char for index, char in enumerate(out)
    )


# -- rules -------------------------------------------------------------------------------------

_RULE: Final = r"(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?)"
_NEXT: Final = re.compile(rf"\s*(?:{_RULE})\s*(?:,\s*|$)")
_JAVA_NAMED_GROUP: Final = re.compile(r"\(\?<([A-Za-z])")
_REFERENCE: Final = re.compile(r"\\(.)|\$(?:\{(\w+)\}|(\d+))")


class _Rule:
    __slots__ = ("case", "pattern", "replacement")

    def __init__(self, pattern: str, replacement: str, case: str) -> None:
        # Java's and Python's patterns are the same but for how a group is named.
        self.pattern = re.compile(_JAVA_NAMED_GROUP.sub(r"(?P<\1", pattern))
        self.replacement = replacement
        self.case = case
        self._expand(None)

    def apply(self, name: str) -> str | None:
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        result = self._expand(match)
        if self.case == "L":
            return result.lower()
        return result.upper() if self.case == "U" else result

    def _expand(self, match: "re.Match[str] | None") -> str:
        """The replacement with its references filled in; without a match they are only checked."""

        def reference(found: "re.Match[str]") -> str:
            literal, named, digits = found.groups()
            if literal is not None:
                return str(literal)
            if named is not None:
                if named not in self.pattern.groupindex:
                    raise ConfigError(_KEY, f"a rule of {_KEY} uses a group {named} it has not")
                return "" if match is None else match[named] or ""
            number, used = int(digits[0]), 1
            while used < len(digits) and int(digits[: used + 1]) <= self.pattern.groups:
                used += 1
                number = int(digits[:used])
            if number > self.pattern.groups:
                # Kafka takes a reference to no group for plain text.
                return f"${digits}"
            return "" if match is None else (match[number] or "") + digits[used:]

        return _REFERENCE.sub(reference, self.replacement)


class PrincipalRules:
    """The rules of one listener; the first that matches a name makes the user's name of it."""

    def __init__(self, text: str) -> None:
        """Raises ConfigError for rules that are malformed."""
        self._rules: list[_Rule | None] = []  # None is DEFAULT
        pos, text = 0, text.strip()
        while pos < len(text):
            found = _NEXT.match(text, pos)
            if found is None:
                raise ConfigError(
                    _KEY,
                    f"{_KEY} is malformed at `{text[pos:]}`: it must be DEFAULT or "
                    "RULE:pattern/replacement/[LU], several separated by commas",
                )
            default, pattern, replacement, case = found.groups()
            try:
                self._rules.append(None if default else _Rule(pattern, replacement, case))
            except re.error as error:
                raise ConfigError(
                    _KEY, f"the pattern `{pattern}` of {_KEY} is malformed: {error}"
                ) from None
            pos = found.end()
        if not self._rules:
            self._rules.append(None)

    def user(self, distinguished: str) -> str | None:
        """The user's name; None when no rule matches."""
        for rule in self._rules:
            result = distinguished if rule is None else rule.apply(distinguished)
            if result is not None:
                return result
        return None
