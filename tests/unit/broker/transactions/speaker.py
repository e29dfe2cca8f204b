"""A transactional producer that speaks single requests, each in any version."""

from typing import Final

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from kavka.protocol.messages.k01_fetch import FetchResponse, PartitionData
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kavka.protocol.messages.k09_offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
    OffsetFetchResponse,
)
from kavka.protocol.messages.k10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.messages.k22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from kavka.protocol.messages.k24_add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic,
)
from kavka.protocol.messages.k25_add_offsets_to_txn import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
)
from kavka.protocol.messages.k26_end_txn import EndTxnRequest, EndTxnResponse
from kavka.protocol.messages.k28_txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
)
from kavka.protocol.records.batch import Record, build_batch, iter_batches, read_header
from kavka.storage.clock import SystemClock
from tests.wire import WireClient, fetch_request

READ_COMMITTED: Final = 1


class Speaker(WireClient):
    """One connection; requests for topics of one partition."""

    # -- preparations -------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1) -> None:
        request = CreateTopicsRequest(
            topics=[CreatableTopic(name=name, num_partitions=partitions, replication_factor=1)],
            timeout_ms=10_000,
        )
        answer = self.ask(request, CreateTopicsResponse, 4)
        assert answer.topics[0].error_code == ErrorCode.NONE, answer.topics[0].error_message

    def find_coordinators(self) -> None:
        """Make sure that the coordinators' topics are there."""
        for key_type in (0, 1):
            answer = self.ask(
                FindCoordinatorRequest(key="any", key_type=key_type), FindCoordinatorResponse, 1
            )
            assert answer.error_code == ErrorCode.NONE


class TransactionalProducer:
    """A transactional id and what it has been given."""

    def __init__(self, speaker: Speaker, name: str) -> None:
        self.speaker = speaker
        self.name = name
        self.producer_id = -1
        self.epoch = -1
        self.sequences: dict[str, int] = {}

    def ask_identity(
        self, version: int = 4, claim: bool = False, timeout_ms: int = 60_000
    ) -> InitProducerIdResponse:
        request = InitProducerIdRequest(
            transactional_id=self.name,
            transaction_timeout_ms=timeout_ms,
            producer_id=self.producer_id if claim else -1,
            producer_epoch=self.epoch if claim else -1,
        )
        return self.speaker.ask(request, InitProducerIdResponse, version)

    def init(self, claim: bool = False) -> "TransactionalProducer":
        answer = self.ask_identity(claim=claim)
        assert answer.error_code == ErrorCode.NONE
        self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequences.clear()
        return self

    def add(self, *topics: str, version: int = 3, partition: int = 0) -> list[ErrorCode]:
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.name,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[
                AddPartitionsToTxnTopic(name=topic, partitions=[partition]) for topic in topics
            ],
        )
        answer = self.speaker.ask(request, AddPartitionsToTxnResponse, version)
        assert [result.name for result in answer.results_by_topic_v3_and_below] == list(topics)
        return [
            ErrorCode(code.partition_error_code)
            for result in answer.results_by_topic_v3_and_below
            for code in result.results_by_partition
        ]

    def produce(
        self, topic: str, *values: bytes, version: int = 9, transactional_id: str | None = ""
    ) -> ErrorCode:
        """Produce in the transaction, by default under the right name."""
        sequence = self.sequences.get(topic, 0)
        # Older ones would have the marker, which bears the time of now, begin a segment.
        now_ms = SystemClock().wall_ms()
        batch = build_batch(
            [Record(i, now_ms, None, value) for i, value in enumerate(values)],
            base_offset=0,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
            transactional=True,
        )
        data = PartitionProduceData(index=0, records=batch)
        request = ProduceRequest(
            transactional_id=self.name if transactional_id == "" else transactional_id,
            acks=-1,
            timeout_ms=30_000,
            topic_data=[TopicProduceData(name=topic, partition_data=[data])],
        )
        answer = self.speaker.ask(request, ProduceResponse, version)
        code = ErrorCode(answer.responses[0].partition_responses[0].error_code)
        if code is ErrorCode.NONE:
            self.sequences[topic] = sequence + len(values)
        return code

    def end(self, committed: bool, version: int = 3) -> ErrorCode:
        return ErrorCode(self.ask_end(committed, version).error_code)

    def ask_end(self, committed: bool, version: int = 5) -> EndTxnResponse:
        request = EndTxnRequest(
            transactional_id=self.name,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=committed,
        )
        return self.speaker.ask(request, EndTxnResponse, version)

    def add_offsets(self, group: str, version: int = 3) -> ErrorCode:
        request = AddOffsetsToTxnRequest(
            transactional_id=self.name,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            group_id=group,
        )
        return ErrorCode(self.speaker.ask(request, AddOffsetsToTxnResponse, version).error_code)

    def commit_offset(
        self,
        group: str,
        topic: str,
        offset: int,
        version: int = 3,
        *,
        metadata: str = "",
        member_id: str = "",
        generation: int = -1,
    ) -> ErrorCode:
        request = TxnOffsetCommitRequest(
            transactional_id=self.name,
            group_id=group,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            generation_id=generation,
            member_id=member_id,
            topics=[
                TxnOffsetCommitRequestTopic(
                    name=topic,
                    partitions=[
                        TxnOffsetCommitRequestPartition(
                            partition_index=0,
                            committed_offset=offset,
                            committed_metadata=metadata,
                        )
                    ],
                )
            ],
        )
        answer = self.speaker.ask(request, TxnOffsetCommitResponse, version)
        return ErrorCode(answer.topics[0].partitions[0].error_code)


# -- looking --------------------------------------------------------------------------------------


def fetch_committed(speaker: Speaker, topic: str, offset: int = 0) -> PartitionData:
    request = fetch_request(topic, offset)
    request.isolation_level = READ_COMMITTED
    return speaker.ask(request, FetchResponse, 11).responses[0].partitions[0]


def batches(data: PartitionData) -> list[tuple[int, bool]]:
    """First offset of each batch, and whether it is a marker."""
    stored = bytes(data.records or b"")
    headers = [read_header(stored, position) for position, _, _ in iter_batches(stored)]
    return [(header.base_offset, header.is_control) for header in headers]


def end_offset(speaker: Speaker, topic: str, isolation_level: int) -> int:
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=isolation_level,
        topics=[
            ListOffsetsTopic(
                name=topic, partitions=[ListOffsetsPartition(partition_index=0, timestamp=-1)]
            )
        ],
    )
    answer = speaker.ask(request, ListOffsetsResponse, 5)
    return answer.topics[0].partitions[0].offset


def group_offset(
    speaker: Speaker, group: str, topic: str, require_stable: bool = False
) -> int | ErrorCode:
    """The committed offset, -1 for none, or the error."""
    request = OffsetFetchRequest(
        group_id=group,
        topics=[OffsetFetchRequestTopic(name=topic, partition_indexes=[0])],
        require_stable=require_stable,
    )
    only = speaker.ask(request, OffsetFetchResponse, 7).topics[0].partitions[0]
    return ErrorCode(only.error_code) if only.error_code else only.committed_offset
