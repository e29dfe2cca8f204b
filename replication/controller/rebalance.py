"""Gives leadership back to the preferred replicas when too much of it has moved away.

Every broker that comes back after a failure leads nothing; without this the others would carry
its share for ever.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from kavka.protocol.topics import TopicPartition
from kavka.replication.controller.batch import RequestBatch
from kavka.replication.controller.cluster import Cluster
from kavka.replication.controller.leadership import Leadership
from kavka.replication.controller.operations import ElectionType
from kavka.replication.controller.term import Term

logger = logging.getLogger("kavka.controller")

FIRST_CHECK_S: Final = 5.0


def misplaced(cluster: Cluster, percentage: int) -> list[TopicPartition]:
    """The partitions whose preferred leader should be elected: those of live brokers of which
    more than ``percentage`` per cent are led by others. None while partitions are being moved.
    """
    preferred: dict[int, list[TopicPartition]] = {}
    elsewhere: dict[int, list[TopicPartition]] = {}
    for tp, partition in cluster.partitions():
        if partition.being_reassigned:
            return []
        if tp.topic in cluster.deleting or not partition.replicas:
            continue
        broker = partition.replicas[0]
        preferred.setdefault(broker, []).append(tp)
        if partition.leader != broker:
            elsewhere.setdefault(broker, []).append(tp)
    chosen: list[TopicPartition] = []
    for broker, partitions in sorted(elsewhere.items()):
        if broker not in cluster.brokers or broker in cluster.shutting_down:
            continue
        if len(partitions) * 100 > percentage * len(preferred[broker]):
            chosen += [tp for tp in partitions if broker in cluster.get(tp).isr]
    return chosen


class Rebalance:
    """The regular look at who leads what, during one term."""

    def __init__(
        self, term: Term, leadership: Leadership, send: Callable[[RequestBatch], None]
    ) -> None:
        self._term = term
        self._leadership = leadership
        self._send = send

    def start(self) -> None:
        """Look soon, and then every ``leader.imbalance.check.interval.seconds``."""
        if self._term.config.get_bool("auto.leader.rebalance.enable"):
            self._later(FIRST_CHECK_S)

    def _later(self, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(
            seconds, lambda: self._term.enqueue(self.check)
        )
        self._term.when_over(timer.cancel)

    async def check(self) -> None:
        """Elect the preferred leaders of brokers that lead too little."""
        config = self._term.config
        self._later(max(1, config.get_int("leader.imbalance.check.interval.seconds")))
        percentage = config.get_int("leader.imbalance.per.broker.percentage")
        partitions = misplaced(self._term.cluster, percentage)
        if not partitions:
            return
        logger.info("Leadership goes back to preferred replicas partitions=%d", len(partitions))
        batch = self._term.batch()
        outcomes = await self._leadership.elect(ElectionType.PREFERRED, partitions, batch)
        self._send(batch)
        for tp, outcome in outcomes.items():
            if outcome is not None:
                logger.warning("No preferred leader partition=%s error=%s", tp, outcome)
