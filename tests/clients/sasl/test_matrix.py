"""Mechanism × encryption × client library, with good and with bad credentials."""

import asyncio
import ssl
import subprocess
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError as PythonKafkaError

from tests.clients.sasl.conftest import (
    LISTED_PASSWORD,
    LISTED_USER,
    PASSWORD,
    USER,
    SaslBroker,
)

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
BOOTSTRAP_MS = 3_000  # kafka-python tries again for so long
LISTENERS = ("SASL", "TLS12", "TLS13")


class RefusedError(Exception):
    """The client was not let in; the message is what it says."""


def protocol(listener: str) -> str:
    return "SASL_PLAINTEXT" if listener == "SASL" else "SASL_SSL"


def with_confluent(
    broker: SaslBroker, listener: str, mechanism: str, user: str, password: str, topic: str
) -> bytes:
    failures: list[KafkaError] = []
    config: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap(listener),
        "security.protocol": protocol(listener),
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
        "ssl.ca.location": broker.ca,
        "error_cb": failures.append,
        "log_level": 0,
    }
    producer = Producer({**config, "message.timeout.ms": 20_000})
    producer.produce(topic, b"hello", partition=0)
    while producer.flush(0.1):
        for failure in failures:
            if failure.code() == KafkaError._AUTHENTICATION:
                producer.purge()
                raise RefusedError(failure.str())
    consumer = Consumer({**config, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(30)
    consumer.close()
    if message is None or message.error():
        raise KafkaException(message.error() if message else "nothing came")
    value = message.value()
    assert value is not None
    return value


def with_aiokafka(
    broker: SaslBroker, listener: str, mechanism: str, user: str, password: str, topic: str
) -> bytes:
    config: dict[str, Any] = {
        "bootstrap_servers": broker.bootstrap(listener),
        "security_protocol": protocol(listener),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": password,
        "ssl_context": ssl.create_default_context(cafile=broker.ca),
    }

    async def run() -> bytes:
        producer = AIOKafkaProducer(**config)
        try:
            await producer.start()
            await producer.send_and_wait(topic, b"hello", partition=0)
        except AioKafkaError as error:
            raise RefusedError(str(error)) from error
        finally:
            await producer.stop()
        consumer = AIOKafkaConsumer(topic, **config, auto_offset_reset="earliest")
        await consumer.start()
        try:
            message = await asyncio.wait_for(consumer.getone(), 30)
        finally:
            await consumer.stop()
        assert message.value is not None
        return bytes(message.value)

    return asyncio.run(run())


def with_kafka_python(
    broker: SaslBroker, listener: str, mechanism: str, user: str, password: str, topic: str
) -> bytes:
    config: dict[str, Any] = {
        "bootstrap_servers": broker.bootstrap(listener),
        "security_protocol": protocol(listener),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": password,
        "ssl_cafile": broker.ca,
    }
    try:
        producer = KafkaProducer(**config, bootstrap_timeout_ms=BOOTSTRAP_MS)
        producer.send(topic, b"hello", partition=0).get(30)
        producer.close()
    except PythonKafkaError as error:
        raise RefusedError(str(error)) from error
    consumer = KafkaConsumer(
        topic, **config, auto_offset_reset="earliest", consumer_timeout_ms=30_000
    )
    value = next(iter(consumer)).value
    consumer.close()
    return bytes(value)


def with_kcat(
    broker: SaslBroker, listener: str, mechanism: str, user: str, password: str, topic: str
) -> bytes:
    common = [
        *("kcat", "-b", broker.bootstrap(listener), "-t", topic, "-p", "0"),
        *("-X", f"security.protocol={protocol(listener)}", "-X", f"sasl.mechanism={mechanism}"),
        *("-X", f"sasl.username={user}", "-X", f"sasl.password={password}"),
        *("-X", f"ssl.ca.location={broker.ca}", "-X", "message.timeout.ms=3000"),
    ]
    done = subprocess.run(
        [*common, "-P"], input=b"hello\n", capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        raise RefusedError(done.stderr.decode())
    done = subprocess.run(
        [*common, "-C", "-o", "beginning", "-c", "1", "-q"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout.rstrip(b"\n")


Client = Callable[[SaslBroker, str, str, str, str, str], bytes]
CLIENTS: dict[str, Client] = {
    "confluent": with_confluent,
    "aiokafka": with_aiokafka,
    "kafka-python": with_kafka_python,
    "kcat": with_kcat,
}
clients = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@clients
def test_good_credentials(
    sasl_broker: SaslBroker, topic: str, client: Client, mechanism: str, listener: str
) -> None:
    assert client(sasl_broker, listener, mechanism, USER, PASSWORD, topic) == b"hello"


@pytest.mark.parametrize("listener", ["SASL", "TLS13"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@clients
def test_bad_credentials(
    sasl_broker: SaslBroker,
    topic: str,
    client: Client,
    mechanism: str,
    listener: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for user, password in ((USER, "wrong"), (f"nobody-{uuid.uuid4()}", PASSWORD)):
        caplog.clear()
        with pytest.raises(RefusedError) as refused:
            client(sasl_broker, listener, mechanism, user, password, topic)
        # aiokafka tells its log only. kafka-python drops an answer that it reads together with
        # the end of the connection.
        told = str(refused.value) + caplog.text
        lost = client is with_kafka_python and "socket disconnected" in told
        assert lost or "uthentication" in told
    assert "Login denied mechanism=" in sasl_broker.process.log()


@clients
def test_a_user_of_the_jaas_line(sasl_broker: SaslBroker, topic: str, client: Client) -> None:
    got = client(sasl_broker, "TLS13", "PLAIN", LISTED_USER, LISTED_PASSWORD, topic)
    assert got == b"hello"


@clients
def test_a_user_of_the_jaas_line_is_none_of_scram(
    sasl_broker: SaslBroker, topic: str, client: Client
) -> None:
    with pytest.raises(RefusedError):
        client(sasl_broker, "SASL", "SCRAM-SHA-512", LISTED_USER, LISTED_PASSWORD, topic)


def test_no_secret_is_in_the_log(sasl_broker: SaslBroker) -> None:
    log = sasl_broker.process.log()
    for secret in (PASSWORD, LISTED_PASSWORD, "the master key"):
        assert secret not in log
