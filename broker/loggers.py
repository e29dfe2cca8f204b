"""Log levels that operators may move while the broker runs (KIP-412).

Python's loggers stand in for Java's: ``root`` and the broker's own ``kavka.…``. A level set
this way holds until the broker stops.
"""

import logging
from typing import Final

from kavka.protocol.errors import ErrorCode, KafkaError

ROOT: Final = "root"

_LEVELS: Final = {
    "FATAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": 5,
}


def levels() -> dict[str, str]:
    """The level in force of every logger, in Kafka's words."""
    names = sorted(
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.split(".")[0] == "kavka"
    )
    return {name: _word(_logger(name).getEffectiveLevel()) for name in (ROOT, *names)}


def require(name: str) -> None:
    """Raise KafkaError 40 for a logger that does not exist."""
    if name not in levels():
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist!")


def require_level(name: str, level: str) -> None:
    """Raise KafkaError 40 for a word that is no level."""
    if level not in _LEVELS:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Cannot set the log level of {name} to {level} as it is not a supported log level. "
            f"Valid log levels are {', '.join(_LEVELS)}",
        )


def set_level(name: str, level: str) -> None:
    """Give a logger a level."""
    require(name)
    require_level(name, level)
    _logger(name).setLevel(_LEVELS[level])


def unset_level(name: str) -> None:
    """Let a logger follow its parent again. Raises KafkaError 42 for the root, which has none."""
    require(name)
    require_parent(name)
    _logger(name).setLevel(logging.NOTSET)


def require_parent(name: str) -> None:
    """Raise KafkaError 42 for the root logger."""
    if name == ROOT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Removing the log level of the {ROOT} logger is not allowed",
        )


def _logger(name: str) -> logging.Logger:
    return logging.root if name == ROOT else logging.getLogger(name)


def _word(level: int) -> str:
    for word, number in _LEVELS.items():
        if level >= number:
            return word
    return "TRACE"
