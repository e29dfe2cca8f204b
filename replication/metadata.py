"""What this broker knows of the cluster: brokers, topics, leaders, as the controller tells it.

The cache is what Metadata answers come from and what every other decision about "who leads
what" reads. It changes only by UpdateMetadata. Its parts are replaced, never changed in place:
whoever keeps a ``TopicMetadata`` can tell by identity whether the topic has changed.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication.signal import Signal

if TYPE_CHECKING:
    from kavka.protocol.messages.k06_update_metadata import UpdateMetadataRequest

logger = logging.getLogger("kavka.metadata")

NO_LEADER: Final = -1
LEADER_DURING_DELETE: Final = -2  # an UpdateMetadata with this leader takes the partition away


class BrokerEndpoint(NamedTuple):
    """Where one listener of a broker is reached."""

    listener: str
    host: str
    port: int
    security_protocol: int


class BrokerInfo(NamedTuple):
    """A live broker."""

    id: int
    endpoints: tuple[BrokerEndpoint, ...]
    rack: str | None = None

    def endpoint(self, listener: str) -> BrokerEndpoint | None:
        """The address of a listener; None if the broker does not have it."""
        for endpoint in self.endpoints:
            if endpoint.listener == listener:
                return endpoint
        return None


class PartitionState(NamedTuple):
    """Who has a partition. ``leader`` is -1 when nobody leads it."""

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    replicas: tuple[int, ...]
    offline_replicas: tuple[int, ...] = ()
    controller_epoch: int = -1
    zk_version: int = 0


class TopicMetadata(NamedTuple):
    """A topic's partitions by number. Not changed once made."""

    name: str
    topic_id: bytes
    partitions: Mapping[int, PartitionState]


class MetadataCache:
    """The cluster as this broker sees it.

    ``version`` grows with every change; ``brokers_version`` with changes of the brokers or the
    controller only.
    """

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id: Final = cluster_id
        self.controller_id = -1
        self.brokers: Mapping[int, BrokerInfo] = {}
        self.topics: Mapping[str, TopicMetadata] = {}
        self.version = 0
        self.brokers_version = 0
        self._names: dict[bytes, str] = {}
        self._changed = Signal()
        self._deletion_watchers: list[Callable[[Sequence[TopicPartition]], None]] = []
        self._broker_watchers: list[Callable[[], None]] = []

    def topic_name(self, topic_id: bytes) -> str | None:
        """The name of the topic with this id; None if there is none."""
        return self._names.get(topic_id)

    def topic_id(self, name: str) -> bytes | None:
        """The id of the topic with this name; None if there is none."""
        topic = self.topics.get(name)
        return topic.topic_id if topic is not None else None

    def partition(self, name: str, index: int) -> PartitionState | None:
        """Who has a partition; None if there is no such partition."""
        topic = self.topics.get(name)
        return topic.partitions.get(index) if topic is not None else None

    def has_partition(self, name: str, index: int) -> bool:
        return self.partition(name, index) is not None

    def is_alive(self, broker_id: int) -> bool:
        return broker_id in self.brokers

    def has_leaders(self, name: str, partitions: Iterable[int]) -> bool:
        """Whether each of these partitions exists and is led by a live broker."""
        topic = self.topics.get(name)
        if topic is None:
            return False
        for index in partitions:
            state = topic.partitions.get(index)
            if state is None or state.leader not in self.brokers:
                return False
        return True

    def on_partitions_deleted(self, watcher: Callable[[Sequence[TopicPartition]], None]) -> None:
        """Have ``watcher`` told of partitions whose topic is being deleted."""
        self._deletion_watchers.append(watcher)

    def on_brokers_changed(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` told when brokers, or the controller, are others than before."""
        self._broker_watchers.append(watcher)

    def update(self, request: "UpdateMetadataRequest") -> None:
        """Take over what the controller says: its live brokers replace those known, its
        partitions are merged (a leader of -2 takes one away).

        Whether the controller is the right one is for the caller to check.
        """
        brokers = {
            broker.id: BrokerInfo(
                broker.id,
                tuple(
                    BrokerEndpoint(e.listener, e.host, e.port, e.security_protocol)
                    for e in broker.endpoints
                ),
                broker.rack,
            )
            for broker in request.live_brokers
        }
        if brokers != self.brokers or request.controller_id != self.controller_id:
            self.brokers = brokers
            self.controller_id = request.controller_id
            self.brokers_version += 1
            for watch in self._broker_watchers:
                watch()
        deleted: list[TopicPartition] = []
        if request.topic_states:
            topics = dict(self.topics)
            for state in request.topic_states:
                known = topics.get(state.topic_name)
                # Controllers of old releases know no ids: one that is new is no new topic's.
                topic_id = state.topic_id
                if known is not None and topic_id == ZERO_UUID:
                    topic_id = known.topic_id
                if known is not None and known.topic_id not in (topic_id, ZERO_UUID):
                    # Deleted and created again while this broker looked elsewhere.
                    deleted.extend(TopicPartition(known.name, index) for index in known.partitions)
                    self._names.pop(known.topic_id, None)
                    known = None
                partitions = dict(known.partitions) if known is not None else {}
                for partition in state.partition_states:
                    index = partition.partition_index
                    if partition.leader == LEADER_DURING_DELETE:
                        if partitions.pop(index, None) is not None:
                            deleted.append(TopicPartition(state.topic_name, index))
                        continue
                    partitions[index] = PartitionState(
                        partition.leader,
                        partition.leader_epoch,
                        tuple(partition.isr),
                        tuple(partition.replicas),
                        tuple(partition.offline_replicas),
                        partition.controller_epoch,
                        partition.zk_version,
                    )
                if partitions:
                    topics[state.topic_name] = TopicMetadata(state.topic_name, topic_id, partitions)
                    if topic_id != ZERO_UUID:
                        self._names[topic_id] = state.topic_name
                else:
                    topics.pop(state.topic_name, None)
                    self._names.pop(topic_id, None)
            self.topics = topics
        self.version += 1
        self._changed.fire()
        if deleted:
            for watcher in self._deletion_watchers:
                watcher(deleted)

    async def wait_until(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``predicate`` holds, looking after each change; False after ``timeout`` s."""
        return await self._changed.until(predicate, timeout)
