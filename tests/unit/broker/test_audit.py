"""The audit log: what a line says, and how many there are."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from kavka.broker import audit as subject
from kavka.broker.audit import AuditLog, Source, audit, audit_denied, audit_each, audit_login
from kavka.config.limits import (
    AUDIT_ALL_REFUSALS_PER_MINUTE_MAX,
    AUDIT_REFUSALS_PER_MINUTE_MAX,
    AUDIT_SOURCES_MAX,
)
from kavka.protocol.errors import ErrorCode
from kavka.storage.clock import ManualClock

ALICE = Source("User:alice", "10.0.0.7", "SASL_SSL", "app")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(lines: Lines, clock: ManualClock) -> AuditLog:
    logger = logging.Logger("audit-under-test", logging.INFO)
    logger.addHandler(lines)
    return AuditLog(clock, logger)


@pytest.fixture
def request_of_alice(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(subject, "_audit_log", log)
    connection = SimpleNamespace(
        principal=ALICE.principal,
        client_host=f"/{ALICE.host}",
        client_id=ALICE.client_id,
        endpoint=SimpleNamespace(name=ALICE.listener),
    )
    return SimpleNamespace(connection=connection)


def test_a_line_says_who_from_where_by_which_listener_what_and_how_it_ended(
    request_of_alice: Any, lines: Lines
) -> None:
    audit(request_of_alice, "CreateTopics", "Topic:orders")
    audit(request_of_alice, "DeleteTopics", "Topic:x", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    audit_denied(request_of_alice, "Fetch", "Read", "Topic:orders")
    audit_login(request_of_alice.connection, "PLAIN", "the password is wrong")
    who = "principal=User:alice host=10.0.0.7 listener=SASL_SSL client_id=app"
    assert lines.lines == [
        f"CreateTopics done resource=Topic:orders {who}",
        f"DeleteTopics failed resource=Topic:x error=UNKNOWN_TOPIC_OR_PARTITION {who}",
        f"Fetch denied resource=Topic:orders operation=Read {who}",
        f"Login denied mechanism=PLAIN reason='the password is wrong' {who}",
    ]


def test_what_the_authorizer_denied_has_its_line_already(
    request_of_alice: Any, lines: Lines
) -> None:
    results = [
        ("Topic:a", ErrorCode.NONE),
        ("Topic:b", ErrorCode.TOPIC_AUTHORIZATION_FAILED),
        ("Topic:c", ErrorCode.TOPIC_ALREADY_EXISTS),
    ]
    audit_each(request_of_alice, "CreateTopics", results)
    assert [line.split(" principal")[0] for line in lines.lines] == [
        "CreateTopics done resource=Topic:a",
        "CreateTopics failed resource=Topic:c error=TOPIC_ALREADY_EXISTS",
    ]


@pytest.mark.parametrize(
    "text",
    ["t principal=User:root", "t\nCreateTopics done", "'", '"', "", "a" * 10_000, "\x1b[2J", "ü t"],
)
def test_a_clients_text_cannot_pass_for_more_than_it_is(
    request_of_alice: Any, lines: Lines, text: str
) -> None:
    audit(request_of_alice, "CreateTopics", text)
    (line,) = lines.lines
    assert line.isprintable()
    assert len(line) < 500
    value = line.removeprefix("CreateTopics done resource=").split(" principal=User:alice")[0]
    assert value[0] == value[-1] and value[0] in "'\""


def test_who_is_refused_again_and_again_fills_no_disk(
    log: AuditLog, lines: Lines, clock: ManualClock
) -> None:
    for _ in range(1_000):
        log.write(ALICE, "Fetch", "denied", "resource=Topic:t")
    log.write(ALICE._replace(principal="User:bob"), "Fetch", "denied", "resource=Topic:t")
    log.write(ALICE, "Produce", "denied", "resource=Topic:t")
    assert len(lines.lines) == AUDIT_REFUSALS_PER_MINUTE_MAX + 2
    clock.advance(59)
    log.write(ALICE, "Fetch", "denied", "resource=Topic:t")
    assert len(lines.lines) == AUDIT_REFUSALS_PER_MINUTE_MAX + 2
    clock.advance(1)
    lines.lines.clear()
    log.write(ALICE, "Fetch", "denied", "resource=Topic:t")
    left_out = 1_001 - AUDIT_REFUSALS_PER_MINUTE_MAX
    told, line = lines.lines
    assert told == f"Fetch denied: {left_out} more within 60 s principal=User:alice"
    assert line.startswith("Fetch denied resource=Topic:t")


def test_what_was_left_out_is_told_also_when_nothing_more_comes(
    log: AuditLog, lines: Lines, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        for _ in range(AUDIT_REFUSALS_PER_MINUTE_MAX + 5):
            log.write(ALICE, "Fetch", "denied", "resource=Topic:t")
        assert log._timer is not None
        assert log._timer.when() <= asyncio.get_running_loop().time() + 60
        log.end_window()
        assert log._timer is None

    asyncio.run(scenario())
    assert lines.lines[-1] == "Fetch denied: 5 more within 60 s principal=User:alice"


def test_who_takes_ever_new_names_is_counted_with_the_others(
    log: AuditLog, lines: Lines, clock: ManualClock
) -> None:
    for n in range(3 * AUDIT_SOURCES_MAX):
        for _ in range(2):
            alias = ALICE._replace(principal=f"User:{n}")
            log.write(alias, "Fetch", "denied", "resource=Topic:t")
    assert len(log._counts) <= AUDIT_SOURCES_MAX + 3
    assert len(lines.lines) <= AUDIT_ALL_REFUSALS_PER_MINUTE_MAX
    clock.advance(60)
    lines.lines.clear()
    log.end_window()
    assert len(lines.lines) <= AUDIT_REFUSALS_PER_MINUTE_MAX + 1
    assert "others within 60 s" in lines.lines[-1]


def test_of_those_without_a_name_each_address_counts_for_itself(
    log: AuditLog, lines: Lines
) -> None:
    nobody = ALICE._replace(principal="User:ANONYMOUS")
    for _ in range(AUDIT_REFUSALS_PER_MINUTE_MAX + 2):
        log.write(nobody, "Login", "denied", "reason=x")
    log.write(nobody._replace(host="10.0.0.8"), "Login", "denied", "reason=x")
    assert len(lines.lines) == AUDIT_REFUSALS_PER_MINUTE_MAX + 1
    log.end_window()
    last = lines.lines[-1]
    assert last == "Login denied: 2 more within 60 s principal=User:ANONYMOUS host=10.0.0.7"


def test_what_was_done_is_a_record_that_is_kept(log: AuditLog, lines: Lines) -> None:
    for n in range(2_000):
        log.write(ALICE, "CreateTopics", "done", f"resource=Topic:{n}")
    assert len(lines.lines) == 2_000
