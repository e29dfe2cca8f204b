"""Writing transaction markers into partitions led here: the leader's side of WriteTxnMarkers."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TopicPartition
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.replication.replica_manager import ReplicaManager

MarkerResults: TypeAlias = Mapping[TopicPartition, ErrorCode]

OffsetsEnded: TypeAlias = Callable[[int, int, bool, int], None]
"""Partition of ``__consumer_offsets``, producer id, committed?, offset of the marker."""


class TxnMarker(NamedTuple):
    """How a producer's transaction ended, as decided by the coordinator of this epoch."""

    producer_id: int
    producer_epoch: int
    committed: bool
    coordinator_epoch: int


class MarkerWriter:
    """Writes markers; ``offsets_ended`` tells the group coordinator of those in its topic."""

    def __init__(
        self,
        replicas: "ReplicaManager",
        clock: Clock,
        offsets_ended: OffsetsEnded,
        timeout_ms: int,
    ) -> None:
        self._replicas = replicas
        self._clock = clock
        self._offsets_ended = offsets_ended
        self._timeout_ms = timeout_ms

    def write(
        self,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        done: Callable[[MarkerResults], None],
    ) -> None:
        """Write ``marker`` to each partition; ``done`` gets what came of it, once all of them are
        replicated or failed, at once if there are none.

        The codes are those of ``ReplicaManager.append`` and ``ReplicaManager.when_replicated``.
        """
        results: dict[TopicPartition, ErrorCode] = {}
        expected = len(set(partitions))

        def settle(partition: TopicPartition, code: ErrorCode) -> None:
            results[partition] = code
            if len(results) == expected:
                done(results)

        if not expected:
            done(results)
        for partition in set(partitions):
            self._write_one(marker, partition, settle)

    def _write_one(
        self,
        marker: TxnMarker,
        target: TopicPartition,
        settle: Callable[[TopicPartition, ErrorCode], None],
    ) -> None:
        topic, index = target
        batch = build_end_txn_marker(
            EndTxnMarker(
                ControlType.COMMIT if marker.committed else ControlType.ABORT,
                marker.coordinator_epoch,
            ),
            producer_id=marker.producer_id,
            producer_epoch=marker.producer_epoch,
            timestamp=self._clock.wall_ms(),
        )

        try:
            self._replicas.partition(topic, index).require_leader()
            offset = self._replicas.append_internal(topic, index, bytearray(batch)).last_offset
        except KafkaError as error:
            settle(target, error.code)
            return

        def replicated(code: ErrorCode) -> None:
            if code is ErrorCode.NONE and topic == GROUP_METADATA_TOPIC:
                self._offsets_ended(index, marker.producer_id, marker.committed, offset)
            settle(target, code)

        self._replicas.when_replicated(topic, index, offset + 1, self._timeout_ms, replicated)
