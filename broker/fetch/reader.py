"""Read what a Fetch asks for, within its limits (``KafkaApis.handleFetch``, wire-format rules).

The limits, in Kafka's words: a partition gives at most its ``partition_max_bytes`` and all of
them together at most ``max_bytes``; but the first batch of the first partition that has any is
returned whole, however large, so that a reader always gets on (from Fetch v3; older versions
get it cut off).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kavka.broker.authorization import CLUSTER_NAME, Operation, Resource, is_allowed
from kavka.broker.fetch.followers import is_held_back, lacks_deletion
from kavka.broker.fetch.near import NO_PREFERRED_REPLICA, NearReplicas
from kavka.broker.fetch.sessions import FetchPartition
from kavka.config.limits import DOWN_CONVERTED_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.partition import DEBUGGING_REPLICA_ID, READ_COMMITTED, Partition
from kavka.storage.fetch_slice import FetchSlice
from kavka.storage.log import Log

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Part, Request
    from kavka.protocol.schema import Buffer
    from kavka.storage.txn_index import AbortedTxn

NO_ABORTED: Sequence["AbortedTxn"] = ()


class FetchOptions:
    """What a Fetch request says for all its partitions."""

    __slots__ = (
        "arriving",
        "asker",
        "charge",
        "isolation_level",
        "max_bytes",
        "min_bytes",
        "near",
        "replica_id",
        "resting",
        "version",
    )

    def __init__(
        self, version: int, replica_id: int, isolation_level: int, min_bytes: int, max_bytes: int
    ) -> None:
        self.asker: Request | None = None  # set if there is an authorizer that has to let it read
        self.charge: Callable[[Sequence[Part]], bool] | None = None
        """Set if there are quotas: says whether the answer may go out, which then counts."""
        self.version = version
        self.replica_id = replica_id
        self.isolation_level = isolation_level
        self.min_bytes = min_bytes
        self.max_bytes = max_bytes
        self.near: NearReplicas | None = None  # set if followers serve consumers, too
        self.arriving = replica_id >= 0
        """Whether reading shall note what the offsets tell of a follower: at the arrival of its
        request, and not when it is looked at again."""
        self.resting: list[Partition] | None = None
        """Set for the session of a follower: those that it waits for, and that were left out of
        the last reading because they are at rest."""

    @property
    def magic(self) -> int:
        """The newest record format the client can read (KIP-98)."""
        return 0 if self.version < 2 else 1 if self.version < 4 else 2


class PartitionRead:
    """What one partition gives."""

    __slots__ = (
        "aborted",
        "diverging_epoch",
        "entry",
        "error",
        "high_watermark",
        "last_stable_offset",
        "log_start_offset",
        "partition",
        "preferred_replica",
        "records",
        "size",
        "urgent",
    )

    def __init__(self, entry: FetchPartition, partition: Partition | None) -> None:
        self.entry = entry
        self.partition = partition
        self.error: int = ErrorCode.NONE
        self.high_watermark = -1
        self.last_stable_offset = -1
        self.log_start_offset = -1
        self.aborted: Sequence[AbortedTxn] | None = None
        self.diverging_epoch: tuple[int, int] | None = None  # (epoch, its end offset), KIP-595
        self.records: FetchSlice | Buffer = b""
        self.size = 0
        self.preferred_replica = NO_PREFERRED_REPLICA  # who should be asked instead
        self.urgent = False  # worth an answer although there are no records

    @property
    def has_news(self) -> bool:
        """Whether an incremental response must carry it."""
        entry = self.entry
        return (
            self.size > 0
            or self.error != ErrorCode.NONE
            or self.diverging_epoch is not None
            or self.urgent
            or self.high_watermark != entry.sent_high_watermark
            or self.log_start_offset != entry.sent_log_start_offset
        )

    def mark_sent(self) -> None:
        """Remember what the reader knows now; after an error it is told everything again."""
        entry = self.entry
        failed = self.error != ErrorCode.NONE
        entry.sent_high_watermark = -1 if failed else self.high_watermark
        entry.sent_log_start_offset = self.log_start_offset


def read_partitions(
    broker: "Broker", entries: Sequence[FetchPartition], options: FetchOptions
) -> list[PartitionRead]:
    """Read every wanted partition in order, within the limits of ``options``; but for a follower's
    session those at rest, which are noted there.
    """
    budget = options.max_bytes
    reads: list[PartitionRead] = []
    resting = options.resting
    now = None
    if resting is not None:
        resting.clear()
        if options.arriving:
            now = broker.clock.monotonic()
    for entry in entries:
        if resting is not None:
            known = entry.partition
            if known is not None and _is_at_rest(known, entry, options.replica_id, now):
                resting.append(known)
                continue
        # What older versions get beyond their limit is cut off after it is converted.
        min_one = options.version < 3 or budget == options.max_bytes
        read = _read(broker, entry, options, budget, min_one=min_one)
        budget -= read.size
        reads.append(read)
    return reads


def _is_at_rest(
    partition: Partition, entry: FetchPartition, replica_id: int, now: float | None
) -> bool:
    """Whether a follower's fetch need not look at a partition: nothing at all has changed."""
    log = partition.log
    return (
        log.high_watermark == entry.sent_high_watermark
        and log.log_start_offset == entry.sent_log_start_offset
        and partition.leader_epoch == entry.current_leader_epoch
        and entry.last_fetched_epoch < 0
        and partition.is_at_rest(replica_id, entry.fetch_offset, entry.log_start_offset, now)
    )


