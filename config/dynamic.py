"""What may be changed while the broker runs, and how (``DynamicBrokerConfig``, KIP-226).

* A setting that is read-only cannot be changed; TLS and SASL ones only under a listener's prefix.
* Settings of one broker (addresses, keys) cannot be given as the cluster's default.
* A name that no table knows is kept and described, for whoever reads it.
* Thread counts move by at most a factor of two at a time.
* The strict profile lets the bandwidth of public listeners only be raised.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from kavka.config.broker import BrokerConfig
from kavka.config.option import ConfigError, Dynamic, Option
from kavka.config.options import (
    BROKER_OPTIONS,
    DYNAMIC_ONLY_OPTIONS,
    base_name,
    option_of,
    synonyms_of,
)
from kavka.config.profiles import profile_of
from kavka.config.security_table import SECURITY_OPTIONS

_PUBLIC_BANDWIDTH: Final = "public.bandwidth.mbits"
_THREAD_COUNTS: Final = (
    "num.io.threads",
    "num.network.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
    "log.cleaner.threads",
)
# Under a listener's prefix these have a cluster's default all the same.
_OF_ALL_BROKERS: Final = frozenset(
    {
        "max.connection.creation.rate",
        "max.connections",
        "num.network.threads",
        "source.allow",
        "source.deny",
    }
)


def dynamic_option(name: str) -> Option | None:
    """The row of a setting that may be in the metadata store; None for a name of nobody's."""
    return DYNAMIC_ONLY_OPTIONS.get(name) or option_of(name)


def is_dynamic(name: str) -> bool:
    """Whether the setting can be changed while the broker runs, under whatever prefix."""
    option = dynamic_option(name)
    return option is not None and option.dynamic is not Dynamic.READ_ONLY


def is_read_only(name: str) -> bool:
    """Whether DescribeConfigs calls it read-only: no name of its group can be changed."""
    return not any(is_dynamic(synonym) for synonym in synonyms_of(name))


def validate(config: BrokerConfig, overrides: Mapping[str, str], per_broker: bool) -> BrokerConfig:
    """Check a complete set of dynamic settings for this broker, or for the cluster's default;
    give the settings that they would make.

    Raises ConfigError for the first rule that is broken, in Kafka's words.
    """
    _refuse(
        (name for name in overrides if _is_fixed(name)), "Cannot update these configs dynamically"
    )
    _refuse(
        (name for name in overrides if name in SECURITY_OPTIONS),
        "These security configs can be dynamically updated only per-listener using the listener "
        "prefix",
    )
    for name, text in overrides.items():
        option = dynamic_option(name)
        if option is not None:
            option._replace(name=base_name(name) or name).parse(text)
        if base_name(name) == "sasl.jaas.config":
            _check_jaas(name, text)
    if not per_broker:
        _refuse(
            (name for name in overrides if _belongs_to_one_broker(name)),
            "Cannot update these configs at default cluster level, broker id must be specified",
        )
    if per_broker:
        changed = config.with_dynamic(config.dynamic_default, overrides)
    else:
        changed = config.with_dynamic(overrides, config.dynamic_broker)
    _check_thread_counts(config, changed)
    _check_listeners(config, changed)
    _check_public_bandwidth(config, changed)
    return changed


def _check_jaas(name: str, text: str) -> None:
    from kavka.config import jaas  # few brokers ever see one here

    try:
        jaas.parse_one(text)
    except jaas.JaasError as error:
        raise ConfigError(name, f"{name} cannot be read: {error}") from None


def _is_fixed(name: str) -> bool:
    option = dynamic_option(name)
    return option is not None and option.dynamic is Dynamic.READ_ONLY


def _belongs_to_one_broker(name: str) -> bool:
    base = base_name(name)
    if base is not None:
        return base not in _OF_ALL_BROKERS
    option = BROKER_OPTIONS.get(name)
    return option is not None and option.dynamic is Dynamic.PER_BROKER


def _refuse(names: Iterable[str], message: str) -> None:
    found = sorted(names)
    if found:
        raise ConfigError(found[0], f"{message}: Set({', '.join(found)})")


def _check_thread_counts(config: BrokerConfig, changed: BrokerConfig) -> None:
    for name in _THREAD_COUNTS:
        old, new = config.get_int(name), changed.get_int(name)
        if new == old:
            continue
        prefix = f"Dynamic thread count update validation failed for {name}={new}"
        if new <= 0:
            raise ConfigError(name, f"{prefix}, value should be at least 1")
        if new < old // 2:
            raise ConfigError(
                name, f"{prefix}, value should be at least half the current value {old}"
            )
        if new > old * 2:
            raise ConfigError(
                name, f"{prefix}, value should not be greater than double the current value {old}"
            )


def _check_public_bandwidth(config: BrokerConfig, changed: BrokerConfig) -> None:
    """Where it may only be raised: to have no limit is to have more than any."""
    old, new = config.get_int(_PUBLIC_BANDWIDTH), changed.get_int(_PUBLIC_BANDWIDTH)
    fallen = 0 < new < old
    if fallen and not profile_of(config).public_bandwidth_falls:
        raise ConfigError(
            _PUBLIC_BANDWIDTH,
            f"{_PUBLIC_BANDWIDTH} can only be raised in the {profile_of(config).name} profile: it "
            f"is {old}, not {new}",
        )


def _check_listeners(config: BrokerConfig, changed: BrokerConfig) -> None:
    """What an open listener speaks is fixed: its clients would not understand anything else. So
    is where brokers reach each other: they look that up once.
    """
    before = {endpoint.name: endpoint.protocol for endpoint in config.listeners}
    for endpoint in changed.listeners:
        if before.get(endpoint.name, endpoint.protocol) != endpoint.protocol:
            raise ConfigError(
                "listener.security.protocol.map",
                f"Security protocol cannot be updated for existing listener {endpoint.name}",
            )
    if config.embedded:
        return
    name = config.inter_broker_listener
    for key, old, new in (
        ("listeners", config.listeners, changed.listeners),
        ("advertised.listeners", config.advertised_listeners, changed.advertised_listeners),
    ):
        if {each for each in old if each.name == name} ^ {
            each for each in new if each.name == name
        }:
            raise ConfigError(
                key,
                f"The address of the listener of brokers, {name}, cannot be updated dynamically: "
                "change it in the broker's file and restart",
            )
