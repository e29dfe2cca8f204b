"""One partition as this broker sees it: who leads it, who is in sync, and how far it may be read.

No I/O beyond the log it is given; the clock comes from outside. The replica manager tells it what
happened and acts on what it answers.

How far a record has come is told by three offsets, always ``high watermark <= durable end <=
log end``:

* the *log end* is the next offset to be written;
* the *durable end* is how far this replica may vouch for what it holds. With the default
  ``flush.messages`` that is the log end (replication is what keeps records); with
  ``flush.messages=n`` never more than ``n - 1`` records beyond what is synced to disk count. A
  follower tells its durable end to the leader: the offset it fetches from;
* the *high watermark* is the smallest durable end of the in-sync replicas: consumers read up to
  it, and ``acks=-1`` waits for it.

The leader alone changes the in-sync set, by a conditional write to the metadata store. While such
a write is under way the set may be the old one or the new one already: so what both contain counts
as in sync for the high watermark (the *maximal* set), and only the old one where replicas are
counted before an append (KIP-497).
"""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from kavka.config.topic import TopicConfig
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import BatchHeader
from kavka.protocol.records.validate import AppendRules
from kavka.protocol.topics import TopicPartition
from kavka.replication.remote_replica import NEVER, RemoteReplica
from kavka.storage.append import AppendInfo, AppendOrigin
from kavka.storage.clock import Clock, SystemClock
from kavka.storage.log import Log

NO_LEADER = -1
NO_EPOCH = -1

CONSUMER_REPLICA_ID = -1
DEBUGGING_REPLICA_ID = -2

READ_UNCOMMITTED = 0
READ_COMMITTED = 1

ACKS_ALL = -1

DEFAULT_LAG_MAX = 10.0  # seconds; replica.lag.time.max.ms


class IsrChange(NamedTuple):
    """An in-sync set that a leader wants to have, and what its write depends on."""

    isr: tuple[int, ...]
    leader_epoch: int
    controller_epoch: int
    partition_epoch: int  # version of the state node that is to be replaced


class FoundState(NamedTuple):
    """What the state node says when a change of the in-sync set was refused."""

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    partition_epoch: int


