"""Topic settings: their table, how they fall back to the broker's, and one topic's values."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from kavka.config.broker import BrokerConfig
from kavka.config.option import (
    AT_LEAST_0,
    AT_LEAST_1,
    CLEANUP_POLICIES,
    COMPRESSION_TYPES,
    KAFKA_VERSION,
    LONG_MAX,
    TIMESTAMP_TYPES,
    ConfigError,
    ConfigType,
    Dynamic,
    Importance,
    Option,
    Pattern,
    Range,
    UnknownOptionError,
    Validator,
    Value,
    table,
)

_Row: TypeAlias = tuple[str, ConfigType, Value, Validator | None, Importance, str | None, str]

BOOLEAN: Final = ConfigType.BOOLEAN
STRING: Final = ConfigType.STRING
INT: Final = ConfigType.INT
LONG: Final = ConfigType.LONG
DOUBLE: Final = ConfigType.DOUBLE
LIST: Final = ConfigType.LIST
MEDIUM: Final = Importance.MEDIUM
LOW: Final = Importance.LOW

THROTTLED_REPLICAS: Final = Pattern(
    r"\*|([0-9]+:[0-9]+(,[0-9]+:[0-9]+)*)?",
    "[partitionId]:[brokerId],[partitionId]:[brokerId],...",
    "{name} must be the literal '*' or a list of replicas in the following format: "
    "[partitionId]:[brokerId],[partitionId]:[brokerId],...",
)

# Name, type, default when the broker has none, valid values, importance, the broker's setting
# that gives the default, what it is for.
# fmt: off
_ROWS: Final[tuple[_Row, ...]] = (
    ("cleanup.policy", LIST, ("delete",), CLEANUP_POLICIES, MEDIUM, "log.cleanup.policy",
     "What happens to old segments: delete, compact, or both."),
    ("compression.type", STRING, "producer", COMPRESSION_TYPES, MEDIUM, "compression.type",
     "Codec batches are stored with; producer keeps the sender's."),
    ("delete.retention.ms", LONG, 86400000, AT_LEAST_0, MEDIUM, "log.cleaner.delete.retention.ms",
     "How long a compacted topic keeps the markers of deleted keys."),
    ("file.delete.delay.ms", LONG, 60000, AT_LEAST_0, MEDIUM, "log.segment.delete.delay.ms",
     "How long a deleted file stays on disk, for readers that are at it."),
    ("flush.messages", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, "log.flush.interval.messages",
     "Records after which a partition is flushed to disk; 1 acknowledges only what is on disk."),
    ("flush.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, "log.flush.interval.ms",
     "Longest time a record stays unflushed."),
    ("follower.replication.throttled.replicas", LIST, (), THROTTLED_REPLICAS, MEDIUM, None,
     "Replicas whose fetching is throttled, as partition:broker separated by commas, or *."),
    ("index.interval.bytes", INT, 4096, AT_LEAST_0, MEDIUM, "log.index.interval.bytes",
     "Bytes of log between two entries of its offset index."),
    ("leader.replication.throttled.replicas", LIST, (), THROTTLED_REPLICAS, MEDIUM, None,
     "Replicas that are sent to under the throttle, as partition:broker with commas, or *."),
    ("max.compaction.lag.ms", LONG, LONG_MAX, AT_LEAST_1, MEDIUM,
     "log.cleaner.max.compaction.lag.ms", "Age above which a record is due for compaction."),
    ("max.message.bytes", INT, 10485760, AT_LEAST_0, MEDIUM, "message.max.bytes",
     "Largest record batch that is accepted."),
    ("message.downconversion.enable", BOOLEAN, True, None, LOW,
     "log.message.downconversion.enable",
     "Whether old consumers are served in their own record format."),
    ("message.format.version", STRING, "2.3-IV1", KAFKA_VERSION, MEDIUM,
     "log.message.format.version", "Accepted and shown; records are always stored in format v2."),
    ("message.timestamp.difference.max.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM,
     "log.message.timestamp.difference.max.ms",
     "Largest difference between a record's time and its arrival; larger ones are refused."),
    ("message.timestamp.type", STRING, "CreateTime", TIMESTAMP_TYPES, MEDIUM,
     "log.message.timestamp.type",
     "Whether a record's time is its producer's or that of its arrival."),
    ("min.cleanable.dirty.ratio", DOUBLE, 0.5, Range(0, 1), MEDIUM,
     "log.cleaner.min.cleanable.ratio",
     "Part of a log that must be uncompacted before it is compacted."),
    ("min.compaction.lag.ms", LONG, 0, AT_LEAST_0, MEDIUM, "log.cleaner.min.compaction.lag.ms",
     "Age below which a record is not compacted away."),
    ("min.insync.replicas", INT, 1, AT_LEAST_1, MEDIUM, "min.insync.replicas",
     "Replicas, the leader among them, that must have a write of acks=all before it counts."),
    ("preallocate", BOOLEAN, False, None, MEDIUM, "log.preallocate",
     "Whether a segment is given its full size on disk when it is begun."),
    ("retention.bytes", LONG, -1, None, MEDIUM, "log.retention.bytes",
     "Size of a partition above which its oldest segments are deleted; -1 is no limit."),
    ("retention.ms", LONG, 259200000, Range(-1), MEDIUM, "log.retention.ms",
     "How long records are kept; -1 is for ever."),
    ("segment.bytes", INT, 1073741824, Range(14), MEDIUM, "log.segment.bytes",
     "Size at which a new segment file is begun."),
    ("segment.index.bytes", INT, 10485760, AT_LEAST_0, MEDIUM, "log.index.size.max.bytes",
     "Largest index file; a full index begins a new segment."),
    ("segment.jitter.ms", LONG, 0, AT_LEAST_0, MEDIUM, "log.roll.jitter.ms",
     "Largest random time taken off segment.ms."),
    ("segment.ms", LONG, 604800000, AT_LEAST_1, MEDIUM, "log.roll.ms",
     "Age at which a new segment is begun."),
    ("unclean.leader.election.enable", BOOLEAN, False, None, MEDIUM,
     "unclean.leader.election.enable",
     "Whether a replica that lacks acknowledged records may lead when no other is alive."),
)

_LATER_ROWS: Final[tuple[_Row, ...]] = (
    ("message.timestamp.before.max.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM,
     "log.message.timestamp.before.max.ms",
     "How far in the past a record's time may lie (KIP-937)."),
    ("message.timestamp.after.max.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM,
     "log.message.timestamp.after.max.ms",
     "How far in the future a record's time may lie (KIP-937)."),
)
# fmt: on


def _option(row: _Row, since: str = "") -> Option:
    name, kind, default, valid, importance, broker_key, doc = row
    return Option(
        name, kind, default, valid, importance, Dynamic.CLUSTER_WIDE, doc, broker_key, since
    )


TOPIC_OPTIONS: Final[Mapping[str, Option]] = table(
    (*(_option(row) for row in _ROWS), *(_option(row, "3.6") for row in _LATER_ROWS))
)
"""Every setting a topic may override."""

BROKER_KEYS: Final[frozenset[str]] = frozenset(
    {option.broker_key for option in TOPIC_OPTIONS.values() if option.broker_key is not None}
    | {"log.roll.hours", "log.roll.jitter.hours", "log.retention.minutes", "log.retention.hours"}
    | {"log.flush.scheduler.interval.ms"}
)
"""Broker settings whose change reaches topics: for ``BrokerConfig.on_change``."""


class TopicConfig:
    """The values one topic lives by; replaced as a whole when a setting changes.

    Attributes bear Kafka's names with underscores; units stand in the names. Lists of throttled
    replicas keep their text form ("0:1", "*").
    """

    __slots__ = (
        "cleanup_policy",
        "compression_type",
        "delete_retention_ms",
        "file_delete_delay_ms",
        "flush_messages",
        "flush_ms",
        "follower_replication_throttled_replicas",
        "index_interval_bytes",
        "leader_replication_throttled_replicas",
        "max_compaction_lag_ms",
        "max_message_bytes",
        "message_downconversion_enable",
        "message_format_version",
        "message_timestamp_after_max_ms",
        "message_timestamp_before_max_ms",
        "message_timestamp_difference_max_ms",
        "message_timestamp_type",
        "min_cleanable_dirty_ratio",
        "min_compaction_lag_ms",
        "min_insync_replicas",
        "preallocate",
        "retention_bytes",
        "retention_ms",
        "segment_bytes",
        "segment_index_bytes",
        "segment_jitter_ms",
        "segment_ms",
        "unclean_leader_election_enable",
    )

    cleanup_policy: frozenset[str]
    compression_type: str
    delete_retention_ms: int
    file_delete_delay_ms: int
    flush_messages: int
    flush_ms: int
    follower_replication_throttled_replicas: tuple[str, ...]
    index_interval_bytes: int
    leader_replication_throttled_replicas: tuple[str, ...]
    max_compaction_lag_ms: int
    max_message_bytes: int
    message_downconversion_enable: bool
    message_format_version: str
    message_timestamp_after_max_ms: int
    message_timestamp_before_max_ms: int
    message_timestamp_difference_max_ms: int
    message_timestamp_type: str
    min_cleanable_dirty_ratio: float
    min_compaction_lag_ms: int
    min_insync_replicas: int
    preallocate: bool
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    segment_jitter_ms: int
    segment_ms: int
    unclean_leader_election_enable: bool

    def __init__(self, values: Mapping[str, Value]) -> None:
        """``values`` holds a parsed value of its option's type for every topic setting."""
        for name, value in values.items():
            setattr(self, name.replace(".", "_"), value)
        policies = values["cleanup.policy"]
        assert isinstance(policies, tuple)
        self.cleanup_policy = frozenset(policies)
        # KIP-937: the older setting stands in for each of the newer two that is not set.
        if self.message_timestamp_before_max_ms == LONG_MAX:
            self.message_timestamp_before_max_ms = self.message_timestamp_difference_max_ms
        if self.message_timestamp_after_max_ms == LONG_MAX:
            self.message_timestamp_after_max_ms = self.message_timestamp_difference_max_ms

    @property
    def compact(self) -> bool:
        """Whether old values of a key are compacted away; such a topic takes no keyless record."""
        return "compact" in self.cleanup_policy

    @property
    def delete(self) -> bool:
        """Whether old segments are deleted by age and size."""
        return "delete" in self.cleanup_policy


