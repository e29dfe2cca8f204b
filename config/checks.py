"""Rules that tie several broker settings together (``KafkaConfig.validateValues``)."""

from typing import TYPE_CHECKING

from kavka.config import profiles
from kavka.config.listeners import ALL_INTERFACES
from kavka.config.option import ConfigError, invalid

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig

_MIB = 1024 * 1024


def check(config: "BrokerConfig") -> None:
    """Raise ConfigError for the first rule that the settings break together."""
    _check_identity(config)
    _check_log(config)
    _check_listeners(config)
    _check_connections(config)
    _check_replication(config)
    if config.has_source_rules:
        from kavka.config import sources  # most brokers let everybody in

        sources.check(config)


def parse_connection_overrides(text: str) -> dict[str, int]:
    """``max.connections.per.ip.overrides`` by host; ConfigError when it is not host:count,…"""
    key = "max.connections.per.ip.overrides"
    overrides: dict[str, int] = {}
    for entry in text.split(","):
        if not entry.strip():
            continue
        host, _, count = entry.strip().rpartition(":")
        if not host or not (count.isascii() and count.isdigit()):
            raise invalid(key, text, "it must be host:count pairs separated by commas")
        overrides[host] = int(count)
    return overrides


def _require(holds: bool, name: str, message: str) -> None:
    if not holds:
        raise ConfigError(name, message)


def _check_identity(config: "BrokerConfig") -> None:
    highest = config.get_int("reserved.broker.max.id")
    generated = config.get_bool("broker.id.generation.enable")
    _require(
        config.embedded or not generated or config.get_int("broker.id") <= highest,
        "broker.id",
        "broker.id must be equal or greater than -1 and not greater than reserved.broker.max.id",
    )
    _require(
        generated or config.broker_id >= 0,
        "broker.id",
        "broker.id must be equal or greater than 0 where broker.id.generation.enable is false",
    )


def _check_log(config: "BrokerConfig") -> None:
    _require(
        bool(config.log_dirs),
        "log.dirs",
        "At least one log directory must be defined via log.dirs or log.dir.",
    )
    _require(config.roll_ms >= 1, "log.roll.ms", "log.roll.ms must be equal or greater than 1")
    _require(
        config.roll_jitter_ms >= 0,
        "log.roll.jitter.ms",
        "log.roll.jitter.ms must be equal or greater than 0",
    )
    _require(
        config.retention_ms != 0,
        "log.retention.ms",
        "log.retention.ms must be unlimited (-1) or, equal or greater than 1",
    )
    buffer = config.get_int("log.cleaner.dedupe.buffer.size")
    _require(
        buffer > _MIB * config.get_int("log.cleaner.threads"),
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
    )


def _check_listeners(config: "BrokerConfig") -> None:
    both = config.is_set("inter.broker.listener.name") and config.is_set(
        "security.inter.broker.protocol"
    )
    _require(
        not both,
        "inter.broker.listener.name",
        "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set.",
    )
    protocols = config.security_protocols
    profiles.check_listeners(profiles.profile_of(config), config.listeners)
    listeners = {endpoint.name for endpoint in config.listeners}
    advertised = config.advertised_listeners
    names = {endpoint.name for endpoint in advertised}
    _require(
        names <= listeners,
        "advertised.listeners",
        "advertised.listeners listener names must be equal to or a subset of the ones defined in "
        f"listeners. Found {','.join(sorted(names))}. The valid options based on the current "
        f"configuration are {','.join(sorted(listeners))}",
    )
    for endpoint in advertised:
        _require(
            endpoint.host not in ALL_INTERFACES,
            "advertised.listeners",
            f"advertised.listeners cannot use the nonroutable meta-address {endpoint.host}. Use a "
            "routable IP address.",
        )
    for key in ("inter.broker.listener.name", "control.plane.listener.name"):
        name = config.get_optional_str(key)
        _require(
            name is None or name.upper() in protocols,
            key,
            f"Listener with name {name} defined in {key} not found in "
            "listener.security.protocol.map.",
        )
    # A broker that is alone talks to no other.
    _require(
        config.embedded or config.inter_broker_listener in names,
        "inter.broker.listener.name",
        "inter.broker.listener.name must be a listener name defined in advertised.listeners. The "
        "valid options based on currently configured listeners are " + ",".join(sorted(names)),
    )


def _check_connections(config: "BrokerConfig") -> None:
    overrides = config.max_connections_overrides
    _require(
        config.get_int("max.connections.per.ip") > 0 or bool(overrides),
        "max.connections.per.ip",
        "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides "
        "property is set.",
    )
    idle = config.get_int("connections.max.idle.ms")
    delay = config.get_int("connection.failed.authentication.delay.ms")
    _require(
        idle <= 0 or delay < idle,
        "connection.failed.authentication.delay.ms",
        f"connection.failed.authentication.delay.ms={delay} should always be less than "
        f"connections.max.idle.ms={idle} to prevent failed authentication responses from timing "
        "out",
    )
    queued = config.get_int("queued.max.request.bytes")
    _require(
        queued <= 0 or queued >= config.get_int("socket.request.max.bytes"),
        "queued.max.request.bytes",
        "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
    )


def _check_replication(config: "BrokerConfig") -> None:
    wait = config.get_int("replica.fetch.wait.max.ms")
    _require(
        wait <= config.get_int("replica.socket.timeout.ms"),
        "replica.socket.timeout.ms",
        "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent "
        "unnecessary socket timeouts",
    )
    _require(
        wait <= config.get_int("replica.lag.time.max.ms"),
        "replica.fetch.wait.max.ms",
        "replica.fetch.wait.max.ms should always be less than or equal to "
        "replica.lag.time.max.ms to prevent frequent changes in ISR",
    )
    acks = config.get_int("offsets.commit.required.acks")
    _require(
        -1 <= acks <= config.get_int("offsets.topic.replication.factor"),
        "offsets.commit.required.acks",
        "offsets.commit.required.acks must be greater or equal -1 and less or equal to "
        "offsets.topic.replication.factor",
    )
