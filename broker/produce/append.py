"""One partition of a Produce request on its way: where it goes, and what became of it."""

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k00_produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceResponse,
)
from kavka.protocol.records.validate import (
    AppendRules,
    RecordsRejected,
    ValidatedAppend,
    code_for,
)
from kavka.replication.partition import Partition
from kavka.storage.append import AppendInfo


class Append:
    """One partition's records, validated, then appended or refused."""

    __slots__ = ("data", "end_offset", "partition", "result", "rules", "topic", "validated")

    def __init__(self, topic: str, data: memoryview, result: PartitionProduceResponse) -> None:
        self.topic = topic
        self.data = data
        self.result = result
        self.partition: Partition | None = None
        self.rules: AppendRules | None = None
        self.validated: ValidatedAppend | None = None
        self.end_offset = -1  # what must be kept before it is acknowledged

    @classmethod
    def of(cls, partition: Partition) -> "Append":
        """Of a request that was read a short way, when the general one has to go on with it."""
        append = cls(
            partition.topic, memoryview(b""), PartitionProduceResponse(index=partition.index)
        )
        append.partition = partition
        return append


def succeed(append: Append, info: AppendInfo) -> None:
    """It is in the log."""
    assert append.partition is not None
    result = append.result
    result.base_offset = info.first_offset
    result.log_append_time_ms = info.log_append_time
    result.log_start_offset = append.partition.log.log_start_offset
    append.end_offset = info.last_offset + 1


def fail(append: Append, error: KafkaError, version: int) -> None:
    """It is refused; ``version`` is that of the request."""
    code = code_for(version, error.code)
    if code is ErrorCode.KAFKA_STORAGE_ERROR and version <= 3:
        code = ErrorCode.NOT_LEADER_OR_FOLLOWER
    result = append.result
    result.error_code = code
    result.error_message = error.message
    result.base_offset = -1
    if isinstance(error, RecordsRejected):
        result.record_errors = [
            BatchIndexAndErrorMessage(
                batch_index=record.batch_index, batch_index_error_message=record.message
            )
            for record in error.record_errors
        ]
    partition = append.partition
    if partition is not None and code in (
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ):
        # The producer can tell by it whether its records were only deleted (KIP-360).
        result.log_start_offset = partition.log.log_start_offset
