"""The gate of a SASL listener: what passes, what is answered, and when a connection is let in."""

import logging

import pytest

from kavka.config.limits import FRAME_BYTES_MAX_BEFORE_AUTHENTICATION, FRAME_BYTES_MIN
from kavka.protocol.errors import ErrorCode
from kavka.protocol.headers import encode_request
from kavka.protocol.messages.k03_metadata import MetadataRequest
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k36_sasl_authenticate import SaslAuthenticateRequest
from tests.unit.broker.sasl.harness import (
    DELAY,
    MAX_FRAME,
    SERVED,
    Talk,
    plain_client,
    scram_client,
)

GENERIC = (
    "Authentication failed during authentication due to invalid credentials with SASL mechanism "
)
INVALID = "Authentication failed: Invalid username or password"
METADATA = MetadataRequest(topics=[])


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_whole_logins(mechanism: str) -> None:
    talk = Talk()
    assert talk.versions(3) is not None
    client = (
        plain_client("bob", "bob's")
        if mechanism == "PLAIN"
        else scram_client(mechanism, "bob", "bob's")
    )
    answer = talk.log_in(mechanism, client)
    assert (answer.error_code, answer.error_message, answer.session_lifetime_ms) == (0, None, 0)
    assert talk.principal == "User:bob"
    connection = talk.connection
    assert connection.service is talk.dispatcher
    assert (connection.max_frame, connection.min_frame) == (MAX_FRAME, FRAME_BYTES_MIN)
    assert talk.request(METADATA, 1) == SERVED


def test_a_handshake_may_come_first_and_names_what_is_enabled() -> None:
    talk = Talk()
    answer = talk.handshake("PLAIN", 0)
    assert answer.error_code == 0
    assert answer.mechanisms == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@pytest.mark.parametrize("version", [0, 1])
def test_an_unknown_mechanism_is_told_the_enabled_ones_and_closed(version: int) -> None:
    talk = Talk()
    answer = talk.handshake("GSSAPI", version)
    assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert answer.mechanisms == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    assert talk.connection.closed and not talk.let_in


def test_raw_tokens_after_the_first_version_of_the_handshake() -> None:
    talk = Talk()
    talk.handshake("PLAIN", 0)
    assert talk.connection.min_frame == 0
    assert talk.raw(b"\0alice\0alice's") == b""  # four zero bytes on the wire
    assert talk.connection.sent[-1] == bytes(4)
    assert talk.principal == "User:alice"
    assert talk.connection.min_frame == FRAME_BYTES_MIN

    talk = Talk()
    talk.handshake("SCRAM-SHA-256", 0)
    client = scram_client("SCRAM-SHA-256", "bob", "bob's")
    first = talk.raw(client.first())
    assert first is not None
    final = client.next(first)
    assert final is not None
    last = talk.raw(final)
    assert last is not None and client.next(last) is None
    assert talk.principal == "User:bob"


def test_a_raw_failure_is_told_by_closing_alone() -> None:
    talk = Talk()
    talk.handshake("PLAIN", 0)
    assert talk.raw(b"\0alice\0no") is None
    assert talk.connection.closed and not talk.let_in


@pytest.mark.parametrize("version", [0, 1, 2])
def test_failures_are_told_later_and_then_closed(version: int) -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    body = SaslAuthenticateRequest(auth_bytes=b"\0alice\0wrong")
    assert talk.request(body, version) is None
    talk.loop.advance(DELAY / 2)
    assert talk.connection.waiting is not None and not talk.connection.closed
    talk.loop.advance(DELAY / 2)
    assert talk.connection.closed and not talk.let_in
    assert INVALID.encode() in talk.connection.sent[-1]


def test_the_delay_hides_the_time_that_thinking_took() -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    talk.request(SaslAuthenticateRequest(auth_bytes=b"\0bob\0wrong"), 1)
    talk.clock.advance(DELAY * 0.7)
    talk.loop.run_threads()
    assert not talk.connection.closed
    talk.loop.advance(DELAY * 0.3)
    assert talk.connection.closed


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (b"\0alice\0wrong", INVALID),
        (b"\0bob\0wrong", INVALID),
        (b"\0nobody\0wrong", INVALID),
        (b"bob\0alice\0alice's", "different from username"),
        (b"\0alice", GENERIC + "PLAIN"),
        (b"\0\0x", GENERIC + "PLAIN"),
        (b"\0alice\0", GENERIC + "PLAIN"),
        (b"\0alice\0alice's\0", GENERIC + "PLAIN"),
        (b"\0\xff\0x", GENERIC + "PLAIN"),
        (b"", GENERIC + "PLAIN"),
    ],
)
def test_what_clients_are_told(token: bytes, message: str) -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    answer = talk.token(token)
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert message in answer.error_message
    assert talk.connection.closed and not talk.let_in


