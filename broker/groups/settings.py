"""The settings of the group coordinator, read once: all of them are read-only in Kafka."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig


class GroupSettings(NamedTuple):
    """Kafka's ``group.*`` and ``offsets.*`` settings; times in milliseconds unless named."""

    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    max_size: int = 2**31 - 1
    max_count: int = 2**31 - 1
    max_offset_metadata_size: int = 4_096
    commit_required_acks: int = -1
    commit_timeout_ms: int = 5_000
    offsets_retention_minutes: int = 10_080
    retention_check_interval_ms: int = 600_000
    offsets_compression: int = 0
    offsets_partitions: int = 50

    @classmethod
    def from_config(cls, config: "BrokerConfig") -> "GroupSettings":
        return cls(
            min_session_timeout_ms=config.get_int("group.min.session.timeout.ms"),
            max_session_timeout_ms=config.get_int("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms=config.get_int("group.initial.rebalance.delay.ms"),
            max_count=config.get_int("group.max.count"),
            max_size=config.get_int("group.max.size"),
            max_offset_metadata_size=config.get_int("offset.metadata.max.bytes"),
            commit_required_acks=config.get_int("offsets.commit.required.acks"),
            commit_timeout_ms=config.get_int("offsets.commit.timeout.ms"),
            offsets_retention_minutes=config.get_int("offsets.retention.minutes"),
            retention_check_interval_ms=config.get_int("offsets.retention.check.interval.ms"),
            offsets_compression=config.get_int("offsets.topic.compression.codec"),
            offsets_partitions=config.get_int("offsets.topic.num.partitions"),
        )
