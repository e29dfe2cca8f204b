import errno
import logging
import socket
from ipaddress import ip_network

import pytest

from kavka.broker.admission import Admission, Limits, Refusals, Refused, Samples
from kavka.broker.listeners import Listener, ListenError
from kavka.config.flavours import FLAVOURS
from kavka.config.limits import FRAME_BYTES_MAX_BEFORE_AUTHENTICATION
from kavka.config.listeners import Endpoint
from kavka.config.sources import Networks, SourceRules
from kavka.storage.clock import ManualClock

from .conftest import ENDPOINT, Command, Network, answer, frame


def listening(network: Network, admission: Admission, endpoint: Endpoint = ENDPOINT) -> Listener:
    listener = Listener(endpoint, network.hub, admission)
    listener.bind()
    listener.listen()
    return listener


def connect(
    network: Network, listener: Listener, host: str = "127.0.0.1", source: str | None = None
) -> socket.socket:
    client = socket.create_connection(
        (host, listener.address[1]), timeout=10, source_address=source and (source, 0)
    )
    network.clients.append(client)
    network.loop.settle()
    return client


def is_refused(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_clients_are_let_in_once_the_broker_listens(network: Network) -> None:
    listener = Listener(ENDPOINT, network.hub, Admission(Limits(), ManualClock()))
    listener.bind()
    host, port = listener.address
    assert host == "127.0.0.1"
    assert port > 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=10)
    listener.listen()
    client = connect(network, listener)
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    (connection,) = network.hub.connections
    assert connection.peer == "{}:{}".format(*client.getsockname())
    assert connection.client_host == "/127.0.0.1"
    listener.close()
    assert network.exchange(client, frame(Command.ECHO, 2)) == answer(2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=10)


def test_connections_are_keepalive_and_undelayed(network: Network) -> None:
    listener = listening(network, Admission(Limits(), ManualClock()))
    connect(network, listener)
    (connection,) = network.hub.connections
    sock = connection._sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert not sock.getblocking()
    listener.close()


def test_an_address_may_have_only_so_many_connections(network: Network, lines) -> None:
    admission = Admission(Limits(per_ip=2), ManualClock())
    listener = listening(network, admission)
    first, second = connect(network, listener), connect(network, listener)
    for _ in range(3):
        assert is_refused(connect(network, listener))
    [line] = lines()
    assert "max.connections.per.ip=2" in line
    assert "peer=127.0.0.1:" in line
    network.loop.fire_timers()
    assert lines()[1:] == ["refused further connections within a second count=2 peer=127.0.0.1"]
    assert admission.refusals.counts == {("PLAINTEXT", "max.connections.per.ip"): 3}
    assert network.exchange(second, frame(Command.ECHO, 1)) == answer(1)
    first.close()
    network.loop.until(lambda: admission.total == 1)
    third = connect(network, listener)
    assert network.exchange(third, frame(Command.ECHO, 2)) == answer(2)
    listener.close()


def test_an_override_counts_for_its_host(network: Network) -> None:
    admission = Admission(Limits(per_ip=0, overrides={"127.0.0.1": 1}), ManualClock())
    listener = listening(network, admission)
    client = connect(network, listener)
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    assert is_refused(connect(network, listener))
    admission.set_limits(Limits(per_ip=2))
    assert network.exchange(connect(network, listener), frame(Command.ECHO, 2)) == answer(2)
    listener.close()


def test_above_max_connections_a_client_waits_until_there_is_room(network: Network, lines) -> None:
    admission = Admission(Limits(maximum=1), ManualClock())
    listener = listening(network, admission)
    first = connect(network, listener)
    second = connect(network, listener)
    second.sendall(frame(Command.ECHO, 2))
    network.loop.settle()
    assert network.received(second) == b""
    assert len(network.hub.connections) == 1
    [line] = lines()
    assert "clients wait to be accepted: the broker has max.connections=1" in line
    first.close()
    assert network.read(second, len(answer(2))) == answer(2)
    listener.close()


def test_raised_limits_let_in_who_waits(network: Network) -> None:
    admission = Admission(Limits(maximum=1), ManualClock())
    listener = listening(network, admission)
    connect(network, listener)
    second = connect(network, listener)
    second.sendall(frame(Command.ECHO, 2))
    admission.set_limits(Limits(maximum=2))
    assert network.read(second, len(answer(2))) == answer(2)
    listener.close()


def test_a_listener_may_have_only_so_many(network: Network) -> None:
    admission = Admission(Limits(by_listener={"A": 1}), ManualClock())
    first = listening(network, admission, ENDPOINT._replace(name="A"))
    other = listening(network, admission, ENDPOINT._replace(name="B"))
    connect(network, first)
    waiting = connect(network, first)
    waiting.sendall(frame(Command.ECHO, 1))
    client = connect(network, other)
    assert network.exchange(client, frame(Command.ECHO, 2)) == answer(2)
    assert network.received(waiting) == b""
    assert admission.by_listener == {"A": 1, "B": 1}
    first.close()
    other.close()


