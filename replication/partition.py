"""One partition as this broker sees it: who leads it, who is in sync, and how far it may be read.

No I/O beyond the log it is given and no clock of its own: the replica manager tells it what
happened and acts on what it answers.

How far a record has come is told by three offsets, always ``high watermark <= durable end <=
log end``:

* the *log end* is the next offset to be written;
* the *durable end* is how far this replica may vouch for what it holds. With the default
  ``flush.messages`` that is the log end (replication is what keeps records); with
  ``flush.messages=n`` never more than ``n - 1`` records beyond what is synced to disk count;
* the *high watermark* is the smallest durable end of the in-sync replicas: consumers read up to
  it, and ``acks=-1`` waits for it.
"""

from collections.abc import Sequence

from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import BatchHeader
from kavka.protocol.records.validate import AppendRules
from kavka.protocol.topics import TopicPartition
from kavka.storage.append import AppendInfo, AppendOrigin
from kavka.storage.log import Log

NO_LEADER = -1
NO_EPOCH = -1

CONSUMER_REPLICA_ID = -1
DEBUGGING_REPLICA_ID = -2

READ_UNCOMMITTED = 0
READ_COMMITTED = 1

ACKS_ALL = -1


class Partition:
    """A partition with a replica on this broker."""

    __slots__ = (
        "_append_rules",
        "_append_rules_config",
        "controller_epoch",
        "deleted",
        "in_sync_replicas",
        "index",
        "leader_epoch",
        "leader_id",
        "log",
        "node_id",
        "partition_epoch",
        "replicas",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, topic_id: bytes, index: int, node_id: int, log: Log) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.node_id = node_id
        self.log = log
        self.leader_id = NO_LEADER
        self.leader_epoch = NO_EPOCH
        self.controller_epoch = -1
        self.partition_epoch = -1  # version of the state znode that the ISR came from
        self.replicas: list[int] = []
        self.in_sync_replicas: list[int] = []
        self.deleted = False
        self._append_rules_config: TopicConfig | None = None
        self._append_rules: AppendRules | None = None

    @property
    def append_rules(self) -> AppendRules:
        """What the topic's present settings ask of a client's records."""
        config = self.log.config
        if self._append_rules is None or self._append_rules_config is not config:
            self._append_rules = AppendRules.of(config)
            self._append_rules_config = config
        return self._append_rules

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.index)

    @property
    def is_leader(self) -> bool:
        return self.leader_id == self.node_id and not self.deleted

    # -- leadership -------------------------------------------------------------------------

    def become_leader(self, leader_epoch: int) -> None:
        """Take over: records appended from now on carry ``leader_epoch`` (KIP-101)."""
        self.leader_id = self.node_id
        self.leader_epoch = leader_epoch
        self.log.leader_epochs.assign(leader_epoch, self.log.log_end_offset)
        self.advance_high_watermark()

    def become_follower(self, leader_id: int, leader_epoch: int) -> None:
        """Follow ``leader_id``; nothing is appended here for clients any more."""
        self.leader_id = leader_id
        self.leader_epoch = leader_epoch

    def require_leader(self, current_leader_epoch: int = NO_EPOCH) -> None:
        """Raise unless this broker leads the partition in the epoch the client believes in.

        NOT_LEADER_OR_FOLLOWER when it does not lead, FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH
        when the client knows an older or a newer epoch (KIP-320).
        """
        if not self.is_leader:
            if self.deleted:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch != NO_EPOCH and current_leader_epoch != self.leader_epoch:
            if current_leader_epoch < self.leader_epoch:
                raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
            raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    def require_online(self) -> None:
        """Raise KAFKA_STORAGE_ERROR when the log's directory has failed."""
        if self.log.offline is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self.log.offline)

    # -- how far ----------------------------------------------------------------------------

    @property
    def high_watermark(self) -> int:
        return self.log.high_watermark

    @property
    def durable_end(self) -> int:
        """How far this replica vouches for its log; see the head of this module."""
        log = self.log
        end = log.log_end_offset
        vouched = log.recovery_point + (log.config.flush_messages or 1) - 1
        return end if end <= vouched else vouched

    @property
    def flush_due(self) -> bool:
        """Whether ``flush.messages`` records are waiting to be synced."""
        log = self.log
        return log.log_end_offset - log.recovery_point >= (log.config.flush_messages or 1)

    def advance_high_watermark(self) -> bool:
        """Recompute the high watermark as leader; True when it moved. It never goes back."""
        # The in-sync set of a lone replica is itself. With followers, their fetched ends count
        # here too: the smallest of all is the high watermark.
        end = self.durable_end
        if end > self.log.high_watermark:
            self.log.advance_high_watermark(end)
            return True
        return False

    def acknowledged(self, acks: int, end_offset: int) -> bool:
        """Whether a producer that asked for ``acks`` may be told that all below ``end_offset``
        is kept."""
        if acks == ACKS_ALL:
            return self.log.high_watermark >= end_offset
        return self.durable_end >= end_offset

    def fetch_bound(self, replica_id: int, isolation_level: int) -> int:
        """The offset up to which a reader may see: log end for followers, last stable offset
        for read_committed consumers, high watermark for the others."""
        if replica_id >= 0:
            return self.log.log_end_offset
        if isolation_level == READ_COMMITTED:
            return self.log.last_stable_offset
        return self.log.high_watermark

    # -- writing ----------------------------------------------------------------------------

    def append_as_leader(
        self,
        batches: Sequence[tuple[BatchHeader, memoryview]],
        acks: int,
        now_ms: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> AppendInfo:
        """Append validated batches; offsets and leader epoch are stamped into them in place.

        Raises NOT_ENOUGH_REPLICAS when ``acks=-1`` and too few replicas are in sync, and what
        the log raises (sequence errors, full disk).
        """
        if acks == ACKS_ALL:
            self._require_enough_in_sync(ErrorCode.NOT_ENOUGH_REPLICAS)
        info = self.log.append_as_leader(batches, self.leader_epoch, now_ms, origin)
        self.advance_high_watermark()
        return info

    def require_enough_in_sync_after_append(self) -> None:
        """Raise NOT_ENOUGH_REPLICAS_AFTER_APPEND when the in-sync set shrank meanwhile."""
        self._require_enough_in_sync(ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)

    def _require_enough_in_sync(self, code: ErrorCode) -> None:
        minimum = self.log.config.min_insync_replicas
        if len(self.in_sync_replicas) < minimum:
            raise KafkaError(
                code,
                f"The size of the current ISR {self.in_sync_replicas} is insufficient to satisfy "
                f"the min.isr requirement of {minimum} for partition {self.topic_partition}",
            )

    def delete_records_before(self, offset: int) -> int:
        """Raise the log start offset (DeleteRecords); -1 means the high watermark.

        Returns the new log start offset. Raises OFFSET_OUT_OF_RANGE beyond the high watermark
        and POLICY_VIOLATION where the topic's ``cleanup.policy`` does not include delete.
        """
        if "delete" not in self.log.config.cleanup_policy:
            raise KafkaError(ErrorCode.POLICY_VIOLATION)
        target = self.high_watermark if offset == -1 else offset
        if target < 0 or target > self.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        self.log.increment_log_start_offset(target)
        return self.log.log_start_offset
