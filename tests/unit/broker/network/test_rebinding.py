"""Listeners follow the settings while the connections of others go on."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kavka.broker.listeners import ListenError
from kavka.broker.network import Network, UnsupportedProtocol
from kavka.config.broker import BrokerConfig
from kavka.config.dynamic import validate
from kavka.config.option import ConfigError
from kavka.storage.clock import ManualClock
from tests.broker_process import free_port

from .conftest import Command, FakeService, HandTurnedLoop, answer, frame

MAP = "A:PLAINTEXT,B:PLAINTEXT,C:SSL,PLAINTEXT:PLAINTEXT"


class World:
    """A listening network and clients of it."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.config = BrokerConfig({"listener.security.protocol.map": MAP, **settings})
        self.loop: Any = HandTurnedLoop()
        self.clock = ManualClock()
        self.network = Network(self.config, self.clock, self.loop, FakeService())
        self.told = 0
        self.network.on_addresses = self._told
        self.clients: list[socket.socket] = []

    def _told(self) -> None:
        self.told += 1

    def start(self) -> "World":
        self.network.bind()
        self.network.listen()
        return self

    def set(self, **settings: str) -> None:
        """Have the settings in force."""
        named = {name.replace("_", "."): value for name, value in settings.items()}
        self.config.set_dynamic_broker(named)

    def changed(self, **settings: str) -> BrokerConfig:
        named = {name.replace("_", "."): value for name, value in settings.items()}
        return self.config.with_dynamic({}, named)

    def address(self, name: str) -> tuple[str, int]:
        [found] = [e for e in self.network.bound() if e.name == name]
        return found.host, found.port

    def connect(self, address: tuple[str, int]) -> socket.socket:
        client = socket.create_connection(address, timeout=10)
        self.clients.append(client)
        self.loop.settle()
        return client

    def works(self, client: socket.socket) -> bool:
        client.sendall(frame(Command.ECHO, 1))
        self.loop.settle()
        try:
            return client.recv(100) == answer(1)
        except ConnectionError:
            return False

    def close(self) -> None:
        self.network.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World({"listeners": "A://127.0.0.1:0"}).start()
    yield made
    made.close()


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_listener_is_opened_and_closed_beside_another(world: World) -> None:
    client = world.connect(world.address("A"))
    assert world.works(client)
    world.set(listeners="A://127.0.0.1:0,B://127.0.0.1:0")
    assert world.told == 1
    b = world.address("B")
    other = world.connect(b)
    assert world.works(other)
    assert world.works(client)
    world.set(listeners="A://127.0.0.1:0")
    assert world.told == 2
    assert refuses(b)
    assert not world.works(other)
    assert world.works(client)
    assert world.network.admission.by_listener["B"] == 0
    assert [endpoint.name for endpoint in world.network.advertised()] == ["A"]


def test_another_address_leaves_sessions_alone(world: World) -> None:
    before = world.address("A")
    client = world.connect(before)
    port = free_port()
    world.set(listeners=f"A://127.0.0.1:{port}")
    assert world.address("A") == ("127.0.0.1", port)
    assert refuses(before)
    assert world.works(client)
    assert world.works(world.connect(("127.0.0.1", port)))


def test_a_listener_may_get_another_host_at_its_own_port() -> None:
    port = free_port()
    world = World({"listeners": f"A://127.0.0.1:{port}"}).start()
    client = world.connect(("127.0.0.1", port))
    pending = socket.create_connection(("127.0.0.1", port), timeout=10)
    world.clients.append(pending)
    world.set(listeners=f"A://0.0.0.0:{port}", advertised_listeners=f"A://127.0.0.1:{port}")
    assert world.works(client)
    assert world.works(pending)  # had connected, and was not accepted yet
    assert world.works(world.connect(("127.0.0.2", port)))
    world.close()


def test_listeners_may_swap_their_ports() -> None:
    first, second = free_port(), free_port()
    world = World({"listeners": f"A://127.0.0.1:{first},B://127.0.0.1:{second}"}).start()
    world.set(listeners=f"A://127.0.0.1:{second},B://127.0.0.1:{first}")
    world.connect(("127.0.0.1", first))
    assert [c.endpoint.name for c in world.network.hub.connections] == ["B"]
    world.connect(("127.0.0.1", second))
    assert sorted(c.endpoint.name for c in world.network.hub.connections) == ["A", "B"]
    world.close()


