"""UpdateMetadata: the controller tells every broker the state of the cluster.

v1 several endpoints, v2 racks, v3 listener names, v4 offline replicas, v5 states grouped by topic
and broker epoch, v6 flexible, v7 topic ids, v8 KRaft flag (KIP-866). v5-v8 use zk_version for
what later became the partition epoch.
"""

from kavka.protocol.schema import (
    Message,
    Struct,
    array,
    boolean,
    int8,
    int16,
    int32,
    int64,
    string,
    uuid,
)


class UpdateMetadataPartitionState(Struct):
    topic_name: str = string(until=4)
    partition_index: int = int32()
    controller_epoch: int = int32()
    leader: int = int32()
    leader_epoch: int = int32()
    isr: list[int] = array(int32)
    zk_version: int = int32()
    replicas: list[int] = array(int32)
    offline_replicas: list[int] = array(int32, since=4)


class UpdateMetadataTopicState(Struct):
    topic_name: str = string()
    topic_id: bytes = uuid(since=7)
    partition_states: list[UpdateMetadataPartitionState] = array(UpdateMetadataPartitionState)


class UpdateMetadataEndpoint(Struct):
    port: int = int32()
    host: str = string()
    listener: str = string(since=3)
    security_protocol: int = int16()


class UpdateMetadataBroker(Struct):
    id: int = int32()
    v0_host: str = string(until=0)
    v0_port: int = int32(until=0)
    endpoints: list[UpdateMetadataEndpoint] = array(UpdateMetadataEndpoint, since=1)
    rack: str | None = string(since=2, nullable=True)


class UpdateMetadataRequest(Message, key=6, versions=(0, 8), flexible=6):
    controller_id: int = int32()
    is_k_raft_controller: bool = boolean(since=8)
    type: int = int8(since=8, tag=0)
    controller_epoch: int = int32()
    broker_epoch: int = int64(since=5, default=-1)
    ungrouped_partition_states: list[UpdateMetadataPartitionState] = array(
        UpdateMetadataPartitionState, until=4
    )
    topic_states: list[UpdateMetadataTopicState] = array(UpdateMetadataTopicState, since=5)
    live_brokers: list[UpdateMetadataBroker] = array(UpdateMetadataBroker)


class UpdateMetadataResponse(Message, key=6, versions=(0, 8), flexible=6):
    error_code: int = int16()