class Partition:
    """A partition with a replica on this broker."""

    __slots__ = (
        "_append_rules",
        "_append_rules_config",
        "_awaited",
        "_clock",
        "_lag_max",
        "_others",
        "_pending",
        "_proposals_from",
        "controller_epoch",
        "deleted",
        "elsewhere",
        "epoch_start_offset",
        "in_sync_replicas",
        "index",
        "leader_epoch",
        "leader_id",
        "led_since",
        "log",
        "node_id",
        "partition_epoch",
        "remotes",
        "replicas",
        "topic",
        "topic_id",
    )

    def __init__(
        self,
        topic: str,
        topic_id: bytes,
        index: int,
        node_id: int,
        log: Log,
        clock: Clock | None = None,
        lag_max: float = DEFAULT_LAG_MAX,
    ) -> None:
        """``lag_max`` is how long, in seconds, an in-sync follower may lack records."""
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.node_id = node_id
        self.log = log
        self.leader_id = NO_LEADER
        self.leader_epoch = NO_EPOCH
        self.led_since = NO_EPOCH
        """The first of the epochs in which this broker has led without a pause."""
        self.epoch_start_offset = 0  # where the log ended when this broker began to lead
        self.controller_epoch = -1
        self.partition_epoch = -1  # version of the state node that the ISR came from
        self.replicas: list[int] = []
        self.in_sync_replicas: list[int] = []
        """As last known to be in the metadata store."""
        self.remotes: dict[int, RemoteReplica] = {}
        """The followers, while this broker leads."""
        self.deleted = False  # here
        self.elsewhere = False  # if deleted here: whether others have it
        self._clock = clock or SystemClock()
        self._lag_max = lag_max
        self._append_rules_config: TopicConfig | None = None
        self._append_rules: AppendRules | None = None
        self._pending: IsrChange | None = None
        self._proposals_from = NEVER  # after a refusal the next one waits a while
        # Of the followers: those of the maximal in-sync set, which the high watermark waits for,
        # and the others.
        self._awaited: tuple[RemoteReplica, ...] = ()
        self._others: tuple[RemoteReplica, ...] = ()

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

    def assign(
        self,
        replicas: Sequence[int],
        isr: Sequence[int],
        controller_epoch: int,
        partition_epoch: int,
    ) -> None:
        """Take over what the controller says of the replicas; then become leader or follower."""
        self.replicas = list(replicas)
        self.in_sync_replicas = list(isr)
        self.controller_epoch = controller_epoch
        self.partition_epoch = partition_epoch
        self._pending = None  # the controller has read, or undone, what was being written
        self._proposals_from = NEVER

    def become_leader(self, leader_epoch: int) -> None:
        """Take over: records appended from now on carry ``leader_epoch`` (KIP-101)."""
        is_new = not self.is_leader
        log = self.log
        if is_new:
            self.led_since = leader_epoch
        self.leader_id = self.node_id
        self.leader_epoch = leader_epoch
        self.epoch_start_offset = log.log_end_offset
        log.leader_epochs.assign(leader_epoch, log.log_end_offset)
        now = self._clock.monotonic()
        known, self.remotes = self.remotes, {}
        for broker_id in self.replicas:
            if broker_id == self.node_id:
                continue
            remote = known.get(broker_id) or RemoteReplica(broker_id)
            remote.begin_epoch(
                log.log_end_offset, now, in_sync=broker_id in self.in_sync_replicas, forget=is_new
            )
            self.remotes[broker_id] = remote
        self._sort_remotes()
        self.advance_high_watermark()

    def become_follower(self, leader_id: int, leader_epoch: int) -> None:
        """Follow ``leader_id``; nothing is appended here for clients any more."""
        self.leader_id = leader_id
        self.leader_epoch = leader_epoch
        self.remotes = {}
        self._sort_remotes()

    def _sort_remotes(self) -> None:
        maximal = self.maximal_isr
        remotes = self.remotes.values()
        self._awaited = tuple(each for each in remotes if each.broker_id in maximal)
        self._others = tuple(each for each in remotes if each.broker_id not in maximal)

    def require_leader(self, current_leader_epoch: int = NO_EPOCH) -> None:
        """Raise unless this broker leads the partition in the epoch the client believes in.

        NOT_LEADER_OR_FOLLOWER when it does not lead, FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH
        when the client knows an older or a newer epoch (KIP-320).
        """
        if not self.is_leader:
            if self.deleted and not self.elsewhere:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch != NO_EPOCH and current_leader_epoch != self.leader_epoch:
            self._require_epoch(current_leader_epoch)

    def _require_epoch(self, current_leader_epoch: int) -> None:
        if current_leader_epoch != NO_EPOCH and current_leader_epoch != self.leader_epoch:
            if current_leader_epoch < self.leader_epoch:
                raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
            raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    def require_follower(self, current_leader_epoch: int) -> None:
        """Raise unless a consumer may read here although another broker leads (KIP-392)."""
        if self.deleted or self.leader_id < 0:
            self.require_leader()
        self._require_epoch(current_leader_epoch)

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
        """Recompute the high watermark as leader; True when it moved. It never goes back.

        Beside the in-sync followers those count that have just caught up and are about to be in
        sync again: without that, a busy leader would always be ahead of them.
        """
        end = self.durable_end
        for remote in self._awaited:
            if remote.log_end_offset < end:
                end = remote.log_end_offset
        log = self.log
        if end <= log.high_watermark:
            return False
        if self._others:
            oldest = self._clock.monotonic() - self._lag_max
            for remote in self._others:
                if remote.log_end_offset < end and remote.last_caught_up >= oldest:
                    end = remote.log_end_offset
            if end <= log.high_watermark:
                return False
        log.advance_high_watermark(end)
        return True

    def follow_high_watermark(self, leaders: int) -> bool:
        """Take over the leader's high watermark as far as the log here goes; True if news."""
        log = self.log
        before = log.high_watermark
        log.advance_high_watermark(min(leaders, log.log_end_offset))
        return log.high_watermark != before

    @property
    def is_settled(self) -> bool:
        """Whether the high watermark has reached what there was when this leader took over.

        Before that it may lie below what consumers were shown by the leader before (KIP-207).
        """
        return self.log.high_watermark >= self.epoch_start_offset

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
        if not self._awaited:  # else one of them has to fetch it first
            self.advance_high_watermark()
        return info

    def require_enough_in_sync_after_append(self) -> None:
        """Raise NOT_ENOUGH_REPLICAS_AFTER_APPEND when the in-sync set shrank meanwhile."""
        if len(self.maximal_isr) < self.log.config.min_insync_replicas:
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

        Returns the offset that was meant: all below it is gone here, and on the other replicas
        once ``low_watermark`` says so. Raises OFFSET_OUT_OF_RANGE beyond the high watermark and
        POLICY_VIOLATION where the topic's ``cleanup.policy`` does not include delete.
        """
        if "delete" not in self.log.config.cleanup_policy:
            raise KafkaError(ErrorCode.POLICY_VIOLATION)
        target = self.high_watermark if offset == -1 else offset
        if target < 0 or target > self.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        self.log.increment_log_start_offset(target)
        return target

    def low_watermark(self, alive: Container[int]) -> int:
        """Below this no live replica has anything any more, as far as they have told their
        leader: the smallest of their log start offsets."""
        low = self.log.log_start_offset
        for remote in self.remotes.values():
            if remote.log_start_offset < low and remote.broker_id in alive:
                low = max(remote.log_start_offset, 0)  # one that has told nothing yet
        return low

    # -- followers --------------------------------------------------------------------------

    @property
    def maximal_isr(self) -> frozenset[int]:
        """Who may be in the in-sync set, as far as is known: with a change that is under way."""
        if self._pending is None:
            return frozenset(self.in_sync_replicas)
        return frozenset((*self.in_sync_replicas, *self._pending.isr))

    def follower_fetched(self, broker_id: int, offset: int, log_start_offset: int) -> bool:
        """A follower asks for what comes at ``offset``: it has all below, and nothing any more
        below ``log_start_offset``. True when the high or the low watermark may have moved by it.

        Raises UNKNOWN_LEADER_EPOCH for a broker that is no replica as far as is known here.
        """
        remote = self.remotes.get(broker_id)
        if remote is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_LEADER_EPOCH,
                f"broker {broker_id} is no replica of {self.topic_partition}",
            )
        moved = offset > remote.log_end_offset
        deleted = log_start_offset > max(remote.log_start_offset, 0)
        remote.fetched(offset, log_start_offset, self.log.log_end_offset, self._clock.monotonic())
        return (moved and self.advance_high_watermark()) or deleted

    def is_at_rest(
        self, broker_id: int, offset: int, log_start_offset: int, now: float | None
    ) -> bool:
        """Whether a fetch of an in-sync follower says nothing new and finds nothing new: it has
        all there is, and has said so before.

        Of the partitions that one fetch is for, most are so, most of the time: this is what
        ``follower_fetched`` and a read come to then. ``now`` (monotonic seconds) is when the fetch
        came, None when it is only looked at again.
        """
        remote = self.remotes.get(broker_id)
        log = self.log
        end = log.log_end_offset
        if (
            remote is None
            or offset != end
            or remote.log_end_offset != end
            or remote.log_start_offset != log_start_offset
            or log.offline is not None
            or self.deleted
            or broker_id not in self.in_sync_replicas
        ):
            return False
        if now is not None:
            remote.fetched(end, log_start_offset, end, now)
        return True

    def wants_in_sync(self, broker_id: int) -> bool:
        """Whether a follower has caught up and should be in the in-sync set again.

        It must have all below the high watermark, and have begun to copy what this leader's epoch
        holds: before that, it may lack what the leader before had acknowledged.
        """
        remote = self.remotes.get(broker_id)
        return (
            remote is not None
            and self._pending is None
            and broker_id not in self.in_sync_replicas
            and remote.log_end_offset >= self.log.high_watermark
            and remote.log_end_offset >= self.epoch_start_offset
            and self._clock.monotonic() >= self._proposals_from
        )

    def expand(self, broker_id: int) -> IsrChange:
        """Begin to take a follower into the in-sync set; the change is to be written."""
        assert self._pending is None
        wanted = {*self.in_sync_replicas, broker_id}
        return self._propose(tuple(each for each in self.replicas if each in wanted))

    def has_lost(self, broker_id: int) -> bool:
        """Whether an in-sync follower lacks what it had: it asks for something below the high
        watermark, so its disk has forgotten. It must not be elected."""
        remote = self.remotes.get(broker_id)
        return (
            remote is not None
            and 0 <= remote.log_end_offset < self.log.high_watermark
            and broker_id in self.in_sync_replicas
        )

    def put_out(self, broker_id: int) -> IsrChange | None:
        """Begin to put a follower out of the in-sync set, unless a change is under way."""
        if self._pending is not None or self._clock.monotonic() < self._proposals_from:
            return None
        return self._propose(tuple(each for each in self.in_sync_replicas if each != broker_id))

    def shrink(self) -> IsrChange | None:
        """Begin to put followers out that have lagged for too long, if there are any."""
        now = self._clock.monotonic()
        if (
            not self._awaited
            or not self.is_leader
            or self._pending is not None
            or now < self._proposals_from
        ):
            return None
        end = self.log.log_end_offset
        lagging = {
            remote.broker_id
            for remote in self._awaited
            if remote.is_lagging(end, now, self._lag_max)
        }
        if not lagging:
            return None
        return self._propose(tuple(each for each in self.in_sync_replicas if each not in lagging))

    def _propose(self, isr: tuple[int, ...]) -> IsrChange:
        self._pending = IsrChange(
            isr, self.leader_epoch, self.controller_epoch, self.partition_epoch
        )
        self._sort_remotes()
        return self._pending

    def isr_written(self, change: IsrChange, partition_epoch: int) -> bool:
        """A change has been written; False when the controller has overtaken it."""
        if change is not self._pending:
            return False
        self._pending = None
        self.in_sync_replicas = list(change.isr)
        self.partition_epoch = partition_epoch
        self._sort_remotes()
        return True

    def isr_refused(self, change: IsrChange, found: FoundState | None, pause: float) -> None:
        """A change has certainly not been written, and will not be; ``found`` is what is there.

        Mostly that is the controller's next state, which it will tell soon. When it is one that
        this leader may still go by, it goes by that; the next change waits ``pause`` seconds.
        """
        if change is not self._pending:
            return
        self._pending = None
        self._proposals_from = self._clock.monotonic() + pause
        if found is not None:
            self.learn(found)
        self._sort_remotes()

    def learn(self, found: FoundState) -> bool:
        """Go by the state node where it is later than what is known here, and of the same epoch:
        somebody else has written it. True if that is so."""
        if (
            self._pending is not None
            or found.leader != self.node_id
            or found.leader_epoch != self.leader_epoch
            or found.partition_epoch <= self.partition_epoch
        ):
            return False
        self.in_sync_replicas = list(found.isr)
        self.partition_epoch = found.partition_epoch
        self._sort_remotes()
        return True

    def read_replica(self, rack: str, racks: Mapping[int, str | None], offset: int) -> int:
        """Who should serve a consumer of ``rack`` that reads from ``offset`` on (KIP-392): this
        broker, or a follower in its rack that has that offset, the one that has most.

        ``racks`` are those of the live brokers.
        """
        if racks.get(self.node_id) == rack:
            return self.node_id
        near = [
            remote
            for remote in self.remotes.values()
            if racks.get(remote.broker_id) == rack
            and remote.log_start_offset <= offset <= remote.log_end_offset
        ]
        if not near:
            return self.node_id
        return max(near, key=lambda each: (each.log_end_offset, each.last_caught_up)).broker_id
