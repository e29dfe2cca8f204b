import errno
import socket

import pytest

from kavka.broker.listeners import Admission, Listener, ListenError
from kavka.config.listeners import Endpoint

from .conftest import ENDPOINT, Command, Network, answer, frame

UNLIMITED = 2**31 - 1


def listening(network: Network, admission: Admission, endpoint: Endpoint = ENDPOINT) -> Listener:
    listener = Listener(endpoint, network.hub, admission)
    listener.bind()
    listener.listen()
    return listener


def connect(network: Network, listener: Listener, host: str = "127.0.0.1") -> socket.socket:
    client = socket.create_connection((host, listener.address[1]), timeout=10)
    network.clients.append(client)
    network.loop.settle()
    return client


def is_refused(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_clients_are_let_in_once_the_broker_listens(network: Network) -> None:
    listener = Listener(ENDPOINT, network.hub, Admission(UNLIMITED, UNLIMITED, {}))
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
    listener = listening(network, Admission(UNLIMITED, UNLIMITED, {}))
    connect(network, listener)
    (connection,) = network.hub.connections
    sock = connection._sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert not sock.getblocking()
    listener.close()


def test_an_address_may_have_only_so_many_connections(network: Network, lines) -> None:
    admission = Admission(UNLIMITED, 2, {})
    listener = listening(network, admission)
    first, second = connect(network, listener), connect(network, listener)
    for _ in range(3):
        assert is_refused(connect(network, listener))
    [line] = lines()
    assert "max.connections.per.ip=2" in line
    assert "peer=127.0.0.1:" in line
    network.loop.fire_timers()
    assert lines()[1:] == ["refused further connections within a second count=2 peer=127.0.0.1"]
    assert network.exchange(second, frame(Command.ECHO, 1)) == answer(1)
    first.close()
    network.loop.until(lambda: admission.total == 1)
    third = connect(network, listener)
    assert network.exchange(third, frame(Command.ECHO, 2)) == answer(2)
    listener.close()


def test_an_override_counts_for_its_host(network: Network) -> None:
    admission = Admission(UNLIMITED, 0, {"127.0.0.1": 1})
    listener = listening(network, admission)
    client = connect(network, listener)
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    assert is_refused(connect(network, listener))
    admission.set_limits(UNLIMITED, 2, {})
    assert network.exchange(connect(network, listener), frame(Command.ECHO, 2)) == answer(2)
    listener.close()


def test_the_broker_may_have_only_so_many_connections(network: Network, lines) -> None:
    listener = listening(network, Admission(1, UNLIMITED, {}))
    connect(network, listener)
    assert is_refused(connect(network, listener))
    assert "max.connections=1" in lines()[0]
    listener.close()


def test_a_taken_port_is_said_so(network: Network) -> None:
    listener = listening(network, Admission(UNLIMITED, UNLIMITED, {}))
    taken = ENDPOINT._replace(port=listener.address[1])
    second = Listener(taken, network.hub, Admission(UNLIMITED, UNLIMITED, {}))
    with pytest.raises(ListenError, match=r"Port \d+ of PLAINTEXT://.* is taken by another"):
        second.bind()
    listener.close()


def test_a_foreign_address_is_said_so(network: Network) -> None:
    foreign = ENDPOINT._replace(host="192.0.2.1")
    listener = Listener(foreign, network.hub, Admission(UNLIMITED, UNLIMITED, {}))
    with pytest.raises(ListenError, match="no address of this machine"):
        listener.bind()


@pytest.mark.parametrize("host", ["", "localhost", "0.0.0.0"])
def test_wildcards_and_names_are_bound_at_one_port(network: Network, host: str) -> None:
    listener = listening(network, Admission(UNLIMITED, UNLIMITED, {}), ENDPOINT._replace(host=host))
    client = connect(network, listener)
    assert network.exchange(client, frame(Command.ECHO, 1)) == answer(1)
    (connection,) = network.hub.connections
    assert connection.client_host == "/127.0.0.1"
    listener.close()


def test_out_of_descriptors_the_listener_takes_a_breath(network: Network, lines) -> None:
    listener = listening(network, Admission(UNLIMITED, UNLIMITED, {}))
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
