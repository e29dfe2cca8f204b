"""What a follower asks its leader beside records: where epochs end, and where a log begins and
ends."""

from collections.abc import Iterable
from typing import Final

from kavka.protocol import codec
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kavka.protocol.messages.k23_offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kavka.protocol.topics import TopicPartition
from kavka.replication.fetching.following import Following

# As with inter.broker.protocol.version=2.3: what a leader of that release understands.
EPOCHS_VERSION: Final = 3
OFFSETS_VERSION: Final = 5

LATEST: Final = -1
EARLIEST: Final = -2

EpochAnswers = dict[TopicPartition, EpochEndOffset]
OffsetAnswers = dict[TopicPartition, ListOffsetsPartitionResponse]


def ask_epochs(node_id: int, followings: Iterable[Following]) -> OffsetForLeaderEpochRequest:
    """Where the latest epoch of each log here ends at the leader."""
    topics: dict[str, OffsetForLeaderTopic] = {}
    for following in followings:
        tp = following.topic_partition
        topics.setdefault(tp.topic, OffsetForLeaderTopic(topic=tp.topic)).partitions.append(
            OffsetForLeaderPartition(
                partition=tp.partition,
                current_leader_epoch=following.leader_epoch,
                leader_epoch=following.partition.log.leader_epochs.latest_epoch,
            )
        )
    return OffsetForLeaderEpochRequest(replica_id=node_id, topics=list(topics.values()))


def read_epochs(body: memoryview) -> EpochAnswers:
    """The leader's answers. Raises MalformedFrame."""
    response = codec.decode(OffsetForLeaderEpochResponse, body, EPOCHS_VERSION)
    return {
        TopicPartition(topic.topic, answer.partition): answer
        for topic in response.topics
        for answer in topic.partitions
    }


def ask_offsets(
    node_id: int, followings: Iterable[Following], timestamp: int
) -> ListOffsetsRequest:
    """Where the leader's logs begin (``EARLIEST``) or end (``LATEST``)."""
    topics: dict[str, ListOffsetsTopic] = {}
    for following in followings:
        tp = following.topic_partition
        topics.setdefault(tp.topic, ListOffsetsTopic(name=tp.topic)).partitions.append(
            ListOffsetsPartition(
                partition_index=tp.partition,
                current_leader_epoch=following.leader_epoch,
                timestamp=timestamp,
            )
        )
    return ListOffsetsRequest(replica_id=node_id, topics=list(topics.values()))


def read_offsets(body: memoryview) -> OffsetAnswers:
    """The leader's answers. Raises MalformedFrame."""
    response = codec.decode(ListOffsetsResponse, body, OFFSETS_VERSION)
    return {
        TopicPartition(topic.name, answer.partition_index): answer
        for topic in response.topics
        for answer in topic.partitions
    }
