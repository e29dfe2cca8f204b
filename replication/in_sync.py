"""Keeps the in-sync sets of the partitions led here: who has fallen behind, who is back.

The rules are those of :mod:`kavka.replication.partition`; this has them followed, one write to the
metadata store at a time for each partition.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from kavka.replication.isr_changes import IsrOutcome, IsrWriter
from kavka.replication.partition import FoundState, IsrChange, Partition

if TYPE_CHECKING:
    from kavka.replication.metadata import PartitionState

log = logging.getLogger("kavka.replication")

REFUSED_PAUSE: Final = 1.0  # seconds until the next try after a change was refused


class Metadata(Protocol):
    """What is asked of the metadata cache."""

    def is_alive(self, broker_id: int) -> bool: ...

    def partition(self, name: str, index: int) -> "PartitionState | None": ...


class InSyncSets:
    """All in-sync sets that this broker is to keep. Owned by the event loop."""

    def __init__(
        self,
        node_id: int,
        writer: IsrWriter,
        metadata: Metadata,
        notify: Callable[[Partition], None],
        lag_max: float,
    ) -> None:
        """``notify`` wakes who waits for a partition; ``lag_max`` is in seconds."""
        self._node_id = node_id
        self._writer = writer
        self._metadata = metadata
        self._notify = notify
        self._interval = lag_max / 2
        self._writes: dict[Partition, asyncio.Future[IsrOutcome]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, partitions: Iterable[Partition], loop: asyncio.AbstractEventLoop) -> None:
        """Look from now on, again and again, who has fallen behind."""
        self._timer = loop.call_later(self._interval, self._look, partitions, loop)

    def stop(self) -> None:
        """Change nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        for write in self._writes.values():
            write.cancel()

    def consider(self, partition: Partition, broker_id: int) -> None:
        """A follower has fetched that is not in sync, and perhaps is, now; or that is in sync, and
        asks for less than it had."""
        if partition.wants_in_sync(broker_id):
            if self._metadata.is_alive(broker_id):
                self._write(partition, partition.expand(broker_id))
        elif partition.has_lost(broker_id):
            change = partition.put_out(broker_id)
            if change is not None:
                self._write(partition, change)

    def forget(self, partition: Partition) -> None:
        """The epoch in which something may be under way for a partition is over."""
        write = self._writes.pop(partition, None)
        if write is not None:
            write.cancel()

    def _look(self, partitions: Iterable[Partition], loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._interval, self._look, partitions, loop)
        for partition in partitions:
            if not partition.remotes or partition.log.offline is not None:
                continue
            self._compare(partition)
            change = partition.shrink()
            if change is not None:
                self._write(partition, change)
            # Replicas that had nearly caught up, and then did not, no longer hold it back.
            if partition.advance_high_watermark():
                self._notify(partition)

    def _compare(self, partition: Partition) -> None:
        """A member may have left the set by itself (``unclean_start``); the controller tells."""
        state = self._metadata.partition(partition.topic, partition.index)
        if state is not None and state.zk_version > partition.partition_epoch:
            found = FoundState(state.leader, state.leader_epoch, state.isr, state.zk_version)
            if partition.learn(found):
                self._notify(partition)

    def _write(self, partition: Partition, change: IsrChange) -> None:
        log.info(
            "In-sync replicas are to change partition=%s leader_epoch=%d from=%s to=%s",
            partition.topic_partition,
            change.leader_epoch,
            partition.in_sync_replicas,
            list(change.isr),
        )
        write = self._writer.write(partition.topic_partition, self._node_id, change)
        self._writes[partition] = write
        write.add_done_callback(partial(self._answered, partition, change))

    def _answered(
        self, partition: Partition, change: IsrChange, write: "asyncio.Future[IsrOutcome]"
    ) -> None:
        if self._writes.get(partition) is not write or write.cancelled():
            return
        del self._writes[partition]
        outcome = write.result()
        if outcome.partition_epoch is not None:
            partition.isr_written(change, outcome.partition_epoch)
        else:
            partition.isr_refused(change, outcome.found, REFUSED_PAUSE)
            log.info(
                "In-sync replicas not changed: the partition's state is another one "
                "partition=%s leader_epoch=%d found=%s",
                partition.topic_partition,
                change.leader_epoch,
                outcome.found,
            )
        partition.advance_high_watermark()
        self._notify(partition)  # who waits counts them again
