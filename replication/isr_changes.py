"""Writing changes of in-sync sets to the metadata store, and telling the controller of them.

A leader writes the state node itself, on the condition that nobody else has written it since (the
controller, mostly). That the controller hears of it is no hurry: it is told by a node under
``/isr_change_notification`` that names many partitions at once, not before the changes have
come to rest for a moment (``ReplicaManager.maybePropagateIsrChanges``).
"""

import asyncio
import logging
from asyncio import Future
from typing import Final, NamedTuple, Protocol

from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.partition import FoundState, IsrChange
from kavka.replication.store.base import BadVersion, MetadataStore, NoNode, StoreError
from kavka.replication.znodes import BadNode, StateNode
from kavka.storage.clock import Clock

log = logging.getLogger("kavka.replication")

PROPAGATION_SECONDS: Final = 2.5  # between looks at whether there is something to tell
QUIET_SECONDS: Final = 5.0  # without changes, after which all are told
LONGEST_SECONDS: Final = 60.0  # between two notifications however restless
RETRY_SECONDS: Final = 0.2


class IsrOutcome(NamedTuple):
    """What became of a write: the new version of the state node if it took place, else what
    stands there instead (None: nothing, the topic is gone)."""

    partition_epoch: int | None
    found: FoundState | None = None


class IsrWriter(Protocol):
    """How a leader's change of an in-sync set gets into the metadata store."""

    def write(
        self, topic_partition: TopicPartition, leader: int, change: IsrChange
    ) -> "Future[IsrOutcome]":
        """Write it, however long that takes: the future ends when the outcome is certain.

        Cancel it when the outcome does not matter any more. It never fails.
        """


class StoreIsrWriter:
    """The writer of a broker with a metadata store. Owned by the event loop."""

    def __init__(self, store: MetadataStore, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._clock = clock
        self._loop = loop
        self._changed: set[TopicPartition] = set()
        self._changed_at = 0.0
        self._told_at = clock.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None
        self._writes: set[asyncio.Task[IsrOutcome]] = set()
        self._stopped = False

    def write(
        self, topic_partition: TopicPartition, leader: int, change: IsrChange
    ) -> "Future[IsrOutcome]":
        task = self._loop.create_task(self._write(topic_partition, leader, change))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return task

    async def _write(
        self, topic_partition: TopicPartition, leader: int, change: IsrChange
    ) -> IsrOutcome:
        path = znodes.state_path(*topic_partition)
        state = StateNode(leader, change.leader_epoch, change.isr, change.controller_epoch)
        data = znodes.encode_state(state)
        while True:
            try:
                try:
                    stat = await self._store.set(path, data, change.partition_epoch)
                except BadVersion:
                    outcome = await self._look(path, state, change.partition_epoch)
                else:
                    outcome = IsrOutcome(stat.version)
            except NoNode:
                return IsrOutcome(None)
            except StoreError as error:
                # Perhaps it was written: the next attempt will tell.
                log.warning(
                    "In-sync replicas not written so far: %s partition=%s isr=%s",
                    error,
                    topic_partition,
                    change.isr,
                )
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if outcome.partition_epoch is not None:
                self._note(topic_partition)
            return outcome

    async def _look(self, path: str, wanted: StateNode, before: int) -> IsrOutcome:
        """The version is another one: because of an attempt of ours that nobody told us the end
        of, or because somebody else has written."""
        data, stat = await self._store.get(path)
        try:
            state = znodes.decode_state(path, data)
        except BadNode as error:
            log.error("In-sync replicas cannot be written: %s", error)
            return IsrOutcome(None)
        if state == wanted and stat.version == before + 1:
            return IsrOutcome(stat.version)
        found = FoundState(state.leader, state.leader_epoch, state.isr, stat.version)
        return IsrOutcome(None, found)

    # -- telling the controller -------------------------------------------------------------

    def _note(self, topic_partition: TopicPartition) -> None:
        self._changed.add(topic_partition)
        self._changed_at = self._clock.monotonic()
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and not self._stopped:
            self._timer = self._loop.call_later(PROPAGATION_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        if self._changed:
            quiet = now - self._changed_at >= QUIET_SECONDS
            if quiet or now - self._told_at >= LONGEST_SECONDS:
                changed, self._changed = self._changed, set()
                self._told_at = now
                self._telling = self._loop.create_task(self._tell(changed))
            self._arm()

    async def _tell(self, changed: set[TopicPartition]) -> None:
        body = znodes.encode_partitions(sorted(changed))
        try:
            await self._store.create(f"{znodes.ISR_CHANGES}/isr_change_", body, sequence=True)
        except StoreError as error:
            log.warning("Changes of in-sync replicas not told to the controller: %s", error)
            self._changed |= changed
            self._arm()

    async def stop(self) -> None:
        """Write nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        writes, telling = [*self._writes], self._telling
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
