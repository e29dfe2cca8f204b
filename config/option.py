"""What a setting is: its type, default, range and rules, and how its text becomes a value.

One table of ``Option`` rows drives everything that speaks of settings: reading the file,
validation, DescribeConfigs, the rules of AlterConfigs, ``kavka configs`` and the README table.
Texts of errors are those of Kafka's ``ConfigDef``, because people search for them.
"""

import re
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from typing import Final, NamedTuple, TypeAlias

Value: TypeAlias = bool | int | float | str | tuple[str, ...] | None
"""A parsed value: LIST is a tuple of strings, an absent value is None."""


class ConfigType(IntEnum):
    """Types of settings with their codes in DescribeConfigs v3 and later (KIP-569)."""

    UNKNOWN = 0
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Importance(IntEnum):
    """How often people need a setting; orders the README table."""

    HIGH = 0
    MEDIUM = 1
    LOW = 2


class Dynamic(Enum):
    """How a broker setting can change while the broker runs (KIP-226)."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


class ConfigError(Exception):
    """A setting that cannot be accepted; the message is one sentence that says why.

    ``name`` is the setting at fault.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class UnknownOptionError(ConfigError):
    """A name that is in no table (Kafka tells unknown names and bad values apart by code)."""


def invalid(name: str, value: object, reason: str) -> ConfigError:
    """Kafka's ``ConfigException(name, value, reason)``."""
    return ConfigError(name, f"Invalid value {value} for configuration {name}: {reason}")


# -- validators ---------------------------------------------------------------------------


class Range:
    """A number within bounds, both inclusive."""

    def __init__(self, minimum: float, maximum: float | None = None) -> None:
        self.minimum = minimum
        self.maximum = maximum

    def check(self, name: str, value: Value) -> None:
        if not isinstance(value, (int, float)):
            raise invalid(name, "null" if value is None else value, "Value must be non-null")
        if not value >= self.minimum:
            raise invalid(name, value, f"Value must be at least {self.minimum}")
        if self.maximum is not None and not value <= self.maximum:
            raise invalid(name, value, f"Value must be no more than {self.maximum}")

    def __str__(self) -> str:
        if self.maximum is None:
            return f"[{self.minimum},...]"
        return f"[{self.minimum},...,{self.maximum}]"


class OneOf:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def check(self, name: str, value: Value) -> None:
        if value not in self.words:
            shown = "null" if value is None else value
            raise invalid(name, shown, f"String must be one of: {', '.join(self.words)}")

    def __str__(self) -> str:
        return f"[{', '.join(self.words)}]"


class ListOf(OneOf):
    """A list whose members are all among a few words."""

    def check(self, name: str, value: Value) -> None:
        assert isinstance(value, tuple)
        for member in value:
            super().check(name, member)


class Pattern:
    """A text, or a list joined by commas, that must match; ``reason`` says what is expected."""

    def __init__(self, pattern: str, shown: str, reason: str) -> None:
        self._pattern = pattern
        self._shown = shown
        self._reason = reason

    def check(self, name: str, value: Value) -> None:
        if value is None:
            return
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        if not re.fullmatch(self._pattern, text):
            # Java writes a list with brackets and blanks.
            shown = f"[{', '.join(value)}]" if isinstance(value, tuple) else text
            raise invalid(name, shown, self._reason.format(name=name, value=text))

    def __str__(self) -> str:
        return self._shown


Validator: TypeAlias = Range | OneOf | ListOf | Pattern

# -- options ------------------------------------------------------------------------------


class Option(NamedTuple):
    """One setting. The row of the table that is the only place to speak of it."""

    name: str
    type: ConfigType
    default: Value
    valid: Validator | None
    importance: Importance
    dynamic: Dynamic
    doc: str
    broker_key: str | None = None
    """For a topic setting: the broker setting that gives its default."""
    since: str = ""
    """The Kafka release that brought it when that is later than 2.3, "kavka" for our own."""
    effective: bool = True
    """False when it is accepted, shown and checked, but has nothing to act on here."""

    @property
    def sensitive(self) -> bool:
        """Whether the value must never be shown."""
        return self.type is ConfigType.PASSWORD

    def parse(self, text: str | None) -> Value:
        """The typed and validated value of a text as it stands in a file or request.

        Raises ConfigError in Kafka's words.
        """
        value = None if text is None else _PARSERS[self.type](self.name, text.strip())
        if self.valid is not None:
            self.valid.check(self.name, value)
        return value

    @property
    def expected(self) -> str:
        """What a value must be, in words for people."""
        match self.valid:
            case ListOf(words=words):
                return f"a list of {', '.join(words)}"
            case OneOf(words=words):
                return f"one of {', '.join(words)}"
            case Range(minimum=minimum, maximum=maximum):
                kind = _KINDS[self.type]
                if maximum is None:
                    return f"{kind} of at least {minimum}"
                return f"{kind} from {minimum} to {maximum}"
            case Pattern():
                return str(self.valid)
            case None:
                return _KINDS[self.type]

    @property
    def default_text(self) -> str | None:
        """The default as DescribeConfigs writes it."""
        return render(self.default)


INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
LONG_MAX: Final = 2**63 - 1
DOUBLE_MAX: Final = 1.7976931348623157e308


_KINDS: Final = {
    ConfigType.UNKNOWN: "a text",
    ConfigType.BOOLEAN: "true or false",
    ConfigType.STRING: "a text",
    ConfigType.INT: "a whole number",
    ConfigType.SHORT: "a whole number",
    ConfigType.LONG: "a whole number",
    ConfigType.DOUBLE: "a number",
    ConfigType.LIST: "a list separated by commas",
    ConfigType.CLASS: "a class",
    ConfigType.PASSWORD: "a secret",
}


def _integer_parser(label: str, bits: int) -> Callable[[str, str], Value]:
    bound = 1 << (bits - 1)

    def parse(name: str, text: str) -> Value:
        digits = text[1:] if text[:1] in ("+", "-") else text
        # int() alone would accept "1_000", which no Kafka tool does, and work through megabytes.
        if digits.isascii() and digits.isdigit() and len(digits) < 100:
            number = int(text)
            if -bound <= number < bound:
                return number
        raise invalid(name, text, f"Not a number of type {label}")

    return parse


def _parse_double(name: str, text: str) -> Value:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[dDfF]?", text):
        raise invalid(name, text, "Not a number of type DOUBLE")
    return float(text.rstrip("dDfF"))


def _parse_boolean(name: str, text: str) -> Value:
    word = text.lower()
    if word not in ("true", "false"):
        raise invalid(name, text, "Expected value to be either true or false")
    return word == "true"


def _parse_list(_name: str, text: str) -> Value:
    return tuple(re.split(r"\s*,\s*", text)) if text else ()


def _parse_text(_name: str, text: str) -> Value:
    return text


_PARSERS: Final[dict[ConfigType, Callable[[str, str], Value]]] = {
    ConfigType.UNKNOWN: _parse_text,
    ConfigType.BOOLEAN: _parse_boolean,
    ConfigType.STRING: _parse_text,
    ConfigType.INT: _integer_parser("INT", 32),
    ConfigType.SHORT: _integer_parser("SHORT", 16),
    ConfigType.LONG: _integer_parser("LONG", 64),
    ConfigType.DOUBLE: _parse_double,
    ConfigType.LIST: _parse_list,
    ConfigType.CLASS: _parse_text,
    ConfigType.PASSWORD: _parse_text,
}


def render(value: Value) -> str | None:
    """A value as Kafka writes it (``ConfigDef.convertToString``); None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _java_double(value)
    return ",".join(value)


def _java_double(value: float) -> str:
    """``Double.toString``: plain from 0.001 up to ten million, else d.dddE±n."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    mantissa, _, exponent = format(value, ".17e").partition("e")
    for digits in range(1, 18):
        candidate = format(value, f".{digits}e")
        if float(candidate) == value:
            mantissa, _, exponent = candidate.partition("e")
            break
    return f"{mantissa}E{int(exponent)}"


def table(options: Iterable[Option]) -> dict[str, Option]:
    """Rows by name; a name stands in a table once."""
    result: dict[str, Option] = {}
    for option in options:
        assert option.name not in result, option.name
        result[option.name] = option
    return result


AT_LEAST_0: Final = Range(0)
AT_LEAST_1: Final = Range(1)
CLEANUP_POLICIES: Final = ListOf("compact", "delete")
COMPRESSION_TYPES: Final = OneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
TIMESTAMP_TYPES: Final = OneOf("CreateTime", "LogAppendTime")
KAFKA_VERSION: Final = Pattern(
    r"(0\.(8\.[012]|9\.0|10\.[012]|11\.0)|1\.[01]|2\.\d|3\.\d)(\.\d+)*(-IV\d)?",
    "a Kafka version, such as 0.10.2 or 2.3-IV1",
    "Version `{value}` is not a valid version",
)
