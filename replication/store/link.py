"""The connection to ZooKeeper: what a store asks of it, and kazoo behind it.

kazoo lives in one thread of its own, that of its connection. Everything it has to tell (results,
watch events, changes of the session) is handed to the event loop in the order in which it came
from the server, by one way, so that an event is never overtaken by the data of after it.

kazoo is imported when the first connection is made: a broker without ZooKeeper does without it.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from kavka.replication.store.base import (
    BadVersion,
    Check,
    Create,
    Delete,
    EventType,
    MultiFailed,
    MultiResult,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    Operation,
    SessionExpired,
    SetData,
    Stat,
    StoreError,
    StoreUnavailable,
    WatchEvent,
)

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger("kavka.store")
_kazoo_logger = logging.getLogger("kavka.store.kazoo")
_kazoo_logger.setLevel(logging.ERROR)  # the store tells of every change in its own words

_EPHEMERAL: Final = 1  # ZooKeeper's flags of a node to be created
_SEQUENCE: Final = 2
_STOP_SECONDS: Final = 5.0  # for taking leave of the server


class ZooKeeperSettings(NamedTuple):
    """How to reach ZooKeeper. Times are in seconds.

    ``servers`` are ``host:port`` separated by commas; ``chroot`` is "" or the path under which
    everything lies; ``digest`` is ``user:password``; ``tls`` makes the context for an encrypted
    connection.
    """

    servers: str
    chroot: str = ""
    session_timeout: float = 6.0
    connection_timeout: float = 6.0
    max_in_flight: int = 10
    digest: str | None = None
    set_acl: bool = False
    tls: "Callable[[], ssl.SSLContext] | None" = None


class Get(NamedTuple):
    """Read a node."""

    path: str
    watch: bool = False


class GetMany(NamedTuple):
    """Read several nodes: gives a list with the result, or the StoreError, of each.

    Servers before ZooKeeper 3.6 refuse it.
    """

    paths: Sequence[str]


class Exists(NamedTuple):
    """Look for a node."""

    path: str
    watch: bool = False


class Children(NamedTuple):
    """List a node's children."""

    path: str
    watch: bool = False


class Multi(NamedTuple):
    """Several writes, all or nothing."""

    operations: Sequence[Operation]


Request: TypeAlias = Get | GetMany | Exists | Children | Multi | Create | SetData | Delete


class Listing(NamedTuple):
    """What ``Children`` gives: the names, and the last transaction that changed them."""

    names: list[str]
    changed_by: int


