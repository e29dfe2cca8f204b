"""The registry: every broker setting there is, and what the names of settings mean."""

from collections.abc import Mapping
from typing import Final

from kavka.config import broker_table, security_table
from kavka.config.option import (
    ConfigError,
    ConfigType,
    Dynamic,
    Importance,
    Option,
    UnknownOptionError,
    Value,
    invalid,
    render,
    table,
)

__all__ = [
    "BROKER_OPTIONS",
    "DYNAMIC_ONLY_OPTIONS",
    "ConfigError",
    "ConfigType",
    "Dynamic",
    "Importance",
    "Option",
    "UnknownOptionError",
    "Value",
    "base_name",
    "invalid",
    "option_of",
    "render",
    "synonyms_of",
]

BROKER_OPTIONS: Final[Mapping[str, Option]] = table(
    (*broker_table.OPTIONS, *security_table.OPTIONS)
)
"""Every setting that may stand in server.properties."""

DYNAMIC_ONLY_OPTIONS: Final[Mapping[str, Option]] = table(broker_table.DYNAMIC_ONLY_OPTIONS)
"""Settings that exist only in the metadata store."""

_LISTENER_PREFIX = "listener.name."

# Under a listener's prefix these carry the name of a SASL mechanism too.
_PER_MECHANISM = (
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
)

_SYNONYM_GROUPS = (
    ("log.roll.ms", "log.roll.hours"),
    ("log.roll.jitter.ms", "log.roll.jitter.hours"),
    ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
)
_SYNONYMS = {
    **{name: group for group in _SYNONYM_GROUPS for name in group},
    # One way only: the scheduler's interval is the default of the flush interval.
    "log.flush.interval.ms": ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
}


def base_name(name: str) -> str | None:
    """The setting that ``listener.name.<listener>.[<mechanism>.]X`` is about: X; else None."""
    if not name.startswith(_LISTENER_PREFIX):
        return None
    _listener, dot, base = name[len(_LISTENER_PREFIX) :].partition(".")
    if not dot:
        return None
    for suffix in _PER_MECHANISM:
        if base.endswith("." + suffix):
            return suffix
    return base


def option_of(name: str) -> Option | None:
    """The row of a broker setting, with or without a listener's prefix; None if unknown."""
    return BROKER_OPTIONS.get(base_name(name) or name)


def synonyms_of(name: str) -> tuple[str, ...]:
    """The names under which a value for ``name`` is looked up, best first."""
    base = base_name(name)
    if base is not None:
        return (name, base)
    return _SYNONYMS.get(name, (name,))
