"""The metadata store of a cluster: a ZooKeeper session with the semantics of ``base.py``.

What the event loop asks stands in one queue. While the connection is lost it waits there; what
was under way is asked again when the connection is back, in the same order, as Kafka does. So
an operation whose answer was lost may be done twice, and may then find its own doing:
``NodeExists``, ``BadVersion`` or ``NoNode`` need not be somebody else's work. Callers look at
what is there before they conclude anything, and a sequence node may exist twice.

Reads that stand one behind the other go to the server together, as a controller that begins reads
the state of every partition. Servers before ZooKeeper 3.6 refuse that, and close the connection;
they are asked for one node at a time from then on.

A lost connection takes the server's watches with it. When it comes back to the same session
every watched node is read again before anything else is sent, and whoever watches it is told if
it has changed meanwhile.

When the session has expired everything asked so far is refused, all watches are gone, and a new
session begins by itself: ``EXPIRED``, later ``CONNECTED``.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from kavka.replication.store.base import (
    ANY_VERSION,
    Create,
    Delete,
    EventType,
    MultiFailed,
    MultiResult,
    NodeExists,
    NoNode,
    Operation,
    SessionEvent,
    SessionExpired,
    SetData,
    Stat,
    StoreClosed,
    StoreError,
    StoreUnavailable,
    Watch,
    WatchEvent,
    check_path,
)
from kavka.replication.store.link import (
    Children,
    Exists,
    Get,
    GetMany,
    KazooLink,
    Link,
    LinkState,
    Listing,
    Multi,
    Request,
    ZooKeeperSettings,
)
from kavka.replication.store.watches import Watches

logger = logging.getLogger("kavka.store")

_NOT_THERE: Final = -1  # instead of a transaction number: the node does not exist
_READ_TOGETHER: Final = 100  # nodes at a time


class _Asked:
    """A request, and who waits for its outcome."""

    __slots__ = ("finish", "future", "request")

    def __init__(
        self, request: Request, future: "asyncio.Future[Any]", finish: Callable[[Any], None]
    ) -> None:
        self.request = request
        self.future = future
        self.finish = finish  # gets the result or the exception


class ZooKeeperStore:
    """A ``MetadataStore`` in ZooKeeper. Made by ``open``."""

    def __init__(self, settings: ZooKeeperSettings, link: Link) -> None:
        self._settings = settings
        self._chroot = settings.chroot
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._session_id = 0
        self._connected = False
        self._closed: str | None = None  # why
        self._waiting: deque[_Asked] = deque()
        self._under_way: deque[list[_Asked]] = deque()
        self._sending: asyncio.Handle | None = None
        self._read_together = _READ_TOGETHER
        self._connection = 0  # counts connections: an outcome from an earlier one means nothing
        self._watches = Watches()
        # By path: the last transaction that a watch on data or children has seen.
        self._data_seen: dict[str, int] = {}
        self._children_seen: dict[str, int] = {}
        self._on_session_event: list[Callable[[SessionEvent], None]] = []
        self._first_connection: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def open(cls, settings: ZooKeeperSettings, link: Link | None = None) -> "ZooKeeperStore":
        """Begin a session, and make the chroot if it does not exist.

        Raises StoreUnavailable when ZooKeeper does not answer within the connection time-out.
        """
        store = cls(settings, link or KazooLink(settings, asyncio.get_running_loop()))
        try:
            store._link.start(store)
            try:
                await asyncio.wait_for(store._first_connection, settings.connection_timeout)
            except TimeoutError:
                raise StoreUnavailable(
                    f"ZooKeeper does not answer at {settings.servers}: check zookeeper.connect, or "
                    "that it runs there"
                ) from None
            await store._make_chroot()
        except BaseException:
            await store.close()
            raise
        return store

    async def _make_chroot(self) -> None:
        path, whole = "", self._chroot
        self._chroot = ""
        for name in filter(None, whole.split("/")):
            path += f"/{name}"
            with contextlib.suppress(NodeExists):
                await self.create(path)
        self._chroot = whole

    @property
    def session_id(self) -> int:
        return self._session_id

    # -- operations ---------------------------------------------------------------------------

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> asyncio.Future[str]:
        check_path(path, sequence=sequence)
        future: asyncio.Future[str] = self._loop.create_future()
        return self._ask(Create(self._whole(path), data, ephemeral, sequence), future, self._path)

    def get(self, path: str, watch: Watch | None = None) -> asyncio.Future[tuple[bytes, Stat]]:
        future: asyncio.Future[tuple[bytes, Stat]] = self._loop.create_future()

        def got(result: tuple[bytes, Stat]) -> tuple[bytes, Stat]:
            self._watch_data(path, watch, result[1])
            return result

        return self._ask(Get(self._whole(path), watch is not None), future, got)

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> asyncio.Future[Stat]:
        future: asyncio.Future[Stat] = self._loop.create_future()
        return self._ask(SetData(self._whole(path), data, version), future)

    def delete(self, path: str, version: int = ANY_VERSION) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        return self._ask(Delete(self._whole(path), version), future)

    def exists(self, path: str, watch: Watch | None = None) -> asyncio.Future[Stat | None]:
        future: asyncio.Future[Stat | None] = self._loop.create_future()

        def found(stat: Stat | None) -> Stat | None:
            self._watch_data(path, watch, stat)
            return stat

        return self._ask(Exists(self._whole(path), watch is not None), future, found)

    def children(self, path: str, watch: Watch | None = None) -> asyncio.Future[list[str]]:
        future: asyncio.Future[list[str]] = self._loop.create_future()

        def listed(listing: Listing) -> list[str]:
            if watch is not None:
                self._watches.add(path, watch, of_children=True)
                self._children_seen[path] = listing.changed_by
            return listing.names

        return self._ask(Children(self._whole(path), watch is not None), future, listed)

    def multi(self, operations: Sequence[Operation]) -> asyncio.Future[list[MultiResult]]:
        whole: list[Operation] = []
        for operation in operations:
            if isinstance(operation, Create):
                check_path(operation.path, sequence=operation.sequence)
            whole.append(operation._replace(path=self._whole(operation.path)))
        future: asyncio.Future[list[MultiResult]] = self._loop.create_future()

        def paths(results: list[MultiResult]) -> list[MultiResult]:
            return [self._path(each) if isinstance(each, str) else each for each in results]

        return self._ask(Multi(whole), future, paths)

    def on_session_event(self, callback: Callable[[SessionEvent], None]) -> None:
        self._on_session_event.append(callback)

    async def close(self) -> None:
        if self._closed is None:
            self._end("the metadata store is closed")
            await self._link.close()

    def _whole(self, path: str) -> str:
        return (self._chroot if path == "/" else self._chroot + path) or "/"

    def _path(self, whole: str) -> str:
        return whole.removeprefix(self._chroot) or "/"

    # -- the queue ----------------------------------------------------------------------------

    def _ask(
        self,
        request: Request,
        future: "asyncio.Future[Any]",
        convert: Callable[[Any], Any] | None = None,
    ) -> "asyncio.Future[Any]":
        if self._closed is not None:
            future.set_exception(StoreClosed(self._closed))
            return future

        def finish(outcome: Any) -> None:
            if isinstance(outcome, StoreError | MultiFailed):
                if not future.done():
                    future.set_exception(outcome)
                return
            result = outcome if convert is None else convert(outcome)
            if not future.done():
                future.set_result(result)

        self._waiting.append(_Asked(request, future, finish))
        if not _can_be_joined(request):
            self._send()
        elif self._sending is None:
            self._sending = self._loop.call_soon(self._send)  # more may come
        return future

    def _send(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        while self._connected and len(self._under_way) < self._settings.max_in_flight:
            group = self._next()
            if not group:
                return
            request = group[0].request
            if len(group) > 1:
                reads = [each.request for each in group]
                request = GetMany([each.path for each in reads if isinstance(each, Get)])
            self._under_way.append(group)
            self._link.submit(request, partial(self._done, group, self._connection))

    def _next(self) -> list[_Asked]:
        """What is to be sent now: one request, or several reads."""
        group: list[_Asked] = []
        while self._waiting and len(group) < self._read_together:
            joins = _can_be_joined(self._waiting[0].request)
            if group and not joins:
                break
            asked = self._waiting.popleft()
            if asked.future.cancelled():
                continue  # given up before it was sent: it will not happen
            group.append(asked)
            if not joins:
                break
        return group

    def _done(self, group: list[_Asked], connection: int, outcome: Any) -> None:
        if connection != self._connection or isinstance(outcome, StoreUnavailable):
            return  # it will be asked again
        # ZooKeeper answers in order; kazoo refuses some things without asking.
        self._under_way.remove(group)
        if len(group) == 1 or isinstance(outcome, SessionExpired):
            for asked in group:
                asked.finish(outcome)
        elif isinstance(outcome, StoreError):  # not of a node: of having been asked so
            self._read_together = 1
            self._waiting.extendleft(reversed(group))
        else:
            for asked, each in zip(group, outcome, strict=True):
                asked.finish(each)
        self._send()

    # -- watches ------------------------------------------------------------------------------

    def _watch_data(self, path: str, watch: Watch | None, stat: Stat | None) -> None:
        if watch is not None:
            self._watches.add(path, watch, of_children=False)
            self._data_seen[path] = _NOT_THERE if stat is None else stat.mzxid

    def link_event(self, event: WatchEvent) -> None:
        """The server has seen a change of a watched node."""
        self._tell(WatchEvent(event.type, self._path(event.path)))

    def _tell(self, event: WatchEvent) -> None:
        if event.type is not EventType.CHILD:
            self._data_seen.pop(event.path, None)
        if event.type in (EventType.CHILD, EventType.DELETED):
            self._children_seen.pop(event.path, None)
        for watch in self._watches.take(event):
            try:
                watch(event)
            except Exception:
                # One broken watcher must not keep the event from the others.
                logger.exception("A watch failed path=%s event=%s", event.path, event.type.name)

    def _look_again(self) -> None:
        """Put first in the queue: what has become of everything that is watched."""
        looks: list[_Asked] = []

        def look(request: Request, finish: Callable[[Any], None]) -> None:
            looks.append(_Asked(request, self._loop.create_future(), finish))

        for path in self._watches.paths(of_children=False):
            look(Exists(self._whole(path), True), partial(self._data_again, path))
        for path in self._watches.paths(of_children=True):
            look(Children(self._whole(path), True), partial(self._children_again, path))
        self._waiting.extendleft(reversed(looks))

    def _data_again(self, path: str, outcome: Any) -> None:
        seen = self._data_seen.get(path)
        if seen is None or isinstance(outcome, SessionExpired):
            return  # told already, or nobody to be told any more
        if isinstance(outcome, StoreError):
            event = EventType.CHANGED  # they will meet the error themselves
        elif outcome is None:
            if seen == _NOT_THERE:
                return
            event = EventType.DELETED
        elif seen == _NOT_THERE:
            event = EventType.CREATED
        elif outcome.mzxid != seen:
            event = EventType.CHANGED
        else:
            return
        self._tell(WatchEvent(event, path))

    def _children_again(self, path: str, outcome: Any) -> None:
        seen = self._children_seen.get(path)
        if seen is None or isinstance(outcome, SessionExpired):
            return
        if isinstance(outcome, NoNode):
            self._tell(WatchEvent(EventType.DELETED, path))
        elif isinstance(outcome, StoreError) or outcome.changed_by != seen:
            self._tell(WatchEvent(EventType.CHILD, path))

    # -- the session --------------------------------------------------------------------------

    def link_changed(self, state: LinkState, session_id: int) -> None:
        """The connection has come or gone."""
        if self._closed is not None:
            return
        match state:
            case LinkState.CONNECTED:
                self._on_connected(session_id)
            case LinkState.SUSPENDED:
                if self._connected:
                    logger.warning("The connection to ZooKeeper is lost")
                    self._disconnected()
                    self._announce(SessionEvent.SUSPENDED)
            case LinkState.EXPIRED:
                logger.warning("The session with ZooKeeper has expired")
                self._disconnected()
                self._refuse_all(SessionExpired, "the session with ZooKeeper has expired")
                self._announce(SessionEvent.EXPIRED)
            case LinkState.REFUSED:
                why = "ZooKeeper does not accept this broker's credentials: check zookeeper.digest"
                logger.critical("%s", why)
                self._end(why)
                if not self._first_connection.done():
                    self._first_connection.set_exception(StoreUnavailable(why))
                self._announce(SessionEvent.EXPIRED)

    def _on_connected(self, session_id: int) -> None:
        again = session_id == self._session_id
        self._session_id = session_id
        self._connected = True
        if again:
            logger.info("The connection to ZooKeeper is back session=%#x", session_id)
            self._look_again()
        else:
            logger.info("A session with ZooKeeper has begun session=%#x", session_id)
        if not self._first_connection.done():
            self._first_connection.set_result(None)
        self._send()
        self._announce(SessionEvent.CONNECTED)

    def _disconnected(self) -> None:
        """Put back what was under way: its outcome is not known."""
        self._connected = False
        self._connection += 1
        for group in reversed(self._under_way):
            if len(group) > 1:
                self._read_together = 1  # an old server hangs up on who asks so
            self._waiting.extendleft(reversed(group))
        self._under_way.clear()

    def _refuse_all(self, kind: type[SessionExpired], why: str) -> None:
        """Forget everything that belongs to the session."""
        self._watches.clear()
        self._data_seen.clear()
        self._children_seen.clear()
        refused = list(self._waiting)
        self._waiting.clear()
        for asked in refused:
            asked.finish(kind(why))

    def _end(self, why: str) -> None:
        self._closed = why
        self._disconnected()
        self._refuse_all(StoreClosed, why)

    def _announce(self, event: SessionEvent) -> None:
        for callback in list(self._on_session_event):
            callback(event)


def _can_be_joined(request: Request) -> bool:
    """Whether it can go to the server together with others of its kind."""
    return isinstance(request, Get) and not request.watch


def parse_connect(text: str) -> tuple[str, str]:
    """Servers and chroot ("" for none) of a ``zookeeper.connect``."""
    servers, slash, path = text.strip().partition("/")
    chroot = "/".join(filter(None, path.split("/")))
    return servers.strip().rstrip(","), f"/{chroot}" if slash and chroot else ""