def test_other_requests_before_authentication_close_the_connection() -> None:
    for begin in (lambda t: None, lambda t: t.versions(0)):
        talk = Talk()
        begin(talk)
        assert talk.request(METADATA, 1) is None
        assert talk.settled() is None
        assert talk.connection.closed and not talk.dispatcher.served


def test_versions_are_told_once() -> None:
    talk = Talk()
    assert talk.versions(0) is not None
    assert talk.versions(0) is None
    talk.settled()
    assert talk.connection.closed


def test_versions_may_be_asked_for_again_after_an_error() -> None:
    talk = Talk()
    future = encode_request(18, 0, 5, "me", SaslHandshakeRequest(mechanism=""))
    refused = talk.frame(future[4:6] + b"\0\x63" + future[8:])
    assert refused is not None and refused[8:10] == b"\0\x23"
    assert talk.versions(3) is not None
    assert talk.handshake("PLAIN").error_code == 0


def test_tokens_before_a_handshake_close_the_connection() -> None:
    talk = Talk()
    assert talk.token(b"\0alice\0alice's") is None
    assert talk.connection.closed and not talk.let_in


def test_other_requests_between_tokens_are_out_of_place() -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    assert talk.handshake("PLAIN").error_code == ErrorCode.ILLEGAL_SASL_STATE
    assert talk.connection.closed
    talk = Talk()
    talk.handshake("PLAIN")
    answer = talk.ask(ApiVersionsRequest(), ApiVersionsResponse, 1)
    assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE
    assert talk.connection.closed
    talk = Talk()
    talk.handshake("PLAIN")
    assert talk.request(METADATA, 1) is None
    assert talk.settled() is None and talk.connection.closed


@pytest.mark.parametrize("key", [17, 36])
def test_unknown_versions_close_the_connection(key: int) -> None:
    talk = Talk()
    if key == 36:
        talk.handshake("PLAIN")
    body = SaslHandshakeRequest() if key == 17 else SaslAuthenticateRequest()
    frame = encode_request(key, 0, 1, "me", body)[4:]
    assert talk.frame(frame[:2] + b"\0\x09" + frame[4:]) is None
    talk.settled()
    assert talk.connection.closed


@pytest.mark.parametrize(
    "frame", [b"12345678", b"\0\x11\0\x01\0\0\0\x01\0\xff", bytes(8), b"\x60\x82" * 40]
)
def test_no_kafka_at_all_is_a_failed_login(frame: bytes) -> None:
    talk = Talk()
    assert talk.frame(frame) is None
    talk.settled()
    assert talk.connection.closed and not talk.let_in


def test_small_frames_only_until_somebody_is_known() -> None:
    talk = Talk()
    assert talk.connection.max_frame == FRAME_BYTES_MAX_BEFORE_AUTHENTICATION == 524288


def test_a_client_that_leaves_while_its_password_is_checked() -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    talk.request(SaslAuthenticateRequest(auth_bytes=b"\0bob\0bob's"), 1)
    assert talk.connection.waiting is not None
    talk.connection.waiting.cancel()
    talk.connection.closed = True
    talk.loop.run_threads()
    assert not talk.let_in and talk.connection.sent[1:] == []


def test_a_client_that_leaves_while_it_is_being_refused() -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    talk.request(SaslAuthenticateRequest(auth_bytes=b"\0alice\0no"), 1)
    assert talk.connection.waiting is not None and talk.loop.timers
    talk.connection.waiting.cancel()
    assert not talk.loop.timers


