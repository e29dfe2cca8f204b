"""Reads that are asked of ZooKeeper together, and servers that are too old to be asked so."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from kavka.replication.store.base import NoNode, SessionEvent, SessionExpired, Stat, StoreError
from kavka.replication.store.link import (
    Done,
    Exists,
    Get,
    GetMany,
    Link,
    LinkState,
    Listener,
    Request,
    ZooKeeperSettings,
)
from kavka.replication.store.zookeeper import ZooKeeperStore

SESSION = 7


class Server(Link):
    """Answers when it is told to; an old one refuses to read several nodes."""

    def __init__(self, *, old: bool = False) -> None:
        self.old = old
        self.asked: list[tuple[Request, Done]] = []
        self.seen: list[Any] = []  # a path, or several, in the order of their answers
        self._listener: Listener | None = None

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self.change(LinkState.CONNECTED)

    def change(self, state: LinkState) -> None:
        assert self._listener is not None
        self._listener.link_changed(state, SESSION)

    def submit(self, request: Request, done: Done) -> None:
        self.asked.append((request, done))

    def answer(self) -> None:
        """Answer all that is asked, and what is asked because of that."""
        while self.asked:
            request, done = self.asked.pop(0)
            match request:
                case Get(path) | Exists(path):
                    self.seen.append(path)
                    done(node(path))
                case GetMany(paths) if self.old:
                    done(StoreError("unknown operation"))
                case GetMany(paths):
                    self.seen.append(list(paths))
                    done([NoNode(each) if each.endswith("none") else node(each) for each in paths])

    async def close(self) -> None:
        self._listener = None


def node(path: str) -> tuple[bytes, Stat]:
    return path.encode(), Stat(1, 1, 0, 0, 0, 0, 0, 0, 0)


def run(server: Server, scenario: Callable[[ZooKeeperStore], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        store = await ZooKeeperStore.open(ZooKeeperSettings("nowhere", max_in_flight=2), server)
        await scenario(store)
        await store.close()

    asyncio.run(whole())


async def read(server: Server, *futures: "asyncio.Future[Any]") -> list[Any]:
    await asyncio.sleep(0)  # when the loop comes round they are sent
    server.answer()
    return await asyncio.gather(*futures, return_exceptions=True)


def test_neighbours_go_together_and_keep_their_places() -> None:
    server = Server()

    async def scenario(store: ZooKeeperStore) -> None:
        given_up = store.get("/given-up")
        given_up.cancel()
        reads = [store.get("/a"), store.get("/none"), store.exists("/b"), store.get("/c")]
        watched = store.get("/d", lambda event: None)
        first, none, _, third, fourth = await read(server, *reads, watched)
        assert server.seen == [["/a", "/none"], "/b", "/c", "/d"]
        assert (first[0], third[0], fourth[0]) == (b"/a", b"/c", b"/d")
        assert isinstance(none, NoNode)

    run(server, scenario)


def test_an_old_server_is_asked_for_one_at_a_time() -> None:
    server = Server(old=True)

    async def scenario(store: ZooKeeperStore) -> None:
        for paths in (["/a", "/b", "/c"], ["/d", "/e"]):
            found = await read(server, *map(store.get, paths))
            assert [data for data, _ in found] == [path.encode() for path in paths]
        assert server.seen == ["/a", "/b", "/c", "/d", "/e"]

    run(server, scenario)


def test_an_old_server_that_hangs_up_is_asked_again_in_order() -> None:
    server = Server()

    async def scenario(store: ZooKeeperStore) -> None:
        reads = [store.get("/a"), store.get("/b"), store.exists("/c"), store.get("/d")]
        await asyncio.sleep(0)
        lost, server.asked = server.asked, []
        assert [type(request) for request, _ in lost] == [GetMany, Exists]
        server.change(LinkState.SUSPENDED)
        server.change(LinkState.CONNECTED)
        lost[0][1]([node("/wrong"), node("/wrong")])  # too late
        found = await read(server, *reads)
        assert [data for data, _ in (found[0], found[1], found[3])] == [b"/a", b"/b", b"/d"]
        assert server.seen == ["/a", "/b", "/c", "/d"]

    run(server, scenario)


def test_the_end_of_a_session_refuses_all_of_a_group() -> None:
    server = Server()
    events: list[SessionEvent] = []

    async def scenario(store: ZooKeeperStore) -> None:
        store.on_session_event(events.append)
        reads = [store.get("/a"), store.get("/b")]
        await asyncio.sleep(0)
        ((_, done),) = server.asked
        server.asked = []
        done(SessionExpired("over"))
        server.change(LinkState.EXPIRED)
        for outcome in await read(server, *reads):
            assert isinstance(outcome, SessionExpired)
        assert events == [SessionEvent.EXPIRED]
        server.change(LinkState.CONNECTED)
        await read(server, store.get("/c"), store.get("/d"))
        assert server.seen == [["/c", "/d"]]  # it was not the server's fault

    run(server, scenario)
