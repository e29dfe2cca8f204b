"""What is different about connections that speak TLS: handshakes, goodbyes, and bad peers."""

import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kavka.broker.security.tls.context import server_context
from kavka.broker.security.tls.principal import NoPrincipal, distinguished_name
from kavka.config.limits import TLS_HANDSHAKE_SECONDS_MAX
from tests.unit.broker.tls.certificates import Certificates, Contexts

from .conftest import Command, Network, answer, frame
from .tls_client import TlsClient

Lines = Callable[[], list[str]]


@pytest.fixture
def network(certificates: Certificates) -> Iterator[Network]:
    made = Network(certificates.contexts())
    yield made
    made.close()


def hello(contexts: Contexts) -> bytes:
    """The first flight of a client's handshake."""
    client = TlsClient(socket.socket(), contexts.client)
    with pytest.raises(ssl.SSLWantReadError):
        client.session.do_handshake()
    client.close()
    return client.outgoing.read()


# -- handshakes --------------------------------------------------------------------------------


def test_a_handshake_may_arrive_byte_by_byte(network: Network) -> None:
    theirs, ours = network.sockets()
    connection = network.serve_tls(ours)
    assert network.contexts is not None
    client = TlsClient(theirs, network.contexts.client)

    def push_slowly() -> None:
        data = client.outgoing.read()
        for index in range(len(data)):
            theirs.sendall(data[index : index + 1])
            network.loop.settle()

    client.push = push_slowly  # type: ignore[method-assign]
    client.shake_hands(network.loop.settle)
    assert connection.session is not None
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)


def test_requests_may_come_with_the_end_of_the_handshake(network: Network) -> None:
    theirs, ours = network.sockets()
    network.serve_tls(ours)
    assert network.contexts is not None
    client = TlsClient(theirs, network.contexts.client)
    network.clients.append(client)
    with pytest.raises(ssl.SSLWantReadError):
        client.session.do_handshake()
    client.push()
    network.loop.settle()
    client.incoming.write(theirs.recv(1 << 16))
    client.session.do_handshake()
    client.session.write(frame(Command.ECHO, 1, b"early"))
    client.push()
    network.loop.settle()
    assert network.received(client) == answer(1, b"early")


def test_few_handshakes_go_on_in_one_turn(network: Network) -> None:
    assert network.contexts is not None
    waiting = []
    for _ in range(60):
        theirs, ours = network.sockets()
        network.clients.append(theirs)
        waiting.append(network.serve_tls(ours))
        theirs.sendall(hello(network.contexts))
    begun = []
    while waiting:
        assert network.loop.turn()
        begun.append(sum(connection.session is not None for connection in waiting))
        waiting = [connection for connection in waiting if connection.session is None]
    assert max(begun) <= 8
    assert sum(begun) == 60


def test_one_address_does_not_hold_up_the_handshakes_of_others(network: Network) -> None:
    assert network.contexts is not None
    storm = []
    for _ in range(50):
        theirs, ours = network.sockets()
        network.clients.append(theirs)
        storm.append(network.serve_tls(ours, "10.6.6.6"))
        theirs.sendall(hello(network.contexts))
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    good = network.serve_tls(ours, "10.0.0.2")
    theirs.sendall(hello(network.contexts))
    while good.session is None:
        assert network.loop.turn()
    begun = [connection for connection in storm if connection.session is not None]
    assert len(begun) <= 8, "the good one came in the first turn that handshakes had"


def test_a_handshake_must_be_done_in_time(network: Network, lines: Lines) -> None:
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    slow = network.serve_tls(ours)
    theirs.sendall(b"\x16\x03")
    network.loop.settle()
    _, good = network.client()
    network.clock.advance(TLS_HANDSHAKE_SECONDS_MAX - 0.1)
    network.hub.sweep()
    assert not slow.closed
    network.clock.advance(0.2)
    network.hub.sweep()
    assert slow.closed and not good.closed
    assert "the TLS handshake was not done within 15 s" in lines()[0]
    assert network.hub.handshakes is not None
    assert not network.hub.handshakes.under_way


def test_a_peer_that_leaves_in_the_handshake_is_forgotten_silently(
    network: Network, lines: Lines
) -> None:
    assert network.contexts is not None
    for sent in (b"", b"\x16", hello(network.contexts)):
        theirs, ours = network.sockets()
        connection = network.serve_tls(ours)
        theirs.sendall(sent)
        network.loop.settle()
        theirs.close()
        network.loop.until(lambda connection=connection: connection.closed)  # type: ignore[misc]
    assert lines() == []
    assert network.hub.handshakes is not None
    assert not network.hub.handshakes.under_way
    assert network.hub.connections == set()


