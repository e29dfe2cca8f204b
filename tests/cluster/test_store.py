"""The store over a real ZooKeeper: its rules, and what becomes of them when connections break."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from kazoo.client import KazooClient

from kavka.broker.cluster.zookeeper import settings as zookeeper_settings
from kavka.config.broker import BrokerConfig
from kavka.replication.store.base import (
    BadVersion,
    Create,
    EventType,
    MultiFailed,
    NodeExists,
    NoNode,
    SessionEvent,
    SessionExpired,
    SetData,
    Stat,
    StoreError,
    StoreUnavailable,
    WatchEvent,
)
from kavka.replication.store.link import (
    Done,
    Get,
    GetMany,
    KazooLink,
    Request,
    ZooKeeperSettings,
)
from kavka.replication.store.zookeeper import ZooKeeperStore, parse_connect
from tests.broker_process import free_port
from tests.cluster.proxy import Proxies
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.tls_broker import generate, values
from tests.unit.replication import test_local_store as contract

pytestmark = [pytest.mark.cluster, needs_zookeeper]

ONLY = 1  # the number of the one proxy
SESSION_SECONDS = 1.0
_names = itertools.count()


def reach(zookeeper: ZooKeeper, port: int | None = None, **changes: Any) -> ZooKeeperSettings:
    servers, chroot = parse_connect(zookeeper.chroot())
    if port is not None:
        servers = f"127.0.0.1:{port}"
    settings = ZooKeeperSettings(servers, chroot, session_timeout=SESSION_SECONDS)
    return settings._replace(**changes)


class ZooKeeperMachine(contract.StoreMachine):
    """The same random operations as the embedded store's, against the same model."""

    server: ClassVar[ZooKeeper]

    def begin(self) -> Any:
        self.settings = reach(self.server)
        return self.run(ZooKeeperStore.open(self.settings))

    def go_on(self, crash: bool) -> Any:
        self.run(self.store.close())
        return self.run(ZooKeeperStore.open(self.settings))

    def end(self) -> None:
        self.run(self.store.close())


ZooKeeperMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_the_store_agrees_with_the_model(zookeeper: ZooKeeper) -> None:
    ZooKeeperMachine.server = zookeeper
    case = ZooKeeperMachine.TestCase()
    case.runTest()


@pytest.fixture
def proxy(zookeeper: ZooKeeper) -> Iterator[Proxies]:
    proxies = Proxies({ONLY: zookeeper.port})
    yield proxies
    proxies.close()


Scenario = Callable[[ZooKeeperStore], Coroutine[Any, Any, None]]


def in_store(settings: ZooKeeperSettings, scenario: Scenario) -> None:
    async def run() -> None:
        store = await ZooKeeperStore.open(settings)
        try:
            await asyncio.wait_for(scenario(store), 60)
        finally:
            await store.close()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)  # between polls of a condition


def test_an_event_comes_before_later_data(zookeeper: ZooKeeper) -> None:
    async def scenario(store: ZooKeeperStore) -> None:
        for number in range(50):
            order: list[str] = []
            path = await store.create("/a", b"old", sequence=True)
            await store.get(path, lambda _, order=order: order.append("event"))
            write, read = store.set(path, b"%d" % number), store.get(path)
            read.add_done_callback(lambda _, order=order: order.append("read"))
            write.add_done_callback(lambda _, order=order: order.append("write"))
            await read
            await asyncio.sleep(0)
            assert order == ["event", "write", "read"]

    in_store(reach(zookeeper), scenario)


