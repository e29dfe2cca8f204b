"""Metadata answers, joined from pieces that are encoded once.

Every client asks for metadata, over and over, and it hardly ever changes. So each topic is
encoded once for each (version, listener) that asks, and an answer is a head (the brokers), the
pieces of its topics, and a tail. A piece is good for as long as the cache has the very same
``TopicMetadata`` and the same brokers.

The pieces are cut out of what the compiled codec makes of whole responses, so that there is one
description of the layout.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from kavka.broker.authorization import NOT_ASKED
from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kavka.protocol.primitives import uvarint
from kavka.protocol.topics import INTERNAL_TOPICS
from kavka.replication.metadata import (
    NO_LEADER,
    MetadataCache,
    PartitionState,
    TopicMetadata,
)

_COUNT: Final = Struct(">i")
_LISTENER_NOT_FOUND_SINCE: Final = 6
_DEAD_REPLICAS_SINCE: Final = 1


class _Encoded:
    """The pieces of one (version, listener, kind of question)."""

    __slots__ = ("all_topics", "all_topics_version", "head", "pieces", "tail")

    def __init__(self, head: bytes, tail: bytes) -> None:
        self.head = head  # up to the number of topics
        self.tail = tail
        self.pieces: dict[str, tuple[TopicMetadata, bytes]] = {}
        self.all_topics = b""
        self.all_topics_version = -1


class MetadataAnswers:
    """Encodes Metadata responses from what one cache knows: always the same one."""

    def __init__(self) -> None:
        self._brokers_version = -1
        self._encoded: dict[tuple[int, str, int, int], _Encoded] = {}
        self._cuts: dict[int, tuple[int, int]] = {}

    def encode(
        self,
        metadata: MetadataCache,
        version: int,
        listener: str,
        names: Sequence[str] | None,
        failed: Iterable[MetadataResponseTopic] = (),
        *,
        topic_operations: int = NOT_ASKED,
        cluster_operations: int = NOT_ASKED,
        operations_of: Callable[[str], int] | None = None,
    ) -> bytes:
        """The body of a response for these topics, all of which exist, or for all topics
        (``names`` is None). ``failed`` are the topics that are answered with an error. Where the
        operations that a client may do differ by topic, ``operations_of`` tells them.
        """
        if self._brokers_version != metadata.brokers_version:
            self._encoded.clear()
            self._brokers_version = metadata.brokers_version
        kind = (version, listener, topic_operations, cluster_operations)
        encoded = self._encoded.get(kind)
        if encoded is None:
            encoded = self._encoded[kind] = self._begin(
                metadata, version, listener, cluster_operations
            )
        if names is None:
            if encoded.all_topics_version != metadata.version:
                encoded.pieces = {
                    name: piece for name, piece in encoded.pieces.items() if name in metadata.topics
                }
                encoded.all_topics = self._join(metadata, encoded, kind, list(metadata.topics), ())
                encoded.all_topics_version = metadata.version
            return encoded.all_topics
        return self._join(metadata, encoded, kind, names, failed, operations_of)

    def _begin(
        self, metadata: MetadataCache, version: int, listener: str, cluster_operations: int
    ) -> _Encoded:
        brokers = []
        for broker in metadata.brokers.values():
            endpoint = broker.endpoint(listener)
            if endpoint is not None:
                brokers.append(
                    MetadataResponseBroker(
                        node_id=broker.id,
                        host=endpoint.host,
                        port=endpoint.port,
                        rack=broker.rack,
                    )
                )
        without_topics = codec.encode(
            MetadataResponse(
                brokers=brokers,
                cluster_id=metadata.cluster_id,
                controller_id=metadata.controller_id,
                cluster_authorized_operations=cluster_operations,
            ),
            version,
        )
        tail = len(without_topics) - self._cut(version)[1]
        count = 1 if MetadataResponse.is_flexible(version) else _COUNT.size
        return _Encoded(without_topics[: tail - count], without_topics[tail:])

    def _join(
        self,
        metadata: MetadataCache,
        encoded: _Encoded,
        kind: tuple[int, str, int, int],
        names: Sequence[str],
        failed: Iterable[MetadataResponseTopic],
        operations_of: Callable[[str], int] | None = None,
    ) -> bytes:
        version, listener, topic_operations, _ = kind
        topics, pieces = metadata.topics, encoded.pieces
        parts = [encoded.head, b""]
        for name in names:
            topic = topics[name]
            if operations_of is not None:
                response = topic_response(topic, metadata, version, listener, operations_of(name))
                parts.append(self._piece(response, version))
                continue
            piece = pieces.get(name)
            if piece is None or piece[0] is not topic:
                response = topic_response(topic, metadata, version, listener, topic_operations)
                piece = pieces[name] = (topic, self._piece(response, version))
            parts.append(piece[1])
        parts.extend(self._piece(topic, version) for topic in failed)
        count = len(parts) - 2
        if MetadataResponse.is_flexible(version):
            parts[1] = uvarint(count + 1)
        else:
            parts[1] = _COUNT.pack(count)
        parts.append(encoded.tail)
        return b"".join(parts)

    def _piece(self, topic: MetadataResponseTopic, version: int) -> bytes:
        start, tail = self._cut(version)
        whole = codec.encode(MetadataResponse(topics=[topic]), version)
        return whole[start : len(whole) - tail]

    def _cut(self, version: int) -> tuple[int, int]:
        """Where topics begin in a response without brokers, and how much comes after them.

        The first byte in which responses with no topic and with one differ is the last (or
        only) byte of their number.
        """
        cut = self._cuts.get(version)
        if cut is None:
            none = codec.encode(MetadataResponse(), version)
            one = codec.encode(MetadataResponse(topics=[MetadataResponseTopic(name="")]), version)
            start = next(i for i in range(len(one)) if none[i : i + 1] != one[i : i + 1]) + 1
            cut = self._cuts[version] = start, len(none) - start
        return cut


def topic_response(
    topic: TopicMetadata,
    metadata: MetadataCache,
    version: int,
    listener: str,
    operations: int = NOT_ASKED,
) -> MetadataResponseTopic:
    """A topic as clients of a listener are to see it (replication reference §10)."""
    reachable = {
        broker.id for broker in metadata.brokers.values() if broker.endpoint(listener) is not None
    }
    return MetadataResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.name in INTERNAL_TOPICS,
        partitions=[
            _partition(index, state, metadata.brokers, reachable, version)
            for index, state in topic.partitions.items()
        ],
        topic_authorized_operations=operations,
    )


def _partition(
    index: int,
    state: PartitionState,
    alive: Mapping[int, object],
    reachable: set[int],
    version: int,
) -> MetadataResponsePartition:
    replicas, isr = list(state.replicas), list(state.isr)
    if version < _DEAD_REPLICAS_SINCE:
        replicas = [replica for replica in replicas if replica in reachable]
        isr = [replica for replica in isr if replica in reachable]
    partition = MetadataResponsePartition(
        partition_index=index,
        leader_id=state.leader,
        leader_epoch=state.leader_epoch,
        replica_nodes=replicas,
        isr_nodes=isr,
        offline_replicas=list(state.offline_replicas),
    )
    if state.leader not in reachable:
        partition.error_code = ErrorCode.LEADER_NOT_AVAILABLE
        if state.leader in alive and version >= _LISTENER_NOT_FOUND_SINCE:
            partition.error_code = ErrorCode.LISTENER_NOT_FOUND
        partition.leader_id = NO_LEADER
        partition.leader_epoch = -1
        partition.isr_nodes = []
    elif version < _DEAD_REPLICAS_SINCE and (
        len(replicas) < len(state.replicas) or len(isr) < len(state.isr)
    ):
        partition.error_code = ErrorCode.REPLICA_NOT_AVAILABLE
    return partition