def test_failed_handshakes_of_one_address_are_logged_once_and_counted(
    network: Network, lines: Lines
) -> None:
    for _ in range(20):
        theirs, ours = network.sockets()
        network.serve_tls(ours)
        theirs.sendall(b"nonsense from somebody")
        network.loop.settle()
        theirs.close()
    assert len(lines()) == 1
    network.loop.fire_timers()
    assert len(lines()) == 2
    assert "count=19" in lines()[1]
    assert network.hub.handshakes is not None
    assert network.hub.handshakes.failed == 20


# -- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(18, 1, b"\0\x07rdkafka"), "speaks Kafka without TLS, but this listener speaks SSL"),
        (struct.pack(">ihhi", 40, 18, 3, 1) + b"\0\x02me", "set security.protocol=SSL"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "the peer speaks HTTP without TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the peer speaks HTTP without TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the peer does not speak TLS"),
        (b"\x16\x03\x01\x00\x05hello" + bytes(50), "TLS handshake failed"),
    ],
)
def test_who_does_not_speak_tls_is_told_apart(
    network: Network, lines: Lines, data: bytes, reason: str
) -> None:
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    connection = network.serve_tls(ours)
    theirs.sendall(data)
    network.loop.settle()
    assert connection.closed
    [line] = lines()
    assert reason in line
    assert "peer=10.0.0.1:5001 listener=SSL" in line


def test_tls_on_a_plain_port_is_told_where_to_go(certificates: Certificates, lines: Lines) -> None:
    network = Network()
    network.hub.tls_ports = lambda: [9093, 9095]
    client, connection = network.client()
    client.sendall(hello(certificates.contexts()))
    network.loop.settle()
    assert connection.closed
    [line] = lines()
    assert "TLS on plaintext port" in line and "use 9093/9095" in line
    assert network.hub.misdirected == 1
    network.close()


def test_versions_that_are_too_old_are_refused(network: Network, lines: Lines) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    network.serve_tls(ours)
    with pytest.raises((ssl.SSLError, EOFError)):
        TlsClient(theirs, context).shake_hands(network.loop.settle)
    assert "offers no TLS version that this listener accepts" in lines()[0]


def test_a_client_that_does_not_trust_the_broker_is_named(network: Network, lines: Lines) -> None:
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    network.serve_tls(ours)
    context = ssl.create_default_context()
    context.check_hostname = False
    client = TlsClient(theirs, context)
    with pytest.raises(ssl.SSLCertVerificationError):
        client.shake_hands(network.loop.settle)
    client.push()
    network.loop.settle()
    assert "the peer does not trust this broker's certificate" in lines()[0]


def test_a_damaged_record_ends_the_session(network: Network, lines: Lines) -> None:
    client, connection = network.client()
    client.session.write(frame(Command.ECHO, 1))
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    client.sock.sendall(record)
    network.loop.settle()
    assert connection.closed
    assert network.service.served == []
    assert "TLS failed: " in lines()[0]
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.recv(1)


def test_alerts_that_nobody_reads_are_bounded(certificates: Certificates) -> None:
    network = Network(certificates.contexts(), output=3_000_000)
    client, connection = network.client()
    stream = connection._stream  # type: ignore[attr-defined]
    client.sendall(frame(Command.BIG, 1, b"3000000"))  # fills the socket
    network.loop.settle()
    client.sendall(frame(Command.SILENT, 2))
    network.loop.settle()
    assert network.service.served == [1, 2]
    alert = bytes(100_000)
    for _ in range(10):
        stream._unsent.append(alert)
        stream.backlog += len(alert)
        connection._go_on()  # type: ignore[attr-defined]
    client.sendall(frame(Command.SILENT, 3))
    network.loop.settle()
    assert network.service.served == [1, 2], "who does not read is not read"
    network.close()


# -- goodbyes ----------------------------------------------------------------------------------


def test_the_broker_says_goodbye(network: Network) -> None:
    client, connection = network.client()
    network.exchange(client, frame(Command.ECHO, 1))
    connection.close()
    client.incoming.write(client.sock.recv(1000))
    # Not only the socket has ended, which anybody on the way could bring about.
    assert client.session.read(1) == b""


def test_a_peer_that_says_goodbye_gets_what_is_ready(network: Network) -> None:
    client, connection = network.client()
    client.sendall(frame(Command.ECHO, 1) + frame(Command.PARK, 2))
    client.say_goodbye()
    network.loop.until(lambda: connection.closed)
    assert network.service.served == [1, 2]
    assert network.service.parked[2].cancelled
    assert network.received(client) == answer(1)


# -- who the client is -------------------------------------------------------------------------


