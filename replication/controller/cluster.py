"""What the controller knows of the cluster during its term. Only state, and questions about it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from kavka.protocol.topics import TopicPartition
from kavka.replication.controller.elections import NO_LEADER
from kavka.replication.znodes import Registration, StateNode, TopicNode

NO_STATE: Final = -1  # version of a state node that does not exist


class LiveBroker:
    """A broker with a registration. ``epoch`` is the transaction that created it."""

    __slots__ = ("epoch", "id", "registration")

    def __init__(self, broker_id: int, epoch: int, registration: Registration) -> None:
        self.id = broker_id
        self.epoch = epoch
        self.registration = registration


class Partition:
    """One partition: its replicas, its state and the version of its state node.

    While a reassignment runs, ``replicas`` are the new ones followed by those of the old that
    will go; ``adding`` and ``removing`` tell them apart (KIP-455).
    """

    __slots__ = ("adding", "has_node", "removing", "replicas", "state", "zk_version")

    def __init__(
        self,
        replicas: Sequence[int],
        adding: Sequence[int] = (),
        removing: Sequence[int] = (),
    ) -> None:
        self.replicas = tuple(replicas)
        self.adding = tuple(adding)
        self.removing = tuple(removing)
        self.state: StateNode | None = None  # None: new, never had a leader
        self.zk_version = NO_STATE
        self.has_node = False  # the state's parent exists, though there may be no state

    @property
    def leader(self) -> int:
        return self.state.leader if self.state is not None else NO_LEADER

    @property
    def isr(self) -> tuple[int, ...]:
        return self.state.isr if self.state is not None else ()

    @property
    def being_reassigned(self) -> bool:
        return bool(self.adding or self.removing)

    @property
    def origin(self) -> tuple[int, ...]:
        """The replicas from before the reassignment."""
        return tuple(replica for replica in self.replicas if replica not in self.adding)

    @property
    def target(self) -> tuple[int, ...]:
        """The replicas after the reassignment."""
        return tuple(replica for replica in self.replicas if replica not in self.removing)


class Topic:
    """A topic as its node describes it."""

    __slots__ = ("name", "node_version", "partitions", "topic_id")

    def __init__(self, name: str, topic_id: bytes, node_version: int) -> None:
        self.name = name
        self.topic_id = topic_id
        self.node_version = node_version
        self.partitions: dict[int, Partition] = {}

    def node(self) -> TopicNode:
        """The body for the topic's node."""
        partitions = self.partitions.items()
        return TopicNode(
            self.topic_id,
            {index: partition.replicas for index, partition in partitions},
            {index: partition.adding for index, partition in partitions if partition.adding},
            {index: partition.removing for index, partition in partitions if partition.removing},
        )


class Cluster:
    """All brokers and partitions.

    ``shutting_down`` brokers are alive but may not become leaders; ``deleting`` are topics
    marked for deletion; ``failed`` are replicas whose live broker cannot use their disk.
    """

    def __init__(self) -> None:
        self.brokers: dict[int, LiveBroker] = {}
        self.shutting_down: set[int] = set()
        self.topics: dict[str, Topic] = {}
        self.deleting: set[str] = set()
        self.failed: set[tuple[int, TopicPartition]] = set()

    def usable(self, partition: TopicPartition) -> Collection[int]:
        """Brokers that may lead a partition."""
        if not self.shutting_down and not self.failed:
            return self.brokers
        return [
            broker
            for broker in self.brokers
            if broker not in self.shutting_down and (broker, partition) not in self.failed
        ]

    def find(self, partition: TopicPartition) -> Partition | None:
        topic = self.topics.get(partition.topic)
        return topic.partitions.get(partition.partition) if topic is not None else None

    def get(self, partition: TopicPartition) -> Partition:
        """A partition that must be known."""
        return self.topics[partition.topic].partitions[partition.partition]

    def partitions(self) -> Iterator[tuple[TopicPartition, Partition]]:
        """Every partition, those of topics being deleted too."""
        for topic in self.topics.values():
            for index, partition in topic.partitions.items():
                yield TopicPartition(topic.name, index), partition

    def on_broker(self, broker_id: int) -> list[TopicPartition]:
        """The partitions with a replica on a broker."""
        return [tp for tp, partition in self.partitions() if broker_id in partition.replicas]

    def offline_replicas(self, partition: TopicPartition) -> list[int]:
        return [
            replica
            for replica in self.get(partition).replicas
            if replica not in self.brokers or (replica, partition) in self.failed
        ]

    def forget(self, topic: str) -> None:
        """Remove a topic with all that is noted about it."""
        self.topics.pop(topic, None)
        self.deleting.discard(topic)
        self.failed = {(broker, tp) for broker, tp in self.failed if tp.topic != topic}
