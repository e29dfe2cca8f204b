"""What the controller does when it takes office and whenever something changes.

Each method is one event. They run one after another, never interleaved, so each may trust what
the one before it has left; each looks at the store itself for what has changed, so it does no
harm if one is run for nothing or twice.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.admin import new_topic_id
from kavka.replication.controller.batch import RequestBatch
from kavka.replication.controller.channels import ControlRequest, ControlResponse
from kavka.replication.controller.cluster import LiveBroker, Partition, Topic
from kavka.replication.controller.deletion import TopicDeletion
from kavka.replication.controller.leadership import Leadership
from kavka.replication.controller.moves import Moves
from kavka.replication.controller.notices import Notices
from kavka.replication.controller.operations import ElectionType, Outcome
from kavka.replication.controller.partition_cap import report_excess
from kavka.replication.controller.rebalance import Rebalance
from kavka.replication.controller.term import Term
from kavka.replication.store.base import BadVersion, Delete, NoNode, WatchEvent
from kavka.replication.znodes import BadNode

logger = logging.getLogger("kavka.controller")


class Duties:
    """The controller at work during one term."""

    def __init__(self, term: Term) -> None:
        self._term = term
        self._store = term.store
        self.cluster = term.cluster
        self.leadership = Leadership(term)
        self.deletion = TopicDeletion(term, self._send)
        self.moves = Moves(term, self.leadership)
        self.rebalance = Rebalance(term, self.leadership, self._send)
        self.notices = Notices(term, self.leadership, self.moves, self._send)

    def _send(self, batch: RequestBatch) -> None:
        self._term.send(batch, self.responded)

    # -- taking office ------------------------------------------------------------------------

    async def take_office(self) -> None:
        """Learn everything, give every partition a leader that can have one, tell everybody."""
        cluster = self.cluster
        for broker in (await self._read_brokers()).values():
            self._add_broker(broker)
        names = await self._store.children(znodes.TOPICS, self._on_topics)
        await self._add_topics(names)
        await self._term.read_states([tp for tp, _ in cluster.partitions()])
        await self._mark_deletions()
        batch = self._term.batch()
        # Brokers must know each other before they follow one another, and one that has just
        # started must not believe that there are no topics.
        batch.add_metadata(tp for tp, _ in cluster.partitions())
        self._send(batch)
        alive = [tp for tp, _ in cluster.partitions() if tp.topic not in cluster.deleting]
        for tp in alive:
            batch.add_leader_and_isr(cluster.get(tp).replicas, tp)
        await self.leadership.restore(alive, batch)
        self._send(batch)  # who waits for a leader has waited long enough
        # Brokers may have died while there was no controller to see it, the last one among them:
        # leaders would wait for their copies until they are found to lag.
        dead: dict[int, list[TopicPartition]] = {}
        for tp in alive:
            partition = cluster.get(tp)
            for replica in {partition.leader, *partition.isr} - cluster.brokers.keys():
                dead.setdefault(replica, []).append(tp)
        for broker_id, touched in sorted(dead.items()):
            await self.leadership.withdraw(dict.fromkeys(touched, broker_id), batch)
        for move in self.moves.under_way(None):
            await self.moves.finish_if_in_sync(move.partition, batch)
        self._send(batch)
        self.deletion.resume()
        await self.notices.look()
        self.rebalance.start()
        logger.info(
            "This broker is the controller epoch=%d brokers=%d topics=%d",
            *(self._term.epoch, len(cluster.brokers), len(cluster.topics)),
        )

    # -- brokers ------------------------------------------------------------------------------

    def _on_brokers(self, event: WatchEvent) -> None:
        self._term.enqueue(self.brokers_changed)

    async def _read_brokers(self) -> dict[int, LiveBroker]:
        names = await self._store.children(znodes.BROKER_IDS, self._on_brokers)
        paths = {int(name): znodes.broker_path(int(name)) for name in names if name.isdigit()}
        nodes = await asyncio.gather(
            *(self._store.get(path, self._on_brokers) for path in paths.values()),
            return_exceptions=True,
        )
        brokers: dict[int, LiveBroker] = {}
        for (broker_id, path), node in sorted(zip(paths.items(), nodes, strict=True)):
            if isinstance(node, NoNode):
                continue  # died between the two reads; the watch on its parent tells
            if isinstance(node, BaseException):
                raise node
            data, stat = node
            try:
                registration = znodes.decode_registration(path, data)
            except BadNode as error:
                logger.error("A broker is ignored broker=%d error=%s", broker_id, error)
                continue
            brokers[broker_id] = LiveBroker(broker_id, stat.czxid, registration)
        return brokers

    def _add_broker(self, broker: LiveBroker) -> None:
        self.cluster.brokers[broker.id] = broker
        # Metadata lists brokers in this order.
        self.cluster.brokers = dict(sorted(self.cluster.brokers.items()))
        self._term.open_channel(broker.id, broker.registration)

    def _remove_broker(self, broker_id: int) -> None:
        del self.cluster.brokers[broker_id]
        self.cluster.shutting_down.discard(broker_id)
        self.cluster.failed = {failed for failed in self.cluster.failed if failed[0] != broker_id}
        self.deletion.broker_gone(broker_id)
        self._term.close_channel(broker_id)

    async def brokers_changed(self) -> None:
        """A broker has come, gone, come again before it was missed, or moved."""
        now, known = await self._read_brokers(), self.cluster.brokers
        bounced = {id_ for id_ in now.keys() & known.keys() if now[id_].epoch != known[id_].epoch}
        gone = (known.keys() - now.keys()) | bounced
        come = (now.keys() - known.keys()) | bounced
        moved = [
            id_
            for id_ in now.keys() & known.keys()
            if id_ not in bounced and now[id_].registration != known[id_].registration
        ]
        for id_ in moved:
            known[id_].registration = now[id_].registration
        if moved and not gone and not come:
            batch = self._term.batch()
            batch.add_metadata()
            self._send(batch)
        if gone:
            await self._brokers_gone(sorted(gone))
        if come:
            await self._brokers_come([now[id_] for id_ in sorted(come)])

    async def _brokers_gone(self, broker_ids: Sequence[int]) -> None:
        logger.info("Brokers are gone brokers=%s", list(broker_ids))
        for broker_id in broker_ids:
            self._remove_broker(broker_id)
        batch = self._term.batch()
        batch.add_metadata()
        for broker_id in broker_ids:
            touched = self._in_use(self.cluster.on_broker(broker_id))
            states = {tp: self.cluster.get(tp).state for tp in touched}
            await self.leadership.restore(touched, batch)
            self._send(batch)  # who waits for a leader has waited long enough
            left = [
                tp
                for tp, state in states.items()
                if (partition := self.cluster.get(tp)).state is state  # maybe not the latest
                or broker_id in (partition.leader, *partition.isr)
            ]
            await self.leadership.withdraw(dict.fromkeys(left, broker_id), batch)
            batch.add_metadata(touched)
        self._send(batch)

    async def _brokers_come(self, brokers: Sequence[LiveBroker]) -> None:
        logger.info("Brokers have come brokers=%s", [broker.id for broker in brokers])
        batch = self._term.batch()
        others = list(self.cluster.brokers)
        for broker in brokers:
            self._add_broker(broker)
        batch.add_metadata((), others)
        self._send(batch)
        everything = self._in_use(tp for tp, _ in self.cluster.partitions())
        batch.add_metadata(everything, [broker.id for broker in brokers])
        self._send(batch)  # before they are told whom to follow
        for broker in brokers:
            for tp in self._in_use(self.cluster.on_broker(broker.id)):
                batch.add_leader_and_isr([broker.id], tp)
        await self.leadership.restore(everything, batch)
        self._send(batch)
        self.deletion.resume()

    def _in_use(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [tp for tp in partitions if tp.topic not in self.cluster.deleting]

    # -- topics -------------------------------------------------------------------------------

    def _on_topics(self, event: WatchEvent) -> None:
        self._term.enqueue(self.topics_changed)

    def _on_topic(self, event: WatchEvent) -> None:
        topic = event.path.removeprefix(f"{znodes.TOPICS}/")
        self._term.enqueue(lambda: self.topic_changed(topic))

    async def topics_changed(self) -> None:
        """A topic has been created, or its deletion is complete."""
        names = set(await self._store.children(znodes.TOPICS, self._on_topics))
        for name in self.cluster.topics.keys() - names:
            logger.warning("A topic has vanished from the metadata store topic=%s", name)
            self.deletion.forget(name)
            self.cluster.forget(name)
        await self.notices.settle_moves()
        added = await self._add_topics(sorted(names - self.cluster.topics.keys()))
        if not added:
            return
        for name in dict.fromkeys(tp.topic for tp in added):
            logger.info(
                "Topic is new topic=%s partitions=%d",
                *(name, len(self.cluster.topics[name].partitions)),
            )
        # A topic that an earlier controller had seen has states already.
        await self._term.read_states(added)
        await self._start(added)

    async def _start(self, partitions: Sequence[TopicPartition]) -> None:
        topics = self.cluster.topics.values()
        report_excess(self._term.config, {topic.name: len(topic.partitions) for topic in topics})
        batch = self._term.batch()
        await self.leadership.restore(partitions, batch)
        self._send(batch)

    async def _add_topics(self, names: Sequence[str]) -> list[TopicPartition]:
        """Read topics from their nodes; give their partitions."""
        nodes = await asyncio.gather(
            *(self._store.get(znodes.topic_path(name), self._on_topic) for name in names),
            return_exceptions=True,
        )
        added: list[TopicPartition] = []
        without_id: list[str] = []
        for name, node in zip(names, nodes, strict=True):
            if isinstance(node, NoNode):
                continue  # deleted between the two reads
            if isinstance(node, BaseException):
                raise node
            data, stat = node
            try:
                body = znodes.decode_topic(znodes.topic_path(name), data)
            except BadNode as error:
                logger.error("A topic is ignored topic=%s error=%s", name, error)
                continue
            topic = Topic(name, body.topic_id, stat.version)
            for index, replicas in sorted(body.partitions.items()):
                topic.partitions[index] = Partition(
                    replicas, body.adding.get(index, ()), body.removing.get(index, ())
                )
                added.append(TopicPartition(name, index))
            self.cluster.topics[name] = topic
            if body.topic_id == ZERO_UUID:
                without_id.append(name)
        for name in without_id:  # made, or written again, by a tool or broker that knows no ids
            topic_id = self._term.known_topic_id(name) or new_topic_id(self._term.random)
            self.cluster.topics[name].topic_id = topic_id
            await self._term.write_topic(name)
        return added

    async def topic_changed(self, name: str) -> None:
        """A topic's node was written: partitions may have been added."""
        topic = self.cluster.topics.get(name)
        if topic is None:
            return
        path = znodes.topic_path(name)
        try:
            data, stat = await self._store.get(path, self._on_topic)
            body = znodes.decode_topic(path, data)
        except NoNode:
            return  # the watch on the list of topics tells
        except BadNode as error:
            logger.error("A change of a topic is ignored topic=%s error=%s", name, error)
            return
        topic.node_version = stat.version
        if name in self.cluster.deleting:
            return
        added = [
            TopicPartition(name, index)
            for index in sorted(body.partitions.keys() - topic.partitions.keys())
        ]
        for tp in added:
            topic.partitions[tp.partition] = Partition(body.partitions[tp.partition])
        if body.topic_id == ZERO_UUID:  # written by a tool that knows no ids
            with contextlib.suppress(BadVersion):  # written once more: the watch tells
                await self._term.write_topic(name)
        if added:
            await self._term.read_states(added)
            await self._start(added)

    # -- deletion -----------------------------------------------------------------------------

    def _on_deletions(self, event: WatchEvent) -> None:
        self._term.enqueue(self.deletions_changed)

    async def deletions_changed(self) -> None:
        """A topic has been marked for deletion."""
        if await self._mark_deletions():
            self.deletion.resume()

    async def _mark_deletions(self) -> bool:
        """Mark what is to be deleted; whether there is anything new."""
        names = await self._store.children(znodes.DELETE_TOPICS, self._on_deletions)
        unknown = [name for name in names if name not in self.cluster.topics]
        if unknown:
            await self._term.write([Delete(znodes.delete_topic_path(name)) for name in unknown])
        new = [
            name
            for name in names
            if name in self.cluster.topics and name not in self.cluster.deleting
        ]
        if new and not self._term.config.get_bool("delete.topic.enable"):
            logger.warning("Topics are not deleted: delete.topic.enable is false topics=%s", new)
            await self._term.write([Delete(znodes.delete_topic_path(name)) for name in new])
            return False
        for name in new:
            self.deletion.mark(name)
        return bool(new)

    # -- replies ------------------------------------------------------------------------------

    def responded(self, broker_id: int, request: ControlRequest, response: ControlResponse) -> None:
        """A broker has answered: look at it when its turn comes."""
        match request, response:
            case LeaderAndIsrRequest(), LeaderAndIsrResponse():
                self._term.enqueue(lambda: self.leaders_applied(broker_id, request, response))
            case StopReplicaRequest(), StopReplicaResponse():
                self._term.enqueue(
                    lambda: self.deletion.replicas_stopped(broker_id, request, response)
                )

    async def leaders_applied(
        self, broker_id: int, request: LeaderAndIsrRequest, response: LeaderAndIsrResponse
    ) -> None:
        """Replicas that their broker cannot open are offline."""
        if response.error_code != ErrorCode.NONE:
            logger.error(
                "A broker refused its partitions broker=%d error=%s",
                *(broker_id, ErrorCode(response.error_code).name),
            )
            return
        names = {topic.topic_id: topic.topic_name for topic in request.topic_states}
        failed: list[TopicPartition] = []
        for topic in response.topics:
            for error in topic.partition_errors:
                if error.error_code == ErrorCode.KAFKA_STORAGE_ERROR:
                    failed.append(TopicPartition(names[topic.topic_id], error.partition_index))
        failed = [tp for tp in failed if self.cluster.find(tp) is not None]
        if not failed:
            return
        logger.error(
            "Replicas are offline: their broker cannot use its disk broker=%d partitions=%s",
            *(broker_id, ", ".join(map(str, failed))),
        )
        self.cluster.failed.update((broker_id, tp) for tp in failed)
        batch = self._term.batch()
        await self.leadership.restore(self._in_use(failed), batch)
        await self.leadership.withdraw(dict.fromkeys(self._in_use(failed), broker_id), batch)
        batch.add_metadata(failed)
        self._send(batch)

    # -- requests of administrators -----------------------------------------------------------

    async def elect(
        self, election: ElectionType, partitions: Sequence[TopicPartition] | None
    ) -> Mapping[TopicPartition, Outcome]:
        """Elect leaders of these partitions, or of all."""
        if partitions is None:
            partitions = self._in_use(tp for tp, _ in self.cluster.partitions())
        batch = self._term.batch()
        outcomes = await self.leadership.elect(election, partitions, batch)
        self._send(batch)
        return outcomes

    async def alter_reassignments(
        self, targets: Mapping[TopicPartition, Sequence[int] | None]
    ) -> dict[TopicPartition, Outcome]:
        """Begin moves of partitions, or cancel them."""
        batch = self._term.batch()
        outcomes = await self.moves.alter(targets, batch)
        self._send(batch)
        return outcomes

    async def shut_down_broker(self, broker_id: int, broker_epoch: int) -> list[TopicPartition]:
        """A broker wants to stop: others take over what they can; give what it leads still.

        Raises KafkaError: STALE_BROKER_EPOCH, BROKER_NOT_AVAILABLE.
        """
        broker = self.cluster.brokers.get(broker_id)
        if broker is None:
            raise KafkaError(
                ErrorCode.BROKER_NOT_AVAILABLE, f"Broker id {broker_id} does not exist."
            )
        if broker_epoch != -1 and broker_epoch < broker.epoch:
            raise KafkaError(
                ErrorCode.STALE_BROKER_EPOCH,
                f"The broker has been registered again since epoch {broker_epoch}.",
            )
        logger.info("A broker wants to stop broker=%d", broker_id)
        self.cluster.shutting_down.add(broker_id)
        batch = self._term.batch()
        replicated = await self.leadership.hand_over(broker_id, batch)
        self._send(batch)
        remaining = [tp for tp in replicated if self.cluster.get(tp).leader == broker_id]
        followed = [tp for tp in replicated if self.cluster.get(tp).leader != broker_id]
        # It stops to fetch before it leaves the ISRs: a leader would take it in again at once.
        for tp in followed:
            batch.add_stop_replica([broker_id], tp, delete=False)
        self._send(batch)
        await self.leadership.withdraw(dict.fromkeys(followed, broker_id), batch)
        self._send(batch)
        return remaining
