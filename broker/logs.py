"""Log lines for people: one line an event, key facts as ``key=value`` at its end."""

import logging
import sys
import time
from typing import Final, TextIO

_NAMES: Final = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO ",
    logging.WARNING: "WARN ",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "FATAL",
}
_LEVELS: Final = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}


class LineFormatter(logging.Formatter):
    """``2026-03-01 12:00:00.123 INFO  network: what happened key=value``; local time."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = int(record.created)
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        level = _NAMES.get(record.levelno, record.levelname)
        part = record.name.removeprefix("kavka.")
        message = record.getMessage()
        if not message.isprintable():
            # One line an event, and nothing for the terminal, whatever a client's text contains.
            message = "".join(map(_shown, message))
        line = f"{clock}.{int(record.msecs):03} {level} {part}: {message}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Send the lines of this process's loggers to ``stream`` (standard error).

    For a process that is a broker; one that embeds a broker has its own logging.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)
    logging.getLogger("kavka.audit").setLevel(logging.INFO)  # a record, however little is logged
    # Skips looking up the caller's file and line for each record, which no line shows.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def set_level(level: str) -> None:
    """Log what is at least as severe as ``level``, one of Kafka's names."""
    logging.getLogger("kavka").setLevel(_LEVELS[level])
