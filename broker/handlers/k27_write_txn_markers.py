"""WriteTxnMarkers (27): end transactions on partitions led here.

v0 base · v1 flexible. Sent by transaction coordinators, and by the kafka-transactions tool to
abort one that nobody will end: its user may alter the cluster, brokers may act for it.
"""

from functools import partial
from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    CLUSTER_NAME,
    Operation,
    Resource,
    require_cluster,
    would_allow,
)
from kavka.broker.request import Pending
from kavka.broker.transactions.marker_writer import MarkerResults, TxnMarker
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k27_write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 27


def handle(
    broker: "Broker", request: "Request", body: WriteTxnMarkersRequest
) -> WriteTxnMarkersResponse | Pending:
    if not would_allow(broker, request, Operation.ALTER, Resource.CLUSTER, CLUSTER_NAME):
        require_cluster(broker, request, Operation.CLUSTER_ACTION)
    if not body.markers:
        return WriteTxnMarkersResponse()
    writer = broker.transactions.marker_writer
    assert writer is not None
    pending = Pending()
    results: dict[int, MarkerResults] = {}

    def written(index: int, codes: MarkerResults) -> None:
        results[index] = codes
        if len(results) == len(body.markers):
            pending.complete(
                WriteTxnMarkersResponse(
                    markers=[
                        _result(marker, results[number])
                        for number, marker in enumerate(body.markers)
                    ]
                )
            )

    for index, marker in enumerate(body.markers):
        partitions = _partitions(marker)
        if marker.producer_id < 0 or marker.producer_epoch < 0:
            # It would end nothing, and nothing would end what it leaves in the log.
            written(index, dict.fromkeys(partitions, ErrorCode.INVALID_REQUEST))
            continue
        writer.write(
            TxnMarker(
                marker.producer_id,
                marker.producer_epoch,
                marker.transaction_result,
                marker.coordinator_epoch,
            ),
            partitions,
            partial(written, index),
        )
    return pending


def _partitions(marker: WritableTxnMarker) -> list[TopicPartition]:
    return [
        TopicPartition(topic.name, partition)
        for topic in marker.topics
        for partition in topic.partition_indexes
    ]


def _result(marker: WritableTxnMarker, codes: MarkerResults) -> WritableTxnMarkerResult:
    return WritableTxnMarkerResult(
        producer_id=marker.producer_id,
        topics=[
            WritableTxnMarkerTopicResult(
                name=topic.name,
                partitions=[
                    WritableTxnMarkerPartitionResult(
                        partition_index=index, error_code=codes[TopicPartition(topic.name, index)]
                    )
                    for index in topic.partition_indexes
                ],
            )
            for topic in marker.topics
        ],
    )


def error_response(code: ErrorCode, body: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse:
    return WriteTxnMarkersResponse(
        markers=[
            _result(marker, dict.fromkeys(_partitions(marker), code)) for marker in body.markers
        ]
    )