def test_what_was_right_once_needs_no_thread_again(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    talk.log_in("PLAIN", plain_client("bob", "bob's"))
    again = Talk(users=talk.users)
    again.handshake("PLAIN")
    body = SaslAuthenticateRequest(auth_bytes=b"\0bob\0bob's")
    assert again.request(body, 1) is not None
    assert again.principal == "User:bob"
    changed = Talk(users=talk.users)
    talk.users.entity_changed("bob", {})
    assert changed.log_in("PLAIN", plain_client("bob", "bob's")).error_code == 58


def test_a_defect_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk()
    talk.handshake("PLAIN")
    talk.request(SaslAuthenticateRequest(auth_bytes=b"\0bob\0bob's"), 1)
    future, _ = talk.loop.work[0]

    def fail() -> None:
        raise MemoryError

    talk.loop.work = [(future, fail)]
    talk.settled()
    assert talk.connection.closed and not talk.let_in
    assert "could not be judged" in caplog.text


def test_no_password_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for token in (
        b"\0alice\0s3cret",
        b"\0nobody\0s3cret",
        b"s3cret\0a\0s3cret\0",
        b"\0bob\0s3cret",
    ):
        talk = Talk()
        talk.handshake("PLAIN")
        talk.token(token)
    talk = Talk()
    talk.log_in("PLAIN", plain_client("bob", "bob's"))
    assert "authentication failed" in caplog.text
    assert "s3cret" not in caplog.text and "bob's" not in caplog.text


def test_names_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    talk = Talk()
    talk.handshake("PLAIN")
    talk.token(b"\0a\nINFO authenticated\0x")
    talk = Talk()
    talk.handshake("GSS\nAPI")
    assert all("\n" not in record.getMessage() for record in caplog.records)


# -- re-authentication (KIP-368) --------------------------------------------------------------

LIFETIME = 60_000


def test_the_session_is_told_and_ends() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    answer = talk.log_in("PLAIN", plain_client("alice", "alice's"))
    assert answer.session_lifetime_ms == LIFETIME
    assert talk.connection.service is talk.gate
    talk.loop.advance(LIFETIME / 1000 - 1)
    assert talk.request(METADATA, 1) == SERVED
    talk.loop.advance(1)
    assert talk.request(METADATA, 1) is None
    assert talk.connection.closed


def test_authenticating_anew_prolongs_the_session() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    talk.log_in("SCRAM-SHA-512", scram_client("SCRAM-SHA-512", "bob", "bob's"))
    for _ in range(3):
        talk.loop.advance(LIFETIME / 1000 + 5)  # even after its end, if nothing else came
        answer = talk.log_in("SCRAM-SHA-512", scram_client("SCRAM-SHA-512", "bob", "bob's"))
        assert answer.session_lifetime_ms == LIFETIME
        assert talk.request(METADATA, 1) == SERVED


def test_nobody_becomes_somebody_else() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    talk.log_in("PLAIN", plain_client("alice", "alice's"))
    talk.loop.advance(10)
    answer = talk.log_in("PLAIN", plain_client("bob", "bob's"))
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert "Cannot change principals during re-authentication" in answer.error_message
    assert talk.connection.closed and talk.principal == "User:alice"


def test_the_mechanism_stays() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    talk.log_in("PLAIN", plain_client("bob", "bob's"))
    talk.loop.advance(10)
    answer = talk.log_in("SCRAM-SHA-256", scram_client("SCRAM-SHA-256", "bob", "bob's"))
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert "re-authentication of mechanism 'PLAIN'" in answer.error_message
    assert talk.connection.closed


def test_a_wrong_password_ends_the_connection() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    talk.log_in("SCRAM-SHA-256", scram_client("SCRAM-SHA-256", "bob", "bob's"))
    talk.loop.advance(10)
    answer = talk.log_in("SCRAM-SHA-256", scram_client("SCRAM-SHA-256", "bob", "no"))
    assert "during re-authentication due to" in answer.error_message
    assert talk.connection.closed


def test_not_more_often_than_each_second() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    talk.log_in("PLAIN", plain_client("alice", "alice's"))
    talk.log_in("PLAIN", plain_client("alice", "alice's"))
    talk.loop.advance(0.5)
    assert talk.request(SaslHandshakeRequest(mechanism="PLAIN"), 1) == SERVED
    assert talk.dispatcher.served == [17]  # which refuses it
    talk.loop.advance(0.5)
    assert talk.log_in("PLAIN", plain_client("alice", "alice's")).error_code == 0


def test_other_requests_wait_until_that_is_over() -> None:
    talk = Talk(max_session_ms=LIFETIME)
    talk.log_in("PLAIN", plain_client("alice", "alice's"))
    talk.loop.advance(10)
    talk.handshake("PLAIN")
    assert talk.request(METADATA, 1) is None
    talk.settled()
    assert talk.connection.closed


def test_without_a_limit_a_handshake_is_the_dispatchers() -> None:
    talk = Talk()
    talk.log_in("PLAIN", plain_client("alice", "alice's"))
    assert talk.request(SaslHandshakeRequest(mechanism="PLAIN"), 1) == SERVED
