"""A metadata store whose operations outlast its sessions.

What a broker does as a member of the cluster belongs to its session, and ends with it. What it
does for clients does not: a topic can be written in the next session as well. So whoever writes
for clients goes through this, and says only how long they wait (``in_time``).

An operation that a session took down with it may have been done: asked again, it may meet its own
doing, as after any lost connection.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import TypeVar

from kavka.replication.store.base import (
    ANY_VERSION,
    Create,
    MetadataStore,
    MultiResult,
    Operation,
    SessionEvent,
    SessionExpired,
    Stat,
    StoreClosed,
    Watch,
)

T = TypeVar("T")


class OutlastingStore:
    """A ``MetadataStore`` that asks again in the next session what the end of one has refused.

    Watches and ephemeral nodes belong to a session: what has to do with them is not asked again.
    """

    def __init__(self, store: MetadataStore) -> None:
        self._store = store

    @property
    def session_id(self) -> int:
        return self._store.session_id

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> Future[str]:
        def ask() -> Future[str]:
            return self._store.create(path, data, ephemeral=ephemeral, sequence=sequence)

        return ask() if ephemeral else _outlast(ask)

    def get(self, path: str, watch: Watch | None = None) -> Future[tuple[bytes, Stat]]:
        if watch is not None:
            return self._store.get(path, watch)
        return _outlast(lambda: self._store.get(path))

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> Future[Stat]:
        return _outlast(lambda: self._store.set(path, data, version))

    def delete(self, path: str, version: int = ANY_VERSION) -> Future[None]:
        return _outlast(lambda: self._store.delete(path, version))

    def exists(self, path: str, watch: Watch | None = None) -> Future[Stat | None]:
        if watch is not None:
            return self._store.exists(path, watch)
        return _outlast(lambda: self._store.exists(path))

    def children(self, path: str, watch: Watch | None = None) -> Future[list[str]]:
        if watch is not None:
            return self._store.children(path, watch)
        return _outlast(lambda: self._store.children(path))

    def multi(self, operations: Sequence[Operation]) -> Future[list[MultiResult]]:
        if any(isinstance(each, Create) and each.ephemeral for each in operations):
            return self._store.multi(operations)
        return _outlast(lambda: self._store.multi(operations))

    def on_session_event(self, callback: Callable[[SessionEvent], None]) -> None:
        self._store.on_session_event(callback)

    async def close(self) -> None:
        await self._store.close()


def _outlast(ask: Callable[[], Future[T]]) -> Future[T]:
    outcome: Future[T] = asyncio.get_running_loop().create_future()
    asked: Future[T]

    def begin() -> None:
        nonlocal asked
        asked = ask()  # without a session it waits for the next one
        asked.add_done_callback(ended)

    def ended(answer: Future[T]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if outcome.done():
            return
        if isinstance(error, SessionExpired) and not isinstance(error, StoreClosed):
            begin()
        elif error is not None:
            outcome.set_exception(error)
        elif answer.cancelled():
            outcome.cancel()
        else:
            outcome.set_result(answer.result())

    def given_up(outcome: Future[T]) -> None:
        if outcome.cancelled():
            asked.cancel()  # what has not been sent is not sent any more

    begin()
    outcome.add_done_callback(given_up)
    return outcome
