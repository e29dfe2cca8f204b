"""Bringing transaction markers to leaders on other brokers (WriteTxnMarkers).

One connection to each broker, made when it is needed. Markers that are asked for while the loop
does one round go in one request. What cannot be brought is said to be so: the sender tries again,
and asks the metadata again who leads.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from kavka.broker.cluster.questions import Questions
from kavka.broker.transactions.marker_writer import MarkerResults, MarkerWriter, TxnMarker
from kavka.broker.transactions.records import by_topic
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k27_write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.cluster.peers import Peers
    from kavka.replication.metadata import MetadataCache

_VERSION: Final = 0  # of inter.broker.protocol.version 2.3
_MARKERS_PER_REQUEST: Final = 1_000


class _Marker:
    """A marker on its way to one broker."""

    __slots__ = ("done", "marker", "partitions")

    def __init__(
        self,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        done: Callable[[MarkerResults], None],
    ) -> None:
        self.marker = marker
        self.partitions = partitions
        self.done = done

    def fail(self, code: ErrorCode) -> None:
        self.done(dict.fromkeys(self.partitions, code))


class NetworkMarkerChannel:
    """A ``MarkerChannel`` to all brokers of the cluster, this one among them."""

    def __init__(
        self, node_id: int, writer: MarkerWriter, peers: "Peers", metadata: "MetadataCache"
    ) -> None:
        self._node_id = node_id
        self._writer = writer
        self._questions = Questions(peers, metadata)
        self._lines: dict[int, _Line] = {}

    def write(
        self,
        node_id: int,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        done: Callable[[MarkerResults], None],
    ) -> None:
        """See ``MarkerChannel``."""
        if node_id == self._node_id:
            self._writer.write(marker, partitions, done)
            return
        line = self._lines.get(node_id)
        if line is None:
            line = self._lines[node_id] = _Line(node_id, self._questions)
        line.add(_Marker(marker, partitions, done))

    def close(self) -> None:
        """Bring nothing any more, and tell nobody."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._questions.close()


class _Line:
    """The way to one other broker."""

    def __init__(self, node_id: int, questions: Questions) -> None:
        self._node_id = node_id
        self._questions = questions
        self._waiting: list[_Marker] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, marker: _Marker) -> None:
        self._waiting.append(marker)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def close(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:_MARKERS_PER_REQUEST]
                del self._waiting[:_MARKERS_PER_REQUEST]
                await self._bring(batch)
        finally:
            self._task = None

    async def _bring(self, batch: list[_Marker]) -> None:
        request = WriteTxnMarkersRequest(markers=[_writable(marker) for marker in batch])
        response = await self._questions.ask(
            self._node_id, request, WriteTxnMarkersResponse, _VERSION
        )
        if response is None:
            for marker in batch:
                marker.fail(ErrorCode.BROKER_NOT_AVAILABLE)
            return
        # Kafka answers by producers, in no order.
        codes = {
            (result.producer_id, topic.name, each.partition_index): ErrorCode(each.error_code)
            for result in response.markers
            for topic in result.topics
            for each in topic.partitions
        }
        for marker in batch:
            of = marker.marker.producer_id
            missing = ErrorCode.UNKNOWN_SERVER_ERROR
            marker.done({tp: codes.get((of, *tp), missing) for tp in marker.partitions})


def _writable(marker: _Marker) -> WritableTxnMarker:
    producer_id, producer_epoch, committed, coordinator_epoch = marker.marker
    return WritableTxnMarker(
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transaction_result=committed,
        topics=[
            WritableTxnMarkerTopic(name=name, partition_indexes=indexes)
            for name, indexes in by_topic(marker.partitions).items()
        ],
        coordinator_epoch=coordinator_epoch,
    )
