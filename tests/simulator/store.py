"""ZooKeeper in virtual time: one tree, sessions that expire, answers that get lost.

What is asked while the connection is away waits; what was under way when it broke is asked again
and may be done twice, as the real client does it. A server applies in the order of arrival.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kavka.replication.store.base import (
    ANY_VERSION,
    Create,
    Delete,
    MultiFailed,
    Operation,
    SessionEvent,
    SessionExpired,
    SetData,
    Stat,
    StoreClosed,
    StoreError,
    Watch,
    WatchEvent,
)
from kavka.replication.store.tree import Tree
from kavka.replication.store.watches import Watches
from tests.simulator.world import START_MS, Loop, World

SESSION_TIMEOUT = 1.5
CHECK = 0.1


class ZooKeeper:
    """The servers, which never fail all at once."""

    def __init__(self, world: World, loop: Loop) -> None:
        self.world = world
        self.loop = loop
        self.tree = Tree(":memory:")
        self.sessions: dict[int, SimStore] = {}
        self.cut: set[int] = set()  # brokers that cannot reach it
        self._last_session = 0
        loop.call_later(CHECK, self._check)

    def begin(self, store: "SimStore") -> int:
        self._last_session += 1
        self.sessions[self._last_session] = store
        store.heard = self.world.now
        return self._last_session

    def _check(self) -> None:
        for session_id, store in list(self.sessions.items()):
            if store.is_connected():
                store.heard = self.world.now
            elif self.world.now - store.heard > SESSION_TIMEOUT:
                self.expire(session_id)
        self.loop.call_later(CHECK, self._check)

    def expire(self, session_id: int) -> None:
        store = self.sessions.pop(session_id, None)
        if store is None:
            return
        self.world.note(f"session of {store.broker_id} has expired")
        store.valid = False
        paths = self.tree._run("SELECT path FROM node WHERE ephemeral_owner = ?", (session_id,))
        for (path,) in sorted(paths.fetchall()):
            self.tree.delete(Delete(path))
        self.tell()

    def tell(self) -> None:
        for event in self.tree.take_events():
            for store in list(self.sessions.values()):
                store.event(event)

    def now_ms(self) -> int:
        return START_MS + int(self.world.now * 1000)


class _Asked:
    def __init__(
        self,
        run: Callable[[Tree], Any],
        future: "asyncio.Future[Any]",
        path: str,
        watch: Watch | None,
        of_children: bool,
    ) -> None:
        self.run = run
        self.future = future
        self.path = path
        self.watch = watch
        self.of_children = of_children


class SimStore:
    """One broker's session: a ``MetadataStore``."""

    def __init__(self, zookeeper: ZooKeeper, broker_id: int, loop: Loop) -> None:
        self._zookeeper = zookeeper
        self._world = zookeeper.world
        self.broker_id = broker_id
        self.loop = loop
        self.heard = 0.0
        self.valid = True
        self._connection = 0  # counts them
        self._up = True
        self._closed = False
        self._asked: list[_Asked] = []  # no answer yet, in order
        self._watches = Watches()
        self._callbacks: list[Callable[[SessionEvent], None]] = []
        self._there_at = 0.0
        self._back_at = 0.0
        self._missed: list[WatchEvent] = []
        self._session_id = zookeeper.begin(self)
        loop.call_later(CHECK, self._look)

    @property
    def session_id(self) -> int:
        return self._session_id

    def is_connected(self) -> bool:
        return (
            not self._closed
            and self._up
            and not self.loop.dead
            and not self.loop.paused
            and self.broker_id not in self._zookeeper.cut
        )

    # -- asking ---------------------------------------------------------------------------

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> "asyncio.Future[str]":
        operation = Create(path, data, ephemeral, sequence)
        return self._ask(lambda tree: tree.create(operation, self._zookeeper.now_ms()))

    def get(self, path: str, watch: Watch | None = None) -> "asyncio.Future[tuple[bytes, Stat]]":
        return self._ask(lambda tree: tree.get(path), path, watch)

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> "asyncio.Future[Stat]":
        operation = SetData(path, data, version)
        return self._ask(lambda tree: tree.set(operation, self._zookeeper.now_ms()))

    def delete(self, path: str, version: int = ANY_VERSION) -> "asyncio.Future[None]":
        return self._ask(lambda tree: tree.delete(Delete(path, version)))

    def exists(self, path: str, watch: Watch | None = None) -> "asyncio.Future[Stat | None]":
        return self._ask(lambda tree: tree.exists(path), path, watch)

    def children(self, path: str, watch: Watch | None = None) -> "asyncio.Future[list[str]]":
        return self._ask(lambda tree: sorted(tree.children(path)), path, watch, True)

    def multi(self, operations: Sequence[Operation]) -> "asyncio.Future[list[Any]]":
        wanted = list(operations)
        return self._ask(lambda tree: tree.multi(wanted, self._zookeeper.now_ms()))

    def on_session_event(self, callback: Callable[[SessionEvent], None]) -> None:
        self._callbacks.append(callback)

    async def close(self) -> None:
        self._closed = True
        self._zookeeper.expire(self._session_id)

    def _ask(
        self,
        run: Callable[[Tree], Any],
        path: str = "",
        watch: Watch | None = None,
        of_children: bool = False,
    ) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self.loop.create_future()
        if self._closed:
            future.set_exception(StoreClosed("closed"))
            return future
        asked = _Asked(run, future, path, watch, of_children)
        self._asked.append(asked)
        if self._up:
            self._carry(asked)
        return future

    def _delay(self) -> float:
        return self._world.random.uniform(0.0005, 0.004)

    def _carry(self, asked: _Asked) -> None:
        self._there_at = max(self._there_at, self._world.now + self._delay())
        self._zookeeper.loop.call_at(self._there_at, self._apply, asked, self._connection)

    def _apply(self, asked: _Asked, connection: int) -> None:
        """At the server."""
        if connection != self._connection or not self.valid or self.loop.dead:
            return
        if self.broker_id in self._zookeeper.cut:
            self.loop.call_soon(self.drop)
            return
        tree = self._zookeeper.tree
        tree.session_id = self._session_id
        result: Any = None
        error: Exception | None = None
        try:
            result = asked.run(tree)
        except (StoreError, MultiFailed) as refused:
            error = refused
        if asked.watch is not None and (error is None):
            self._watches.add(asked.path, asked.watch, of_children=asked.of_children)
        self._zookeeper.tell()
        self._back(self._answer, asked, result, error, connection)

    def _back(self, callback: Callable[..., None], *args: Any) -> None:
        self._back_at = max(self._back_at, self._world.now + self._delay())
        self.loop.call_at(self._back_at, callback, *args)

    def _answer(self, asked: _Asked, result: Any, error: Exception | None, connection: int) -> None:
        if connection != self._connection or asked not in self._asked:
            return
        self._asked.remove(asked)
        if asked.future.done():
            return
        if error is not None:
            asked.future.set_exception(error)
        else:
            asked.future.set_result(result)

    def event(self, event: WatchEvent) -> None:
        """At the server: something has changed."""
        if self._up and self.broker_id not in self._zookeeper.cut:
            self._back(self._see, event, self._connection)
        else:
            self._missed.append(event)
            if self._up:
                self.loop.call_soon(self.drop)

    def _see(self, event: WatchEvent, connection: int) -> None:
        for watch in self._watches.take(event):
            watch(event)

    # -- the connection -------------------------------------------------------------------

    def _look(self) -> None:
        """Notices, some time later, that the connection is gone or back."""
        if self._closed:
            return
        cut = self.broker_id in self._zookeeper.cut
        if self._up and (cut or not self.valid):
            self.drop()
        elif not self._up and not cut:
            self._reconnect()
        self.loop.call_later(CHECK, self._look)

    def drop(self) -> None:
        """The connection breaks; answers on their way are lost."""
        if self._up and not self._closed:
            self._up = False
            self._connection += 1
            self._tell(SessionEvent.SUSPENDED)

    def _reconnect(self) -> None:
        self._up = True
        if self.valid:
            missed, self._missed = self._missed, []
            for event in missed:
                self._see(event, self._connection)
            self._tell(SessionEvent.CONNECTED)
            for asked in list(self._asked):
                self._carry(asked)
            return
        asked_before, self._asked = self._asked, []
        self._watches.clear()
        self._missed.clear()
        self._tell(SessionEvent.EXPIRED)
        for asked in asked_before:
            if not asked.future.done():
                asked.future.set_exception(SessionExpired("the session has expired"))
        self.valid = True
        self._session_id = self._zookeeper.begin(self)
        self._tell(SessionEvent.CONNECTED)

    def _tell(self, event: SessionEvent) -> None:
        for callback in self._callbacks:
            callback(event)
