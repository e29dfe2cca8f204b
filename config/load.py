"""From a file, the environment and the command line to one ``BrokerConfig``.

Later ones win: ``server.properties``, then variables ``KAVKA_CFG_<NAME>`` (the setting's name in
upper case with underscores for dots: ``KAVKA_CFG_LOG_DIRS``), then ``--set name=value``.

What is wrong is said in one sentence that names the place and what to change.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from kavka.config import properties
from kavka.config.broker import BrokerConfig
from kavka.config.option import ConfigError, OneOf, Option, Pattern, UnknownOptionError
from kavka.config.options import BROKER_OPTIONS, DYNAMIC_ONLY_OPTIONS, option_of

ENVIRONMENT_PREFIX: Final = "KAVKA_CFG_"

_KRAFT: Final = "this broker keeps its metadata in ZooKeeper or in its own store, remove it"
_KNOWN_ELSEWHERE: Final = {
    "process.roles": _KRAFT,
    "controller.quorum.voters": _KRAFT,
    "controller.quorum.bootstrap.servers": _KRAFT,
    "controller.listener.names": _KRAFT,
    "node.id": "write broker.id instead",
    **{
        name: f"it is only set while the broker runs: kafka-configs --alter --add-config {name}=…"
        for name in DYNAMIC_ONLY_OPTIONS
    },
}


class Setting(NamedTuple):
    """One value with the place that gave it."""

    name: str
    value: str
    origin: str


def load(
    path: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    assignments: Iterable[str] = (),
) -> BrokerConfig:
    """The configuration that these sources make together.

    ``path`` is a ``server.properties``; ``assignments`` are texts ``name=value``. Raises
    ConfigError whose message is one sentence for the person who started the broker.
    """
    settings = [
        *(_from_file(path) if path is not None else ()),
        *_from_environment(environment or {}),
        *map(_from_assignment, assignments),
    ]
    winners = {setting.name: setting for setting in settings}
    for setting in winners.values():
        _check(setting)
    try:
        return BrokerConfig({name: setting.value for name, setting in winners.items()})
    except ConfigError as error:
        # Each value is fine alone; some do not go together.
        culprit = winners.get(error.name)
        place = f" ({culprit.origin})" if culprit is not None else ""
        raise ConfigError(error.name, error.message.rstrip(".") + place) from None


def _from_file(path: str | os.PathLike[str]) -> list[Setting]:
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            entries = properties.parse(properties.decode(file.read()))
    except OSError as error:
        raise ConfigError(
            "", f"Cannot read the configuration file {name}: {error.strerror}; check --config"
        ) from None
    except properties.PropertiesError as error:
        raise ConfigError("", f"{name} is no properties file: {error}") from None
    return [Setting(e.name, e.value, f"{name}, line {e.line}") for e in entries]


def _from_environment(environment: Mapping[str, str]) -> list[Setting]:
    variables = {
        ENVIRONMENT_PREFIX + name.upper().replace(".", "_"): name for name in BROKER_OPTIONS
    }
    found = []
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        if variable not in variables:
            raise UnknownOptionError(
                variable,
                f"The environment variable {variable} stands for no setting of this broker; "
                f"{_advice(variable, variables)}",
            )
        found.append(Setting(variables[variable], value, f"environment variable {variable}"))
    return found


def _from_assignment(text: str) -> Setting:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(text, f"--set {text} must have the form name=value")
    return Setting(name.strip(), value, "--set")


def _check(setting: Setting) -> None:
    option = option_of(setting.name)
    if option is None:
        raise UnknownOptionError(
            setting.name,
            f"{setting.name} ({setting.origin}) is no setting of this broker; "
            f"{_advice(setting.name, BROKER_OPTIONS)}",
        )
    try:
        option._replace(name=setting.name).parse(setting.value)
    except ConfigError as error:
        raise ConfigError(
            error.name,
            f"{error.message}{_hint(option)} ({setting.origin})",
        ) from None


def _hint(option: Option) -> str:
    if isinstance(option.valid, (OneOf, Pattern)):
        return ""  # the message has it
    return f"; it must be {option.expected}"


def _advice(name: str, names: Iterable[str]) -> str:
    known = _KNOWN_ELSEWHERE.get(name)
    if known is not None:
        return known
    from difflib import get_close_matches  # only on the way out

    near = get_close_matches(name, names, n=3, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "remove it, or see all settings with: kavka configs"


def secrets_among(assignments: Iterable[str]) -> list[str]:
    """Names of the secrets that texts ``name=value`` give away."""
    names = (_from_assignment(text).name for text in assignments)
    return sorted(name for name in names if (option := option_of(name)) and option.sensitive)


def without_effect(config: BrokerConfig) -> list[str]:
    """Names of settings that were given but that this broker has nothing to act on with."""
    return sorted(
        name
        for name in config.static
        if (option := option_of(name)) is not None and not option.effective
    )
