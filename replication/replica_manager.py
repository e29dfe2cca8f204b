"""The partitions of this broker, and what the controller says of them.

Owned by the event loop. It turns the controller's LeaderAndIsr and StopReplica into partitions
that lead, follow or go away, tells subscribers (the coordinators) when leadership of a topic's
partitions comes and goes, and wakes whoever waits for a partition to progress. In a cluster it has
fetchers for the partitions it follows, and keeps the in-sync sets of those it leads.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrPartitionError,
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicError,
)
from kavka.protocol.messages.k05_stop_replica import (
    StopReplicaPartitionError,
    StopReplicaRequest,
    StopReplicaResponse,
)
from kavka.protocol.records.batch import BatchHeader, read_header
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication.client import BrokerAddress
from kavka.replication.in_sync import InSyncSets
from kavka.replication.partition import (
    ACKS_ALL,
    DEFAULT_LAG_MAX,
    NO_EPOCH,
    Partition,
)
from kavka.replication.waiting import Waiter, WaitingRoom
from kavka.storage.append import AppendInfo, AppendOrigin
from kavka.storage.capacity import Capacity
from kavka.storage.clock import Clock
from kavka.storage.log import Log
from kavka.storage.manager import LogManager

if TYPE_CHECKING:
    from kavka.replication.fetching.manager import FetcherManager
    from kavka.replication.isr_changes import IsrWriter
    from kavka.replication.metadata import PartitionState
    from kavka.replication.throttling import ReplicationThrottle

log = logging.getLogger("kavka.replication")


class KnownTopics(Protocol):
    """What the replica manager asks the metadata cache."""

    def has_partition(self, topic: str, partition: int) -> bool: ...

    def is_alive(self, broker_id: int) -> bool: ...

    def partition(self, name: str, index: int) -> "PartitionState | None": ...


OnElected = Callable[[int, int], None]  # partition, leader epoch
OnResigned = Callable[[int], None]  # partition


class ReplicaManager:
    """All partitions with a replica on this broker."""

    def __init__(
        self,
        node_id: int,
        logs: LogManager,
        metadata: KnownTopics,
        topic_config: Callable[[str], TopicConfig],
        waiting: WaitingRoom,
        clock: Clock,
        *,
        fetchers: "FetcherManager | None" = None,
        isr_writer: "IsrWriter | None" = None,
        lag_max: float = DEFAULT_LAG_MAX,
    ) -> None:
        """A broker of a cluster has ``fetchers`` and an ``isr_writer``, a lone one neither.
        ``lag_max`` is replica.lag.time.max.ms, in seconds."""
        self.node_id = node_id
        self.waiting = waiting
        self.controller_epoch = 0
        self.capacity = Capacity()
        """Whether clients may append; the server puts a guard here."""
        self.leader_throttle: ReplicationThrottle | None = None
        """Holds back what followers that are not in sync are sent; None for a lone broker."""
        self.rack_aware = False
        """Whether consumers may read from followers in their rack (KIP-392)."""
        self._logs = logs
        self._metadata = metadata
        self._topic_config = topic_config
        self._clock = clock
        self._topics: dict[str, dict[int, Partition]] = {}
        self._out_of_reach: set[tuple[str, int]] = set()  # their directory was offline at start
        self._subscribers: dict[str, list[tuple[OnElected, OnResigned]]] = {}
        self._fetchers = fetchers
        self._lag_max = lag_max
        self._in_sync: InSyncSets | None = None
        if isr_writer is not None:
            self._in_sync = InSyncSets(node_id, isr_writer, metadata, waiting.notify, lag_max)
        if fetchers is not None:
            fetchers.attach(self)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch whether followers keep up, as leaders in a cluster do."""
        if self._in_sync is not None:
            self._in_sync.watch(self, loop)

    def retire(self) -> None:
        """Begin to follow nobody any more: this broker is about to stop."""
        if self._fetchers is not None:
            self._fetchers.retire()

    def stop(self) -> None:
        """Follow nobody any more and change no in-sync set."""
        if self._in_sync is not None:
            self._in_sync.stop()
        if self._fetchers is not None:
            self._fetchers.close()

    # -- finding ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Partition]:
        for partitions in self._topics.values():
            yield from partitions.values()

    def find(self, topic: str, index: int) -> Partition | None:
        """The partition if there is a replica of it here."""
        partitions = self._topics.get(topic)
        return None if partitions is None else partitions.get(index)

    def partition(self, topic: str, index: int) -> Partition:
        """The partition with a replica here.

        Raises UNKNOWN_TOPIC_OR_PARTITION when the cluster has no such partition,
        NOT_LEADER_OR_FOLLOWER when it is elsewhere, KAFKA_STORAGE_ERROR when its log directory
        is offline.
        """
        partitions = self._topics.get(topic)
        if partitions is not None:
            partition = partitions.get(index)
            if partition is not None:
                if partition.log.offline:
                    raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, partition.log.offline)
                return partition
        if (topic, index) in self._out_of_reach:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        if self._metadata.has_partition(topic, index):
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)

    # -- writing ----------------------------------------------------------------------------

    def append(
        self,
        partition: Partition,
        batches: Sequence[tuple[BatchHeader, memoryview]],
        acks: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> AppendInfo:
        """Append to a partition led here, start the flush it asks for, wake its readers.

        Raises what the partition and its log raise, and POLICY_VIOLATION for a client when the
        capacity threshold is reached.
        """
        capacity = self.capacity
        if capacity.credit <= 0 and origin is AppendOrigin.CLIENT:
            capacity.admit(partition.log)
        info = partition.append_as_leader(batches, acks, self._clock.wall_ms(), origin)
        capacity.credit -= info.size
        if partition.flush_due:
            self._request_flush(partition)
        self.waiting.notify(partition)
        return info

    def append_internal(self, topic: str, index: int, batch: bytearray) -> AppendInfo:
        """Append one batch of a coordinator to its own topic, as ``acks=-1`` does."""
        partition = self.partition(topic, index)
        view = memoryview(batch)
        return self.append(
            partition, [(read_header(view), view)], ACKS_ALL, AppendOrigin.COORDINATOR
        )

    def when_replicated(
        self,
        topic: str,
        index: int,
        end_offset: int,
        timeout_ms: int,
        callback: Callable[[ErrorCode], None],
    ) -> None:
        """Call back with NONE once all below ``end_offset`` is replicated, at once if it is.

        The code is REQUEST_TIMED_OUT after ``timeout_ms``, NOT_LEADER_OR_FOLLOWER when
        leadership goes meanwhile, NOT_ENOUGH_REPLICAS_AFTER_APPEND when the ISR shrank.
        """
        partition = self.partition(topic, index)
        waiter = _Replicated(partition, end_offset, callback)
        if not waiter.try_complete(partition):
            self.waiting.park(waiter, (partition,), timeout_ms / 1000)

    def _request_flush(self, partition: Partition) -> None:
        def flushed() -> None:
            if partition.is_leader:
                partition.advance_high_watermark()
            self.waiting.notify(partition)

        self._logs.flusher.request(partition.log, flushed)

    # -- what the controller says -----------------------------------------------------------

    def apply_leader_and_isr(self, request: LeaderAndIsrRequest) -> LeaderAndIsrResponse:
        """Lead and follow as told; partitions unknown so far get their log."""
        if request.controller_epoch < self.controller_epoch:
            return LeaderAndIsrResponse(error_code=ErrorCode.STALE_CONTROLLER_EPOCH)
        self.controller_epoch = request.controller_epoch
        if self._fetchers is not None:
            self._fetchers.note_addresses(
                BrokerAddress(leader.broker_id, leader.host_name, leader.port)
                for leader in request.live_leaders
            )
        response = LeaderAndIsrResponse(error_code=ErrorCode.NONE)
        elected: list[Partition] = []
        resigned: list[Partition] = []
        for topic in request.topic_states:
            result = LeaderAndIsrTopicError(topic_id=topic.topic_id)
            for state in topic.partition_states:
                code = ErrorCode.NONE
                try:
                    self._apply_state(topic.topic_name, topic.topic_id, state, elected, resigned)
                except KafkaError as error:
                    code = error.code
                    if code is ErrorCode.KAFKA_STORAGE_ERROR:
                        self._out_of_reach.add((topic.topic_name, state.partition_index))
                    known = code is ErrorCode.STALE_CONTROLLER_EPOCH  # a new controller says all
                    log.log(
                        logging.DEBUG if known else logging.WARNING,
                        "LeaderAndIsr not applied partition=%s-%d error=%s",
                        topic.topic_name,
                        state.partition_index,
                        error,
                    )
                result.partition_errors.append(
                    LeaderAndIsrPartitionError(
                        topic_name=topic.topic_name,
                        partition_index=state.partition_index,
                        error_code=code,
                    )
                )
            response.topics.append(result)
            response.partition_errors += result.partition_errors  # what older versions have
        for partition in resigned:
            self._tell_resigned(partition)
        for partition in elected:
            for on_elected, _ in self._subscribers.get(partition.topic, ()):
                on_elected(partition.index, partition.leader_epoch)
        return response

    def _apply_state(
        self,
        topic: str,
        topic_id: bytes,
        state: LeaderAndIsrPartitionState,
        elected: list[Partition],
        resigned: list[Partition],
    ) -> None:
        if self.node_id not in state.replicas:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no replica on this broker")
        partition = self.find(topic, state.partition_index)
        if partition is None:
            config = self._topic_config(topic)
            new_log = self._logs.get_or_create(
                TopicPartition(topic, state.partition_index),
                config,
                topic_id,
                is_new=state.is_new,
            )
            self._out_of_reach.discard((topic, state.partition_index))
            partition = Partition(
                topic,
                new_log.topic_id,
                state.partition_index,
                self.node_id,
                new_log,
                self._clock,
                self._lag_max,
            )
            self._topics.setdefault(topic, {})[state.partition_index] = partition
        partition.require_online()  # first of all: a controller asks so what has failed
        if partition.topic_id == ZERO_UUID != topic_id:  # controllers of old releases know none
            partition.log.note_topic_id(topic_id)
            partition.topic_id = topic_id
        if state.leader_epoch <= partition.leader_epoch:
            raise KafkaError(ErrorCode.STALE_CONTROLLER_EPOCH, "not a newer leader epoch")
        self._let_go(partition)
        was_leader = partition.is_leader
        partition.assign(state.replicas, state.isr, state.controller_epoch, state.partition_epoch)
        if state.leader == self.node_id:
            partition.become_leader(state.leader_epoch)
            if partition.flush_due:
                self._request_flush(partition)
            elected.append(partition)
        else:
            partition.become_follower(state.leader, state.leader_epoch)
            if was_leader:
                resigned.append(partition)
            if self._fetchers is not None and state.leader >= 0:
                self._fetchers.follow(partition)
        self.waiting.notify(partition)

    def _let_go(self, partition: Partition) -> None:
        """End what was under way for a partition in the epoch that is over."""
        if self._fetchers is not None:
            self._fetchers.unfollow(partition.topic_partition)
        if self._in_sync is not None:
            self._in_sync.forget(partition)

    def stop_replica(self, request: StopReplicaRequest) -> StopReplicaResponse:
        """Let go of partitions; with ``delete_partition`` their logs are deleted too."""
        if request.controller_epoch < self.controller_epoch:
            return StopReplicaResponse(error_code=ErrorCode.STALE_CONTROLLER_EPOCH)
        self.controller_epoch = request.controller_epoch
        response = StopReplicaResponse(error_code=ErrorCode.NONE)
        for topic in request.topic_states:
            for state in topic.partition_states:
                code = ErrorCode.NONE
                try:
                    self._require_current(
                        topic.topic_name, state.partition_index, state.leader_epoch
                    )
                    self._stop(topic.topic_name, state.partition_index, state.delete_partition)
                except KafkaError as error:
                    code = error.code
                response.partition_errors.append(
                    StopReplicaPartitionError(
                        topic_name=topic.topic_name,
                        partition_index=state.partition_index,
                        error_code=code,
                    )
                )
        return response

    def _require_current(self, topic: str, index: int, leader_epoch: int) -> None:
        partition = self.find(topic, index)
        if partition is not None and 0 <= leader_epoch < partition.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)

    def _stop(self, topic: str, index: int, delete: bool) -> None:
        self._out_of_reach.discard((topic, index))
        partitions = self._topics.get(topic)
        partition = None if partitions is None else partitions.pop(index, None)
        if partitions is not None and not partitions:
            del self._topics[topic]
        if partition is not None:
            self._let_go(partition)
            was_leader = partition.is_leader
            partition.deleted = True
            partition.elsewhere = self._metadata.has_partition(topic, index)
            if was_leader:
                self._tell_resigned(partition)
            self.waiting.notify(partition)
        if delete:
            self._logs.delete(TopicPartition(topic, index))

    def directory_failed(self) -> None:
        """A log directory went offline: who waits for one of its partitions is told so."""
        for partition in self:
            if partition.log.offline is not None:
                self._let_go(partition)
                self.waiting.notify(partition)

    def log_moved(self, old: Log, new: Log) -> None:
        """A partition has moved to another log directory."""
        partition = self.find(*new.topic_partition)
        if partition is None or partition.log is not old:
            return
        partition.log = new
        if partition.is_leader:
            partition.advance_high_watermark()
            if partition.flush_due:
                self._request_flush(partition)
        self.waiting.notify(partition)

    # -- followers and leaders --------------------------------------------------------------

    def follower_fetched(
        self, partition: Partition, broker_id: int, offset: int, log_start_offset: int
    ) -> None:
        """A follower of a partition led here fetches from ``offset`` on.

        Raises UNKNOWN_LEADER_EPOCH for a broker that is no replica.
        """
        if partition.follower_fetched(broker_id, offset, log_start_offset):
            self.waiting.notify(partition)
        if self._in_sync is not None and (
            broker_id not in partition.in_sync_replicas or offset < partition.high_watermark
        ):
            self._in_sync.consider(partition, broker_id)

    def follower_progressed(self, partition: Partition, size: int) -> None:
        """What a leader sent has been taken in: ``size`` bytes, or only how far it may be read."""
        self.capacity.credit -= size
        self.waiting.notify(partition)

    def sync(self, partition: Partition, callback: Callable[[], None]) -> None:
        """Have all that is in a partition's log brought to disk; call back when it is, or when
        the log is offline because it cannot be."""
        self._logs.flusher.request(partition.log, callback)

    # -- coordinators -----------------------------------------------------------------------

    def subscribe_leadership(
        self, topic: str, on_elected: OnElected, on_resigned: OnResigned
    ) -> None:
        """Tell a coordinator, whose state lives in ``topic``, of every partition of it that this
        broker leads, now and later, and of every one it leads no more."""
        self._subscribers.setdefault(topic, []).append((on_elected, on_resigned))
        for partition in list(self._topics.get(topic, {}).values()):
            if partition.is_leader:
                on_elected(partition.index, partition.leader_epoch)

    def _tell_resigned(self, partition: Partition) -> None:
        for _, on_resigned in self._subscribers.get(partition.topic, ()):
            on_resigned(partition.index)

    # -- settings and checkpoints -----------------------------------------------------------

    def update_topic_config(self, topic: str, config: TopicConfig) -> None:
        """A topic's settings changed: its logs follow, and who waits is looked at again."""
        for partition in self._topics.get(topic, {}).values():
            partition.log.update_config(config)
            if partition.is_leader:
                if partition.flush_due:
                    self._request_flush(partition)
                partition.advance_high_watermark()
                self.waiting.notify(partition)

    def high_watermarks(self) -> Iterator[tuple[Log, int]]:
        """Every log here with its high watermark, for the checkpoint files."""
        for partition in self:
            yield partition.log, partition.high_watermark


class _Replicated(Waiter):
    """A coordinator's append on its way to the high watermark.

    A further epoch of the same leader, as any change of the replicas in sync brings one, leaves
    its log alone; a leader that was none in between may have lost the records.
    """

    __slots__ = ("_callback", "_end_offset", "_led_since", "_partition")

    def __init__(
        self, partition: Partition, end_offset: int, callback: Callable[[ErrorCode], None]
    ) -> None:
        super().__init__()
        assert partition.led_since != NO_EPOCH
        self._partition = partition
        self._led_since = partition.led_since
        self._end_offset = end_offset
        self._callback = callback

    def try_complete(self, key: Hashable) -> bool:
        partition = self._partition
        if not partition.is_leader or partition.led_since != self._led_since:
            self._callback(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            return True
        if not partition.acknowledged(ACKS_ALL, self._end_offset):
            if partition.log.offline is None:
                return False
            self._callback(ErrorCode.KAFKA_STORAGE_ERROR)
            return True
        try:
            partition.require_enough_in_sync_after_append()
        except KafkaError as error:
            self._callback(error.code)
        else:
            self._callback(ErrorCode.NONE)
        return True

    def expire(self) -> None:
        self._callback(ErrorCode.REQUEST_TIMED_OUT)