class LinkState(Enum):
    """What has become of the connection."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REFUSED = "refused"  # the server does not accept the credentials, and will not


Done = Callable[[Any], None]
"""Gets a result, or the exception (StoreError or MultiFailed) that came instead."""


class Listener(Protocol):
    """Whom a link tells what comes from the server; all on the event loop."""

    def link_changed(self, state: LinkState, session_id: int) -> None: ...

    def link_event(self, event: WatchEvent) -> None: ...


class Link(Protocol):
    """A connection to ZooKeeper that restores itself. Paths are whole, with any chroot."""

    def start(self, listener: Listener) -> None:
        """Begin to connect."""

    def submit(self, request: Request, done: Done) -> None:
        """Send a request; ``done`` gets its outcome, unless the connection is lost before."""

    async def close(self) -> None:
        """End the session."""


# Only who writes them may see what is in there; everything else tools may read (as in Kafka).
_SENSITIVE: Final = ("/config/users", "/config/brokers", "/delegation_token/tokens")
_OPEN_TO_ALL: Final = "/consumers"  # written by old consumers


class KazooLink:
    """A ``Link`` by kazoo."""

    def __init__(self, settings: ZooKeeperSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._listener: Listener | None = None
        self._client: Any = None

    def start(self, listener: Listener) -> None:
        from kazoo.client import KazooClient

        settings = self._settings
        self._listener = listener
        self._client = KazooClient(  # type: ignore[no-untyped-call]
            hosts=settings.servers,
            timeout=settings.session_timeout,
            handler=_handler(settings),
            auth_data=[("digest", settings.digest)] if settings.digest is not None else None,
            connection_retry={"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 1.0},
            logger=_kazoo_logger,
        )
        self._client.add_listener(self._on_state)
        self._client.start_async()

    async def close(self) -> None:
        client = self._client
        if client is None:
            return
        client.remove_listener(self._on_state)

        def stop() -> None:
            client.stop()
            client.close()

        stopping = self._loop.run_in_executor(None, stop)
        done, _ = await asyncio.wait((stopping,), timeout=_STOP_SECONDS)
        if not done:
            # Its thread hangs in a connection that is not answered; the session will expire.
            logger.warning("The connection to ZooKeeper does not close")
        elif (error := stopping.exception()) is not None:
            logger.warning("The connection to ZooKeeper did not close well error=%r", error)

    def submit(self, request: Request, done: Done) -> None:
        client = self._client
        result = client.handler.async_result()

        def finished(result: Any) -> None:  # in kazoo's thread
            if result.exception is None:
                self._deliver(done, _converted(request, result.value))
            else:
                self._deliver(done, _error(request, result.exception))

        # Before it is sent. kazoo's own methods give the result when that has been done: the
        # answer may be there then, and the event that a watch of it sees on its way already,
        # which nobody would know the watch of.
        result.rawlink(finished)
        client._call(self._in_words_of_kazoo(request), result)

    def _in_words_of_kazoo(self, request: Request | Check) -> Any:
        from kazoo.protocol import serialization as kazoo

        watch = None
        if isinstance(request, Get | Exists | Children) and request.watch:
            watch = self._on_watch
        match request:
            case Get():
                return kazoo.GetData(request.path, watch)
            case GetMany():
                return _MultiRead(request.paths)
            case Exists():
                return kazoo.Exists(request.path, watch)
            case Children():
                return kazoo.GetChildren2(request.path, watch)
            case Create():
                path, data, ephemeral, sequence = request
                # No data rather than empty ones, as Kafka does: empty ones it wants to understand.
                flags = _EPHEMERAL * ephemeral | _SEQUENCE * sequence
                return kazoo.Create(path, data or None, self._acl(path), flags)
            case SetData():
                return kazoo.SetData(*request)
            case Delete():
                return kazoo.Delete(*request)
            case Check():
                return kazoo.CheckVersion(*request)
            case Multi():
                return kazoo.Transaction([*map(self._in_words_of_kazoo, request.operations)])

    def _acl(self, whole: str) -> Any:
        from kazoo import security

        path = whole.removeprefix(self._settings.chroot)
        if not self._settings.set_acl or path.startswith(_OPEN_TO_ALL):
            return security.OPEN_ACL_UNSAFE
        if path.startswith(_SENSITIVE):
            return security.CREATOR_ALL_ACL
        return [*security.CREATOR_ALL_ACL, *security.READ_ACL_UNSAFE]

    # -- in kazoo's thread --------------------------------------------------------------------

    def _on_state(self, state: str) -> None:
        from kazoo.protocol.states import KazooState, KeeperState

        assert self._listener is not None
        if state == KazooState.CONNECTED:
            told, session_id = LinkState.CONNECTED, self._client.client_id[0]
        elif state == KazooState.SUSPENDED:
            told, session_id = LinkState.SUSPENDED, 0
        elif self._client.client_state == KeeperState.AUTH_FAILED:
            told, session_id = LinkState.REFUSED, 0
        else:
            told, session_id = LinkState.EXPIRED, 0
        self._deliver(self._listener.link_changed, told, session_id)

    def _on_watch(self, event: Any) -> None:
        assert self._listener is not None
        numbers = {"CREATED": 1, "DELETED": 2, "CHANGED": 3, "CHILD": 4}
        number = numbers.get(event.type)
        if number is not None:  # else the connection is lost, which we are told otherwise
            self._deliver(self._listener.link_event, WatchEvent(EventType(number), event.path))

    def _deliver(self, call: Callable[..., None], *arguments: Any) -> None:
        # A loop that is gone was stopped without closing the store; nobody waits any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)


def _handler(settings: ZooKeeperSettings) -> Any:
    """kazoo's helper for threads, without the threads that would run callbacks: ours only hand
    on, and two threads could not keep the order between results and events.
    """
    from kazoo.handlers.threading import SequentialThreadingHandler

    context = settings.tls() if settings.tls is not None else None

    class Queue:
        def put(self, call: Callable[[], None]) -> None:
            call()

    class Handler(SequentialThreadingHandler):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.completion_queue = Queue()  # type: ignore[assignment]

        def start(self) -> None:
            self._running = True

        def stop(self) -> None:
            self._running = False

        def dispatch_callback(self, callback: Any) -> None:
            callback.func(*callback.args)

        def create_connection(
            self,
            address: tuple[str, int],
            hostname: str | None = None,
            timeout: float | None = None,
            **_: object,
        ) -> socket.socket:
            connection = socket.create_connection(address, timeout)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    return context.wrap_socket(connection, server_hostname=hostname)
            except BaseException as error:
                connection.close()
                if context is not None and isinstance(error, OSError):
                    logger.warning("TLS with ZooKeeper does not come about: %s", error)
                raise
            return connection

    return Handler()


class _MultiRead:
    """ZooKeeper's operation 22, in the form of kazoo's requests. Nodes are refused one by one."""

    type = 22
    _GET_DATA: Final = 4
    _HEADER: Final = Struct(">iBi")  # type, whether it is the end, error
    _INT: Final = Struct(">i")
    _STAT: Final = Struct(">qqqqiiiqiiq")

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def serialize(self) -> bytes:
        parts: list[bytes] = []
        for path in self.paths:
            name = path.encode()
            parts += self._HEADER.pack(self._GET_DATA, 0, -1), self._INT.pack(len(name)), name
            parts.append(b"\0")  # no watch
        return b"".join(parts) + self._HEADER.pack(-1, 1, -1)

    def deserialize(self, buffer: bytes, at: int) -> "list[tuple[bytes, Any] | Exception]":
        from kazoo.exceptions import EXCEPTIONS
        from kazoo.protocol.states import ZnodeStat

        results: list[tuple[bytes, Any] | Exception] = []
        while True:
            kind, end, _ = self._HEADER.unpack_from(buffer, at)
            if end:
                return results
            at += self._HEADER.size
            (number,) = self._INT.unpack_from(buffer, at)
            at += self._INT.size
            if kind != self._GET_DATA:
                results.append(EXCEPTIONS[number]())
                continue
            size = max(number, 0)  # -1: there are no data
            stat = ZnodeStat._make(self._STAT.unpack_from(buffer, at + size))
            results.append((bytes(buffer[at : at + size]), stat))
            at += size + self._STAT.size


# -- results ------------------------------------------------------------------------------------


def _stat(stat: Any) -> Stat:
    return Stat(
        stat.czxid,
        stat.mzxid,
        stat.ctime,
        stat.mtime,
        stat.version,
        stat.cversion,
        stat.ephemeralOwner,
        stat.dataLength,
        stat.numChildren,
    )


def _converted(request: Request, value: Any) -> Any:
    match request:
        case Get():
            return value[0] or b"", _stat(value[1])
        case GetMany():
            return [
                _error(Get(path), each)
                if isinstance(each, Exception)
                else (each[0], _stat(each[1]))
                for path, each in zip(request.paths, value, strict=True)
            ]
        case Exists():
            return None if value is None else _stat(value)
        case Children():
            return Listing(value[0], value[1].pzxid)
        case SetData():
            return _stat(value)
        case Delete():
            return None
        case Multi():
            return _multi_result(request, value)
        case Create():
            return value


def _multi_result(request: Multi, values: Sequence[Any]) -> list[MultiResult] | MultiFailed:
    from kazoo.exceptions import RolledBackError, RuntimeInconsistency

    results: list[MultiResult] = []
    for index, value in enumerate(values):
        if isinstance(value, RolledBackError | RuntimeInconsistency):
            continue  # undone, or not done, because of the one that failed
        if isinstance(value, Exception):
            return MultiFailed(index, _error(request.operations[index], value))
        is_stat = isinstance(request.operations[index], SetData)
        results.append(_stat(value) if is_stat else value if isinstance(value, str) else None)
    return results


def _error(request: Request | Operation, error: Exception) -> StoreError:
    from kazoo import exceptions as kazoo

    kinds: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], type[StoreError]]] = (
        (kazoo.NoNodeError, NoNode),
        (kazoo.NodeExistsError, NodeExists),
        (kazoo.BadVersionError, BadVersion),
        (kazoo.NotEmptyError, NotEmpty),
        (kazoo.NoChildrenForEphemeralsError, NoChildrenForEphemerals),
        (kazoo.SessionExpiredError, SessionExpired),
        ((kazoo.ConnectionLoss, kazoo.ConnectionClosedError), StoreUnavailable),
    )
    what = "several nodes" if isinstance(request, Multi | GetMany) else request.path
    for kazoo_error, ours in kinds:
        if isinstance(error, kazoo_error):
            return ours(what)
    if isinstance(error, kazoo.InvalidACLError):
        return StoreError(
            "ZooKeeper does not know who this broker is: zookeeper.set.acl needs zookeeper.digest"
        )
    if isinstance(error, kazoo.NoAuthError):
        return StoreError(f"ZooKeeper does not allow this broker to do that: {what}")
    return StoreError(f"ZooKeeper refuses {type(request).__name__} {what}: {error!r}")