def test_brokers_come_in_above_max_connections_and_push_out_who_was_silent_longest(
    network: Network,
) -> None:
    admission = Admission(Limits(maximum=2, protected="BROKERS"), ManualClock())

    def close_oldest(excess: int) -> None:
        silent = sorted(network.hub.connections, key=lambda each: each.active)
        silent = [each for each in silent if each.endpoint.name != admission.protected]
        for each in silent[:excess]:
            each.close()

    admission.on_excess = close_oldest
    clients = listening(network, admission, ENDPOINT._replace(name="CLIENTS"))
    brokers = listening(network, admission, ENDPOINT._replace(name="BROKERS"))
    old, new = connect(network, clients), connect(network, clients)
    network.clock.advance(1.0)
    network.hub.sweep()
    assert network.exchange(new, frame(Command.ECHO, 1)) == answer(1)
    broker = connect(network, brokers)
    assert network.exchange(broker, frame(Command.ECHO, 2)) == answer(2)
    assert is_refused(old)
    assert network.exchange(new, frame(Command.ECHO, 3)) == answer(3)
    second = connect(network, brokers)
    assert network.exchange(second, frame(Command.ECHO, 4)) == answer(4)
    assert is_refused(new)
    # Nobody is left to be pushed out; brokers come in all the same.
    third = connect(network, brokers)
    assert network.exchange(third, frame(Command.ECHO, 5)) == answer(5)
    assert admission.total == 3
    clients.close()
    brokers.close()


def test_the_flavour_caps_the_connections_of_clients(network: Network, lines) -> None:
    flavour = FLAVOURS["100"]._replace(connections=6)
    admission = Admission(Limits(flavour=flavour, protected="BROKERS"), ManualClock())
    admission.live_brokers = lambda: 3
    clients = listening(network, admission, ENDPOINT._replace(name="CLIENTS"))
    brokers = listening(network, admission, ENDPOINT._replace(name="BROKERS"))
    connect(network, brokers)
    kept = connect(network, clients), connect(network, clients)
    assert is_refused(connect(network, clients))
    assert "the 6 connections of flavour 100, 2, is used" in lines()[0]
    assert admission.refusals.counts == {("CLIENTS", "instance.flavour"): 1}
    for client in kept:
        assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    admission.live_brokers = lambda: 2  # one has died, the others take its clients
    assert network.exchange(connect(network, clients), frame(Command.ECHO, 2)) == answer(2)
    connect(network, brokers)
    assert admission.total == 5
    clients.close()
    brokers.close()


def test_rules_say_who_may_come_from_where(network: Network, lines, caplog) -> None:
    caplog.set_level(logging.INFO, logger="kavka.audit")
    rules = SourceRules(Networks([ip_network("127.0.0.2/32")]), Networks([]), of_brokers=True)
    admission = Admission(Limits(sources={"PLAINTEXT": rules}), ManualClock())
    listener = listening(network, admission)
    allowed = connect(network, listener, source="127.0.0.2")
    assert network.exchange(allowed, frame(Command.ECHO, 1)) == answer(1)
    assert is_refused(connect(network, listener))
    # The audit log also reports what other tests of this process were refused.
    audited, line = (line for line in lines() if " more within " not in line)
    assert "not let in by source.allow peer=127.0.0.1:" in line
    assert audited == (
        "Connect denied rule=source.allow principal=User:ANONYMOUS host=127.0.0.1 "
        "listener=PLAINTEXT"
    )
    assert admission.refusals.counts == {("PLAINTEXT", "source"): 1}
    admission.is_broker = lambda ip: ip == "127.0.0.1"
    assert network.exchange(connect(network, listener), frame(Command.ECHO, 2)) == answer(2)
    admission.set_limits(Limits())
    stranger = connect(network, listener, source="127.0.0.3")
    assert network.exchange(stranger, frame(Command.ECHO, 3)) == answer(3)
    listener.close()


def test_who_connects_too_fast_is_closed_after_a_while(network: Network) -> None:
    admission = Admission(Limits(), ManualClock())
    admission.rate = lambda ip: 0.7 if ip == "127.0.0.2" else 0.0
    listener = listening(network, admission)
    held = connect(network, listener, source="127.0.0.2")
    other = connect(network, listener)
    assert network.exchange(other, frame(Command.ECHO, 1)) == answer(1)
    assert admission.total == 1
    assert network.received(held) == b""  # still open: nothing, but no end either
    network.loop.fire_timers()
    assert is_refused(held)
    assert admission.refusals.counts == {("PLAINTEXT", "connection_creation_rate"): 1}
    listener.close()


