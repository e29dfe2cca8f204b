import socket
from typing import Any

import pytest

from kavka.broker.network import Network as BrokerNetwork
from kavka.broker.network import UnsupportedProtocol
from kavka.config.broker import BrokerConfig
from kavka.storage.clock import ManualClock

from .conftest import Command, FakeService, HandTurnedLoop, answer, frame


def make(**settings: str) -> tuple[BrokerNetwork, HandTurnedLoop]:
    config = BrokerConfig({name.replace("_", "."): value for name, value in settings.items()})
    loop: Any = HandTurnedLoop()
    return BrokerNetwork(config, ManualClock(), loop, FakeService()), loop


def test_port_0_is_advertised_as_the_port_really_bound() -> None:
    network, _ = make(listeners="PLAINTEXT://127.0.0.1:0")
    network.bind()
    [told], [bound] = network.advertised(), network.bound()
    assert told == bound
    assert told.port > 0
    network.close()


def test_what_is_advertised_is_told_as_written() -> None:
    network, _ = make(
        listeners="PLAINTEXT://:0,PLAINTEXT2://127.0.0.1:0",
        advertised_listeners="PLAINTEXT://broker.example:7000,PLAINTEXT2://:0",
        listener_security_protocol_map="PLAINTEXT:PLAINTEXT,PLAINTEXT2:PLAINTEXT",
    )
    network.bind()
    first, second = network.advertised()
    assert (first.host, first.port) == ("broker.example", 7000)
    assert (second.host, second.port) == ("127.0.0.1", network.bound()[1].port)
    network.close()


def test_a_wildcard_is_told_as_the_host_name() -> None:
    network, _ = make(listeners="PLAINTEXT://:0")
    network.bind()
    assert network.advertised()[0].host == socket.gethostname()
    network.close()


def test_a_protocol_that_cannot_be_served_is_refused() -> None:
    network, _ = make(listeners="SSL://127.0.0.1:0", security_inter_broker_protocol="SSL")
    with pytest.raises(UnsupportedProtocol, match="SSL"):
        network.bind()


def test_connection_limits_follow_the_settings() -> None:
    network, loop = make(listeners="PLAINTEXT://127.0.0.1:0", max_connections_per_ip="1")
    network.bind()
    network.listen()
    address = network.bound()[0][2:]
    first = socket.create_connection(address, timeout=10)
    first.sendall(frame(Command.ECHO, 1))
    loop.settle()
    assert first.recv(100) == answer(1)
    second = socket.create_connection(address, timeout=10)
    loop.settle()
    assert second.recv(100) == b""
    network._config.set_dynamic_default({"max.connections.per.ip": "2"})
    third = socket.create_connection(address, timeout=10)
    third.sendall(frame(Command.ECHO, 3))
    loop.settle()
    assert third.recv(100) == answer(3)
    for client in (first, second, third):
        client.close()
    network.close()