def test_what_cannot_be_bound_changes_nothing(world: World) -> None:
    a = world.address("A")
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        free = free_port()
        wanted = f"A://127.0.0.1:{free},B://127.0.0.1:{taken}"
        with pytest.raises(ListenError, match=f"Port {taken} .* is taken"):
            world.network.rebind(world.changed(listeners=wanted))
        assert refuses(("127.0.0.1", free))
        assert world.works(world.connect(a))
        # The same, but the listener's own old port stands in the way too.
        port = free_port()
        world.set(listeners=f"A://127.0.0.1:{port}")
        wanted = f"A://0.0.0.0:{port},B://127.0.0.1:{taken}"
        with pytest.raises(ListenError, match=f"Port {taken} .* is taken"):
            world.network.rebind(
                world.changed(
                    listeners=wanted,
                    advertised_listeners=f"A://127.0.0.1:{port},B://127.0.0.1:{taken}",
                )
            )
        assert world.works(world.connect(("127.0.0.1", port)))
        assert refuses(("127.0.0.2", port))
    with pytest.raises(UnsupportedProtocol):
        world.network.rebind(world.changed(listeners="A://127.0.0.1:0,C://127.0.0.1:0"))


def test_what_was_prepared_is_used_when_it_comes_into_force(world: World) -> None:
    wanted = "A://127.0.0.1:0,B://127.0.0.1:0"
    rebinding = world.network.rebind(world.changed(listeners=wanted))
    port = rebinding.opened["B"].address[1]
    told = world.network.advertised_after(rebinding, world.changed(listeners=wanted))
    assert [(endpoint.name, endpoint.port) for endpoint in told] == [
        ("A", world.address("A")[1]),
        ("B", port),
    ]
    world.set(listeners=wanted)
    assert world.address("B")[1] == port
    rebinding.abandon()  # what is in force is not taken back
    assert world.works(world.connect(("127.0.0.1", port)))


def test_what_was_prepared_in_vain_is_given_back(world: World) -> None:
    port = free_port()
    wanted = f"A://127.0.0.1:0,B://127.0.0.1:{port}"
    rebinding = world.network.rebind(world.changed(listeners=wanted))
    rebinding.abandon()
    socket.create_server(("127.0.0.1", port)).close()  # free again
    world.set(listeners=wanted)
    assert world.works(world.connect(("127.0.0.1", port)))


def test_a_trial_sends_nobody_away(world: World) -> None:
    port = free_port()
    world.set(listeners=f"A://127.0.0.1:{port}")
    changed = world.changed(
        listeners=f"A://0.0.0.0:{port}", advertised_listeners=f"A://127.0.0.1:{port}"
    )
    rebinding = world.network.rebind(changed, trial=True)
    assert world.works(world.connect(("127.0.0.1", port)))
    rebinding.abandon()
    assert world.works(world.connect(("127.0.0.1", port)))


def test_settings_written_past_the_checks_leave_listeners_as_they_are(world: World, lines) -> None:
    a = world.address("A")
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        world.set(listeners=f"A://127.0.0.1:0,B://127.0.0.1:{taken}")
        assert "listeners stay as they are" in "".join(lines())
        assert world.works(world.connect(a))
        assert [endpoint.name for endpoint in world.network.advertised()] == ["A"]
    world.set(listeners=f"A://127.0.0.1:0,B://127.0.0.1:{taken},PLAINTEXT://127.0.0.1:0")
    assert sorted(endpoint.name for endpoint in world.network.bound()) == ["A", "B", "PLAINTEXT"]


def test_settings_of_before_the_start_hold_from_the_start() -> None:
    world = World({"listeners": "A://127.0.0.1:0"})
    world.network.bind()
    static = world.address("A")
    world.set(listeners="B://127.0.0.1:0")
    world.network.listen()
    assert refuses(static)
    assert world.works(world.connect(world.address("B")))
    world.close()


def test_a_start_leaves_out_what_cannot_be_had_but_not_everything(lines) -> None:
    world = World({"listeners": "A://127.0.0.1:0"})
    world.network.bind()
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        world.set(listeners=f"B://127.0.0.1:{taken},PLAINTEXT://127.0.0.1:0")
        world.network.listen()
        assert f"a listener stays closed: Port {taken}" in "".join(lines())
        assert [endpoint.name for endpoint in world.network.advertised()] == ["PLAINTEXT"]
        assert world.works(world.connect(world.address("PLAINTEXT")))
    world.close()


