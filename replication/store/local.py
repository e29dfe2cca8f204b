"""The metadata store of a lone broker: a SQLite file with ZooKeeper's semantics.

A helper thread owns the file. Everything that is asked while it is busy becomes one
transaction, so that many writes share one sync to the disk. Results and watch events come back
in one ordered stream: whoever is told of a write has been told before of the events of all
earlier ones.

The session lasts as long as the store is open. If the process dies, its ephemeral nodes are
removed when the file is opened next.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kavka.replication.store.base import (
    ANY_VERSION,
    Create,
    Delete,
    MultiFailed,
    MultiResult,
    Operation,
    SessionEvent,
    SetData,
    Stat,
    StoreClosed,
    StoreError,
    StoreUnavailable,
    Watch,
    WatchEvent,
    check_path,
)
from kavka.replication.store.watches import Watches

if TYPE_CHECKING:
    from kavka.replication.store.tree import Tree
    from kavka.storage.clock import Clock

logger = logging.getLogger("kavka.store")

T = TypeVar("T")

_BATCH_MAX: Final = 1000  # operations in one transaction: bounds how long the first one waits

_Delivery = tuple[Callable[[Any], None], Any]


class _Request:
    """One operation on its way to the thread, and the watch to be set if it succeeds."""

    __slots__ = ("future", "of_children", "path", "run", "watch")

    def __init__(
        self,
        run: "Callable[[Tree], Any]",
        future: asyncio.Future[Any],
        path: str = "",
        watch: Watch | None = None,
        of_children: bool = False,
    ) -> None:
        self.run = run
        self.future = future
        self.path = path
        self.watch = watch
        self.of_children = of_children


class LocalStore:
    """A ``MetadataStore`` in one file. Made by ``open``."""

    def __init__(self, path: str, clock: "Clock", loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._clock = clock
        self._loop = loop
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._closed = False
        self._session_id = 0
        self._opened: asyncio.Future[int] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._on_session_event: list[Callable[[SessionEvent], None]] = []
        self._watches = Watches()
        self._unanswered: Sequence[_Request] = ()  # the batch in the thread's hands
        self._thread = threading.Thread(target=self._work, name="kavka-metadata", daemon=True)

    @classmethod
    async def open(cls, path: str, clock: "Clock") -> "LocalStore":
        """Open the store in the file ``path``, making it if need be.

        Raises StoreUnavailable when the file is damaged, in use or cannot be made.
        """
        store = cls(path, clock, asyncio.get_running_loop())
        store._thread.start()
        store._session_id = await store._opened
        return store

    @property
    def session_id(self) -> int:
        return self._session_id

    # -- operations ---------------------------------------------------------------------------

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> asyncio.Future[str]:
        check_path(path, sequence=sequence)
        operation, now_ms = Create(path, data, ephemeral, sequence), self._clock.wall_ms()
        return self._submit(lambda tree: tree.create(operation, now_ms))

    def get(self, path: str, watch: Watch | None = None) -> asyncio.Future[tuple[bytes, Stat]]:
        return self._submit(lambda tree: tree.get(path), path, watch)

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> asyncio.Future[Stat]:
        operation, now_ms = SetData(path, data, version), self._clock.wall_ms()
        return self._submit(lambda tree: tree.set(operation, now_ms))

    def delete(self, path: str, version: int = ANY_VERSION) -> asyncio.Future[None]:
        operation = Delete(path, version)
        return self._submit(lambda tree: tree.delete(operation))

    def exists(self, path: str, watch: Watch | None = None) -> asyncio.Future[Stat | None]:
        return self._submit(lambda tree: tree.exists(path), path, watch)

    def children(self, path: str, watch: Watch | None = None) -> asyncio.Future[list[str]]:
        return self._submit(lambda tree: tree.children(path), path, watch, of_children=True)

    def multi(self, operations: Sequence[Operation]) -> asyncio.Future[list[MultiResult]]:
        for operation in operations:
            if isinstance(operation, Create):
                check_path(operation.path, sequence=operation.sequence)
        now_ms = self._clock.wall_ms()
        return self._submit(lambda tree: tree.multi(operations, now_ms))

    def on_session_event(self, callback: Callable[[SessionEvent], None]) -> None:
        """The session lasts until the store is closed, unless the helper thread dies of a bug."""
        self._on_session_event.append(callback)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.shield(self._ended)

    def _submit(
        self,
        run: "Callable[[Tree], T]",
        path: str = "",
        watch: Watch | None = None,
        *,
        of_children: bool = False,
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreClosed("the metadata store is closed"))
        else:
            self._queue.put(_Request(run, future, path, watch, of_children))
        return future

    def _expire(self, event: SessionEvent) -> None:
        """The thread is gone: refuse what it leaves behind and whatever comes."""
        self._closed = True
        left = list(self._unanswered)
        while not self._queue.empty():
            request = self._queue.get()
            if request is not None:
                left.append(request)
        for request in left:
            _fail(request.future, StoreClosed("the metadata store has failed"))
        for callback in self._on_session_event:
            callback(event)

    # -- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        # Imported here because it brings sqlite3, and a broker with ZooKeeper needs neither.
        from kavka.replication.store.tree import Tree

        try:
            tree = Tree(self._path)
        except StoreError as error:
            self._deliver([(partial(_fail, self._opened), error)])
            return
        self._deliver([(partial(_settle, self._opened), tree.session_id)])
        try:
            closing = False
            while not closing:
                batch, closing = self._take_batch()
                self._deliver(self._run_batch(tree, batch))
            tree.end_session()
        except Exception:
            # No rule for this: the store ends here, as a lost ZooKeeper session would. What was
            # committed is on disk, and who opens the file next removes the ephemeral nodes.
            logger.exception("The metadata store has failed path=%s", self._path)
            self._deliver([(self._expire, SessionEvent.EXPIRED)])
        finally:
            tree.close()
            self._deliver([(partial(_settle, self._ended), None)])

    def _take_batch(self) -> tuple[list[_Request], bool]:
        """Wait for an operation; take all that are queued. True: the store is to be closed."""
        batch: list[_Request] = []
        request = self._queue.get()
        while request is not None:
            batch.append(request)
            if len(batch) == _BATCH_MAX:
                return batch, False
            try:
                request = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _run_batch(self, tree: "Tree", batch: Sequence[_Request]) -> list[_Delivery]:
        """Run operations as one transaction; give what the loop is to be told, in order."""
        self._unanswered = batch
        deliveries: list[_Delivery] = []
        events: list[_Delivery] = []
        try:
            for request in batch:
                try:
                    result = request.run(tree)
                except StoreUnavailable:
                    raise
                except (StoreError, MultiFailed) as error:
                    deliveries.append((partial(_fail, request.future), error))
                    continue
                for event in tree.take_events():
                    for watch in self._watches.take(event):
                        delivery = (partial(_tell, watch), event)
                        events.append(delivery)
                        deliveries.append(delivery)
                if request.watch is not None:
                    self._watches.add(request.path, request.watch, of_children=request.of_children)
                deliveries.append((partial(_settle, request.future), result))
            tree.commit()
        except StoreUnavailable as error:
            # What the batch has read may be undone as well, so all of it has failed. Watchers
            # are told nevertheless: they look again, and set their watches again.
            tree.rollback()
            logger.error("The metadata store cannot write path=%s error=%s", self._path, error)
            return events + [(partial(_fail, request.future), error) for request in batch]
        return deliveries

    def _deliver(self, deliveries: list[_Delivery]) -> None:
        # A loop that is gone was stopped without closing the store; nobody waits any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_run_deliveries, deliveries)


def _run_deliveries(deliveries: list[_Delivery]) -> None:
    for call, argument in deliveries:
        call(argument)


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _tell(watch: Watch, event: WatchEvent) -> None:
    try:
        watch(event)
    except Exception:
        # One broken watcher must not keep results from those behind it.
        logger.exception("A watch failed path=%s event=%s", event.path, event.type.name)
