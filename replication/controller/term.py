"""One term of office: what the controller knows, and how it writes and tells its decisions.

Every write of the controller checks ``/controller_epoch`` in the same transaction, so that a
controller that has been replaced without noticing can do no harm: its first write fails with
``ControllerMoved``, and with the term goes everything it knew.
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import Final, NamedTuple

from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.batch import OnResponse, RequestBatch
from kavka.replication.controller.channels import BrokerChannel, ControlRequest, ControlResponse
from kavka.replication.controller.cluster import NO_STATE, Cluster, Partition
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.controller.elections import NO_LEADER, Choice
from kavka.replication.controller.operations import Outcome
from kavka.replication.store.base import (
    BadVersion,
    Check,
    Create,
    Delete,
    MetadataStore,
    MultiFailed,
    MultiResult,
    NodeExists,
    NoNode,
    Operation,
    SetData,
    StoreError,
)
from kavka.replication.znodes import BadNode, Registration, StateNode

logger = logging.getLogger("kavka.controller")

OpenChannel = Callable[[int, Registration], BrokerChannel]
Event = Callable[[], Awaitable[None]]
Decision = Callable[[TopicPartition, Partition], Choice | None]
"""Chooses a partition's next leader and ISR; None leaves it as it is. May raise KafkaError."""


STATES_TOGETHER: Final = 50
"""Written in one transaction: far from the largest request that ZooKeeper takes (1 MB)."""


class ControllerMoved(Exception):
    """Another broker is the controller now."""


