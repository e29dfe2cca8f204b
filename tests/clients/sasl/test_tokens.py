"""OAUTHBEARER: signed tokens by a JWKS file, and unsecured ones where that is asked for."""

import asyncio
import contextlib
import subprocess
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider as AioTokenProvider
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaProducer
from kafka.errors import KafkaError as PythonKafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider as PythonTokenProvider

from tests.broker_process import wait_for
from tests.clients.sasl.conftest import SaslBroker

OTHER_AUDIENCE = {"aud": "somebody else"}
EXPIRED = {"exp": 1_000_000_000}


class AioProvider(AioTokenProvider):
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


class PythonProvider(PythonTokenProvider):
    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def token(self) -> str:
        return self._token


def confluent_topics(broker: SaslBroker, token: str) -> None:
    failures: list[KafkaError] = []
    admin = AdminClient(
        {
            "bootstrap.servers": broker.bootstrap("SIGNED"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "OAUTHBEARER",
            "oauth_cb": lambda _: (token, time.time() + 300),
            "error_cb": failures.append,
            "log_level": 0,
        }
    )

    def is_answered() -> bool:
        admin.poll(0.1)
        if any(failure.code() == KafkaError._AUTHENTICATION for failure in failures):
            raise KafkaException(failures[0])
        with contextlib.suppress(KafkaException):  # it tries until then, whatever it was told
            return bool(admin.list_topics(timeout=0.5).brokers)
        return False

    wait_for("topics, or a refusal", is_answered)


def aiokafka_start(broker: SaslBroker, token: str) -> None:
    async def run() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap("SIGNED"),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="OAUTHBEARER",
            sasl_oauth_token_provider=AioProvider(token),
        )
        try:
            await producer.start()
        finally:
            await producer.stop()

    asyncio.run(run())


def kafka_python_start(broker: SaslBroker, token: str) -> None:
    KafkaProducer(
        bootstrap_servers=broker.bootstrap("SIGNED"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_token_provider=PythonProvider(token),
        bootstrap_timeout_ms=3_000,
    ).close()


CLIENTS = {
    "confluent": confluent_topics,
    "aiokafka": aiokafka_start,
    "kafka-python": kafka_python_start,
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_signed_tokens(sasl_broker: SaslBroker, client: Any) -> None:
    issuer = sasl_broker.issuer
    client(sasl_broker, issuer.token("carol"))
    head, claims, signature = issuer.token("carol").split(".")
    other_claims = issuer.token("root").split(".")[1]
    for token in (
        issuer.token("carol", **OTHER_AUDIENCE),
        issuer.token("carol", **EXPIRED),
        f"{head}.{other_claims}.{signature}",
        f"eyJhbGciOiJub25lIn0.{claims}.",
    ):
        with pytest.raises((KafkaException, AioKafkaError, PythonKafkaError)):
            client(sasl_broker, token)


def test_unsecured_tokens(sasl_broker: SaslBroker) -> None:
    def kcat(listener: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("kcat", "-b", sasl_broker.bootstrap(listener), "-L", "-m", "4"),
                *("-X", "security.protocol=sasl_plaintext", "-X", "sasl.mechanism=OAUTHBEARER"),
                *("-X", "enable.sasl.oauthbearer.unsecure.jwt=true"),
                *("-X", "sasl.oauthbearer.config=principal=dave"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert "broker 1 at" in kcat("UNSECURED").stdout
    refused = kcat("SIGNED")
    assert refused.returncode != 0 and "invalid_token" in refused.stderr