def test_who_is_let_in_too_fast_makes_others_wait(network: Network) -> None:
    limits = Limits(rates={"A": 1}, rate=2, protected="BROKERS")
    admission = Admission(limits, network.clock, Samples(3, 1.0))
    a = listening(network, admission, ENDPOINT._replace(name="A"))
    b = listening(network, admission, ENDPOINT._replace(name="B"))
    brokers = listening(network, admission, ENDPOINT._replace(name="BROKERS"))
    for _ in range(20):
        connect(network, brokers)
    first, second = connect(network, a), connect(network, a)  # 1 a second, for 2 seconds at once
    assert network.exchange(first, frame(Command.ECHO, 1)) == answer(1)
    assert network.exchange(second, frame(Command.ECHO, 2)) == answer(2)
    third, waiting = connect(network, a), connect(network, a)
    waiting.sendall(frame(Command.ECHO, 4))
    network.loop.settle()
    assert network.received(waiting) == b""
    assert network.exchange(third, frame(Command.ECHO, 3)) == answer(3)
    other = connect(network, b)
    assert network.exchange(other, frame(Command.ECHO, 5)) == answer(5)
    network.clock.advance(1.0)
    network.loop.fire_timers()
    assert network.read(waiting, len(answer(4))) == answer(4)
    assert not admission.refusals.counts
    for listener in (a, b, brokers):
        listener.close()


def test_many_refusals_make_few_lines(lines) -> None:
    refusals = Refusals()
    refused = Refused("source", "the address is not let in")
    told = [refusals.note("A", f"10.0.{n // 250}.{n % 250}", 1000, refused) for n in range(5000)]
    told += [refusals.note("A", "10.0.0.0", 1000, refused) for n in range(7)]
    assert told.count(True) == 1
    assert refusals.counts == {("A", "source"): 5007}
    assert len(lines()) == 20
    refusals.report()
    assert lines()[20:] == [
        "refused further connections within a second count=7 peer=10.0.0.0",
        "refused connections of other addresses within a second count=4980",
    ]
    assert refusals.note("A", "10.0.0.0", 1000, refused)


def test_what_cannot_be_served_leaves_no_trace(network: Network, lines) -> None:
    class Broken:
        def connect(self, *args):
            raise ValueError("no key")

    admission = Admission(Limits(), ManualClock())
    listener = Listener(ENDPOINT, network.hub, admission, tls=Broken())
    listener.bind()
    listener.listen()
    assert is_refused(connect(network, listener))
    assert "cannot be served" in lines()[0]
    assert admission.total == 0
    listener.close()


def test_a_gate_serves_until_it_lets_through(network: Network) -> None:
    gates = []

    def gate(connection):
        gates.append(connection)
        return connection.service

    admission = Admission(Limits(), ManualClock())
    listener = Listener(ENDPOINT, network.hub, admission, gate=gate)
    listener.bind()
    listener.listen()
    client = connect(network, listener)
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    assert [c.max_frame for c in gates] == [FRAME_BYTES_MAX_BEFORE_AUTHENTICATION]
    listener.close()


def test_a_taken_port_is_said_so(network: Network) -> None:
    listener = listening(network, Admission(Limits(), ManualClock()))
    taken = ENDPOINT._replace(port=listener.address[1])
    second = Listener(taken, network.hub, Admission(Limits(), ManualClock()))
    with pytest.raises(ListenError, match=r"Port \d+ of PLAINTEXT://.* is taken by another"):
        second.bind()
    listener.close()


def test_a_foreign_address_is_said_so(network: Network) -> None:
    foreign = ENDPOINT._replace(host="192.0.2.1")
    listener = Listener(foreign, network.hub, Admission(Limits(), ManualClock()))
    with pytest.raises(ListenError, match="no address of this machine"):
        listener.bind()


@pytest.mark.parametrize("host", ["", "localhost", "0.0.0.0", "::"])
def test_wildcards_and_names_are_bound_at_one_port(network: Network, host: str) -> None:
    listener = listening(network, Admission(Limits(), ManualClock()), ENDPOINT._replace(host=host))
    client = connect(network, listener)
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    (connection,) = network.hub.connections
    assert connection.client_host == "/127.0.0.1"
    listener.close()


def test_out_of_descriptors_the_listener_takes_a_breath(network: Network, lines) -> None:
    listener = listening(network, Admission(Limits(), ManualClock()))
    [real] = listener._sockets

    class Exhausted:
        def __init__(self) -> None:
            self.failures = 1

        def accept(self):
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return real.accept()

        def __getattr__(self, name):
            return getattr(real, name)

    listener._unwatch()
    listener._sockets = [Exhausted()]
    listener._watch()
    client = connect(network, listener)
    assert network.hub.connections == set()
    assert "Too many open files" in lines()[0]
    network.loop.fire_timers()
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    listener.close()
