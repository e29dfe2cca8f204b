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
    AUDIT_ALL_REFUSALS_PER_MINUTE_MAX,
    AUDIT_LINES_PER_MINUTE_MAX,
    AUDIT_REFUSALS_PER_MINUTE_MAX,
    AUDIT_SOURCES_MAX,
    AUDIT_TEXT_CHARACTERS_MAX,
)
from kavka.protocol.errors import ErrorCode
from kavka.storage.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kavka.broker.connection import Connection
    from kavka.broker.request import Request
    from kavka.protocol.topics import TopicPartition
    from kavka.storage.log_state import SegmentDeletion

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
_ANYTHING: Final = "(anything)"
_DONE: Final = "done"


class Source(NamedTuple):
    """Who does something, and where they come in."""

    principal: str
    host: str
    listener: str
    client_id: str


_ITSELF: Final = Source("(broker)", "(broker)", "(none)", "")


class _Kind(NamedTuple):
    """What is counted together. Of those without a name each address is somebody of its own."""

    principal: str
    host: str
    action: str
    outcome: str


class _Count:
    """How often something happened within a minute, and how often that was written."""

    __slots__ = ("seen", "written")

    def __init__(self) -> None:
        self.seen = 0
        self.written = 0


class AuditLog:
    """Writes the lines, and bounds how many there are."""

    def __init__(self, clock: Clock, logger: logging.Logger = log) -> None:
        self._clock = clock
        self._log = logger
        self._counts: dict[_Kind, _Count] = {}
        self._refusals = 0  # written
        self._ends = 0.0  # of the minute being counted
        self._timer: asyncio.TimerHandle | None = None

    def write(self, source: Source, action: str, outcome: str, facts: str) -> None:
        """Write a line, or count it. ``outcome`` is done, failed or denied."""
        if self._clock.monotonic() >= self._ends:
            self.end_window()
        count = self._count(source, action, outcome)
        count.seen += 1
        if not self._has_room(count, outcome):
            self._end_window_later()
            return
        count.written += 1
        self._refusals += outcome != _DONE
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
        counts, self._counts = self._counts, {}
        self._refusals = 0
        self._ends = self._clock.monotonic() + WINDOW_SECONDS
        untold = 0
        for kind, count in counts.items():
            left_out = count.seen - count.written
            if not left_out:
                continue
            untold += 1
            if untold > AUDIT_REFUSALS_PER_MINUTE_MAX:
                continue
            self._log.info(
                "%s %s: %d more within %.0f s principal=%s%s",
                *(kind.action, kind.outcome, left_out, WINDOW_SECONDS, shown(kind.principal)),
                f" host={kind.host}" if kind.host else "",
            )
        if untold > AUDIT_REFUSALS_PER_MINUTE_MAX:
            self._log.info(
                "the same goes for %d others within %.0f s",
                *(untold - AUDIT_REFUSALS_PER_MINUTE_MAX, WINDOW_SECONDS),
            )

    def _has_room(self, count: _Count, outcome: str) -> bool:
        if outcome == _DONE:
            return count.written < AUDIT_LINES_PER_MINUTE_MAX
        return (
            count.written < AUDIT_REFUSALS_PER_MINUTE_MAX
            and self._refusals < AUDIT_ALL_REFUSALS_PER_MINUTE_MAX
        )

    def _count(self, source: Source, action: str, outcome: str) -> _Count:
        host = source.host if source.principal == ANONYMOUS else ""
        kind = _Kind(source.principal, host, action, outcome)
        count = self._counts.get(kind)
        if count is None:
            if len(self._counts) >= AUDIT_SOURCES_MAX:
                kind = _Kind(_OTHERS, "", _ANYTHING, outcome)
            count = self._counts.setdefault(kind, _Count())
        return count

    def _end_window_later(self) -> None:
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # outside of a loop the next line does it
                loop = asyncio.get_running_loop()
                delay = max(self._ends - self._clock.monotonic(), 0)
                self._timer = loop.call_later(delay, self.end_window)


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


def audit_login(connection: "Connection", mechanism: str, reason: str) -> None:
    """Note that somebody could not log in."""
    facts = f"mechanism={shown(mechanism)} reason={shown(reason)}"
    _audit_log.write(source_of(connection), "Login", "denied", facts)


def audit_refused(host: str, listener: str, rule: str) -> None:
    """Note that an address was not let in, by which rule."""
    source = Source(ANONYMOUS, host, listener, "")
    _audit_log.write(source, "Connect", "denied", f"rule={shown(rule)}")


def audit_automatic_deletion(
    partition: "TopicPartition", deletions: "Sequence[SegmentDeletion]"
) -> None:
    """Note that ``capacity.policy=time_base`` has deleted records before their time."""
    first, last = deletions[0].base_offset, deletions[-1].next_offset - 1
    facts = (
        f"resource={shown(f'Topic:{partition.topic}')} partition={partition.partition} "
        f"first_offset={first} last_offset={last} bytes={sum(one.size for one in deletions)}"
    )
    _audit_log.write(_ITSELF, "AutomaticDeletion", _DONE, facts)


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
        _audit_log.write(source, action, _DONE, facts)
        return
    outcome = "denied" if result in DENIED else "failed"
    _audit_log.write(source, action, outcome, f"{facts} error={ErrorCode(result).name}")
