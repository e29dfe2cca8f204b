"""Bringing the markers of decided transactions to the leaders of their partitions.

A decision is final, so this does not give up: whatever may pass (no leader, too few replicas in
sync, a broker out of reach) is tried again until the partition has its marker, is deleted, or the
coordinator is no longer the one that has to see to it.
"""

import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from kavka.broker.coordination.timers import CallLater
from kavka.broker.transactions.marker_writer import MarkerResults, MarkerWriter, TxnMarker
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.replication.metadata import PartitionState

log = logging.getLogger("kavka.transactions")

RETRY_SECONDS: Final = 0.2
METADATA_SECONDS: Final = 10.0
"""For so long after the start a partition that metadata does not know may only be not known yet;
later it is deleted."""

_MARKED: Final = (
    ErrorCode.NONE,
    # Partitions of before Kafka 0.11 or on brokers that old: they can have no transactions.
    ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    ErrorCode.UNSUPPORTED_VERSION,
)
_PASSING: Final = (
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.BROKER_NOT_AVAILABLE,
)


class KnownPartitions(Protocol):
    """What is asked of the metadata cache."""

    def partition(self, name: str, index: int) -> "PartitionState | None": ...


class MarkerChannel(Protocol):
    """The way to the leaders, this broker among them."""

    def write(
        self,
        node_id: int,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        done: Callable[[MarkerResults], None],
    ) -> None:
        """Have broker ``node_id`` write ``marker`` to partitions that it leads.

        ``done`` is called once, with a code for each; BROKER_NOT_AVAILABLE when the broker could
        not be asked, or its answer was lost (a marker that is written twice does no harm).
        """


class LocalMarkerChannel:
    """The way to this broker only; the others are out of reach."""

    def __init__(self, node_id: int, writer: MarkerWriter) -> None:
        self._node_id = node_id
        self._writer = writer

    def write(
        self,
        node_id: int,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        done: Callable[[MarkerResults], None],
    ) -> None:
        if node_id == self._node_id:
            self._writer.write(marker, partitions, done)
        else:
            done(dict.fromkeys(partitions, ErrorCode.BROKER_NOT_AVAILABLE))


class _Delivery:
    """One transaction's marker on its way."""

    __slots__ = ("has_failed", "is_wanted", "marker", "name", "on_marked")

    def __init__(
        self,
        name: str,
        marker: TxnMarker,
        on_marked: Callable[[Collection[TopicPartition]], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self.name = name
        self.marker = marker
        self.on_marked = on_marked
        self.is_wanted = is_wanted
        self.has_failed = False  # and the log says so


class MarkerSender:
    """All markers that are on their way from this broker's transaction coordinator."""

    def __init__(
        self, channel: MarkerChannel, metadata: KnownPartitions, clock: Clock, call_later: CallLater
    ) -> None:
        self._channel = channel
        self._metadata = metadata
        self._clock = clock
        self._call_later = call_later
        self._metadata_complete_at = clock.monotonic() + METADATA_SECONDS

    def send(
        self,
        name: str,
        marker: TxnMarker,
        partitions: Collection[TopicPartition],
        on_marked: Callable[[Collection[TopicPartition]], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Bring ``marker`` to ``partitions``; ``on_marked`` gets each of them once.

        ``is_wanted`` says before every further try whether it is still to be made. ``name`` is
        the transactional id, for log lines.
        """
        self._try(_Delivery(name, marker, on_marked, is_wanted), partitions)

    def _try(self, delivery: _Delivery, partitions: Collection[TopicPartition]) -> None:
        deleted: list[TopicPartition] = []
        waiting: list[TopicPartition] = []
        by_leader: dict[int, list[TopicPartition]] = {}
        for partition in partitions:
            state = self._metadata.partition(*partition)
            if state is not None and state.leader >= 0:
                by_leader.setdefault(state.leader, []).append(partition)
            elif state is not None or self._clock.monotonic() < self._metadata_complete_at:
                waiting.append(partition)
            else:
                deleted.append(partition)
        if waiting:
            self._later(delivery, waiting)
        for leader, led in by_leader.items():
            self._channel.write(
                leader, delivery.marker, led, partial(self._answered, delivery, leader)
            )
        if deleted and delivery.is_wanted():
            log.info(
                "A transaction's partitions are deleted and get no marker id=%.128s partitions=%d",
                *(delivery.name, len(deleted)),
            )
            delivery.on_marked(deleted)

    def _answered(self, delivery: _Delivery, leader: int, results: MarkerResults) -> None:
        if not delivery.is_wanted():
            return
        marked: list[TopicPartition] = []
        again: list[TopicPartition] = []
        for partition, code in results.items():
            if code in _MARKED:
                marked.append(partition)
            elif code is ErrorCode.INVALID_PRODUCER_EPOCH:
                # A later epoch of this producer has been there, though none was given out.
                log.warning(
                    "A partition has a later producer epoch than its transaction id=%.128s "
                    "partition=%s producer=%d epoch=%d",
                    *(delivery.name, partition),
                    *(delivery.marker.producer_id, delivery.marker.producer_epoch),
                )
                marked.append(partition)
            elif code is ErrorCode.TRANSACTION_COORDINATOR_FENCED:
                log.warning(
                    "Another coordinator ends this transaction id=%.128s partition=%s epoch=%d",
                    *(delivery.name, partition, delivery.marker.coordinator_epoch),
                )
            else:
                again.append(partition)
                if not delivery.has_failed:
                    delivery.has_failed = True
                    log.log(
                        logging.INFO if code in _PASSING else logging.ERROR,
                        "A transaction marker could not be written yet id=%.128s partition=%s "
                        "broker=%d error=%s",
                        *(delivery.name, partition, leader, code.name),
                    )
        if again:
            self._later(delivery, again)
        if marked:
            delivery.on_marked(marked)

    def _later(self, delivery: _Delivery, partitions: Collection[TopicPartition]) -> None:
        def again() -> None:
            if delivery.is_wanted():
                self._try(delivery, partitions)

        self._call_later(RETRY_SECONDS, again)
