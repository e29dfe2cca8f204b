"""Configuration overrides of topics, brokers, users, clients and addresses in the store.

A change is written to the entity's node and announced by a sequence node under
``/config/changes``; every broker watches those, and reads the entity's node anew. The overrides
of topics are kept in memory as well, because a log is opened with them.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Final

from kavka.replication import znodes
from kavka.replication.store.base import (
    ANY_VERSION,
    BadVersion,
    Create,
    MetadataStore,
    MultiFailed,
    NodeExists,
    NoNode,
    SetData,
    WatchEvent,
)
from kavka.replication.znodes import BadNode, EntityType
from kavka.storage.clock import Clock

logger = logging.getLogger("kavka.configs")

Subscriber = Callable[[str, Mapping[str, str]], None]

CHANGE_KEPT_MS: Final = 15 * 60 * 1000  # how long an announcement stays for others to see
_NO_OVERRIDES: Final[Mapping[str, str]] = {}
_NOT_THERE: Final = -2  # the version of a node that does not exist
_ENTITY_TYPES: Final[tuple[EntityType, ...]] = ("topics", "brokers", "users", "clients", "ips")


class ConfigStore:
    """The overrides under ``/config``, read and written; tells subscribers of changes."""

    def __init__(self, store: MetadataStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._topics: dict[str, Mapping[str, str]] = {}
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._last_change = -1
        self._processing: asyncio.Task[None] | None = None
        self._changed_again = False
        self._closed = False

    async def start(self) -> None:
        """Load what is there and watch for changes.

        Subscribers from before this call hear of everything loaded. Raises StoreError.
        """
        changes = await self._store.children(znodes.CONFIG_CHANGES, self._on_change)
        self._last_change = max(map(znodes.sequence_number, changes), default=-1)
        loaded = await asyncio.gather(*(self.read_all(kind) for kind in _ENTITY_TYPES))
        for kind, entities in zip(_ENTITY_TYPES, loaded, strict=True):
            for name, overrides in entities.items():
                if kind == "topics":
                    self._topics[name] = overrides
                self._tell(kind, name, overrides)

    async def resume(self) -> None:
        """Watch again in a new session, and take in what has changed since the old one.

        Raises StoreError.
        """
        await self._process_changes()

    async def stop(self) -> None:
        """Tell nobody of anything any more."""
        self._closed = True
        if self._processing is not None:
            self._processing.cancel()
            await asyncio.gather(self._processing, return_exceptions=True)

    def subscribe(self, entity_type: EntityType, subscriber: Subscriber) -> None:
        """Have ``subscriber(name, overrides)`` called when an entity's overrides change."""
        self._subscribers.setdefault(entity_type, []).append(subscriber)

    def topic_overrides(self, topic: str) -> Mapping[str, str]:
        """A topic's overrides as last read; empty for a topic without any."""
        return self._topics.get(topic, _NO_OVERRIDES)

    async def load_topics(self, topics: "list[str]") -> None:
        """Read the overrides of topics new to this broker, before it opens their logs."""
        unknown = [topic for topic in topics if topic not in self._topics]
        loaded = await asyncio.gather(*(self._read("topics", topic) for topic in unknown))
        self._topics.update(zip(unknown, loaded, strict=True))

    def forget_topic(self, topic: str) -> None:
        """A topic has been deleted."""
        self._topics.pop(topic, None)

    async def read(self, entity_type: EntityType, name: str) -> dict[str, str]:
        """Read an entity's overrides from the store; empty if it has none. Raises StoreError."""
        return await self._read(entity_type, name)

    async def read_all(self, entity_type: EntityType) -> dict[str, dict[str, str]]:
        """Read the overrides of all entities of a type, by the names of their nodes.

        Those of a user's client are under ``user/clients/client``. Raises StoreError.
        """
        names = await self._children(f"{znodes.CONFIG}/{entity_type}")
        read = await asyncio.gather(*(self._read_node(entity_type, name) for name in names))
        found = {}
        parents = []
        for name, (overrides, children) in zip(names, read, strict=True):
            found[name] = overrides
            if children and entity_type == "users":
                parents.append(name)
        clients = await asyncio.gather(
            *(self._children(f"{znodes.CONFIG}/users/{user}/clients") for user in parents)
        )
        pairs = [
            f"{user}/clients/{client}"
            for user, of_user in zip(parents, clients, strict=True)
            for client in of_user
        ]
        read = await asyncio.gather(*(self._read_node(entity_type, pair) for pair in pairs))
        found.update((pair, overrides) for pair, (overrides, _) in zip(pairs, read, strict=True))
        return found

    async def _children(self, path: str) -> list[str]:
        try:
            return await self._store.children(path)
        except NoNode:
            return []

    async def _read(self, entity_type: EntityType, name: str) -> dict[str, str]:
        return (await self._read_node(entity_type, name))[0]

    async def _read_node(self, entity_type: EntityType, name: str) -> tuple[dict[str, str], int]:
        """The overrides of an entity and how many children its node has."""
        path = znodes.config_path(entity_type, name)
        try:
            data, stat = await self._store.get(path)
        except NoNode:
            return {}, 0
        try:
            return znodes.decode_config(path, data), stat.num_children
        except BadNode as error:
            logger.error("Overrides are ignored entity=%s/%s error=%s", entity_type, name, error)
            return {}, stat.num_children

    async def alter(self, entity_type: EntityType, name: str, overrides: Mapping[str, str]) -> None:
        """Replace an entity's overrides and announce it to all brokers; this one's subscribers
        have heard of it when this returns. The values have been validated by the caller.

        Raises StoreError.
        """
        await self._write(entity_type, name, overrides, ANY_VERSION)
        self._apply(entity_type, name, dict(overrides))

    async def update(
        self, entity_type: EntityType, name: str, change: Callable[[dict[str, str]], None]
    ) -> None:
        """Let ``change`` change an entity's overrides as they are in the store, then write and
        announce them as :meth:`alter` does, unless somebody else did so in between: then it is
        asked again for what that one wrote. What it raises goes to the caller.

        For the entities whose overrides several parts write, quotas and credentials of a user.
        Raises StoreError.
        """
        path = znodes.config_path(entity_type, name)
        while True:
            try:
                data, stat = await self._store.get(path)
                overrides, version = znodes.decode_config(path, data), stat.version
            except NoNode:
                overrides, version = {}, _NOT_THERE
            change(overrides)
            try:
                await self._write(entity_type, name, overrides, version)
            except (BadVersion, NoNode, NodeExists):
                continue
            self._apply(entity_type, name, overrides)
            return

    async def _write(
        self, entity_type: EntityType, name: str, overrides: Mapping[str, str], version: int
    ) -> None:
        """Write and announce overrides; ``version`` is that which the node must have.

        Raises BadVersion, NoNode, NodeExists if it has another, and other StoreErrors.
        """
        path = znodes.config_path(entity_type, name)
        body = znodes.encode_config(overrides)
        announcement = Create(
            f"{znodes.CONFIG_CHANGES}/config_change_",
            znodes.encode_config_change(entity_type, name),
            sequence=True,
        )
        while True:
            if version != _NOT_THERE:
                try:
                    await self._store.multi([SetData(path, body, version), announcement])
                    return
                except MultiFailed as failure:
                    if failure.index != 0 or version != ANY_VERSION:
                        raise failure.error from None
                    if not isinstance(failure.error, NoNode):
                        raise failure.error from None
            try:
                await self._store.multi([Create(path, body), announcement])
                return
            except MultiFailed as failure:
                if failure.index != 0:
                    raise failure.error from None
                if isinstance(failure.error, NoNode):
                    await self._make_parents(path)
                elif version != ANY_VERSION or not isinstance(failure.error, NodeExists):
                    raise failure.error from None

    async def _make_parents(self, path: str) -> None:
        """Make the nodes above that of a user's client, as Kafka does: without a body."""
        parts = path.split("/")
        for end in range(3, len(parts)):
            with contextlib.suppress(NodeExists):
                await self._store.create("/".join(parts[:end]), b"")

    # -- changes ------------------------------------------------------------------------------

    def _on_change(self, event: WatchEvent) -> None:
        if self._closed:
            return
        if self._processing is not None and not self._processing.done():
            self._changed_again = True
            return
        self._processing = asyncio.get_running_loop().create_task(self._process())

    async def _process(self) -> None:
        try:
            while True:
                self._changed_again = False
                await self._process_changes()
                if not self._changed_again:
                    return
        except Exception:
            logger.exception("Changes of configuration could not be read")

    async def _process_changes(self) -> None:
        names = await self._store.children(znodes.CONFIG_CHANGES, self._on_change)
        for name in sorted(names, key=znodes.sequence_number):
            path = f"{znodes.CONFIG_CHANGES}/{name}"
            try:
                data, stat = await self._store.get(path)
            except NoNode:
                continue  # old, and another broker was faster to remove it
            number = znodes.sequence_number(name)
            if number > self._last_change:
                self._last_change = number
                try:
                    entity_type, entity = znodes.decode_config_change(path, data)
                except BadNode as error:
                    logger.error("A change of configuration is ignored error=%s", error)
                else:
                    await self._reread(entity_type, entity)
            elif self._clock.wall_ms() - stat.ctime_ms > CHANGE_KEPT_MS:
                try:
                    await self._store.delete(path)
                except NoNode:
                    continue

    async def _reread(self, entity_type: str, name: str) -> None:
        for known in _ENTITY_TYPES:
            if known == entity_type:
                self._apply(known, name, await self._read(known, name))
                return
        logger.error(
            "A change of configuration is ignored: no such kind of entity entity=%s/%s",
            *(entity_type, name),
        )

    def _apply(self, entity_type: EntityType, name: str, overrides: dict[str, str]) -> None:
        if entity_type == "topics":
            if self._topics.get(name) == overrides:
                return  # this broker's own change, announced to itself
            self._topics[name] = overrides
        logger.info(
            "Configuration changed entity=%s/%s overrides=%s",
            *(entity_type, name, sorted(overrides)),
        )
        self._tell(entity_type, name, overrides)

    def _tell(self, entity_type: EntityType, name: str, overrides: Mapping[str, str]) -> None:
        for subscriber in self._subscribers.get(entity_type, ()):
            subscriber(name, overrides)
