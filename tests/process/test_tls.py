"""Listeners that speak TLS: what clients, tools and strangers see of them."""

import contextlib
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k33_alter_configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResponse,
)
from tests.broker_process import wait_for
from tests.memory import MIB, resident_bytes
from tests.tls_broker import TlsBroker, generate, openssl, tls_broker
from tests.wire import WireClient


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    with tls_broker(tmp_path_factory.mktemp("tls")) as process:
        yield process


def tls_client(broker: TlsBroker, context: ssl.SSLContext | None = None) -> WireClient:
    """A client of the TLS listener."""
    client = WireClient(broker.port)
    context = context or broker.context()
    client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
    return client


def ask(client: WireClient) -> None:
    answer = client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
    assert answer.error_code == 0


def shown_certificate(broker: TlsBroker) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with tls_client(broker, context) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        certificate = client.socket.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


# -- what tools see ----------------------------------------------------------------------------


def test_openssl_verifies_the_broker(broker: TlsBroker) -> None:
    ca = ("-CAfile", str(broker.certs / "ca-cert"), "-verify_return_error")
    shown = openssl(broker, *ca, "-verify_ip", "127.0.0.1")
    assert "Verification: OK" in shown and "TLSv1.3" in shown
    shown = openssl(broker, *ca, "-tls1_2", "-verify_hostname", "localhost")
    assert "Verification: OK" in shown
    assert "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in shown
    assert "Secure Renegotiation IS supported" in shown


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(broker: TlsBroker, version: str) -> None:
    shown = openssl(broker, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in shown and "alert protocol version" in shown


def test_nobody_renegotiates(broker: TlsBroker) -> None:
    shown = openssl(broker, "-tls1_2", stdin="R\n")
    assert "RENEGOTIATING" in shown and "no renegotiation" in shown


def test_curl_shows_the_certificate(broker: TlsBroker) -> None:
    done = subprocess.run(
        ("curl", "-kv", "--max-time", "10", f"https://{broker.bootstrap}/"),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "subject: CN=" in done.stderr and "issuer: CN=Kavka CA" in done.stderr
    wait_for(
        "the line about HTTP",
        lambda: "the peer speaks HTTP, but this listener speaks SSL" in broker.process.log(),
    )


# -- mistakes ----------------------------------------------------------------------------------


def test_tls_to_the_plain_port_names_the_right_one(broker: TlsBroker) -> None:
    with (
        socket.create_connection(("127.0.0.1", broker.process.port)) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        broker.context().wrap_socket(sock, server_hostname="localhost")
    expected = f"this listener speaks PLAINTEXT, use {broker.port} peer="
    wait_for("the line", lambda: expected in broker.process.log())


def test_kafka_without_tls_to_the_tls_port_is_told_what_to_set(broker: TlsBroker) -> None:
    with WireClient(broker.port) as client, contextlib.suppress(ConnectionError):
        client.send(ApiVersionsRequest(), 0)
        assert client.receive_frame() == b""
    expected = "set security.protocol=SSL in the client, or let it use a listener without TLS"
    wait_for("the line", lambda: expected in broker.process.log())


def test_a_broker_without_its_key_store_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="listener with TLS needs a key and certificate"),
        tls_broker(tmp_path, {"ssl.keystore.location": ""}),
    ):
        pass


# -- client certificates -----------------------------------------------------------------------


def test_a_client_certificate_may_be_required(tmp_path: Path) -> None:
    settings = {"ssl.client.auth": "required"}
    with tls_broker(tmp_path, settings) as broker:
        with tls_client(broker, broker.context(known=True)) as client:
            ask(client)
        with pytest.raises((ssl.SSLError, ConnectionError)), tls_client(broker) as client:
            ask(client)
        expected = "the peer shows no certificate, which ssl.client.auth=required wants"
        wait_for("the line", lambda: expected in broker.process.log())
        generate(tmp_path / "strangers")
        stranger = broker.context()
        stranger.load_cert_chain(tmp_path / "strangers" / "client.pem")
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            tls_client(broker, stranger) as client,
        ):
            ask(client)
        wait_for(
            "the line", lambda: "certificate of the peer is not trusted" in broker.process.log()
        )


# -- replacement -------------------------------------------------------------------------------


def alter(broker: TlsBroker, value: str) -> AlterConfigsResponse:
    config = AlterableConfig(name="listener.name.ssl.ssl.keystore.location", value=value)
    resource = AlterConfigsResource(resource_type=4, resource_name="1", configs=[config])
    with WireClient(broker.process.port) as client:
        return client.ask(AlterConfigsRequest(resources=[resource]), AlterConfigsResponse, 1)


