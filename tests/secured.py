"""A broker that lets its users in by SASL PLAIN and asks its ACLs what they may do."""

from collections.abc import Sequence
from pathlib import Path

from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from kavka.protocol.messages.k36_sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from tests.broker_process import BrokerProcess, free_port
from tests.wire import WireClient

ADMIN = "admin"
AUTHORIZER = "kafka.security.authorizer.AclAuthorizer"


def secret(user: str) -> str:
    """The password of one of the users."""
    return f"{user}-secret"


def jaas(users: Sequence[str]) -> str:
    """The users of a listener with SASL PLAIN."""
    told = " ".join(f'user_{user}="{secret(user)}"' for user in users)
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required {told};"


def settings(users: Sequence[str]) -> dict[str, str]:
    """A plain listener, one with SASL for ``users``, and ACLs that are nothing to ``ADMIN``."""
    plain, sasl = free_port(), free_port()
    return {
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl}",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": jaas([ADMIN, *users]),
        "authorizer.class.name": AUTHORIZER,
        "super.users": f"User:{ADMIN}",
    }


def sasl_address(broker: BrokerProcess) -> str:
    """``host:port`` of the listener with SASL: the last one."""
    return broker.settings["listeners"].rpartition("://")[2]


def client_settings(broker: BrokerProcess, user: str) -> dict[str, str]:
    """What librdkafka needs to come in as a user."""
    return {
        "bootstrap.servers": sasl_address(broker),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": secret(user),
    }


def client_file(user: str, path: Path) -> Path:
    """A file with what Java's clients need to come in as a user."""
    path.write_text(
        "security.protocol=SASL_PLAINTEXT\n"
        "sasl.mechanism=PLAIN\n"
        "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{user}" password="{secret(user)}";\n'
    )
    return path


def log_in(wire: WireClient, user: str) -> WireClient:
    """The client, once it has logged in."""
    wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), SaslHandshakeResponse, 1)
    token = f"\0{user}\0{secret(user)}".encode()
    answer = wire.ask(SaslAuthenticateRequest(auth_bytes=token), SaslAuthenticateResponse, 1)
    assert answer.error_code == 0, answer.error_message
    return wire
