"""The gates of a broker's listeners: made of settings, and anew when these change."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from kavka.broker.connection import Connection
from kavka.broker.context import Broker
from kavka.broker.dispatch import offered_versions
from kavka.broker.security.logins import Logins
from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.config.option import ConfigError
from kavka.protocol import codec
from kavka.protocol.headers import encode_request, parse_response_header
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from kavka.protocol.messages.k36_sasl_authenticate import SaslAuthenticateRequest
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramMechanism
from kavka.storage.clock import ManualClock
from tests.unit.broker.sasl.harness import FakeConnection, FakeDispatcher, FakeLoop

MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
ENDPOINT = Endpoint("SASL", "SASL_PLAINTEXT", "127.0.0.1", 9093)
JAAS = "listener.name.sasl.plain.sasl.jaas.config"


def logins(settings: dict[str, str]) -> Logins:
    broker = Broker(BrokerConfig(settings), ManualClock())
    broker.offered_versions = offered_versions("latest")
    broker.loop = asyncio.new_event_loop()
    return Logins(broker, cast(Any, FakeDispatcher()))


@pytest.fixture
def made() -> Any:
    every: list[Logins] = []

    def make(settings: dict[str, str]) -> Logins:
        every.append(logins(settings))
        return every[-1]

    yield make
    for each in every:
        each.close()
        each._broker.loop.close()


def listed(user: str, password: str) -> str:
    return f'{MODULE} required user_{user}="{password}";'


def offered(logins: Logins) -> list[str]:
    connection = FakeConnection()
    gate = logins.gate(cast(Connection, connection))
    frame = encode_request(17, 1, 1, "me", SaslHandshakeRequest(mechanism="PLAIN"))[4:]
    answer = gate.serve(cast(Connection, connection), memoryview(frame))
    if not isinstance(answer, bytes):
        return []
    at = parse_response_header(17, 1, answer, 4)[1]
    return codec.decode(SaslHandshakeResponse, memoryview(answer), 1, at).mechanisms


def lets_in(logins: Logins, user: str, password: str) -> bool:
    connection = FakeConnection()
    gate = logins.gate(cast(Connection, connection))
    for key, version, body in (
        (17, 1, SaslHandshakeRequest(mechanism="PLAIN")),
        (36, 1, SaslAuthenticateRequest(auth_bytes=f"\0{user}\0{password}".encode())),
    ):
        frame = encode_request(key, version, 1, "me", body)[4:]
        gate.serve(cast(Connection, connection), memoryview(frame))
    return connection.principal == f"User:{user}"


def test_a_listeners_users_and_mechanisms(made: Callable[[dict[str, str]], Logins]) -> None:
    some = made({JAAS: listed("a", "1"), "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN"})
    some.prepare(ENDPOINT)
    assert offered(some) == ["PLAIN"]
    assert lets_in(some, "a", "1")
    assert not lets_in(some, "a", "2")


def test_settings_change_for_who_comes_afterwards(
    made: Callable[[dict[str, str]], Logins], caplog: pytest.LogCaptureFixture
) -> None:
    some = made({JAAS: listed("a", "1")})
    some.prepare(ENDPOINT)
    config = some._broker.config
    config.set_dynamic_broker({JAAS: listed("a", "2")})
    assert not lets_in(some, "a", "1")
    assert lets_in(some, "a", "2")
    config.set_dynamic_broker({JAAS: "nonsense with s3cret"})
    assert lets_in(some, "a", "2"), "what cannot be used changes nothing"
    assert "are ignored" in caplog.text and "s3cret" not in caplog.text
    config.set_dynamic_broker({"listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-256"})
    assert offered(some) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({JAAS: listed("a", "1")[:-1]}, "semicolon"),
        ({"sasl.enabled.mechanisms": "OAUTHBEARER"}, "jwks.endpoint.url"),
        (
            {
                "sasl.enabled.mechanisms": "OAUTHBEARER",
                "sasl.oauthbearer.jwks.endpoint.url": "file:///nowhere/keys",
            },
            "cannot be read",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anybody_comes(
    made: Callable[[dict[str, str]], Logins],
    settings: dict[str, str],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    some = made(settings)
    with pytest.raises(ConfigError, match=message):
        some.prepare(ENDPOINT)
    # Of a listener that is opened later nobody gets in.
    assert offered(some) == []
    assert "nobody can log in" in caplog.text


def test_users_heard_of_before_anybody_logs_in(made: Callable[[dict[str, str]], Logins]) -> None:
    some = made({"sasl.plain.stored.users": "false"})
    credential = scram.credential_of(ScramMechanism.SHA_256, "pw", b"salt", 4096)
    some._user_changed("early", {"SCRAM-SHA-256": scram.render_credential(credential)})
    assert list(some.users) == ["early"]
    some._user_changed("late", {"SCRAM-SHA-256": scram.render_credential(credential)})
    assert sorted(some.users) == ["early", "late"]
    assert not lets_in(some, "early", "pw")  # only by SCRAM


def test_sessions_end_with_the_password_where_that_is_wanted(
    made: Callable[[dict[str, str]], Logins],
) -> None:
    some = made({"sasl.sessions.end.with.password": "true"})
    credential = scram.credential_of(ScramMechanism.SHA_256, "pw", b"salt", 4096)
    stored = {"SCRAM-SHA-256": scram.render_credential(credential)}
    some._user_changed("bob", stored)
    closed: list[str] = []

    class Session:
        def __init__(self, name: str, by_token: bool = False) -> None:
            self.name, self.principal, self.by_token = name, f"User:{name}", by_token

        def close(self, reason: str, level: int) -> None:
            assert "password" in reason
            closed.append(self.name)

    some.connections = cast(Any, [Session("bob"), Session("alice"), Session("bob", True)])
    assert list(some.users) == ["bob"]

    real = some._broker.loop
    loop = FakeLoop(cast(ManualClock, some._broker.clock))
    some._broker.loop = cast(asyncio.AbstractEventLoop, loop)
    some._user_changed("bob", {**stored, "producer_byte_rate": "1"})
    assert not loop.timers
    some._user_changed("bob", {})
    assert closed == [], "who changed the own password is still to be answered"
    loop.advance(1.0)
    assert closed == ["bob"]
    some._broker.loop = real