def test_certificates_are_replaced_for_new_connections(tmp_path: Path) -> None:
    with tls_broker(tmp_path) as broker:
        store = broker.certs / "server.keystore.jks"
        first = shown_certificate(broker)
        with tls_client(broker) as old:
            ask(old)
            # The same authority signs others; the password must stay that of the settings.
            secret = tmp_path / "secret"
            lines = (broker.certs / "server.tls.properties").read_text().splitlines()
            secret.write_text(lines[1].partition("=")[2])
            generate(broker.certs, "--keep-ca", "--overwrite", "--password-file", str(secret))
            assert shown_certificate(broker) == first, "nobody has asked for the new one"
            assert alter(broker, str(store)).responses[0].error_code == 0
            wait_for("the new certificate", lambda: shown_certificate(broker) != first)
            second = shown_certificate(broker)
            ask(old)
        with tls_client(broker) as new:
            ask(new)
        # What cannot be used is refused, and changes nothing.
        bad = tmp_path / "bad.jks"
        bad.write_bytes(b"no store")
        refused = alter(broker, str(bad)).responses[0]
        assert refused.error_code == 42
        assert "no JKS, PKCS12 or PEM store" in (refused.error_message or "")
        assert shown_certificate(broker) == second
        with tls_client(broker) as still:
            ask(still)


# -- the strict profile ------------------------------------------------------------------------


def test_the_strict_profile_has_the_manuals_suites(tmp_path: Path) -> None:
    with tls_broker(tmp_path, {"profile": "strict"}) as broker:
        for suite in (
            "ECDHE-ECDSA-AES128-SHA256",
            "ECDHE-RSA-AES128-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ):
            assert f"Cipher is {suite}" in openssl(broker, "-tls1_2", "-cipher", suite)
        assert "Cipher is (NONE)" in openssl(broker, "-tls1_3")
        for suite in ("ECDHE-ECDSA-AES128-GCM-SHA256", "AES128-SHA256"):
            assert "Cipher is (NONE)" in openssl(broker, "-tls1_2", "-cipher", suite)


# -- strangers ---------------------------------------------------------------------------------


def test_hostile_bytes_leave_no_trace(broker: TlsBroker) -> None:
    noise = random.Random(11)

    def attack() -> None:
        for _ in range(60):
            data = noise.randbytes(noise.randrange(1, 3000))
            kind = noise.randrange(4)
            if kind == 0:
                data = b"\x16\x03\x01" + struct.pack(">H", len(data)) + data
            elif kind == 1:
                data = b"\x16\x03\x03\x40\x00" + data
            elif kind == 2:
                data = hello(broker)[: noise.randrange(1, 500)] + data
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", broker.port), timeout=10) as sock,
            ):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass

    attack()
    before = resident_bytes(broker.process.pid)
    with tls_client(broker) as bystander:
        for _ in range(5):
            attack()
            ask(bystander)
    assert resident_bytes(broker.process.pid) - before < 8 * MIB
    assert "Traceback" not in broker.process.log()


def hello(broker: TlsBroker) -> bytes:
    outgoing = ssl.MemoryBIO()
    session = broker.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def test_a_storm_of_handshakes_holds_up_nobody(tmp_path: Path) -> None:
    with tls_broker(tmp_path, {"max.connections.per.ip": "100000"}) as broker:
        first_flight = hello(broker)
        stop = threading.Event()
        begun = 0

        def storm(number: int) -> None:
            nonlocal begun
            source = (f"127.0.66.{number + 1}", 0)
            while not stop.is_set():
                sockets = []
                for _ in range(40):
                    with contextlib.suppress(OSError):
                        sock = socket.create_connection(
                            ("127.0.0.1", broker.port), source_address=source
                        )
                        sock.sendall(first_flight)
                        sockets.append(sock)
                        begun += 1
                for sock in sockets:
                    with contextlib.suppress(OSError):
                        sock.recv(1)  # the broker has signed for it
                    sock.close()

        with tls_client(broker) as good:
            ask(good)
            attackers = [threading.Thread(target=storm, args=(n,)) for n in range(4)]
            for attacker in attackers:
                attacker.start()
            answered = 0
            end = time.monotonic() + 4
            while time.monotonic() < end:
                ask(good)
                answered += 1
            with tls_client(broker) as late:  # a handshake of its own in the midst of it
                ask(late)
            stop.set()
            for attacker in attackers:
                attacker.join()
        # How many is a figure of bench.tls_storm; here everybody shares one interpreter.
        assert begun > 200
        assert answered > 5
