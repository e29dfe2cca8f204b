"""The hand-written Fetch response equals what the declared schema says, for every version."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.fetch.reader import PartitionRead
from kavka.broker.fetch.response import runs_of_topics, write_response
from kavka.broker.fetch.sessions import FetchPartition
from kavka.protocol import codec
from kavka.protocol.messages.k01_fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchResponse,
    PartitionData,
)
from kavka.storage.txn_index import AbortedTxn

int16 = st.integers(-(2**15), 2**15 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def partition_reads(draw: st.DrawFn) -> PartitionRead:
    topic = draw(st.sampled_from(["a", "b" * 130, "тема"]))
    entry = FetchPartition(topic, topic.encode()[:16].ljust(16, b"\1"), draw(int32))
    read = PartitionRead(entry, None)
    read.error = draw(int16)
    read.high_watermark = draw(int64)
    read.last_stable_offset = draw(int64)
    read.log_start_offset = draw(int64)
    read.aborted = draw(
        st.none()
        | st.lists(
            st.builds(
                AbortedTxn,
                producer_id=int64,
                first_offset=int64,
                last_offset=st.just(0),
                last_stable_offset=st.just(0),
            ),
            max_size=3,
        )
    )
    read.diverging_epoch = draw(st.none() | st.tuples(int32, int64))
    read.records = draw(st.sampled_from([b"", b"x", b"record data" * 30]))
    read.size = len(read.records)
    return read


def declared(
    version: int, error: int, session_id: int, topics: list[list[PartitionRead]]
) -> FetchResponse:
    return FetchResponse(
        error_code=error,
        session_id=session_id,
        responses=[
            FetchableTopicResponse(
                topic=reads[0].entry.topic,
                topic_id=reads[0].entry.topic_id,
                partitions=[
                    PartitionData(
                        partition_index=read.entry.index,
                        error_code=read.error,
                        high_watermark=read.high_watermark,
                        last_stable_offset=read.last_stable_offset,
                        log_start_offset=read.log_start_offset,
                        diverging_epoch=None
                        if read.diverging_epoch is None
                        else EpochEndOffset(
                            epoch=read.diverging_epoch[0], end_offset=read.diverging_epoch[1]
                        ),
                        aborted_transactions=None
                        if read.aborted is None
                        else [
                            AbortedTransaction(
                                producer_id=t.producer_id, first_offset=t.first_offset
                            )
                            for t in read.aborted
                        ],
                        records=read.records,
                    )
                    for read in reads
                ],
            )
            for reads in topics
        ],
    )


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 17), int16, int32, st.lists(partition_reads(), max_size=8))
def test_every_version_equals_the_schema(
    version: int, error: int, session_id: int, reads: list[PartitionRead]
) -> None:
    topics = runs_of_topics(reads)
    body = b"".join(bytes(p) for p in write_response(version, error, session_id, topics))
    assert body == codec.encode(declared(version, error, session_id, topics), version)