def _read(
    broker: "Broker", entry: FetchPartition, options: FetchOptions, budget: int, *, min_one: bool
) -> PartitionRead:
    read = PartitionRead(entry, None)
    try:
        if options.asker is not None:
            _require_access(broker, options.asker, options.replica_id, entry)
        partition = read.partition = entry.partition = resolve(broker, entry)
        near = options.near
        if near is not None and near.may_follow and not partition.is_leader:
            partition.require_follower(entry.current_leader_epoch)
            near.require_known(partition, entry.fetch_offset)
        elif options.replica_id != DEBUGGING_REPLICA_ID:
            partition.require_leader(entry.current_leader_epoch)
        log = partition.log
        offset = entry.fetch_offset
        if entry.last_fetched_epoch >= 0:
            read.diverging_epoch = _divergence(partition, entry.last_fetched_epoch, offset)
        bound = partition.fetch_bound(options.replica_id, options.isolation_level)
        if read.diverging_epoch is None:
            if offset < log.log_start_offset or offset > log.log_end_offset:
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
            if options.arriving:
                broker.replicas.follower_fetched(
                    partition, options.replica_id, offset, entry.log_start_offset
                )
            if near is not None:
                near.look(read, partition, offset)
            if (
                offset < bound
                and (budget > 0 or min_one)
                and read.preferred_replica < 0
                and not (options.replica_id >= 0 and is_held_back(broker, partition, options))
            ):
                limit = min(entry.max_bytes, budget)
                _read_records(read, log, entry, options, limit, bound, min_one)
        read.high_watermark = log.high_watermark
        read.last_stable_offset = log.last_stable_offset
        read.log_start_offset = log.log_start_offset
        read.urgent = read.urgent or lacks_deletion(entry, log, options.replica_id)
        if options.isolation_level == READ_COMMITTED and read.aborted is None:
            read.aborted = NO_ABORTED
    except KafkaError as error:
        failed = PartitionRead(entry, read.partition)
        failed.error = _downgrade(error.code, options.version)
        return failed
    return read


def _require_access(
    broker: "Broker", asker: "Request", replica_id: int, entry: FetchPartition
) -> None:
    """Consumers need the topic, followers the cluster; either is told TOPIC_AUTHORIZATION_FAILED.

    Asked again whenever the fetch reads again: a right that is taken away ends a waiting fetch.
    """
    if replica_id >= 0:
        what = Operation.CLUSTER_ACTION, Resource.CLUSTER, CLUSTER_NAME
    else:
        topic = entry.topic or broker.metadata.topic_name(entry.topic_id)
        if topic is None:
            return  # there is no such id, and whoever asks may know
        what = Operation.READ, Resource.TOPIC, topic
    if not is_allowed(broker, asker, *what):
        raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)


def resolve(broker: "Broker", entry: FetchPartition) -> Partition:
    """The partition an entry means, by name or by topic id (KIP-516).

    Raises UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID and what ``ReplicaManager.partition`` raises.
    """
    topic = entry.topic
    if topic:
        return broker.replicas.partition(topic, entry.index)
    name = broker.metadata.topic_name(entry.topic_id)
    if name is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
    partition = broker.replicas.partition(name, entry.index)
    if partition.topic_id != entry.topic_id:
        raise KafkaError(ErrorCode.INCONSISTENT_TOPIC_ID)
    return partition


def _read_records(
    read: PartitionRead,
    log: Log,
    entry: FetchPartition,
    options: FetchOptions,
    limit: int,
    bound: int,
    min_one: bool,
) -> None:
    config = log.config
    if options.magic < 2:
        if not config.message_downconversion_enable:
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
        limit = min(limit, DOWN_CONVERTED_BYTES_MAX)
    if options.version < 10 and config.compression_type == "zstd":
        raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
    records = log.read(entry.fetch_offset, max(limit, 0), bound, min_one)
    if records.size:
        read.records = records
        read.size = records.size
        if options.isolation_level == READ_COMMITTED:
            read.aborted = log.aborted_transactions(entry.fetch_offset, records)


def _divergence(partition: Partition, epoch: int, offset: int) -> tuple[int, int] | None:
    """Where the reader's log leaves ours, judged by the epoch of its last record (KIP-595)."""
    leader_epoch, end_offset = partition.log.end_offset_for_epoch(epoch)
    if leader_epoch < 0 or end_offset < 0:
        raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
    if leader_epoch < epoch or end_offset < offset:
        return leader_epoch, end_offset
    return None


def _downgrade(code: ErrorCode, version: int) -> ErrorCode:
    """The code as the request version's era knew it."""
    if code == ErrorCode.KAFKA_STORAGE_ERROR and version <= 5:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    return code
