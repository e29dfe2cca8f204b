"""Gives partitions their leaders: when they are new, when a broker comes or goes, on request."""

import logging
from collections.abc import Iterable, Mapping

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.replication.controller import elections
from kavka.replication.controller.batch import RequestBatch
from kavka.replication.controller.cluster import Partition
from kavka.replication.controller.elections import Choice
from kavka.replication.controller.operations import ElectionType, Outcome
from kavka.replication.controller.term import Decision, Term

logger = logging.getLogger("kavka.controller")


class Leadership:
    """Elections of one term. What has to be told about them goes into the caller's batch."""

    def __init__(self, term: Term) -> None:
        self._term = term
        self._cluster = term.cluster

    def has_leader(self, tp: TopicPartition) -> bool:
        """Whether a partition's leader is alive and has its log."""
        leader = self._cluster.get(tp).leader
        return leader in self._cluster.brokers and (leader, tp) not in self._cluster.failed

    async def _decide(
        self,
        partitions: Iterable[TopicPartition],
        decision: Decision,
        batch: RequestBatch,
        recipients: Iterable[int] | None = None,
        without: Mapping[TopicPartition, int] | None = None,
    ) -> dict[TopicPartition, Outcome]:
        """Write what ``decision`` chooses, and tell the replicas (or ``recipients``) of it, but
        for one of each partition that is ``without`` it.
        """
        before = {tp: self._cluster.get(tp).state for tp in partitions}
        outcomes = await self._term.decide(before, decision)
        for tp, state in before.items():
            partition = self._cluster.get(tp)
            if partition.state is not state and partition.state is not None:
                told = partition.replicas if recipients is None else recipients
                if without is not None:
                    told = [replica for replica in told if replica != without[tp]]
                batch.add_leader_and_isr(told, tp, is_new=state is None)
        return outcomes

    async def restore(self, partitions: Iterable[TopicPartition], batch: RequestBatch) -> None:
        """Elect leaders of those partitions that have none: new ones, or with a dead leader.

        Where nobody can lead, the partition stays as it is until a broker comes.
        """

        def clean(tp: TopicPartition, partition: Partition) -> Choice | None:
            if partition.state is None:
                return elections.elect_first(partition.replicas, self._cluster.usable(tp))
            return None if self.has_leader(tp) else self._offline(tp, False)

        def unclean(tp: TopicPartition, partition: Partition) -> Choice | None:
            choice = clean(tp, partition)
            if choice is None and partition.state is not None and not self.has_leader(tp):
                choice = self._offline(tp, True)
                if choice is not None:
                    logger.warning(
                        "An out-of-sync replica becomes leader; what only others had is lost "
                        "partition=%s leader=%d isr=%s",
                        *(tp, choice.leader, list(partition.isr)),
                    )
            return choice

        def leaderless(partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
            return [tp for tp in partitions if not self.has_leader(tp)]

        lost = leaderless(partitions)
        await self._decide(lost, clean, batch)
        lost = leaderless(lost)
        stuck = [tp for tp in lost if self._cluster.get(tp).state is not None]
        allowed = await self._term.unclean_topics({tp.topic for tp in stuck})
        await self._decide([tp for tp in stuck if tp.topic in allowed], unclean, batch)
        lost = leaderless(lost)
        if lost:
            logger.warning(
                "Partitions have no leader: no replica that may lead is alive count=%d first=%s",
                *(len(lost), lost[0]),
            )

    def _offline(self, tp: TopicPartition, unclean: bool) -> Choice | None:
        partition = self._cluster.get(tp)
        return elections.elect_offline(
            partition.replicas, partition.isr, self._cluster.usable(tp), unclean=unclean
        )

    async def withdraw(self, replicas: Mapping[TopicPartition, int], batch: RequestBatch) -> None:
        """Take one replica of each partition, gone or stopped, out of leadership and ISR."""

        def decision(tp: TopicPartition, partition: Partition) -> Choice | None:
            gone = replicas[tp]
            if partition.state is None or gone not in (partition.leader, *partition.isr):
                return None
            choice = elections.without_replica(partition.leader, partition.isr, gone)
            if set(choice.isr).isdisjoint(self._cluster.usable(tp)):
                # Nobody leads, so nobody gets ahead: whoever of them comes first has everything.
                choice = Choice(choice.leader, partition.isr)
            return choice if choice != (partition.leader, partition.isr) else None

        # Told who leads now, it would begin to follow again.
        await self._decide(replicas, decision, batch, without=replicas)

    async def renew(self, partitions: Iterable[TopicPartition], batch: RequestBatch) -> None:
        """Begin a new leader epoch under the same leader."""

        def decision(tp: TopicPartition, partition: Partition) -> Choice | None:
            return Choice(partition.leader, partition.isr) if partition.state is not None else None

        await self._decide(partitions, decision, batch)

    async def settle(self, tp: TopicPartition, batch: RequestBatch) -> None:
        """Give a partition that has been moved a leader among its new replicas, and leave only
        those in sync. Raises KafkaError if none of them can lead.
        """
        target = self._cluster.get(tp).target

        def decision(tp: TopicPartition, partition: Partition) -> Choice | None:
            isr = tuple(replica for replica in partition.isr if replica in target)
            if partition.leader in target and self.has_leader(tp):
                return Choice(partition.leader, isr)
            choice = elections.elect_for_reassignment(target, isr, self._cluster.usable(tp))
            if choice is None:
                raise KafkaError(
                    ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, f"None of {target} can lead {tp}."
                )
            return choice

        for error in (await self._decide([tp], decision, batch, target)).values():
            if error is not None:
                raise error

    async def elect(
        self, election: ElectionType, partitions: Iterable[TopicPartition], batch: RequestBatch
    ) -> dict[TopicPartition, Outcome]:
        """Elect leaders because somebody asks for it."""

        def preferred(tp: TopicPartition, partition: Partition) -> Choice | None:
            if partition.replicas[:1] == (partition.leader,) and self.has_leader(tp):
                raise KafkaError(ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed.")
            choice = elections.elect_preferred(
                partition.replicas, partition.isr, self._cluster.usable(tp)
            )
            if choice is None:
                raise KafkaError(
                    ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
                    f"Failed to elect leader for partition {tp} under strategy "
                    "PreferredReplicaPartitionLeaderElectionStrategy",
                )
            return choice

        def unclean(tp: TopicPartition, partition: Partition) -> Choice | None:
            if self.has_leader(tp):
                raise KafkaError(ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed.")
            if partition.state is None:
                choice = elections.elect_first(partition.replicas, self._cluster.usable(tp))
            else:
                choice = self._offline(tp, True)
            if choice is None:
                raise KafkaError(
                    ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE,
                    f"Failed to elect leader for partition {tp} under strategy "
                    "OfflinePartitionLeaderElectionStrategy(true)",
                )
            return choice

        outcomes: dict[TopicPartition, Outcome] = {}
        known: list[TopicPartition] = []
        for tp in partitions:
            if self._cluster.find(tp) is None:
                outcomes[tp] = KafkaError(
                    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist."
                )
            elif tp.topic in self._cluster.deleting:
                outcomes[tp] = KafkaError(
                    ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic is being deleted"
                )
            else:
                known.append(tp)
        decision = preferred if election is ElectionType.PREFERRED else unclean
        outcomes.update(await self._decide(known, decision, batch))
        return outcomes

    async def hand_over(self, broker_id: int, batch: RequestBatch) -> list[TopicPartition]:
        """Take leadership from a broker that wants to stop; give the partitions that others have
        as well.
        """
        replicated = [
            tp
            for tp in self._cluster.on_broker(broker_id)
            if len(self._cluster.get(tp).replicas) > 1 and tp.topic not in self._cluster.deleting
        ]

        def decision(tp: TopicPartition, partition: Partition) -> Choice | None:
            if partition.leader != broker_id:
                return None
            return elections.elect_for_shutdown(
                partition.replicas,
                partition.isr,
                self._cluster.usable(tp),
                self._cluster.shutting_down,
            )

        led = [tp for tp in replicated if self._cluster.get(tp).leader == broker_id]
        await self._decide(led, decision, batch)
        return replicated
