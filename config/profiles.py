"""What a profile means: the listeners of a managed instance, and the limits of its management.

``profile=default`` is a broker for the laptop: one listener on 127.0.0.1, nothing to set up.

``profile=managed`` has the listeners of the product that the manual describes, at its ports.
Those with a login exist where there is a key store (``ssl.keystore.location``): the manual's
SASL_SSL switch. The public ones are known by name, so that they need only be named in
``listeners`` to be opened, also while the broker runs. They listen on ``host.name``; several
brokers on one host need ``listeners`` of their own.

``profile=strict`` is that with every limit of the product that has no reason of ours. TLS 1.2 with
three suites belongs to it (``broker/security/tls``); the other limits stand here. They bind those
who manage an instance, by its console or API: Kafka's own tools are bound by Kafka's rules, and by
the caps of the flavour.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.config.listeners import Endpoint
from kavka.config.option import ConfigError, Value

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig

REPLICATION: Final = "REPLICATION"
INTERNAL_PLAIN: Final = "INTERNAL_PLAIN"
INTERNAL_SASL_SSL: Final = "INTERNAL_SASL_SSL"
PUBLIC_PLAIN: Final = "PUBLIC_PLAIN"
PUBLIC_SASL_SSL: Final = "PUBLIC_SASL_SSL"
CROSS_VPC: Final = "CROSS_VPC"

PORTS: Final[Mapping[str, int]] = {
    REPLICATION: 9091,
    INTERNAL_PLAIN: 9092,
    INTERNAL_SASL_SSL: 9093,
    PUBLIC_PLAIN: 9094,
    PUBLIC_SASL_SSL: 9095,
    CROSS_VPC: 9011,
}
"""The ports of the manual. No tool changes them; ``listeners`` in a broker's own file can."""

PUBLIC: Final = (PUBLIC_PLAIN, PUBLIC_SASL_SSL)

_KEY_STORE: Final = "ssl.keystore.location"


class Profile(NamedTuple):
    """The limits of those who manage an instance."""

    name: str
    partitions_of_new_topic_max: int
    partitions_of_topic_max: int = 100
    replicas_max: int = 3
    retention_hours_max: int = 168
    dots_in_topic_names: bool = True
    listeners_change: bool = True
    """Whether addresses to listen on may change, but for public ones."""
    public_over_ipv6: bool = True
    """Whether there can be public access by IPv6, and beside listeners that have IPv6."""
    public_bandwidth_falls: bool = True
    restarts_for_certificates: bool = False
    restarts_for_auto_creation: bool = False
    version_changes: bool = True


DEFAULT: Final = Profile("default", partitions_of_new_topic_max=100)
PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        DEFAULT,
        DEFAULT._replace(name="managed"),
        Profile(
            "strict",
            partitions_of_new_topic_max=20,
            dots_in_topic_names=False,
            listeners_change=False,
            public_over_ipv6=False,
            public_bandwidth_falls=False,
            restarts_for_certificates=True,
            restarts_for_auto_creation=True,
            version_changes=False,
        ),
    )
}


def profile_of(config: "BrokerConfig") -> Profile:
    """The profile of the broker."""
    return PROFILES[config.get_str("profile")]


# -- the layout of listeners ---------------------------------------------------------------


def defaults_of(static: Mapping[str, str], usual: Mapping[str, Value]) -> dict[str, Value]:
    """The defaults that a managed instance has instead of the ``usual`` ones.

    ``static`` is what its file says; a bad value there is refused elsewhere.
    """
    if static.get("profile", "default").strip() not in ("managed", "strict"):
        return {}
    login = _has_key_store(static)
    cross = "SASL_SSL" if login else "PLAINTEXT"
    protocols = {
        REPLICATION: "PLAINTEXT",
        INTERNAL_PLAIN: "PLAINTEXT",
        INTERNAL_SASL_SSL: "SASL_SSL",
        PUBLIC_PLAIN: "PLAINTEXT",
        PUBLIC_SASL_SSL: "SASL_SSL",
        CROSS_VPC: cross,
    }
    names = [REPLICATION, INTERNAL_PLAIN, *([INTERNAL_SASL_SSL] if login else []), CROSS_VPC]
    host = static.get("host.name", str(usual["host.name"])).strip()
    # A broker without peers has nobody to talk to there but tools on its own machine.
    hosts = {} if static.get("zookeeper.connect") else {REPLICATION: "127.0.0.1"}
    endpoints = [
        Endpoint(name, protocols[name], hosts.get(name, host), PORTS[name]) for name in names
    ]
    found: dict[str, Value] = {
        "listeners": ",".join(map(str, endpoints)),
        "listener.security.protocol.map": ",".join(
            (
                str(usual["listener.security.protocol.map"]),
                *(f"{name}:{protocol}" for name, protocol in protocols.items()),
            )
        ),
    }
    own = static.get("listeners", f"{REPLICATION}://").upper()
    if "security.inter.broker.protocol" not in static and f"{REPLICATION}://" in own:
        found["inter.broker.listener.name"] = REPLICATION
    return found


