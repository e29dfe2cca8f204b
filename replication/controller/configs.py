"""Configuration overrides of topics, brokers, users and clients, as the store keeps them.

A change is written to the entity's node and announced by a sequence node under
``/config/changes``; every broker watches those, and reads the entity's node anew. The overrides
of topics are kept in memory as well, because a log is opened with them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from kavka.replication import znodes
from kavka.replication.store.base import (
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
_ENTITY_TYPES: Final[tuple[EntityType, ...]] = ("topics", "brokers", "users", "clients")


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
        names = await asyncio.gather(
            *(self._store.children(f"{znodes.CONFIG}/{kind}") for kind in _ENTITY_TYPES)
        )
        for kind, entities in zip(_ENTITY_TYPES, names, strict=True):
            loaded = await asyncio.gather(*(self._read(kind, name) for name in entities))
            for name, overrides in zip(entities, loaded, strict=True):
                if kind == "topics":
                    self._topics[name] = overrides
                self._tell(kind, name, overrides)

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

    async def _read(self, entity_type: EntityType, name: str) -> dict[str, str]:
        path = znodes.config_path(entity_type, name)
        try:
            data, _ = await self._store.get(path)
            return znodes.decode_config(path, data)
        except NoNode:
            return {}
        except BadNode as error:
            logger.error("Overrides are ignored entity=%s/%s error=%s", entity_type, name, error)
            return {}

    async def alter(self, entity_type: EntityType, name: str, overrides: Mapping[str, str]) -> None:
        """Replace an entity's overrides and announce it to all brokers; this one's subscribers
        have heard of it when this returns. The values have been validated by the caller.

        Raises StoreError.
        """
        path = znodes.config_path(entity_type, name)
        body = znodes.encode_config(overrides)
        announcement = Create(
            f"{znodes.CONFIG_CHANGES}/config_change_",
            znodes.encode_config_change(entity_type, name),
            sequence=True,
        )
        while True:
            try:
                await self._store.multi([SetData(path, body), announcement])
            except MultiFailed as failure:
                if failure.index != 0 or not isinstance(failure.error, NoNode):
                    raise failure.error from None
            else:
                break
            try:
                await self._store.multi([Create(path, body), announcement])
            except MultiFailed as failure:
                if failure.index != 0 or not isinstance(failure.error, NodeExists):
                    raise failure.error from None
            else:
                break
        self._apply(entity_type, name, dict(overrides))

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
