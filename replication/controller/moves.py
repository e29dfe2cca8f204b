"""Moves partitions to other replicas while they are in use (KIP-455).

The new replicas are added to the old and copy; when all of them are in sync the partition is
theirs and the old ones are deleted. What is being moved stands in the topic's node, so that a
new controller goes on where the old one stopped.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.replication.controller.batch import RequestBatch
from kavka.replication.controller.cluster import Cluster, Partition
from kavka.replication.controller.leadership import Leadership
from kavka.replication.controller.operations import Outcome, Reassignment
from kavka.replication.controller.term import Term

logger = logging.getLogger("kavka.controller")


def target_problem(
    target: Sequence[int], origin: Sequence[int], live: Iterable[int]
) -> KafkaError | None:
    """Why a partition cannot be moved to these replicas; None if it can."""
    if not target:
        problem = "Empty replica list specified in partition reassignment."
    elif min(target) < 0:
        problem = f"Replica assignment has negative broker ids: {list(target)}."
    elif len(set(target)) < len(target):
        problem = f"Replica assignment has duplicate broker ids: {list(target)}."
    elif dead := sorted(set(target) - set(origin) - set(live)):
        problem = f"Replica assignment has brokers that are not alive: {dead}."
    else:
        return None
    return KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)


class Moves:
    """The reassignments of one term."""

    def __init__(self, term: Term, leadership: Leadership) -> None:
        self._term = term
        self._cluster: Cluster = term.cluster
        self._leadership = leadership

    def under_way(self, partitions: Iterable[TopicPartition] | None) -> list[Reassignment]:
        """What is being moved, of these partitions or of all."""
        wanted = [tp for tp, _ in self._cluster.partitions()] if partitions is None else partitions
        moves: list[Reassignment] = []
        for tp in wanted:
            partition = self._cluster.find(tp)
            if partition is None or tp.topic in self._cluster.deleting:
                continue
            if partition.being_reassigned:
                moves.append(
                    Reassignment(tp, partition.replicas, partition.adding, partition.removing)
                )
        return moves

    async def alter(
        self, targets: Mapping[TopicPartition, Sequence[int] | None], batch: RequestBatch
    ) -> dict[TopicPartition, Outcome]:
        """Begin moves; None instead of replicas cancels one."""
        outcomes: dict[TopicPartition, Outcome] = {}
        for tp, target in targets.items():
            try:
                await self._alter_one(tp, target, batch)
            except KafkaError as error:
                outcomes[tp] = error
            else:
                outcomes[tp] = None
        return outcomes

    async def _alter_one(
        self, tp: TopicPartition, target: Sequence[int] | None, batch: RequestBatch
    ) -> None:
        partition = self._cluster.find(tp)
        if partition is None or tp.topic in self._cluster.deleting:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
        origin = partition.origin
        if target is None:
            if not partition.being_reassigned:
                raise KafkaError(
                    ErrorCode.NO_REASSIGNMENT_IN_PROGRESS,
                    ErrorCode.NO_REASSIGNMENT_IN_PROGRESS.name,
                )
            target = origin
        problem = target_problem(target, origin, self._cluster.brokers)
        if problem is not None:
            raise problem
        if not partition.being_reassigned and tuple(target) == partition.replicas:
            return
        dropped = set(partition.adding) - set(target)  # of an earlier move that this replaces
        await self._set_replicas(
            tp,
            (*target, *(replica for replica in origin if replica not in target)),
            tuple(replica for replica in target if replica not in origin),
            tuple(replica for replica in origin if replica not in target),
        )
        logger.info(
            "Partition is to be moved partition=%s from=%s to=%s",
            *(tp, list(origin), list(target)),
        )
        for broker in dropped:
            await self._leadership.withdraw({tp: broker}, batch)
            batch.add_stop_replica([broker], tp, delete=True)
        if partition.state is None:  # nothing is written anywhere: there is nothing to copy
            await self._set_replicas(tp, tuple(target), (), ())
            await self._leadership.restore([tp], batch)
        elif not await self.finish_if_in_sync(tp, batch):
            await self._leadership.renew([tp], batch)

    async def finish_if_in_sync(self, tp: TopicPartition, batch: RequestBatch) -> bool:
        """Finish a move whose new replicas have all caught up; False if they have not."""
        partition = self._cluster.get(tp)
        target, removing = partition.target, partition.removing
        usable = self._cluster.usable(tp)
        if not set(target) <= set(partition.isr) or not any(r in usable for r in target):
            return False
        await self._leadership.settle(tp, batch)
        for broker in removing:
            batch.add_stop_replica([broker], tp, delete=True)
        if partition.being_reassigned:
            await self._set_replicas(tp, target, (), ())
        batch.add_metadata([tp])
        logger.info("Partition has been moved partition=%s replicas=%s", tp, list(target))
        return True

    async def _set_replicas(
        self,
        tp: TopicPartition,
        replicas: tuple[int, ...],
        adding: tuple[int, ...],
        removing: tuple[int, ...],
    ) -> None:
        partition: Partition = self._cluster.get(tp)
        before = partition.replicas, partition.adding, partition.removing
        partition.replicas, partition.adding, partition.removing = replicas, adding, removing
        try:
            await self._term.write_topic(tp.topic)
        except BaseException:
            partition.replicas, partition.adding, partition.removing = before
            raise