def test_a_certificate_names_the_principal(certificates: Certificates, lines: Lines) -> None:
    def principal_of(certificate: bytes) -> str:
        return f"User:{distinguished_name(certificate)}"

    server = server_context(certificates.options(client_auth="required")).context
    contexts = Contexts(server, certificates.client_context(known=True), principal_of)
    network = Network(contexts)
    client, connection = network.client()
    assert connection.encrypted
    assert connection.principal == "User:CN=alice"
    assert connection.peer_certificate is not None
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    network.close()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_resumed_session_is_the_same_clients(certificates: Certificates, version: str) -> None:
    def principal_of(certificate: bytes) -> str:
        return f"User:{distinguished_name(certificate)}"

    server = server_context(certificates.options(client_auth="required")).context
    contexts = Contexts(server, certificates.client_context(version, known=True), principal_of)
    network = Network(contexts)
    first, _ = network.client()
    network.exchange(first, frame(Command.ECHO, 1))
    theirs, ours = network.sockets()
    connection = network.serve_tls(ours)
    again = TlsClient(theirs, contexts.client)
    network.clients.append(again)
    again.session.session = first.session.session
    again.shake_hands(network.loop.settle)
    assert again.session.session_reused
    assert network.exchange(again, frame(Command.ECHO, 2)) == answer(2)
    assert connection.principal == "User:CN=alice"
    network.close()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_certificate_may_be_required(
    certificates: Certificates, lines: Lines, version: str
) -> None:
    server = server_context(certificates.options(client_auth="required")).context
    network = Network(Contexts(server, certificates.client_context(version)))
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    connection = network.serve_tls(ours)
    client = TlsClient(theirs, network.contexts.client)  # type: ignore[union-attr]
    with pytest.raises((ssl.SSLError, EOFError)):
        client.shake_hands(network.loop.settle)
        client.recv(1)  # with TLS 1.3 a client learns it only now
    assert connection.closed
    assert "the peer shows no certificate, which ssl.client.auth=required wants" in lines()[0]
    network.close()


def test_who_may_come_without_a_certificate_is_anonymous(certificates: Certificates) -> None:
    server = server_context(certificates.options(client_auth="requested")).context
    network = Network(Contexts(server, certificates.client_context(), lambda _: "User:nobody"))
    _, connection = network.client()
    assert connection.principal == "User:ANONYMOUS"
    assert connection.peer_certificate is None
    network.close()


def test_a_certificate_that_no_rule_matches_is_refused(
    certificates: Certificates, lines: Lines
) -> None:
    def principal_of(certificate: bytes) -> str:
        raise NoPrincipal("no rule of ssl.principal.mapping.rules matches")

    server = server_context(certificates.options(client_auth="required")).context
    contexts = Contexts(server, certificates.client_context(known=True), principal_of)
    network = Network(contexts)
    theirs, ours = network.sockets()
    network.clients.append(theirs)
    connection = network.serve_tls(ours)
    client = TlsClient(theirs, contexts.client)
    client.shake_hands(network.loop.settle)
    network.loop.settle()
    assert connection.closed
    assert "no rule of ssl.principal.mapping.rules matches" in lines()[0]
    network.close()


# -- hostile input -----------------------------------------------------------------------------


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(
        st.sampled_from(["as it is", "flip", "cut", "insert", "noise"]), min_size=1, max_size=4
    ),
    seed=st.integers(0, 1 << 32),
)
def test_no_input_breaks_more_than_its_own_connection(
    network: Network, kinds: list[str], seed: int
) -> None:
    contexts = network.contexts
    assert contexts is not None
    bystander, _ = network.client()
    theirs, ours = network.sockets()
    connection = network.serve_tls(ours)
    client = TlsClient(theirs, contexts.client)
    theirs.setblocking(False)
    noise = random.Random(seed)
    for kind in kinds:
        try:
            client.session.do_handshake()
            client.session.write(frame(Command.ECHO, 7, bytes(200)))
        except ssl.SSLError:
            pass
        flight = bytearray(client.outgoing.read() or noise.randbytes(50))
        position = noise.randrange(len(flight))
        if kind == "flip":
            flight[position] ^= 1 << noise.randrange(8)
        elif kind == "cut":
            del flight[position:]
        elif kind == "insert":
            flight[position:position] = noise.randbytes(noise.randrange(1, 400))
        elif kind == "noise":
            flight[:] = bytes((0x16, 3, noise.randrange(5))) + noise.randbytes(position + 1)
        try:
            theirs.sendall(flight)
        except OSError:
            break
        network.loop.settle()
        with contextlib.suppress(OSError):
            client.incoming.write(theirs.recv(1 << 16))
    assert network.exchange(bystander, frame(Command.ECHO, 9)) == answer(9)
    theirs.close()
    network.loop.until(lambda: connection.closed)
    bystander.close()
    network.loop.until(lambda: not network.hub.connections)
    assert network.hub.handshakes is not None
    assert not network.hub.handshakes.under_way
