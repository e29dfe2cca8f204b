"""The ACLs of the cluster, in the metadata store and, for deciding, in memory.

Every broker keeps all of them. A change is one conditional write, together with the announcement
by which the other brokers hear of it; where two meet, the later one reads again and goes on from
there.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import Final

from kavka.broker.security.acl import nodes
from kavka.broker.security.acl.matching import AclTable
from kavka.broker.security.acl.model import (
    Binding,
    BindingFilter,
    Entry,
    Pattern,
    PatternType,
)
from kavka.config.limits import ACL_NODE_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.controller.patience import in_time
from kavka.replication.store.base import (
    BadVersion,
    Create,
    Delete,
    MetadataStore,
    MultiFailed,
    NodeExists,
    NoNode,
    Operation,
    SetData,
    StoreError,
)
from kavka.replication.store.notifications import Notifications
from kavka.replication.store.outlasting import OutlastingStore
from kavka.replication.znodes import BadNode
from kavka.storage.clock import Clock

log = logging.getLogger("kavka.acl")

UPDATE_ATTEMPTS: Final = 11  # one, and Kafka's ten retries
_BACK_OFF_SECONDS: Final = (0.1, 0.15)
_ABSENT: Final = -1

Change = Callable[[frozenset[Entry]], frozenset[Entry]]


class AclStore:
    """Reads, follows and changes the ACLs under Kafka's paths; ``table`` holds all of them.

    ``on_change`` is called after the table has changed.
    """

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        rng: random.Random,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.table = AclTable()
        self.on_change = on_change
        self._store = OutlastingStore(store)
        self._rng = rng
        self._changes = {
            kind: Notifications(
                store, clock, path, nodes.CHANGE_PREFIX, self._on_announced, self._load
            )
            for kind, path in (
                (PatternType.LITERAL, nodes.LITERAL_CHANGES),
                (PatternType.PREFIXED, nodes.PREFIXED_CHANGES),
            )
        }

    async def start(self) -> None:
        """Create Kafka's paths where they are missing, load everything, and follow changes.

        Raises StoreError, BadNode among them: who cannot read a Deny must not let anybody in.
        """
        for path in nodes.PERSISTENT_PATHS:
            try:
                await self._store.create(path)
            except NodeExists:
                continue
        for changes in self._changes.values():
            await changes.start()
        await self._load()

    async def stop(self) -> None:
        """Follow no changes any more."""
        for changes in self._changes.values():
            await changes.stop()

    async def settled(self) -> None:
        """Until the announcements seen so far have been followed."""
        for changes in self._changes.values():
            await changes.settled()

    # -- what there is ------------------------------------------------------------------------

    def find(self, wanted: BindingFilter) -> list[Binding]:
        """The ACLs that a filter selects, in order of their patterns."""
        return sorted(
            Binding(pattern, entry)
            for pattern in self.table
            if wanted.matches_pattern(pattern)
            for entry in self.table.entries(pattern)
            if wanted.matches_entry(entry)
        )

    # -- changes ------------------------------------------------------------------------------

    async def add(self, pattern: Pattern, entries: Collection[Entry]) -> None:
        """Add ACLs; those that are there already stay. Raises KafkaError."""
        await self._update(pattern, lambda there: there.union(entries))

    async def remove(self, pattern: Pattern, entries: Collection[Entry]) -> frozenset[Entry]:
        """Remove ACLs; those that were there are returned. Raises KafkaError."""
        before = await self._update(pattern, lambda there: there.difference(entries))
        return before.intersection(entries)

    async def _update(self, pattern: Pattern, change: Change) -> frozenset[Entry]:
        """Change a pattern's ACLs; this broker obeys when this returns what was there before.

        An attempt that seemed to fail may be our own doing, whose answer was lost: so what any
        attempt has found counts as having been there.
        """
        found: frozenset[Entry] = frozenset()
        try:
            async with in_time():
                for attempt in range(UPDATE_ATTEMPTS):
                    if attempt > 1:  # the first time it is hardly a fight
                        await asyncio.sleep(self._rng.uniform(*_BACK_OFF_SECONDS))
                    before, version = await self._read(pattern)
                    found |= before
                    after = change(before)
                    if after == before or await self._write(pattern, after, version):
                        await self._take_over(pattern)
                        return found
        except StoreError as error:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(error)) from error
        raise KafkaError(
            ErrorCode.UNKNOWN_SERVER_ERROR,
            f"Failed to update ACLs for {pattern} after {UPDATE_ATTEMPTS} attempts",
        )

    async def _write(self, pattern: Pattern, entries: frozenset[Entry], version: int) -> bool:
        """Write and announce what a pattern's ACLs are now, unless somebody else was faster."""
        path = nodes.pattern_path(pattern)
        body = nodes.encode_entries(entries)
        if len(body) > ACL_NODE_BYTES_MAX:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"The ACLs of {pattern} would take {len(body)} bytes, {ACL_NODE_BYTES_MAX} is the "
                "most: remove some first",
            )
        write: Operation
        if not entries:
            write = Delete(path, version)
        elif version == _ABSENT:
            await self._ensure_type(pattern)
            write = Create(path, body)
        else:
            write = SetData(path, body, version)
        announcement = self._changes[pattern.type].announcement(nodes.encode_change(pattern))
        try:
            await self._store.multi([write, announcement])
        except MultiFailed as failure:
            if isinstance(failure.error, (BadVersion, NoNode, NodeExists)):
                return False
            raise failure.error from None
        return True

    async def _ensure_type(self, pattern: Pattern) -> None:
        try:
            await self._store.create(nodes.type_path(pattern.resource, pattern.type))
        except NodeExists:
            return

    # -- following ----------------------------------------------------------------------------

    async def _load(self) -> None:
        patterns: list[Pattern] = []
        for kind, root in nodes.ROOTS.items():
            for word in await self._store.children(root):
                resource = nodes.RESOURCES.get(word)
                if resource is None:
                    raise BadNode(f"{root}/{word} holds ACLs of an unknown type of resource")
                names = await self._store.children(f"{root}/{word}")
                patterns.extend(Pattern(resource, name, kind) for name in names)
        # Those that are gone have to be found out too.
        await asyncio.gather(*map(self._refresh, dict.fromkeys((*patterns, *self.table))))

    async def _on_announced(self, path: str, data: bytes) -> None:
        try:
            await self._take_over(nodes.decode_change(path, data))
        except BadNode as error:
            log.error("A change of ACLs is not taken over error=%s", error)

    async def _take_over(self, pattern: Pattern) -> None:
        if await self._refresh(pattern):
            entries = self.table.entries(pattern)
            log.info("ACLs changed resource=%s entries=%d", pattern, len(entries))

    async def _refresh(self, pattern: Pattern) -> bool:
        """Obey what is in the store now; whether that is news.

        Reads end in the order in which they were begun, and nothing is waited for between the end
        of one and its effect: so what is older never comes later.
        """
        entries, _ = await self._read(pattern)
        if entries == self.table.entries(pattern):
            return False
        self.table.replace(pattern, entries)
        self.on_change()
        return True

    async def _read(self, pattern: Pattern) -> tuple[frozenset[Entry], int]:
        path = nodes.pattern_path(pattern)
        try:
            data, stat = await self._store.get(path)
        except NoNode:
            return frozenset(), _ABSENT
        return nodes.decode_entries(path, data), stat.version