class Term:
    """A controller's term. ``epoch`` is its number, the same that fences its requests."""

    def __init__(
        self,
        node_id: int,
        epoch: int,
        epoch_version: int,
        store: MetadataStore,
        configs: ConfigStore,
        config: BrokerConfig,
        random: Random,
        open_channel: OpenChannel,
        enqueue: Callable[[Event], None],
        known_topic_id: Callable[[str], bytes | None],
    ) -> None:
        self.node_id = node_id
        self.epoch = epoch
        self.store = store
        self.configs = configs
        self.config = config
        self.random = random
        self.known_topic_id = known_topic_id
        """The id that this broker remembers of a topic, whose node may have lost it."""
        self.cluster = Cluster()
        self.channels: dict[int, BrokerChannel] = {}
        self.over = False
        self._cancel_timer: Callable[[], None] | None = None
        self._epoch_check = Check(znodes.CONTROLLER_EPOCH, epoch_version)
        self._open_channel = open_channel
        self._enqueue = enqueue

    def enqueue(self, event: Event) -> None:
        """Do something after all that is to be done already; nothing once the term is over."""
        if not self.over:
            self._enqueue(event)

    def end(self) -> None:
        """Stop telling anybody anything."""
        self.over = True
        if self._cancel_timer is not None:
            self._cancel_timer()
        for channel in self.channels.values():
            channel.close()
        self.channels.clear()

    def when_over(self, cancel_timer: Callable[[], None]) -> None:
        """Have the one timer of a term cancelled at its end."""
        self._cancel_timer = cancel_timer

    async def told(self) -> None:
        """Wait until all brokers have answered what they were told so far."""
        channels = list(self.channels.values())
        await asyncio.gather(*(channel.settled() for channel in channels))

    # -- telling ------------------------------------------------------------------------------

    def open_channel(self, broker_id: int, registration: Registration) -> None:
        self.close_channel(broker_id)
        self.channels[broker_id] = self._open_channel(broker_id, registration)

    def close_channel(self, broker_id: int) -> None:
        channel = self.channels.pop(broker_id, None)
        if channel is not None:
            channel.close()

    def batch(self) -> RequestBatch:
        """An empty batch of requests, signed with this term's epoch."""
        listener = self.config.inter_broker_listener
        return RequestBatch(self.cluster, self.node_id, self.epoch, listener)

    def send(self, batch: RequestBatch, on_response: OnResponse) -> None:
        """Send what a batch has gathered; answers that come after the term are ignored."""

        def responded(broker_id: int, request: ControlRequest, response: ControlResponse) -> None:
            if not self.over:
                on_response(broker_id, request, response)

        batch.send(self.channels, responded)

    # -- writing ------------------------------------------------------------------------------

    async def write(self, operations: Sequence[Operation]) -> list[MultiResult]:
        """Do all of it or nothing, if this is still the controller.

        Raises ControllerMoved; or the StoreError of the operation that was impossible.
        """
        self._require_office()
        try:
            return (await self.store.multi([self._epoch_check, *operations]))[1:]
        except MultiFailed as failure:
            raise self._explain(failure) from None

    def _require_office(self) -> None:
        if self.over:  # the session has ended, in which nobody else could be controller
            raise ControllerMoved("this term is over")

    def _explain(self, failure: MultiFailed) -> Exception:
        if failure.index == 0:
            return ControllerMoved(f"the controller's epoch is not {self.epoch} any more")
        return failure.error

    async def decide(
        self, partitions: Iterable[TopicPartition], decision: Decision
    ) -> dict[TopicPartition, Outcome]:
        """Have ``decision`` choose for each partition, and write what it chose.

        A leader epoch begins with every write. If somebody else has written in between (a
        leader its ISR), the decision is asked again with what is there now. So it is before a
        partition is left as it is, because leaders have written what they have not told yet. A
        KafkaError that it raises is that partition's outcome.
        """
        outcomes: dict[TopicPartition, Outcome] = {}
        remaining = list(partitions)
        looked: set[TopicPartition] = set()
        while remaining:
            writes: list[_StateWrite] = []
            again: list[TopicPartition] = []
            for tp in remaining:
                partition = self.cluster.get(tp)
                outcomes[tp] = choice = None
                try:
                    choice = decision(tp, partition)
                except KafkaError as error:
                    outcomes[tp] = error
                if choice is not None:
                    leader_epoch = (
                        0 if partition.state is None else partition.state.leader_epoch + 1
                    )
                    state = StateNode(choice.leader, leader_epoch, choice.isr, self.epoch)
                    writes.append(_StateWrite(tp, partition, state))
                elif tp not in looked:
                    again.append(tp)
            for tp, refusal in (await self._write_states(writes)).items():
                if isinstance(refusal, NoNode):
                    outcomes[tp] = KafkaError(
                        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic has been deleted."
                    )
                else:
                    again.append(tp)
            await self._read_again(again)
            looked.update(again)
            remaining = again
        return outcomes

    async def _write_states(
        self, writes: Sequence["_StateWrite"]
    ) -> dict[TopicPartition, StoreError]:
        """Write states; give those that were refused because something else is there now.

        Many go in one transaction, which costs a fraction of as many of one each. Where one of
        them is refused none is done, and each is tried alone.
        """
        self._require_office()
        refused: dict[TopicPartition, StoreError] = {}
        failures: list[BaseException] = []
        new_topics = {write.tp.topic for write in writes if write.partition.state is None}
        # All sent before the first is awaited, so that they share a sync.
        parents = [self.store.create(znodes.partitions_path(topic)) for topic in sorted(new_topics)]
        for size in (STATES_TOGETHER, 1):
            groups = [writes[start : start + size] for start in range(0, len(writes), size)]
            futures = [self._write_together(group) for group in groups]
            for made in await asyncio.gather(*parents, return_exceptions=True):
                if isinstance(made, BaseException) and not isinstance(made, NodeExists | NoNode):
                    failures.append(made)
            results = await asyncio.gather(*futures, return_exceptions=True)
            writes = []
            for group, result in zip(groups, results, strict=True):
                if isinstance(result, MultiFailed):
                    error = self._explain(result)
                    if not isinstance(error, BadVersion | NodeExists | NoNode):
                        failures.append(error)
                    elif len(group) > 1:
                        writes += group
                    else:
                        refused[group[0].tp] = error
                elif isinstance(result, BaseException):
                    failures.append(result)
                else:
                    for _, partition, state in group:
                        partition.state = state
                        partition.zk_version += 1  # from NO_STATE to 0 for a new one
                        partition.has_node = True
            for failure in failures:
                if isinstance(failure, ControllerMoved):
                    raise failure
            if failures:
                raise failures[0]
        return refused

    def _write_together(self, writes: Sequence["_StateWrite"]) -> "Future[list[MultiResult]]":
        operations: list[Operation] = [self._epoch_check]
        for write in writes:
            operations += write.operations()
        return self.store.multi(operations)

    async def _read_again(self, partitions: Sequence[TopicPartition]) -> None:
        """Read states that are not what was thought. Raises ControllerMoved if a later
        controller wrote one.
        """
        await self.read_states(partitions)
        for tp in partitions:
            state = self.cluster.get(tp).state
            if state is not None and state.controller_epoch > self.epoch:
                raise ControllerMoved(
                    f"partition {tp} was written by the controller of epoch "
                    f"{state.controller_epoch}, this one has {self.epoch}"
                )

    async def read_states(self, partitions: Sequence[TopicPartition]) -> None:
        """Take over partitions' states from the store; those without one are new.

        Where nothing has changed, the partition keeps the state object that it has.
        """
        futures = [self.store.get(znodes.state_path(tp.topic, tp.partition)) for tp in partitions]
        new: list[TopicPartition] = []
        results = await asyncio.gather(*futures, return_exceptions=True)
        for tp, result in zip(partitions, results, strict=True):
            partition = self.cluster.get(tp)
            if isinstance(result, NoNode):
                partition.state, partition.zk_version = None, NO_STATE
                new.append(tp)
            elif isinstance(result, BaseException):
                raise result
            else:
                data, stat = result
                path = znodes.state_path(tp.topic, tp.partition)
                try:
                    state = znodes.decode_state(path, data)
                except BadNode as error:
                    # Nobody can be trusted to have every record: it has no leader until
                    # somebody mends the node, or allows an unclean election.
                    logger.error(
                        "The state of a partition is lost partition=%s error=%s", tp, error
                    )
                    state = StateNode(NO_LEADER, 0, (), self.epoch)
                partition.has_node = True
                if (state, stat.version) != (partition.state, partition.zk_version):
                    partition.state, partition.zk_version = state, stat.version
        # Kafka makes the parent first and the state later, so one may be there without the other.
        topics = list(dict.fromkeys(tp.topic for tp in new))
        found = await asyncio.gather(
            *(self.store.children(znodes.partitions_path(topic)) for topic in topics),
            return_exceptions=True,
        )
        parents: dict[str, set[str]] = {}
        for topic, names in zip(topics, found, strict=True):
            if isinstance(names, BaseException) and not isinstance(names, NoNode):
                raise names
            parents[topic] = set() if isinstance(names, BaseException) else set(names)
        for tp in new:
            self.cluster.get(tp).has_node = str(tp.partition) in parents[tp.topic]

    async def write_topic(self, name: str) -> None:
        """Write a topic's node as it is in memory. Raises StoreError."""
        topic = self.cluster.topics[name]
        body = znodes.encode_topic(topic.node())
        await self.write([SetData(znodes.topic_path(name), body, topic.node_version)])
        topic.node_version += 1

    async def delete_subtree(self, path: str, *also: str) -> None:
        """Delete a node with everything below it, and then other nodes, where they exist."""
        level, found = [path], [path]
        while level:
            children = await asyncio.gather(
                *(self.store.children(parent) for parent in level), return_exceptions=True
            )
            level = [
                f"{parent}/{name}"
                for parent, names in zip(level, children, strict=True)
                if not isinstance(names, BaseException)  # gone already
                for name in names
            ]
            found += level
        paths = [*reversed(found), *also]
        stats = await asyncio.gather(*(self.store.exists(each) for each in paths))
        await self.write(
            [Delete(each) for each, stat in zip(paths, stats, strict=True) if stat is not None]
        )

    async def unclean_topics(self, topics: Iterable[str]) -> set[str]:
        """Those of the topics whose next leader may lack acknowledged records."""
        name = "unclean.leader.election.enable"
        default = self.config.get_bool(name)
        allowed: set[str] = set()
        asked = list(topics)
        read = await asyncio.gather(*(self.configs.read("topics", topic) for topic in asked))
        for topic, overrides in zip(asked, read, strict=True):
            if name in overrides:
                if overrides[name].strip().lower() == "true":
                    allowed.add(topic)
            elif default:
                allowed.add(topic)
        return allowed


class _StateWrite(NamedTuple):
    """A partition's next state, on its way to the store."""

    tp: TopicPartition
    partition: Partition
    state: StateNode

    def operations(self) -> list[Operation]:
        path = znodes.state_path(self.tp.topic, self.tp.partition)
        body = znodes.encode_state(self.state)
        if self.partition.state is not None:
            return [SetData(path, body, self.partition.zk_version)]
        create = Create(path, body)
        if self.partition.has_node:
            return [create]
        return [Create(znodes.partition_path(self.tp.topic, self.tp.partition)), create]
