"""Gathers what one decision has to tell the brokers, and says it in one request of each kind."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrLiveLeader,
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrTopicState,
)
from kavka.protocol.messages.k05_stop_replica import (
    StopReplicaPartitionState,
    StopReplicaRequest,
    StopReplicaTopicState,
)
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from kavka.protocol.topics import TopicPartition
from kavka.replication.controller.channels import BrokerChannel, ControlRequest, ControlResponse
from kavka.replication.controller.cluster import Cluster, LiveBroker
from kavka.replication.metadata import LEADER_DURING_DELETE, NO_LEADER

SECURITY_PROTOCOL_IDS: Final = {"PLAINTEXT": 0, "SSL": 1, "SASL_PLAINTEXT": 2, "SASL_SSL": 3}

EPOCH_DURING_DELETE: Final = -2  # StopReplica of a topic being deleted is newer than any epoch

OnResponse = Callable[[int, ControlRequest, ControlResponse], None]


class RequestBatch:
    """Requests to all brokers, in the making.

    Nothing is copied until ``send``: the requests tell the state of that moment.
    """

    def __init__(
        self, cluster: Cluster, controller_id: int, controller_epoch: int, inter_broker: str
    ) -> None:
        self._cluster = cluster
        self._controller_id = controller_id
        self._controller_epoch = controller_epoch
        self._inter_broker = inter_broker  # name of the listener brokers talk to each other by
        self._leader_and_isr: dict[int, dict[TopicPartition, bool]] = {}
        self._metadata_brokers: dict[int, None] = {}
        self._metadata_partitions: dict[TopicPartition, None] = {}
        self._stop: dict[int, dict[TopicPartition, bool]] = {}

    def add_leader_and_isr(
        self, brokers: Iterable[int], partition: TopicPartition, *, is_new: bool = False
    ) -> None:
        """Tell replicas of a partition who leads it; everybody else hears of it as metadata."""
        for broker in brokers:
            partitions = self._leader_and_isr.setdefault(broker, {})
            partitions[partition] = is_new or partitions.get(partition, False)
        self.add_metadata([partition])

    def add_metadata(
        self, partitions: Iterable[TopicPartition] = (), brokers: Iterable[int] | None = None
    ) -> None:
        """Tell brokers (None: all alive) of the live brokers and of these partitions."""
        for broker in self._cluster.brokers if brokers is None else brokers:
            self._metadata_brokers[broker] = None
        for partition in partitions:
            self._metadata_partitions[partition] = None

    def add_stop_replica(
        self, brokers: Iterable[int], partition: TopicPartition, *, delete: bool
    ) -> None:
        """Have replicas of a partition stopped, and their logs deleted if so wished."""
        for broker in brokers:
            partitions = self._stop.setdefault(broker, {})
            partitions[partition] = delete or partitions.get(partition, False)

    def send(self, channels: Mapping[int, BrokerChannel], on_response: OnResponse) -> None:
        """Send everything gathered to those brokers that have a channel; start anew."""
        outgoing: list[tuple[int, ControlRequest]] = []
        brokers = self._cluster.brokers
        for broker_id, partitions in self._leader_and_isr.items():
            if broker_id in brokers:
                request = self._leader_and_isr_request(brokers[broker_id], partitions)
                outgoing.append((broker_id, request))
        if self._metadata_brokers:
            topics = self._metadata_topics()
            live = [self._metadata_broker(broker) for broker in brokers.values()]
            for broker_id in self._metadata_brokers:
                if broker_id in brokers:
                    outgoing.append(
                        (
                            broker_id,
                            UpdateMetadataRequest(
                                controller_id=self._controller_id,
                                controller_epoch=self._controller_epoch,
                                broker_epoch=brokers[broker_id].epoch,
                                topic_states=topics,
                                live_brokers=live,
                            ),
                        )
                    )
        for broker_id, partitions in self._stop.items():
            if broker_id in brokers:
                stop = self._stop_replica_request(brokers[broker_id], partitions)
                outgoing.append((broker_id, stop))
        self._leader_and_isr = {}
        self._metadata_brokers = {}
        self._metadata_partitions = {}
        self._stop = {}
        for broker_id, message in outgoing:
            channel = channels.get(broker_id)
            if channel is not None:
                channel.send(message, _reply_to(broker_id, message, on_response))

    def _leader_and_isr_request(
        self, broker: LiveBroker, partitions: Mapping[TopicPartition, bool]
    ) -> LeaderAndIsrRequest:
        topics: dict[str, LeaderAndIsrTopicState] = {}
        leaders: dict[int, None] = {}
        for tp, is_new in partitions.items():
            partition = self._cluster.find(tp)
            if partition is None or partition.state is None:
                continue
            topic = topics.get(tp.topic)
            if topic is None:
                topic = topics[tp.topic] = LeaderAndIsrTopicState(
                    topic_name=tp.topic,
                    topic_id=self._cluster.topics[tp.topic].topic_id,
                    partition_states=[],
                )
            state = partition.state
            leaders[state.leader] = None
            topic.partition_states.append(
                LeaderAndIsrPartitionState(
                    partition_index=tp.partition,
                    controller_epoch=state.controller_epoch,
                    leader=state.leader,
                    leader_epoch=state.leader_epoch,
                    isr=list(state.isr),
                    partition_epoch=partition.zk_version,
                    replicas=list(partition.replicas),
                    adding_replicas=list(partition.adding),
                    removing_replicas=list(partition.removing),
                    is_new=is_new,
                )
            )
        return LeaderAndIsrRequest(
            controller_id=self._controller_id,
            controller_epoch=self._controller_epoch,
            broker_epoch=broker.epoch,
            topic_states=list(topics.values()),
            live_leaders=[
                leader for leader in map(self._live_leader, leaders) if leader is not None
            ],
        )

    def _live_leader(self, broker_id: int) -> LeaderAndIsrLiveLeader | None:
        broker = self._cluster.brokers.get(broker_id)
        if broker is None:
            return None
        for endpoint in broker.registration.endpoints:
            if endpoint.name == self._inter_broker:
                return LeaderAndIsrLiveLeader(
                    broker_id=broker_id, host_name=endpoint.host, port=endpoint.port
                )
        return None

    def _metadata_topics(self) -> list[UpdateMetadataTopicState]:
        topics: dict[str, UpdateMetadataTopicState] = {}
        for tp in self._metadata_partitions:
            partition = self._cluster.find(tp)
            if partition is None:
                continue
            deleting = tp.topic in self._cluster.deleting
            if partition.state is None and not deleting:
                continue
            topic = topics.get(tp.topic)
            if topic is None:
                topic = topics[tp.topic] = UpdateMetadataTopicState(
                    topic_name=tp.topic,
                    topic_id=self._cluster.topics[tp.topic].topic_id,
                    partition_states=[],
                )
            state = UpdateMetadataPartitionState(
                partition_index=tp.partition,
                controller_epoch=self._controller_epoch,
                leader=NO_LEADER,
                replicas=list(partition.replicas),
                offline_replicas=self._cluster.offline_replicas(tp),
                zk_version=partition.zk_version,
            )
            if partition.state is not None:
                state.controller_epoch = partition.state.controller_epoch
                state.leader = partition.state.leader
                state.leader_epoch = partition.state.leader_epoch
                state.isr = list(partition.state.isr)
            if deleting:
                state.leader = LEADER_DURING_DELETE
            topic.partition_states.append(state)
        return list(topics.values())

    def _metadata_broker(self, broker: LiveBroker) -> UpdateMetadataBroker:
        return UpdateMetadataBroker(
            id=broker.id,
            endpoints=[
                UpdateMetadataEndpoint(
                    port=endpoint.port,
                    host=endpoint.host,
                    listener=endpoint.name,
                    security_protocol=SECURITY_PROTOCOL_IDS[endpoint.protocol],
                )
                for endpoint in broker.registration.endpoints
                if endpoint.protocol in SECURITY_PROTOCOL_IDS
            ],
            rack=broker.registration.rack,
        )

    def _stop_replica_request(
        self, broker: LiveBroker, partitions: Mapping[TopicPartition, bool]
    ) -> StopReplicaRequest:
        topics: dict[str, StopReplicaTopicState] = {}
        for tp, delete in partitions.items():
            topic = topics.get(tp.topic)
            if topic is None:
                topic = topics[tp.topic] = StopReplicaTopicState(
                    topic_name=tp.topic, partition_states=[]
                )
            partition = self._cluster.find(tp)
            epoch = EPOCH_DURING_DELETE
            if tp.topic not in self._cluster.deleting and partition is not None:
                epoch = partition.state.leader_epoch if partition.state is not None else -1
            topic.partition_states.append(
                StopReplicaPartitionState(
                    partition_index=tp.partition, leader_epoch=epoch, delete_partition=delete
                )
            )
        return StopReplicaRequest(
            controller_id=self._controller_id,
            controller_epoch=self._controller_epoch,
            broker_epoch=broker.epoch,
            topic_states=list(topics.values()),
        )


def _reply_to(
    broker_id: int, request: ControlRequest, on_response: OnResponse
) -> Callable[[ControlResponse], None]:
    return lambda response: on_response(broker_id, request, response)