def test_a_start_fails_when_none_of_the_listeners_of_before_can_be_had() -> None:
    world = World({"listeners": "A://127.0.0.1:0"})
    world.network.bind()
    with socket.create_server(("127.0.0.1", 0)) as foreign, pytest.raises(ListenError):
        world.set(listeners=f"B://127.0.0.1:{foreign.getsockname()[1]}")
    world.close()


def test_a_stopped_network_opens_nothing(world: World) -> None:
    world.network.stop_listening()
    port = free_port()
    world.set(listeners=f"B://127.0.0.1:{port}")
    assert refuses(("127.0.0.1", port))


def test_an_advertised_address_changes_alone(world: World) -> None:
    client = world.connect(world.address("A"))
    world.set(advertised_listeners="A://broker.example:7000")
    [told] = world.network.advertised()
    assert (told.host, told.port) == ("broker.example", 7000)
    assert world.told == 1
    assert world.works(client)


def test_limits_of_a_listener_follow_the_settings(world: World) -> None:
    world.set(**{"listener.name.a.max.connections": "1"})
    world.connect(world.address("A"))
    waiting = world.connect(world.address("A"))
    assert len(world.network.hub.connections) == 1
    world.set()
    assert world.works(waiting)


def test_clients_give_way_when_max_connections_is_lowered(lines) -> None:
    world = World(
        {"listeners": "A://127.0.0.1:0,B://127.0.0.1:0", "inter.broker.listener.name": "B"}
    ).start()
    broker = world.connect(world.address("B"))
    clients = []
    for _ in range(3):
        world.clock.advance(1.0)
        world.network.hub.sweep()
        clients.append(world.connect(world.address("A")))
    world.config.set_dynamic_default({"max.connections": "2"})
    assert [world.works(client) for client in clients] == [False, False, True]
    assert world.works(broker)
    assert "max.connections is exceeded count=2" in "".join(lines())
    world.close()


def test_sources_follow_the_settings(world: World) -> None:
    world.set(**{"listener.name.a.source.allow": "127.0.0.2/32"})
    assert not world.works(world.connect(world.address("A")))
    world.config.set_dynamic_default({"source.rule.sets": "office=127.0.0.1"})
    world.set(**{"listener.name.a.source.allow": "@office"})
    client = world.connect(world.address("A"))
    assert world.works(client)
    world.config.set_dynamic_default({"source.rule.sets": "office=127.0.0.2"})
    assert not world.works(world.connect(world.address("A")))
    assert world.works(client)  # rules are for connections to come
    assert world.network.admission.refusals.counts == {("A", "source"): 2}


def test_an_open_listener_cannot_speak_otherwise(world: World) -> None:
    other = {"listener.security.protocol.map": MAP.replace("A:PLAINTEXT", "A:SSL")}
    with pytest.raises(ConfigError, match="cannot be updated for existing listener A"):
        validate(world.config, other, per_broker=True)
    validate(world.config, {**other, "listeners": "B://127.0.0.1:0"}, per_broker=True)


def test_members_of_a_cluster_cannot_move_the_listener_of_brokers() -> None:
    config = BrokerConfig(
        {
            "listener.security.protocol.map": MAP,
            "listeners": "A://127.0.0.1:1001,B://127.0.0.1:1002",
            "inter.broker.listener.name": "B",
            "zookeeper.connect": "zk:2181",
        }
    )
    validate(config, {"listeners": "A://127.0.0.1:1009,B://127.0.0.1:1002"}, per_broker=True)
    for wrong in (
        {"listeners": "A://127.0.0.1:1001,B://127.0.0.1:1009"},
        {"advertised.listeners": "A://127.0.0.1:1001,B://other.example:1002"},
    ):
        with pytest.raises(ConfigError, match="listener of brokers, B, cannot be updated"):
            validate(config, wrong, per_broker=True)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("A://[::1]:0", ["::1"]),
        ("A://[::]:0", ["::1", "127.0.0.1"]),
        ("A://:0", ["::1", "127.0.0.1"]),
        ("A://localhost:0", ["127.0.0.1"]),
    ],
)
def test_both_kinds_of_addresses_are_served(text: str, hosts: list[str]) -> None:
    world = World({"listeners": text}).start()
    port = world.address("A")[1]
    for host in hosts:
        assert world.works(world.connect((host, port)))
    assert {c.client_host for c in world.network.hub.connections} == {f"/{host}" for host in hosts}
    world.close()
