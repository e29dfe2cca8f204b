"""Produce: append record batches to partitions.

v1 throttling, v2 timestamps (message format 1), v3 transactions (record batches, KIP-98), v5 log
start offset, v7 zstd (KIP-110), v8 per-record errors (KIP-467), v9 flexible, v10 leader hints
(KIP-951), v11 TRANSACTION_ABORTABLE (KIP-890), v13 topic ids (KIP-516).
"""

from kavka.protocol.schema import (
    Buffer,
    Message,
    Struct,
    array,
    int16,
    int32,
    int64,
    nested,
    record_data,
    string,
    uuid,
)


class PartitionProduceData(Struct):
    index: int = int32()
    records: Buffer | None = record_data(nullable=True)


class TopicProduceData(Struct):
    name: str = string(until=12)
    topic_id: bytes = uuid(since=13)
    partition_data: list[PartitionProduceData] = array(PartitionProduceData)


class ProduceRequest(Message, key=0, versions=(0, 13), flexible=9):
    transactional_id: str | None = string(since=3, nullable=True, default=None)
    acks: int = int16()
    timeout_ms: int = int32()
    topic_data: list[TopicProduceData] = array(TopicProduceData)


class BatchIndexAndErrorMessage(Struct):
    batch_index: int = int32()
    batch_index_error_message: str | None = string(nullable=True, default=None)


class LeaderIdAndEpoch(Struct):
    leader_id: int = int32(default=-1)
    leader_epoch: int = int32(default=-1)


class PartitionProduceResponse(Struct):
    index: int = int32()
    error_code: int = int16()
    base_offset: int = int64()
    log_append_time_ms: int = int64(since=2, default=-1)
    log_start_offset: int = int64(since=5, default=-1)
    record_errors: list[BatchIndexAndErrorMessage] = array(BatchIndexAndErrorMessage, since=8)
    error_message: str | None = string(since=8, nullable=True, default=None)
    current_leader: LeaderIdAndEpoch | None = nested(LeaderIdAndEpoch, since=10, tag=0)


class TopicProduceResponse(Struct):
    name: str = string(until=12)
    topic_id: bytes = uuid(since=13)
    partition_responses: list[PartitionProduceResponse] = array(PartitionProduceResponse)


class NodeEndpoint(Struct):
    node_id: int = int32()
    host: str = string()
    port: int = int32()
    rack: str | None = string(nullable=True, default=None)


class ProduceResponse(Message, key=0, versions=(0, 13), flexible=9):
    responses: list[TopicProduceResponse] = array(TopicProduceResponse)
    throttle_time_ms: int = int32(since=1)
    node_endpoints: list[NodeEndpoint] = array(NodeEndpoint, since=10, tag=0)
