"""The registration of a broker follows its listeners."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kavka.broker import listener_control
from kavka.broker.listener_control import ListenerControl, PeerAddresses
from kavka.config.listeners import Endpoint
from kavka.config.option import ConfigError
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataRequest,
)
from kavka.replication import znodes
from kavka.replication.metadata import MetadataCache
from kavka.replication.store.base import StoreUnavailable
from tests.unit.replication.harness import NODE, Harness, run

HERE = Endpoint("PLAINTEXT", "PLAINTEXT", "127.0.0.1", 9092)
THERE = HERE._replace(port=9999)
PUBLIC = Endpoint("PUBLIC", "PLAINTEXT", "127.0.0.1", 9094)


class FakeNetwork:
    """Listens where it is told to."""

    def __init__(self) -> None:
        self.on_addresses: Any = None
        self.admission = SimpleNamespace(is_broker=None, live_brokers=None)
        self.endpoints = [HERE]
        self.abandoned = 0

    def bound(self) -> list[Endpoint]:
        return self.endpoints

    def advertised(self) -> list[Endpoint]:
        return self.endpoints

    def rebind(self, changed: Any, *, trial: bool) -> "FakeNetwork":
        return self

    def advertised_after(self, rebinding: object, changed: Any) -> list[Endpoint]:
        found: list[Endpoint] = changed.listeners
        return found

    def abandon(self) -> None:
        self.abandoned += 1

    def listen_at(self, *endpoints: Endpoint) -> None:
        self.endpoints = list(endpoints)
        self.on_addresses()


class FakeTls:
    async def prepare(self, changed: object, opened: object) -> None:
        pass


class World:
    """A broker in a harness, and the control of its listeners."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.network = FakeNetwork()
        self.broker: Any = SimpleNamespace(
            config=harness.config,
            store=harness.store,
            node_id=NODE,
            clock=harness.clock,
            loop=asyncio.get_running_loop(),
            tls=FakeTls(),
            advertised_endpoints={},
        )
        self.control = ListenerControl(self.broker, self.network)  # type: ignore[arg-type]

    def told(self, listener: str) -> tuple[str, int] | None:
        endpoint = self.harness.metadata.brokers[NODE].endpoint(listener)
        return None if endpoint is None else (endpoint.host, endpoint.port)


def test_the_cluster_hears_of_other_addresses(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        world = World(harness)
        world.control.registration()
        epoch = (await harness.store.get(znodes.broker_path(NODE)))[1].czxid
        world.network.listen_at(THERE, PUBLIC)
        assert world.broker.advertised_endpoints == {
            "PLAINTEXT": ("127.0.0.1", 9999),
            "PUBLIC": ("127.0.0.1", 9094),
        }
        await world.control.settled()
        assert (await harness.store.get(znodes.broker_path(NODE)))[1].czxid == epoch
        assert await harness.metadata.wait_until(lambda: world.told("PUBLIC") is not None, 10)
        assert world.told("PLAINTEXT") == ("127.0.0.1", 9999)
        world.network.listen_at(THERE)
        assert await harness.metadata.wait_until(lambda: world.told("PUBLIC") is None, 10)

    run(harness, scenario)


def test_before_it_is_registered_nothing_is_written(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        world = World(harness)
        before = await harness.store.get(znodes.broker_path(NODE))
        world.network.listen_at(PUBLIC)
        await world.control.settled()
        assert await harness.store.get(znodes.broker_path(NODE)) == before
        assert world.control.registration().endpoints == (PUBLIC,)

    run(harness, scenario)


def test_a_store_that_fails_is_asked_again_and_told_what_is_so_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_control, "_RETRY_SECONDS", 0)
    harness = Harness(tmp_path)

    async def scenario() -> None:
        world = World(harness)
        world.control.registration()
        failures = 2
        real = harness.store.set

        async def failing(path: str, data: bytes, version: int = -1) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                world.network.listen_at(THERE)  # it has moved on meanwhile
                raise StoreUnavailable("not now")
            return await real(path, data, version)

        monkeypatch.setattr(harness.store, "set", failing)
        world.network.listen_at(PUBLIC)
        await world.control.settled()
        path = znodes.broker_path(NODE)
        data, _ = await harness.store.get(path)
        assert znodes.decode_registration(path, data).endpoints == (THERE,)

    run(harness, scenario)


def test_without_a_registration_nothing_is_written(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        world = World(harness)
        world.control.registration()
        await harness.store.delete(znodes.broker_path(NODE))
        world.network.listen_at(PUBLIC)
        await world.control.settled()
        assert await harness.store.exists(znodes.broker_path(NODE)) is None

    run(harness, scenario)


def test_an_address_of_another_broker_is_not_taken(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        other = harness.metadata.brokers[2].endpoints[0]
        world = World(harness)
        same = harness.config.with_dynamic({}, {})
        assert await world.control.prepare(same, trial=False) is None
        free = harness.config.with_dynamic({}, {"listeners": "PLAINTEXT://127.0.0.1:9999"})
        assert await world.control.prepare(free, trial=False) is not None
        taken = f"PLAINTEXT://{other.host}:{other.port}"
        changed = harness.config.with_dynamic({}, {"listeners": taken})
        with pytest.raises(ConfigError, match="broker 2 is advertised at"):
            await world.control.prepare(changed, trial=False)
        assert world.network.abandoned == 1

    run(harness, scenario, 2)


def test_admission_learns_who_is_a_broker() -> None:
    async def scenario() -> None:
        metadata = MetadataCache("cluster")
        hosts = {1: "10.0.0.1", 2: "10.0.0.2", 3: "localhost"}

        def tell() -> None:
            metadata.update(
                UpdateMetadataRequest(
                    live_brokers=[
                        UpdateMetadataBroker(
                            id=broker,
                            endpoints=[UpdateMetadataEndpoint(listener="A", host=host, port=1)],
                        )
                        for broker, host in hosts.items()
                    ]
                )
            )

        tell()
        peers = PeerAddresses(metadata, 1, asyncio.get_running_loop())
        assert "10.0.0.2" in peers
        assert "10.0.0.1" not in peers  # this broker's own
        assert "127.0.0.1" not in peers  # the name is being looked up
        await asyncio.wait(list(peers._looking.values()))
        assert "127.0.0.1" in peers
        del hosts[2], hosts[3]
        tell()
        assert "10.0.0.2" not in peers
        assert "127.0.0.1" not in peers

    asyncio.run(scenario())
