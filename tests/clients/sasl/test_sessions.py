"""Sessions that end and are prolonged, users and secrets that change under running clients."""

import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from kavka.protocol.messages.k36_sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from tests.broker_process import free_port, running_broker
from tests.clients.sasl.conftest import PLAIN_MODULE, set_password
from tests.clients.sasl.test_java import FileOf, scram_file
from tests.java import lines, run_tool
from tests.wire import WireClient

JAAS = "listener.name.sasl.plain.sasl.jaas.config"
SESSION_MS = 3_000


def settings(**more: str) -> tuple[dict[str, str], int]:
    """Settings of a broker with a SASL listener, and that listener's port."""
    port, plain = free_port(), free_port()
    while plain == port:
        plain = free_port()
    return {
        "listeners": f"SASL://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{plain}",
        "listener.security.protocol.map": "SASL:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT",
        **{name.replace("_", "."): value for name, value in more.items()},
    }, port


def try_login(port: int, user: str, password: str, mechanism: str = "PLAIN") -> str | None:
    """``in``, ``refused``, or None when there was no time to tell."""
    failures: list[KafkaError] = []
    admin = AdminClient(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
            "error_cb": failures.append,
            "log_level": 0,
        }
    )
    try:
        admin.list_topics(timeout=2)
    except KafkaException:
        admin.poll(0.2)
        codes = {failure.code() for failure in failures}
        return "refused" if KafkaError._AUTHENTICATION in codes else None
    return "in"


def log_in(client: WireClient, user: str, password: str) -> SaslAuthenticateResponse:
    client.ask(SaslHandshakeRequest(mechanism="PLAIN"), SaslHandshakeResponse, 1)
    token = SaslAuthenticateRequest(auth_bytes=f"\0{user}\0{password}".encode())
    answer = client.ask(token, SaslAuthenticateResponse, 2)
    assert answer.error_code == 0
    return answer


def test_users_of_a_jaas_line_change_while_the_broker_runs(tmp_path: Path) -> None:
    given, port = settings(password_encoder_secret="the encoder's")
    with running_broker(tmp_path / "data", given) as broker:
        assert try_login(port, "ann", "first") == "refused"

        def listed(password: str) -> None:
            line = f'{PLAIN_MODULE} required user_ann="{password}";'
            entry = ConfigEntry(JAAS, line, incremental_operation=AlterConfigOpType.SET)
            resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
            admin = AdminClient({"bootstrap.servers": broker.bootstrap})
            for future in admin.incremental_alter_configs([resource]).values():
                future.result(20)

        listed("s3cret-one")
        assert try_login(port, "ann", "s3cret-one") == "in"
        listed("s3cret-two")
        assert try_login(port, "ann", "s3cret-one") == "refused"
        assert broker.stop() == 0
        broker.start()
        assert try_login(port, "ann", "s3cret-two") == "in"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        described = admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")])
        for future in described.values():
            assert future.result(20)[JAAS].value is None
        stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("metadata.db*"))
        assert JAAS.encode() in stored and b"s3cret" not in stored
        assert "s3cret" not in broker.log()


def test_sessions_end_with_the_password(tmp_path: Path) -> None:
    given, port = settings(sasl_sessions_end_with_password="true")
    with running_broker(tmp_path / "data", given) as broker:
        set_password(broker, "bob", "first")
        with WireClient(port) as client:
            log_in(client, "bob", "first")
            assert client.ask(MetadataRequest(topics=[]), MetadataResponse, 1).brokers
            set_password(broker, "bob", "second")
            assert client.receive_frame() == b""
        assert "the password of its user has been changed" in broker.log()
        assert try_login(port, "bob", "first", "SCRAM-SHA-512") == "refused"
        assert try_login(port, "bob", "second", "SCRAM-SHA-512") == "in"


@pytest.mark.java
@pytest.mark.parametrize("release", ["4.3", "2.3"])
def test_java_clients_prolong_their_sessions(tmp_path: Path, file_of: FileOf, release: str) -> None:
    """A producer that sends for several sessions loses nothing and is never sent away."""
    given, port = settings(connections_max_reauth_ms=str(SESSION_MS), log_level="DEBUG")
    with running_broker(tmp_path / "data", given) as broker:
        set_password(broker, "bob", "pw")
        path = file_of(scram_file("SCRAM-SHA-256", "bob", "pw"))
        done = run_tool(
            *(release, "org.apache.kafka.tools.ProducerPerformance", "--topic", "t"),
            *("--num-records", "1000", "--record-size", "100", "--throughput", "100"),
            *("--producer-props", f"bootstrap.servers=127.0.0.1:{port}", "acks=all", "retries=0"),
            *("--producer.config", path),
        )
        assert lines(done.stdout)[-1].startswith("1000 records sent")
        log = broker.log()
        assert log.count("authenticated principal='User:bob'") >= 10_000 // SESSION_MS + 1
        assert "the session has expired" not in log
        assert "denied" not in log


def test_who_does_not_authenticate_anew_is_sent_away(tmp_path: Path) -> None:
    given, port = settings(connections_max_reauth_ms="1000")
    with running_broker(tmp_path / "data", given) as broker:
        set_password(broker, "bob", "pw")
        with WireClient(port) as client:
            assert log_in(client, "bob", "pw").session_lifetime_ms == 1000
            assert client.ask(MetadataRequest(topics=[]), MetadataResponse, 1).brokers
            time.sleep(1.1)  # the session's length is the point
            with pytest.raises(ConnectionError):
                client.ask(MetadataRequest(topics=[]), MetadataResponse, 1)
        assert "the session has expired" in broker.log()
