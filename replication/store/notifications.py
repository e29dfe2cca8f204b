"""Changes that brokers announce to each other by sequence nodes.

Who changes something creates a node under the path of its kind; every broker watches the path
and handles the numbers above the last one it has seen. Nodes older than fifteen minutes are
removed by whoever comes by.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kavka.replication.store.base import (
    Create,
    MetadataStore,
    NoNode,
    SessionEvent,
    StoreError,
    WatchEvent,
)
from kavka.storage.clock import Clock

logger = logging.getLogger("kavka.store")

KEPT_MS: Final = 15 * 60 * 1000
RETRY_SECONDS: Final = 1.0


class Notifications:
    """Follows the announcements under one path.

    ``handle(path, data)`` is awaited for each new one, in order; what it raises but for
    StoreError is logged, and that announcement is over. ``reload`` is awaited when announcements
    may have been missed, because the session was lost: everything they may have told has to be
    read anew.
    """

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        path: str,
        prefix: str,
        handle: Callable[[str, bytes], Awaitable[None]],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self.path = path
        self._store = store
        self._clock = clock
        self._prefix = prefix
        self._handle = handle
        self._reload = reload
        self._last = -1
        self._work: asyncio.Task[None] | None = None
        self._again = False
        self._missed = False  # announcements: after the session ended
        self._closed = False
        store.on_session_event(self._on_session_event)

    def announcement(self, data: bytes) -> Create:
        """The operation that announces a change: part of the ``multi`` that makes it."""
        return Create(f"{self.path}/{self._prefix}", data, sequence=True)

    async def start(self) -> None:
        """Watch from now on. What is announced already is taken as known: load it afterwards.

        Raises StoreError.
        """
        names = await self._store.children(self.path, self._on_change)
        self._last = max(map(_number, names), default=-1)

    async def stop(self) -> None:
        """Handle nothing any more."""
        self._closed = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def settled(self) -> None:
        """Until what has been seen so far is handled."""
        while self._work is not None and not self._work.done():
            await asyncio.wait((self._work,))

    def _on_change(self, event: WatchEvent) -> None:
        self._begin()

    def _on_session_event(self, event: SessionEvent) -> None:
        if event is SessionEvent.EXPIRED:
            self._missed = True
        elif event is SessionEvent.CONNECTED and self._missed:
            self._begin()

    def _begin(self) -> None:
        if self._closed:
            return
        if self._work is not None and not self._work.done():
            self._again = True
            return
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._again = False
            try:
                if self._missed:
                    await self.start()
                    self._missed = False
                    await self._reload()
                else:
                    await self._handle_new()
            except StoreError as error:
                # What is announced must not be missed: it may take a right away from somebody.
                logger.warning("Changes cannot be read yet path=%s error=%s", self.path, error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not self._again:
                return

    async def _handle_new(self) -> None:
        names = await self._store.children(self.path, self._on_change)
        for name in sorted(names, key=_number):
            path = f"{self.path}/{name}"
            try:
                data, stat = await self._store.get(path)
            except NoNode:
                continue  # old, and another broker was faster to remove it
            if _number(name) > self._last:
                await self._handle_one(path, data)
                self._last = _number(name)
            elif self._clock.wall_ms() - stat.ctime_ms > KEPT_MS:
                try:
                    await self._store.delete(path)
                except NoNode:
                    continue

    async def _handle_one(self, path: str, data: bytes) -> None:
        try:
            await self._handle(path, data)
        except StoreError:
            raise
        except Exception:
            logger.exception("A change could not be taken over path=%s", path)


def _number(name: str) -> int:
    return int(name[-10:])