def test_an_event_never_overtakes_the_answer_that_set_its_watch(
    zookeeper: ZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the loop's thread may rest right after it has sent a request, and find
    both the answer and the event when it goes on."""
    seen = threading.Event()
    on_watch, call = KazooLink._on_watch, KazooClient._call

    def noted(link: KazooLink, event: Any) -> None:
        on_watch(link, event)
        seen.set()

    monkeypatch.setattr(KazooLink, "_on_watch", noted)
    other = KazooClient(hosts=zookeeper.address)
    other.start()

    async def scenario(store: ZooKeeperStore) -> None:
        await store.create("/parent")
        changes: list[Callable[[str], object]] = [
            lambda parent: other.create(f"{parent}/child"),
            lambda parent: other.set(parent, b"1"),
            lambda parent: other.set(parent, b"2"),
        ]
        for read, change in zip((store.children, store.get, store.exists), changes, strict=True):

            def rest(client: KazooClient, request: Any, result: Any, change: Any = change) -> None:
                call(client, request, result)
                if client is not other:
                    deadline = time.monotonic() + 30
                    while not result.ready():
                        assert time.monotonic() < deadline
                        time.sleep(0.001)
                    change(f"{store._chroot}/parent")
                    assert seen.wait(30)

            events: list[WatchEvent] = []
            seen.clear()
            with monkeypatch.context() as patch:
                patch.setattr(KazooClient, "_call", rest)
                await read("/parent", events.append)
            await until(lambda events=events: bool(events))

    in_store(reach(zookeeper, session_timeout=30.0), scenario)
    other.stop()


def test_many_are_read_together(
    zookeeper: ZooKeeper, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    submit = KazooLink.submit

    def counted(link: KazooLink, request: Request, done: Done) -> None:
        if isinstance(request, Get | GetMany):
            asked.append(len(request.paths) if isinstance(request, GetMany) else 1)
        submit(link, request, done)

    monkeypatch.setattr(KazooLink, "submit", counted)

    async def scenario(store: ZooKeeperStore) -> None:
        stats: dict[int, Stat] = {}
        for number in range(0, 250, 2):
            await store.create(f"/ä{number}", b"" if number % 4 else b"%d" % number)
            stats[number] = await store.set(f"/ä{number}", b"%d" % number if number % 8 else b"")
        reads = [store.get(f"/ä{number}") for number in range(250)]
        written = store.set("/ä0", b"later")
        last = store.get("/ä0")
        for number, outcome in enumerate(await asyncio.gather(*reads, return_exceptions=True)):
            if number % 2:
                assert isinstance(outcome, NoNode)
                assert str(outcome) == f"{store._chroot}/ä{number}"
            else:
                assert outcome == (b"%d" % number if number % 8 else b"", stats[number])
        assert await last == (b"later", await written)
        assert asked == [100, 100, 50, 1]
        # Cut off before the answer: all are asked for again, and alone from now on.
        zookeeper.pause()
        reads = [store.get("/ä8") for _ in range(300)]
        await asyncio.sleep(0)
        proxy.cut(ONLY)
        zookeeper.resume()
        assert await asyncio.gather(*reads) == [(b"", stats[8])] * 300
        assert asked[4:7] == [100, 100, 100]
        assert set(asked[7:]) == {1}

    in_store(reach(zookeeper, proxy.ports[ONLY]), scenario)


def test_what_was_under_way_is_asked_again(zookeeper: ZooKeeper, proxy: Proxies) -> None:
    async def scenario(store: ZooKeeperStore) -> None:
        events: list[SessionEvent] = []
        store.on_session_event(events.append)
        session = store.session_id
        await store.create("/parent")
        for number in range(5):
            writes = [store.create(f"/parent/{number}-{each:03}") for each in range(200)]
            await writes[number * 20]
            proxy.cut(ONLY)
            results = await asyncio.gather(*writes, return_exceptions=True)
            # Its answer was lost: the second attempt has met the first.
            assert all(isinstance(r, str | NodeExists) for r in results), results
            assert sum(isinstance(r, NodeExists) for r in results) <= 10
        assert len(await store.children("/parent")) == 1000
        assert store.session_id == session
        assert events.count(SessionEvent.SUSPENDED) == events.count(SessionEvent.CONNECTED) == 5

    in_store(reach(zookeeper, proxy.ports[ONLY]), scenario)


def test_watches_outlive_a_lost_connection(zookeeper: ZooKeeper, proxy: Proxies) -> None:
    settings = reach(zookeeper, proxy.ports[ONLY], session_timeout=20.0)
    direct = settings._replace(servers=zookeeper.address)

    async def scenario(store: ZooKeeperStore) -> None:
        other = await ZooKeeperStore.open(direct)
        for path in ("/changed", "/deleted", "/same", "/parent"):
            await store.create(path)
        seen: list[WatchEvent] = []
        for path in ("/changed", "/deleted", "/same"):
            await store.get(path, seen.append)
        await store.exists("/made", seen.append)
        await store.exists("/never", seen.append)
        await store.children("/parent", seen.append)
        await store.children("/same", seen.append)
        proxy.block(ONLY)
        await other.set("/changed", b"1")
        await other.delete("/deleted")
        await other.create("/made")
        await other.create("/parent/child")
        later = store.get("/changed")
        later.add_done_callback(lambda _: seen.append(WatchEvent(EventType.CHANGED, "/read")))
        proxy.unblock(ONLY)
        assert (await later)[0] == b"1"
        await asyncio.sleep(0)
        missed = {
            WatchEvent(EventType.CHANGED, "/changed"),
            WatchEvent(EventType.DELETED, "/deleted"),
            WatchEvent(EventType.CREATED, "/made"),
            WatchEvent(EventType.CHILD, "/parent"),
        }
        assert set(seen[:4]) == missed  # before any data of after them
        # And those that had nothing to tell still watch.
        await other.set("/same", b"1")
        await other.create("/never")
        await until(lambda: len(seen) == 7)
        assert set(seen[5:]) == {
            WatchEvent(EventType.CHANGED, "/same"),
            WatchEvent(EventType.CREATED, "/never"),
        }
        await other.close()

    in_store(settings, scenario)


def test_a_session_that_expires_takes_its_nodes_along_and_another_begins(
    zookeeper: ZooKeeper, proxy: Proxies
) -> None:
    settings = reach(zookeeper, proxy.ports[ONLY])
    direct = settings._replace(servers=zookeeper.address)

    async def scenario(store: ZooKeeperStore) -> None:
        other = await ZooKeeperStore.open(direct)
        events: list[SessionEvent] = []
        store.on_session_event(events.append)
        old = store.session_id
        await store.create("/mine", ephemeral=True)
        told: list[WatchEvent] = []
        await store.get("/mine", told.append)
        gone = asyncio.Event()
        await other.get("/mine", lambda _: gone.set())
        proxy.block(ONLY)
        waiting = store.get("/mine")
        given_up = store.create("/given-up")
        given_up.cancel()
        await gone.wait()
        proxy.unblock(ONLY)
        with pytest.raises(SessionExpired):
            await waiting
        await until(lambda: events[-1:] == [SessionEvent.CONNECTED])
        assert events == [SessionEvent.SUSPENDED, SessionEvent.EXPIRED, SessionEvent.CONNECTED]
        assert store.session_id != old
        assert await store.exists("/mine") is None
        assert await store.exists("/given-up") is None
        assert not told  # watches belong to the session
        stat = await store.create("/mine", ephemeral=True) and await store.exists("/mine")
        assert stat is not None and stat.ephemeral_owner == store.session_id
        await other.close()

    in_store(settings, scenario)


def test_errors_have_their_names(zookeeper: ZooKeeper) -> None:
    async def scenario(store: ZooKeeperStore) -> None:
        await store.create("/a")
        errors: list[tuple[Any, type[StoreError]]] = [
            (store.get("/none"), NoNode),
            (store.create("/a"), NodeExists),
            (store.set("/a", b"", 7), BadVersion),
            (store.create("/none/child"), NoNode),
        ]
        for future, error in errors:
            with pytest.raises(error, match=r"^/"):
                await future
        with pytest.raises(MultiFailed) as caught:
            await store.multi([SetData("/a", b"1"), Create("/a"), Create("/b")])
        assert (caught.value.index, type(caught.value.error)) == (1, NodeExists)
        assert (await store.get("/a"))[0] == b""

    in_store(reach(zookeeper), scenario)


def test_only_brokers_may_write_where_acls_are_set(zookeeper: ZooKeeper) -> None:
    settings = reach(zookeeper, digest="broker:secret", set_acl=True)
    stranger = settings._replace(digest=None, set_acl=False)

    async def scenario(store: ZooKeeperStore) -> None:
        for path in ("/config", "/config/users", "/config/topics", "/consumers"):
            await store.create(path)
        await store.create("/config/users/alice", b"password")
        other = await ZooKeeperStore.open(stranger)
        assert await other.children("/config/topics") == []
        one, both = await asyncio.gather(
            other.get("/config/topics"), other.get("/config/users/alice"), return_exceptions=True
        )
        assert not isinstance(one, BaseException)
        assert "does not allow" in str(both)  # of those read together
        refused = [
            other.set("/config/topics", b""),
            other.create("/config/topics/t"),
            other.get("/config/users/alice"),
            other.children("/config/users"),
        ]
        for each in refused:
            with pytest.raises(StoreError, match="does not allow"):
                await each
        await other.create("/consumers/old")
        await other.close()

    in_store(settings, scenario)
    with pytest.raises(StoreError, match=r"zookeeper\.digest"):
        in_store(reach(zookeeper, set_acl=True), scenario)


def test_a_broker_talks_to_zookeeper_by_tls(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    generate(certs)
    store = values(certs / "server.tls.properties")
    secure_port = free_port()
    server = ZooKeeper(
        tmp_path / "zookeeper",
        f"secureClientPort={secure_port}\n"
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
        f"ssl.keyStore.location={store['ssl.keystore.location']}\n"
        f"ssl.keyStore.password={store['ssl.keystore.password']}\n"
        f"ssl.trustStore.location={store['ssl.truststore.location']}\n"
        f"ssl.trustStore.password={store['ssl.truststore.password']}\n",
    ).start()
    tls = {
        "zookeeper.connect": f"localhost:{secure_port}/secure",
        "zookeeper.ssl.client.enable": "true",
        "zookeeper.ssl.truststore.location": store["ssl.truststore.location"],
        "zookeeper.ssl.truststore.password": store["ssl.truststore.password"],
    }
    mutual = {
        "zookeeper.connection.timeout.ms": "30000",  # its first handshake takes a JVM seconds
        "zookeeper.ssl.keystore.location": store["ssl.keystore.location"],
        "zookeeper.ssl.keystore.password": store["ssl.keystore.password"],
    }

    async def scenario(store: ZooKeeperStore) -> None:
        path = await store.create("/a", b"1" * 100_000)
        assert (await store.get(path))[0] == b"1" * 100_000

    try:
        in_store(zookeeper_settings(BrokerConfig({**tls, **mutual})), scenario)
        with pytest.raises(StoreUnavailable):  # it asks for a certificate
            impatient = {**tls, "zookeeper.connection.timeout.ms": "1000"}
            in_store(zookeeper_settings(BrokerConfig(impatient)), scenario)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a:1", ("a:1", "")),
        ("a:1,b:2", ("a:1,b:2", "")),
        ("a:1,b:2/kafka", ("a:1,b:2", "/kafka")),
        ("a:1/x/y/", ("a:1", "/x/y")),
        ("a:1/", ("a:1", "")),
    ],
)
def test_a_connect_string_has_servers_and_a_path(text: str, parsed: tuple[str, str]) -> None:
    assert parse_connect(text) == parsed
