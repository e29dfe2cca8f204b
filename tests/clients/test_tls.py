"""Real clients over TLS, each with the settings that ``kavka certs generate`` wrote for it."""

import asyncio
import contextlib
import runpy
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, Producer
from kafka import KafkaConsumer, KafkaProducer

from kavka.broker.security.tls.stores import read_store
from tests.broker_process import wait_for
from tests.clients.test_java_tools import CONFIGS, CONSOLE_CONSUMER, CONSOLE_PRODUCER
from tests.java import lines, run_tool
from tests.tls_broker import TlsBroker, generate, tls_broker, values

VALUES = [f"value-{number}".encode() * 100 for number in range(200)]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    """A broker that asks for certificates and does without them."""
    settings = {"ssl.client.auth": "requested"}
    with tls_broker(tmp_path_factory.mktemp("tls"), settings) as broker:
        yield broker


def settings_file(broker: TlsBroker, form: str) -> Path:
    """The file that was generated for clients of the TLS listener."""
    return broker.certs / "clients" / form.format(broker.port)


def librdkafka(broker: TlsBroker) -> dict[str, object]:
    return dict(values(settings_file(broker, "librdkafka-{}.conf")))


# -- Python and C ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 20_000, 900_000])
def test_librdkafka(secure: TlsBroker, topic: str, size: int) -> None:
    failed: list[object] = []
    producer = Producer({**librdkafka(secure), "linger.ms": 5})
    count = 30
    for number in range(count):
        producer.produce(
            topic,
            number.to_bytes(4, "big") * (size // 4),
            partition=0,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(60) == 0
    assert not failed
    consumer = Consumer({**librdkafka(secure), "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    got: list[bytes] = []
    while len(got) < count:
        for message in consumer.consume(count, timeout=30):
            assert message.error() is None, message.error()
            got.append(message.value())
    consumer.close()
    assert got == [number.to_bytes(4, "big") * (size // 4) for number in range(count)]


def test_kafka_python(secure: TlsBroker, topic: str) -> None:
    client = runpy.run_path(str(settings_file(secure, "kafka-python-{}.py")))["CLIENT"]
    producer = KafkaProducer(**client)
    for value in VALUES:
        producer.send(topic, value, partition=0).get(30)
    producer.close()
    consumer = KafkaConsumer(
        topic, **client, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    # In this order: the other way round it would wait for one more.
    assert [message.value for _, message in zip(VALUES, consumer, strict=False)] == VALUES
    consumer.close()


def test_aiokafka(secure: TlsBroker, topic: str) -> None:
    async def talk() -> list[bytes]:
        shared = {
            "bootstrap_servers": secure.bootstrap,
            "security_protocol": "SSL",
            "ssl_context": secure.context(),
        }
        async with AIOKafkaProducer(**shared) as producer:
            for value in VALUES:
                await producer.send_and_wait(topic, value, partition=0)
        async with AIOKafkaConsumer(topic, **shared, auto_offset_reset="earliest") as consumer:
            return [(await consumer.getone()).value for _ in VALUES]

    assert asyncio.run(asyncio.wait_for(talk(), 60)) == VALUES


def test_kcat(secure: TlsBroker, topic: str) -> None:
    common = ("kcat", "-F", str(settings_file(secure, "librdkafka-{}.conf")), "-t", topic)
    subprocess.run((*common, "-P"), input=b"one\ntwo\n", check=True, timeout=30)
    got = subprocess.run(
        (*common, "-C", "-o", "beginning", "-e", "-q"), capture_output=True, timeout=30
    )
    assert sorted(got.stdout.split()) == [b"one", b"two"]


def test_a_wrong_authority_is_refused_by_the_client(
    secure: TlsBroker, topic: str, tmp_path: Path
) -> None:
    generate(tmp_path / "other")
    producer = Producer(
        {**librdkafka(secure), "ssl.ca.location": str(tmp_path / "other" / "ca.crt")}
    )
    producer.produce(topic, b"x")
    assert producer.flush(3) == 1
    assert "the peer does not trust this broker's certificate" in secure.process.log()


# -- Java --------------------------------------------------------------------------------------


@pytest.mark.java
@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("release", ["4.3", "2.3", "1.1", "0.11", "0.10"])
def test_java_console(
    secure: TlsBroker, topic: str, tmp_path: Path, release: str, verified: bool
) -> None:
    text = settings_file(secure, "java-{}.properties").read_text()
    if not verified:
        text = text.replace("algorithm=https", "algorithm=")
    file = tmp_path / "client.properties"
    file.write_text(text)
    new = release == "4.3"
    servers = "--bootstrap-server" if new else "--broker-list"
    producer = CONSOLE_PRODUCER if new else "kafka.tools.ConsoleProducer"
    consumer = CONSOLE_CONSUMER if new else "kafka.tools.ConsoleConsumer"
    run_tool(
        *(release, producer, servers, secure.bootstrap, "--topic", topic),
        *("--command-config" if new else "--producer.config", str(file)),
        stdin="one\ntwo\n",
    )
    got = run_tool(
        *(release, consumer, "--bootstrap-server", secure.bootstrap, "--topic", topic),
        *("--command-config" if new else "--consumer.config", str(file)),
        *("--from-beginning", "--max-messages", "2"),
        *([] if release in ("4.3", "2.3", "1.1", "0.11") else ["--new-consumer"]),
    )
    assert sorted(lines(got.stdout)) == ["one", "two"]


@pytest.mark.java
def test_java_shows_its_certificate(secure: TlsBroker, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(
        settings_file(secure, "java-{}.properties").read_text()
        + (secure.certs / "client.keystore.properties").read_text()
    )
    run_tool(
        *("4.3", CONSOLE_PRODUCER, "--bootstrap-server", secure.bootstrap, "--topic", topic),
        *("--command-config", str(file)),
        stdin="one\n",
    )


@pytest.mark.java
@pytest.mark.parametrize("release", ["4.3", "2.3"])
def test_kafka_configs_replaces_certificates(tmp_path: Path, release: str) -> None:
    """With a store of another password, which is stored encrypted."""
    base = tmp_path / "base"
    base.mkdir()
    with tls_broker(base, {"password.encoder.secret": "a long secret"}) as broker:
        others = tmp_path / "others"
        generate(others)
        prefix = "listener.name.ssl.ssl"
        given = values(others / "server.tls.properties")
        changes = ",".join(
            f"{prefix}.{key}={given[f'ssl.{key}']}"
            for key in ("keystore.location", "keystore.password", "key.password")
        )
        run_tool(
            *(release, CONFIGS, "--bootstrap-server", broker.process.bootstrap, "--alter"),
            *("--entity-type", "brokers", "--entity-name", "1", "--add-config", changes),
        )
        context = ssl.create_default_context(cafile=str(others / "ca.crt"))

        def replaced() -> bool:
            with (
                contextlib.suppress(ssl.SSLCertVerificationError),
                socket.create_connection(("127.0.0.1", broker.port)) as sock,
                context.wrap_socket(sock, server_hostname="localhost"),
            ):
                return True
            return False

        wait_for("the other certificate", replaced)
        password = given["ssl.keystore.password"]
        assert password not in broker.process.log()
        shown = run_tool(
            *(release, CONFIGS, "--bootstrap-server", broker.process.bootstrap, "--describe"),
            *("--entity-type", "brokers", "--entity-name", "1"),
        )
        assert f"{prefix}.keystore.location={others}" in shown.stdout
        assert password not in shown.stdout


# -- keytool -----------------------------------------------------------------------------------


def keytool(*arguments: str) -> str:
    done = subprocess.run(("keytool", *arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fingerprints(listing: str) -> set[str]:
    return {line.split()[-1] for line in listing.splitlines() if "fingerprint (SHA-256)" in line}


@pytest.mark.java
def test_keytool_lists_every_store(secure: TlsBroker) -> None:
    certs = secure.certs
    server = values(certs / "server.tls.properties")["ssl.keystore.password"]
    client = values(certs / "client.keystore.properties")["ssl.keystore.password"]
    authorities = set()
    for name, password, kind, entries in (
        ("server.keystore.jks", server, "JKS", 3),
        ("server.keystore.p12", server, "PKCS12", 1),
        ("server.truststore.jks", server, "JKS", 1),
        ("client.truststore.jks", "dms@kafka", "JKS", 1),
        ("client.truststore.p12", "dms@kafka", "PKCS12", 1),
        ("client.keystore.jks", client, "JKS", 2),
        ("client.keystore.p12", client, "PKCS12", 1),
    ):
        shown = keytool("-list", "-keystore", str(certs / name), "-storepass", password)
        assert f"Keystore type: {kind}" in shown
        assert shown.count("fingerprint (SHA-256)") == entries, shown
        if "truststore" in name:
            assert "trustedCertEntry" in shown
            authorities |= fingerprints(shown)
    assert len(authorities) == 1


@pytest.mark.java
@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("JKS", ()),
        ("JCEKS", ()),
        ("PKCS12", ()),
        ("PKCS12", ("-J-Dkeystore.pkcs12.legacy",)),
    ],
)
def test_every_store_of_keytool_is_read(
    secure: TlsBroker, tmp_path: Path, kind: str, flags: tuple[str, ...]
) -> None:
    store = str(tmp_path / "store")
    where = ("-storetype", kind, "-keystore", store, "-storepass", "changeit")
    keytool(
        *flags,
        *("-genkeypair", "-alias", "localhost", "-keyalg", "RSA", "-validity", "3650"),
        *("-dname", "CN=localhost", "-keypass", "changeit", *where),
    )
    [key] = read_store(Path(store).read_bytes(), "changeit").keys
    assert key.alias == "localhost" and len(key.chain) == 1
    trust = str(tmp_path / "trust")
    keytool(
        *flags,
        *("-importcert", "-noprompt", "-alias", "CARoot", "-file", str(secure.certs / "ca-cert")),
        *("-storetype", kind, "-keystore", trust, "-storepass", "changeit"),
    )
    [entry] = read_store(Path(trust).read_bytes(), "changeit").trusted
    assert entry.alias.lower() == "caroot"
    ours = read_store((secure.certs / "client.truststore.jks").read_bytes(), "dms@kafka")
    assert entry.certificate == ours.trusted[0].certificate


@pytest.mark.java
def test_keytool_converts_what_we_wrote(secure: TlsBroker, tmp_path: Path) -> None:
    password = values(secure.certs / "server.tls.properties")["ssl.keystore.password"]
    converted = str(tmp_path / "converted.p12")
    keytool(
        *("-importkeystore", "-srckeystore", str(secure.certs / "server.keystore.jks")),
        *("-srcstorepass", password, "-srcalias", "localhost"),
        *("-destkeystore", converted, "-deststoretype", "PKCS12", "-deststorepass", password),
    )
    [key] = read_store(Path(converted).read_bytes(), password).keys
    ours = read_store((secure.certs / "server.keystore.jks").read_bytes(), password).keys[0]
    assert key.chain == ours.chain
