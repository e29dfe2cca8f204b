"""Deletes topics: first from everybody's metadata, then from the disks, last from the store.

A topic is marked by ``/admin/delete_topics/<topic>``, which goes last of all its nodes, so that
a new controller goes on where the old one stopped. A replica on a dead broker cannot be
deleted; the topic then stays marked until that broker comes back.

Unlike Kafka's, a deletion does not wait for the end of a reassignment: all that it would bring
is one more replica to be deleted.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.batch import RequestBatch
from kavka.replication.controller.term import Term

logger = logging.getLogger("kavka.controller")

Replica = tuple[int, TopicPartition]


class TopicDeletion:
    """The deletions of one term."""

    def __init__(self, term: Term, send: Callable[[RequestBatch], None]) -> None:
        self._term = term
        self._send = send
        self._cluster = term.cluster
        self._left: dict[str, set[Replica]] = {}  # replicas not known to be deleted, by topic
        self._asked: set[Replica] = set()  # those of them whose broker owes an answer

    def blocked(self, topic: str) -> bool:
        """Whether a deletion waits for a dead broker or disk, which may take for ever."""
        return any(
            broker not in self._cluster.brokers or (broker, tp) in self._cluster.failed
            for broker, tp in self._left.get(topic, ())
        )

    def mark(self, topic: str) -> None:
        """A topic is to be deleted. It leaves the metadata of all brokers with the next
        ``resume``.
        """
        logger.info("Topic is to be deleted topic=%s", topic)
        self._cluster.deleting.add(topic)

    def resume(self) -> None:
        """Go on with every deletion as far as live brokers allow."""
        batch = self._term.batch()
        now: list[Replica] = []
        for topic in sorted(self._cluster.deleting):
            partitions = self._cluster.topics[topic].partitions
            if topic not in self._left:
                self._left[topic] = {
                    (replica, TopicPartition(topic, index))
                    for index, partition in partitions.items()
                    for replica in partition.replicas
                }
                batch.add_metadata(TopicPartition(topic, index) for index in partitions)
            if not self._left[topic]:  # a topic without replicas
                self._term.enqueue(partial(self._finish, topic))
            now += sorted(
                replica
                for replica in self._left[topic]
                if replica[0] in self._cluster.brokers and replica not in self._asked
            )
        # All replicas stop before the first is deleted, so that no follower meets a leader
        # without a log.
        for broker, tp in now:
            batch.add_stop_replica([broker], tp, delete=False)
        self._send(batch)
        self._asked.update(now)
        for broker, tp in now:
            batch.add_stop_replica([broker], tp, delete=True)
        self._send(batch)

    def broker_gone(self, broker_id: int) -> None:
        """A broker will not answer any more."""
        self._asked = {replica for replica in self._asked if replica[0] != broker_id}

    async def replicas_stopped(
        self, broker_id: int, request: StopReplicaRequest, response: StopReplicaResponse
    ) -> None:
        """A broker has answered; finish the topics whose last replica is gone."""
        deleted = {
            TopicPartition(topic.topic_name, state.partition_index)
            for topic in request.topic_states
            for state in topic.partition_states
            if state.delete_partition
        }
        self._asked.difference_update((broker_id, tp) for tp in deleted)
        if response.error_code != ErrorCode.NONE:
            logger.error(
                "A broker refused to stop replicas broker=%d error=%s",
                *(broker_id, ErrorCode(response.error_code).name),
            )
            return
        for failed in response.partition_errors:
            tp = TopicPartition(failed.topic_name, failed.partition_index)
            if failed.error_code != ErrorCode.NONE and tp in deleted:
                deleted.discard(tp)
                logger.error(
                    "A replica could not be deleted partition=%s broker=%d error=%s",
                    *(tp, broker_id, ErrorCode(failed.error_code).name),
                )
        for tp in deleted:
            left = self._left.get(tp.topic)
            if left is not None:
                left.discard((broker_id, tp))
        done = [topic for topic in sorted({tp.topic for tp in deleted}) if self._is_done(topic)]
        await asyncio.gather(*map(self._finish, done))

    def _is_done(self, topic: str) -> bool:
        return topic in self._left and not self._left[topic]

    async def _finish(self, topic: str) -> None:
        """Forget a topic of which no replica is left."""
        if not self._is_done(topic):
            return  # finished by an earlier event
        await self._term.delete_subtree(
            znodes.topic_path(topic),
            znodes.config_path("topics", topic),
            znodes.delete_topic_path(topic),
        )
        self._term.configs.forget_topic(topic)
        self._left.pop(topic, None)
        self._cluster.forget(topic)
        logger.info("Topic has been deleted topic=%s", topic)

    def forget(self, topic: str) -> None:
        """A topic has vanished from the store by somebody else's doing."""
        self._left.pop(topic, None)
        self._asked = {replica for replica in self._asked if replica[1].topic != topic}
