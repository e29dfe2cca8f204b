"""Offsets of clients of before 0.8.2, which are kept in the metadata store.

OffsetCommit v0 and OffsetFetch v0 mean ``/consumers/<group>/offsets/<topic>/<partition>``, where
the old consumers themselves and tools that read ZooKeeper look for them: the offset as decimal
text, no metadata.
"""

from asyncio import Task
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.replication.store.base import MetadataStore, NodeExists, NoNode, StoreError

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Response

_running: Final[set[Task[None]]] = set()  # the loop itself does not keep tasks alive


def _path(group_id: str, partition: TopicPartition) -> str:
    if group_id in ("", ".", "..") or "/" in group_id or "\0" in group_id:
        raise KafkaError(ErrorCode.INVALID_GROUP_ID)
    return f"/consumers/{group_id}/offsets/{partition.topic}/{partition.partition}"


async def write(
    store: MetadataStore, group_id: str, partition: TopicPartition, offset: int
) -> None:
    """Keep an offset. Raises KafkaError INVALID_GROUP_ID, or what became of the store."""
    path = _path(group_id, partition)
    data = str(offset).encode()
    try:
        try:
            await store.set(path, data)
        except NoNode:
            await _create(store, path, data)
    except StoreError as error:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(error)) from error


async def _create(store: MetadataStore, path: str, data: bytes) -> None:
    parts = path.split("/")[1:]
    for depth in range(1, len(parts)):
        try:
            await store.create("/" + "/".join(parts[:depth]))
        except NodeExists:
            continue
    try:
        await store.create(path, data)
    except NodeExists:
        await store.set(path, data)  # another commit was faster; this one is later


async def read(store: MetadataStore, group_id: str, partition: TopicPartition) -> int | None:
    """The offset kept for a partition; None if there is none, or no number."""
    try:
        data, _ = await store.get(_path(group_id, partition))
        return int(data)
    except (NoNode, ValueError):
        return None
    except StoreError as error:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(error)) from error


def answer_later(broker: "Broker", answer: Callable[[], Awaitable["Response"]]) -> Pending:
    """Have the store asked in a task; later requests of the connection wait for it."""
    pending = Pending(exclusive=True)

    async def run() -> None:
        try:
            response = await answer()
        except Exception as error:
            pending.fail(error)
        else:
            pending.complete(response)

    task = broker.loop.create_task(run())
    _running.add(task)
    task.add_done_callback(_running.discard)
    return pending
