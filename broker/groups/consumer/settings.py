"""The settings of the consumer protocol, read once."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig


class ConsumerGroupSettings(NamedTuple):
    """Kafka's ``group.consumer.*``; times in milliseconds. The first assignor is the default."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    max_size: int = 2**31 - 1
    assignors: tuple[str, ...] = ("uniform", "range")

    @classmethod
    def from_config(cls, config: "BrokerConfig") -> "ConsumerGroupSettings":
        return cls(
            session_timeout_ms=config.get_int("group.consumer.session.timeout.ms"),
            heartbeat_interval_ms=config.get_int("group.consumer.heartbeat.interval.ms"),
            max_size=config.get_int("group.consumer.max.size"),
            assignors=tuple(config.get_list("group.consumer.assignors")),
        )
