"""A topic's values: overrides over the broker's."""

import pytest

from kavka.config.broker import BrokerConfig
from kavka.config.options import ConfigError, UnknownOptionError
from kavka.config.topic import BROKER_KEYS, TOPIC_OPTIONS, TopicConfig, resolve, validate


def test_a_topic_lives_by_the_brokers_values() -> None:
    broker = BrokerConfig(
        {
            "log.cleanup.policy": "compact",
            "log.retention.hours": "1",
            "log.roll.hours": "2",
            "log.roll.jitter.hours": "1",
            "log.flush.scheduler.interval.ms": "50",
            "log.segment.bytes": "1000",
            "message.max.bytes": "99",
            "log.segment.delete.delay.ms": "7",
            "log.index.size.max.bytes": "80",
        }
    )
    config = resolve({}, broker)
    assert config.cleanup_policy == {"compact"}
    assert config.compact and not config.delete
    assert config.retention_ms == 3_600_000
    assert config.segment_ms == 7_200_000
    assert config.segment_jitter_ms == 3_600_000
    assert config.flush_ms == 50
    assert config.segment_bytes == 1000
    assert config.max_message_bytes == 99
    assert config.file_delete_delay_ms == 7
    assert config.segment_index_bytes == 80
    assert config.leader_replication_throttled_replicas == ()


def test_overrides_win() -> None:
    config = resolve(
        {
            "cleanup.policy": "compact,delete",
            "retention.ms": "-1",
            "flush.messages": "1",
            "min.insync.replicas": "2",
            "compression.type": "zstd",
            "message.timestamp.type": "LogAppendTime",
            "min.cleanable.dirty.ratio": "0.1",
            "preallocate": "true",
        },
        BrokerConfig(),
    )
    assert config.compact and config.delete
    assert config.retention_ms == -1
    assert config.flush_messages == 1
    assert config.min_insync_replicas == 2
    assert config.compression_type == "zstd"
    assert config.message_timestamp_type == "LogAppendTime"
    assert config.min_cleanable_dirty_ratio == 0.1
    assert config.preallocate is True


def test_defaults() -> None:
    config = resolve({}, BrokerConfig())
    assert config.max_message_bytes == 10 * 1024 * 1024
    assert config.retention_ms == 72 * 3600 * 1000
    assert config.flush_messages == config.flush_ms == 2**63 - 1


def test_every_setting_is_an_attribute() -> None:
    config = resolve({}, BrokerConfig())
    attributes = {name.replace(".", "_") for name in TOPIC_OPTIONS}
    assert set(TopicConfig.__slots__) == attributes
    assert all(hasattr(config, name) for name in attributes)


def test_a_brokers_change_of_any_key_of_topics_is_heard() -> None:
    assert {"log.retention.ms", "log.retention.hours", "log.cleanup.policy"} <= BROKER_KEYS
    broker = BrokerConfig()
    heard: list[frozenset[str]] = []
    broker.on_change(BROKER_KEYS, heard.append)
    broker.set_dynamic_default({"min.insync.replicas": "2"})
    assert heard == [{"min.insync.replicas"}]
    assert resolve({}, broker).min_insync_replicas == 2


@pytest.mark.parametrize(
    ("overrides", "before", "after"),
    [
        ({}, 2**63 - 1, 2**63 - 1),
        ({"message.timestamp.difference.max.ms": "5"}, 5, 5),
        ({"message.timestamp.difference.max.ms": "5", "message.timestamp.after.max.ms": "7"}, 5, 7),
        ({"message.timestamp.before.max.ms": "3"}, 3, 2**63 - 1),
    ],
)
def test_timestamp_bounds(overrides: dict[str, str], before: int, after: int) -> None:
    config = resolve(overrides, BrokerConfig())
    assert config.message_timestamp_before_max_ms == before
    assert config.message_timestamp_after_max_ms == after


def test_validation_tells_unknown_names_and_bad_values_apart() -> None:
    validate({"retention.ms": "1", "cleanup.policy": ""})
    with pytest.raises(UnknownOptionError, match=r"^Unknown topic config name: foo$"):
        validate({"foo": "1"})
    with pytest.raises(UnknownOptionError):
        validate({"retention.ms": "x", "foo": "1"})  # names first, as in Kafka
    with pytest.raises(ConfigError, match="Not a number of type LONG"):
        validate({"retention.ms": "x"})
    with pytest.raises(ConfigError, match="Null value not supported"):
        validate({"retention.ms": None})


def test_compaction_lags_must_not_cross() -> None:
    with pytest.raises(ConfigError) as caught:
        validate({"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"})
    assert caught.value.message == (
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
    )
    validate({"min.compaction.lag.ms": "10"})
    validate({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"})


def test_overrides_of_a_later_kafka_are_passed_over() -> None:
    assert resolve({"remote.storage.enable": "true"}, BrokerConfig()).retention_ms > 0
    with pytest.raises(ConfigError):
        resolve({"retention.ms": "x"}, BrokerConfig())
