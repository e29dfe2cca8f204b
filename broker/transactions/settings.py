"""The settings of the transaction coordinator, read once: all of them are read-only in Kafka."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig


class TransactionSettings(NamedTuple):
    """Kafka's ``transaction.*`` settings; times in milliseconds."""

    max_timeout_ms: int = 900_000
    id_expiration_ms: int = 604_800_000
    timeout_check_interval_ms: int = 60_000
    expiry_check_interval_ms: int = 3_600_000
    request_timeout_ms: int = 30_000
    state_partitions: int = 50

    @classmethod
    def from_config(cls, config: "BrokerConfig") -> "TransactionSettings":
        return cls(
            max_timeout_ms=config.get_int("transaction.max.timeout.ms"),
            id_expiration_ms=config.get_int("transactional.id.expiration.ms"),
            timeout_check_interval_ms=config.get_int(
                "transaction.abort.timed.out.transaction.cleanup.interval.ms"
            ),
            expiry_check_interval_ms=config.get_int(
                "transaction.remove.expired.transaction.cleanup.interval.ms"
            ),
            request_timeout_ms=config.get_int("request.timeout.ms"),
            state_partitions=config.get_int("transaction.state.log.num.partitions"),
        )
