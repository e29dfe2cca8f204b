"""A broker with a listener for each way to log in, and the users that may."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kavka.broker.cli.main import execute
from kavka.config import properties
from tests.broker_process import BrokerProcess, free_port, running_broker

PLAIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
OAUTH_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
UNSECURED = (
    "org.apache.kafka.common.security.oauthbearer.internals.unsecured."
    "OAuthBearerUnsecuredValidatorCallbackHandler"
)
USER = "bob"
PASSWORD = 'pw, "of" =bob;\\'
LISTED_USER = "alice"
LISTED_PASSWORD = "alice's, secret"
PROTOCOLS = {
    "PLAINTEXT": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "TLS12": "SASL_SSL",
    "TLS13": "SASL_SSL",
    "SIGNED": "SASL_PLAINTEXT",
    "UNSECURED": "SASL_PLAINTEXT",
}


class SaslBroker(NamedTuple):
    """A running broker and how to reach its listeners."""

    process: BrokerProcess
    ports: dict[str, int]
    certs: Path
    issuer: "Issuer"

    def bootstrap(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    @property
    def ca(self) -> str:
        return str(self.certs / "ca.crt")


class Issuer:
    """Gives out signed tokens, and its key in a JWKS file."""

    def __init__(self, path: Path) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        numbers = self._key.public_key().public_numbers()
        path.write_text(
            json.dumps(
                {
                    "keys": [
                        {
                            "kty": "RSA",
                            "kid": "k1",
                            "use": "sig",
                            "alg": "RS256",
                            "n": _b64(numbers.n.to_bytes(256, "big")),
                            "e": _b64(numbers.e.to_bytes(3, "big")),
                        }
                    ]
                }
            )
        )

    def token(self, subject: str, **claims: object) -> str:
        now = int(time.time())
        body = {"sub": subject, "iat": now, "exp": now + 600, "aud": "kavka", **claims}
        head = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
        signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(body).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_b64(signature)}"


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def quoted(text: str) -> str:
    """A value of a JAAS line."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.fixture(scope="session")
def sasl_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaslBroker]:
    """A broker that tests must not change, but for topics of their own."""
    directory = tmp_path_factory.mktemp("sasl")
    certs = directory / "certs"
    assert execute(["certs", "generate", "--dir", str(certs)]) == 0
    issuer = Issuer(directory / "jwks.json")
    free: set[int] = set()
    while len(free) < len(PROTOCOLS):
        free.add(free_port())
    ports = dict(zip(PROTOCOLS, free, strict=True))
    plain = f"{PLAIN_MODULE} required user_{LISTED_USER}={quoted(LISTED_PASSWORD)};"
    settings = {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in PROTOCOLS.items()),
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.name.tls12.ssl.enabled.protocols": "TLSv1.2",
        "listener.name.tls13.ssl.enabled.protocols": "TLSv1.3",
        **{
            f"listener.name.{name}.plain.sasl.jaas.config": plain
            for name in ("sasl", "tls12", "tls13")
        },
        "listener.name.signed.sasl.enabled.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.jwks.endpoint.url": (directory / "jwks.json").as_uri(),
        "sasl.oauthbearer.expected.audience": "kavka",
        "listener.name.unsecured.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.unsecured.oauthbearer.sasl.server.callback.handler.class": UNSECURED,
        "delegation.token.master.key": "the master key",
        **{
            entry.name: entry.value
            for entry in properties.parse((certs / "server.tls.properties").read_text())
        },
    }
    with running_broker(directory / "data", settings) as process:
        set_password(process, USER, PASSWORD)
        yield SaslBroker(process, ports, certs, issuer)


def set_password(process: BrokerProcess, user: str, password: str) -> None:
    """Make a user of the metadata store, through the listener that wants no login."""
    admin = AdminClient({"bootstrap.servers": process.bootstrap})
    futures = admin.alter_user_scram_credentials(
        [
            UserScramCredentialUpsertion(
                user, ScramCredentialInfo(mechanism, 4096), password.encode()
            )
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
    )
    for future in futures.values():
        future.result(30)


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[str], str]:
    """Writes a text to a file of its own."""

    def write(text: str) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.properties"
        path.write_text(text)
        return str(path)

    return write
