"""Connections whose service changes, and connections that are muted."""

from typing import Any

from kavka.broker.connection import Connection
from kavka.broker.request import Pending

from .conftest import HEAD, Command, FakeService, Network, answer, frame


class Gate:
    """Answers one request, then steps aside."""

    def __init__(self, behind: FakeService) -> None:
        self.behind = behind
        self.served: list[int] = []

    def serve(self, connection: Connection, view: memoryview) -> Any:
        correlation_id = HEAD.unpack_from(view)[2]
        self.served.append(correlation_id)
        connection.service = self.behind
        return answer(correlation_id, b"gate")

    def encode(self, pending: Pending) -> Any:
        raise AssertionError("a gate that answers at once has nothing to encode")


def test_a_gate_hands_over_with_the_very_next_request(network: Network) -> None:
    client, connection = network.client()
    gate = Gate(network.service)
    connection.service = gate
    frames = b"".join(frame(Command.ECHO, n, b"x") for n in range(1, 5))
    expected = answer(1, b"gate") + b"".join(answer(n, b"x") for n in range(2, 5))
    assert network.exchange(client, frames) == expected
    assert gate.served == [1]
    assert network.service.served == [2, 3, 4]


def test_a_muted_connection_answers_but_serves_nothing(network: Network) -> None:
    client, connection = network.client()
    network.service.mute = 5.0
    first = frame(Command.PARK, 1) + frame(Command.MUTE, 2, b"x") + frame(Command.ECHO, 3)
    assert network.exchange(client, first) == b""
    assert network.service.served == [1, 2]
    network.complete(1)
    network.loop.settle()
    assert network.exchange(client, frame(Command.ECHO, 4)) == answer(1) + answer(2, b"x")
    assert network.service.served == [1, 2]
    assert connection.muted
    network.loop.fire_timers()
    network.loop.settle()
    assert network.received(client) == answer(3) + answer(4)


def test_the_mute_that_ends_last_counts(network: Network) -> None:
    client, connection = network.client()
    connection.mute(1.0)
    connection.mute(9.0)
    connection.mute(3.0)
    connection.mute(0.0)
    assert network.exchange(client, frame(Command.ECHO, 1)) == b""
    (early, *early_args), (late, *late_args) = ((f, *args) for _, f, args in network.loop.timers)
    early(*early_args)
    network.loop.settle()
    assert connection.muted
    late(*late_args)
    network.loop.settle()
    assert network.received(client) == answer(1)


def test_a_muted_connection_is_not_idle_but_its_end_is_seen(network: Network) -> None:
    client, connection = network.client()
    connection.mute(5_000.0)
    network.clock.advance(2_000.0)
    network.hub.sweep()
    assert not connection.closed
    client.close()
    network.loop.settle()
    assert connection.closed