def _has_key_store(static: Mapping[str, str]) -> bool:
    own = f"listener.name.{INTERNAL_SASL_SSL.lower()}.{_KEY_STORE}"
    return bool(static.get(_KEY_STORE) or static.get(own))


def with_listeners(
    config: "BrokerConfig",
    opened: Mapping[str, Endpoint],
    closed: Iterable[str] = (),
    advertised: Mapping[str, tuple[str, int]] | None = None,
) -> dict[str, str]:
    """The dynamic settings of a broker that has other listeners than now.

    ``opened`` are listeners by name, also such as get another address; ``advertised`` the hosts
    and ports that clients are told, where they differ. For IncrementalAlterConfigs of a broker.
    """
    gone = set(closed)
    listeners = {each.name: each for each in config.listeners if each.name not in gone}
    told = {each.name: each for each in config.advertised_listeners if each.name not in gone}
    for name, endpoint in opened.items():
        listeners[name] = endpoint
        told[name] = endpoint._replace(host=endpoint.routable_host)
    for name, (host, port) in (advertised or {}).items():
        if name not in listeners:
            raise ConfigError("advertised.listeners", f"There is no listener {name}")
        told[name] = listeners[name]._replace(host=host, port=port)
    return {
        "listeners": ",".join(map(str, listeners.values())),
        "advertised.listeners": ",".join(map(str, told.values())),
    }


# -- what management may do ----------------------------------------------------------------


def check_addresses(
    profile: Profile, addresses: Mapping[int, str], brokers: Iterable[int], *, public: bool
) -> None:
    """Raise ConfigError unless every broker has an address of its own, and it alone.

    ``addresses`` are hosts by broker id, for public access or between networks.
    """
    from ipaddress import ip_address  # for management only

    key = "advertised.listeners"
    known = set(brokers)
    missing, unknown = sorted(known - addresses.keys()), sorted(addresses.keys() - known)
    if missing:
        raise ConfigError(key, f"Brokers without an address: {', '.join(map(str, missing))}")
    if unknown:
        raise ConfigError(key, f"There are no such brokers: {', '.join(map(str, unknown))}")
    owners: dict[str, int] = {}
    for broker, host in sorted(addresses.items()):
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if not host or (address is not None and address.is_unspecified):
            raise ConfigError(key, f"The address of broker {broker} is none that can be reached")
        if public and not profile.public_over_ipv6 and (address is None or address.version != 4):
            raise ConfigError(
                key, f"Public access needs an IPv4 address, but broker {broker} has {host}"
            )
        canonical = host.lower() if address is None else str(address)
        if canonical in owners:
            raise ConfigError(
                key, f"Brokers {owners[canonical]} and {broker} have the same address {host}"
            )
        owners[canonical] = broker


def check_listeners(profile: Profile, endpoints: Iterable[Endpoint]) -> None:
    """Raise ConfigError for public listeners beside IPv6, where the profile excludes that."""
    listening = list(endpoints)
    public = [each for each in listening if each.name in PUBLIC]
    six = [each for each in listening if ":" in each.host]
    if public and six and not profile.public_over_ipv6:
        raise ConfigError(
            "listeners",
            f"Public access and IPv6 exclude each other in the {profile.name} profile: {public[0]} "
            f"and {six[0]}",
        )


def check_topic(
    profile: Profile,
    *,
    name: str,
    partitions: int,
    replicas: int,
    retention_hours: int | None = None,
    grown: bool = False,
) -> None:
    """Raise ConfigError for a topic that management may not make, or let grow (``grown``)."""
    most = profile.partitions_of_topic_max if grown else profile.partitions_of_new_topic_max
    _require_range("partitions", partitions, most)
    _require_range("replicas", replicas, profile.replicas_max)
    if retention_hours is not None:
        _require_range("retention hours", retention_hours, profile.retention_hours_max)
    if "." in name and not profile.dots_in_topic_names:
        raise ConfigError("name", f"The name of topic {name} must not have a dot")


def _require_range(what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ConfigError(what, f"A topic has 1 to {most} {what}, not {value}")