def validate(overrides: Mapping[str, str | None]) -> None:
    """Check a topic's overrides as CreateTopics and AlterConfigs must (``LogConfig.validate``).

    Raises UnknownOptionError for a name that is no topic setting, ConfigError for a bad value.
    """
    for name in overrides:
        if name not in TOPIC_OPTIONS:
            raise UnknownOptionError(name, f"Unknown topic config name: {name}")
    values: dict[str, Value] = {}
    for name, text in overrides.items():
        if text is None:
            raise ConfigError(name, f"Null value not supported for topic configs: {name}")
        values[name] = TOPIC_OPTIONS[name].parse(text)
    low, high = (
        values.get(name, TOPIC_OPTIONS[name].default)
        for name in ("min.compaction.lag.ms", "max.compaction.lag.ms")
    )
    assert isinstance(low, int)
    assert isinstance(high, int)
    if low > high:
        raise ConfigError(
            "min.compaction.lag.ms",
            f"conflict topic config setting min.compaction.lag.ms ({low}) > "
            f"max.compaction.lag.ms ({high})",
        )


def effective_values(overrides: Mapping[str, str], broker: BrokerConfig) -> dict[str, Value]:
    """What a topic lives by: its override, else the broker's value, for every topic setting.

    Overrides of unknown name (left by a later Kafka in a shared metadata store) are passed over.
    Raises ConfigError for a bad value.
    """
    return {
        name: option.parse(overrides[name])
        if name in overrides
        else option.default
        if option.broker_key is None
        else broker.effective(option.broker_key)
        for name, option in TOPIC_OPTIONS.items()
    }


def resolve(overrides: Mapping[str, str], broker: BrokerConfig) -> TopicConfig:
    """The typed form of ``effective_values``."""
    return TopicConfig(effective_values(overrides, broker))
