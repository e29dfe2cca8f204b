"""LeaderAndIsr: the controller tells a broker which partitions it leads and follows.

v1 is_new, v2 states grouped by topic and broker epoch, v3 reassignment (KIP-455), v4 flexible, v5
topic ids and request type, v6 leader recovery state (KIP-704), v7 KRaft flag (KIP-866).
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


class LeaderAndIsrPartitionState(Struct):
    topic_name: str = string(until=1)
    partition_index: int = int32()
    controller_epoch: int = int32()
    leader: int = int32()
    leader_epoch: int = int32()
    isr: list[int] = array(int32)
    partition_epoch: int = int32()
    replicas: list[int] = array(int32)
    adding_replicas: list[int] = array(int32, since=3)
    removing_replicas: list[int] = array(int32, since=3)
    is_new: bool = boolean(since=1)
    leader_recovery_state: int = int8(since=6)


class LeaderAndIsrTopicState(Struct):
    topic_name: str = string()
    topic_id: bytes = uuid(since=5)
    partition_states: list[LeaderAndIsrPartitionState] = array(LeaderAndIsrPartitionState)


class LeaderAndIsrLiveLeader(Struct):
    broker_id: int = int32()
    host_name: str = string()
    port: int = int32()


class LeaderAndIsrRequest(Message, key=4, versions=(0, 7), flexible=4):
    controller_id: int = int32()
    is_k_raft_controller: bool = boolean(since=7)
    controller_epoch: int = int32()
    broker_epoch: int = int64(since=2, default=-1)
    type: int = int8(since=5)
    ungrouped_partition_states: list[LeaderAndIsrPartitionState] = array(
        LeaderAndIsrPartitionState, until=1
    )
    topic_states: list[LeaderAndIsrTopicState] = array(LeaderAndIsrTopicState, since=2)
    live_leaders: list[LeaderAndIsrLiveLeader] = array(LeaderAndIsrLiveLeader)


class LeaderAndIsrPartitionError(Struct):
    topic_name: str = string(until=4)
    partition_index: int = int32()
    error_code: int = int16()


class LeaderAndIsrTopicError(Struct):
    topic_id: bytes = uuid()
    partition_errors: list[LeaderAndIsrPartitionError] = array(LeaderAndIsrPartitionError)


class LeaderAndIsrResponse(Message, key=4, versions=(0, 7), flexible=4):
    error_code: int = int16()
    partition_errors: list[LeaderAndIsrPartitionError] = array(LeaderAndIsrPartitionError, until=4)
    topics: list[LeaderAndIsrTopicError] = array(LeaderAndIsrTopicError, since=5)
