"""The audit log: one line for each administrative action, and for each that was refused.

::

    CreateTopics done resource=Topic:orders principal=User:alice host=10.0.0.7 listener=SASL_SSL …
    Fetch denied resource=Topic:orders operation=Read principal=User:bob host=10.0.0.9 …
    DeleteTopics failed resource=Topic:orders error=UNKNOWN_TOPIC_OR_PARTITION principal=…

Whoever is refused may try again for ever. So the lines of one principal about one action are
counted: so many a minute are written, the rest is told by its number when the minute is over.
"""

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.request import ANONYMOUS
from kavka.config.limits import (
    AUDIT_LINES_PER_MINUTE_MAX,
    AUDIT_REFUSALS_PER_MINUTE_MAX,
    AUDIT_SOURCES_MAX,
    AUDIT_TEXT_CHARACTERS_MAX,
)
from kavka.protocol.errors import ErrorCode
from kavka.storage.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kavka.broker.connection import Connection
    from kavka.broker.request import Request

log = logging.getLogger("kavka.audit")

WINDOW_SECONDS: Final = 60.0
DENIED: Final = frozenset(
    (
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.GROUP_AUTHORIZATION_FAILED,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
        ErrorCode.SASL_AUTHENTICATION_FAILED,
    )
)
_PLAIN: Final = re.compile(r"[\w.:/@*,=+-]+")
_OTHERS: Final = "(others)"


class Source(NamedTuple):
    """Who does something, and where they come in."""

    principal: str
    host: str
    listener: str
    client_id: str


class _Kind(NamedTuple):
    """What is counted together."""

    principal: str
    action: str
    outcome: str


class AuditLog:
    """Writes the lines, and bounds how many there are."""

    def __init__(self, clock: Clock, logger: logging.Logger = log) -> None:
        self._clock = clock
        self._log = logger
        self._written: dict[_Kind, int] = {}
        self._ends = 0.0  # of the minute being counted
        self._timer: asyncio.TimerHandle | None = None

    def write(self, source: Source, action: str, outcome: str, facts: str) -> None:
        """Write a line, or count it. ``outcome`` is done, failed or denied."""
        if self._clock.monotonic() >= self._ends:
            self.end_window()
        kind = _Kind(source.principal, action, outcome)
        if kind not in self._written and len(self._written) >= AUDIT_SOURCES_MAX:
            kind = _Kind(_OTHERS, action if len(self._written) < 2 * AUDIT_SOURCES_MAX else "", "")
        count = self._written[kind] = self._written.get(kind, 0) + 1
        if count > _limit(outcome):
            if count == _limit(outcome) + 1:
                self._end_window_later()
            return
        client = f" client_id={shown(source.client_id)}" if source.client_id else ""
        self._log.info(
            "%s %s %s principal=%s host=%s listener=%s%s",
            *(action, outcome, facts, shown(source.principal)),
            *(source.host, source.listener, client),
        )

    def end_window(self) -> None:
        """Tell what was only counted, and begin to count anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        written, self._written = self._written, {}
        self._ends = self._clock.monotonic() + WINDOW_SECONDS
        for kind, count in written.items():
            left_out = count - _limit(kind.outcome)
            if left_out > 0:
                self._log.info(
                    "%s %s: %d more within %.0f s principal=%s",
                    *(kind.action, kind.outcome, left_out, WINDOW_SECONDS, shown(kind.principal)),
                )

    def _end_window_later(self) -> None:
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # outside of a loop the next line does it
                loop = asyncio.get_running_loop()
                delay = max(self._ends - self._clock.monotonic(), 0)
                self._timer = loop.call_later(delay, self.end_window)


def _limit(outcome: str) -> int:
    return AUDIT_LINES_PER_MINUTE_MAX if outcome == "done" else AUDIT_REFUSALS_PER_MINUTE_MAX


def shown(text: str) -> str:
    """A client's text as a value in a line: cut to a length, quoted if it could pass for more."""
    if len(text) > AUDIT_TEXT_CHARACTERS_MAX:
        text = f"{text[:AUDIT_TEXT_CHARACTERS_MAX]}…"
        return repr(text)
    return text if _PLAIN.fullmatch(text) else repr(text)


_audit_log: Final = AuditLog(SystemClock())
"""Of this process: that is what the log belongs to."""


def audit(request: "Request", action: str, resource: str, result: int = ErrorCode.NONE) -> None:
    """Note that the client asked for ``action`` on ``resource`` (``Topic:orders``), and how it
    ended: ``result`` is an error code.
    """
    _note(source_of(request.connection), action, resource, result)


def audit_connection(
    connection: "Connection", action: str, resource: str, result: int = ErrorCode.NONE
) -> None:
    """The same where there is no request yet: a log-in, or a connection that is not let in."""
    _note(source_of(connection), action, resource, result)


def audit_refused(host: str, listener: str, rule: str) -> None:
    """Note that an address was not let in, by which rule."""
    source = Source(ANONYMOUS, host, listener, "")
    _audit_log.write(source, "Connect", "denied", f"rule={shown(rule)}")


def audit_each(request: "Request", action: str, results: "Iterable[tuple[str, int]]") -> None:
    """Note the results of one request's resources. Those that the authorizer denied have their
    line already: see :func:`audit_denied`.
    """
    source = None
    for resource, result in results:
        if result not in DENIED:
            source = source or source_of(request.connection)
            _note(source, action, resource, result)


def audit_denied(request: "Request", action: str, operation: str, resource: str) -> None:
    """Note that the client may not do ``operation``, for which it asked by ``action``."""
    facts = f"resource={shown(resource)} operation={operation}"
    _audit_log.write(source_of(request.connection), action, "denied", facts)


def source_of(connection: "Connection") -> Source:
    """Who is at the other end of a connection."""
    host = connection.client_host.removeprefix("/")
    return Source(connection.principal, host, connection.endpoint.name, connection.client_id)


def _note(source: Source, action: str, resource: str, result: int) -> None:
    facts = f"resource={shown(resource)}"
    if result == ErrorCode.NONE:
        _audit_log.write(source, action, "done", facts)
        return
    outcome = "denied" if result in DENIED else "failed"
    _audit_log.write(source, action, outcome, f"{facts} error={ErrorCode(result).name}")
