"""One broker's settings: defaults, the static file, and what the metadata store lays over it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from kavka.config import checks, profiles
from kavka.config.listeners import Endpoint, parse_endpoints, parse_protocol_map
from kavka.config.option import ConfigError, Dynamic, UnknownOptionError, Value
from kavka.config.options import BROKER_OPTIONS, DYNAMIC_ONLY_OPTIONS, base_name, option_of

log = logging.getLogger("kavka.config")

Listener: TypeAlias = Callable[[frozenset[str]], None]

_DEFAULTS: Final[dict[str, Value]] = {
    option.name: option.default
    for option in (*BROKER_OPTIONS.values(), *DYNAMIC_ONLY_OPTIONS.values())
}

_SOURCE_RULES: Final = frozenset({"source.allow", "source.deny", "source.rule.sets"})

# A broker with the embedded store is its own only replica.
_ALONE: Final[dict[str, Value]] = {
    "broker.id": 1,
    "default.replication.factor": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
}

_MS_PER_MINUTE: Final = 60_000
_MS_PER_HOUR: Final = 3_600_000


class BrokerConfig:
    """Typed access to settings by Kafka's own names.

    Layers, later ones win: defaults, static (file, environment, command line), the cluster's
    dynamic default, this broker's dynamic values (KIP-226). The layers hold texts as they were
    given, which DescribeConfigs shows; getters answer from parsed values.

    Raises ConfigError at construction for an unknown name, a bad value, or values that exclude
    each other.
    """

    __slots__ = (
        "_replaced",
        "_subscribers",
        "_values",
        "defaults",
        "dynamic_broker",
        "dynamic_default",
        "static",
    )

    def __init__(self, static: Mapping[str, str] | None = None) -> None:
        self.static: dict[str, str] = dict(static or {})
        self.dynamic_default: dict[str, str] = {}
        self.dynamic_broker: dict[str, str] = {}
        self.defaults: dict[str, Value] = dict(_DEFAULTS)
        if not self.static.get("zookeeper.connect"):
            self.defaults.update(_ALONE)
        self.defaults.update(profiles.defaults_of(self.static, self.defaults))
        self._subscribers: list[tuple[frozenset[str], Listener]] = []
        self._replaced: list[Callable[[], None]] = []
        self._values = self._parsed({})
        checks.check(self)

    def _parsed(self, dynamic: Mapping[str, Value]) -> dict[str, Value]:
        values = dict(self.defaults)
        for name, text in self.static.items():
            option = option_of(name)
            if option is None:
                raise UnknownOptionError(name, f"{name} is no setting of this broker")
            values[name] = option._replace(name=name).parse(text)
        values.update(dynamic)
        return values

    # -- getters ---------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        """The value in force; LIST settings as a tuple. KeyError for a name that is in no table."""
        return self._values[name]

    def has_value(self, name: str) -> bool:
        """Whether ``value`` knows the name: every setting, and those given under a prefix."""
        return name in self._values

    def get_int(self, name: str) -> int:
        """The value of an INT, SHORT or LONG setting that has one."""
        value = self._values[name]
        assert type(value) is int, name
        return value

    get_long = get_int

    def get_bool(self, name: str) -> bool:
        """The value of a BOOLEAN setting."""
        value = self._values[name]
        assert type(value) is bool, name
        return value

    def get_float(self, name: str) -> float:
        """The value of a DOUBLE setting."""
        value = self._values[name]
        assert type(value) is float, name
        return value

    def get_str(self, name: str) -> str:
        """The value of a text setting that has one."""
        value = self._values[name]
        assert type(value) is str, name
        return value

    def get_optional_str(self, name: str) -> str | None:
        """The value of a text setting; None when it is not set."""
        value = self._values[name]
        assert value is None or type(value) is str, name
        return value

    def get_optional_int(self, name: str) -> int | None:
        """The value of a whole-number setting; None when it is not set."""
        value = self._values[name]
        assert value is None or type(value) is int, name
        return value

    def get_list(self, name: str) -> list[str]:
        """The members of a LIST setting."""
        value = self._values[name]
        assert type(value) is tuple, name
        return list(value)

    def listener_value(self, listener: str, name: str, mechanism: str | None = None) -> Value:
        """The value of ``name`` for one listener: the most particular one that is given.

        ``listener.name.<listener>.<mechanism>.<name>`` if a SASL mechanism is asked for, then
        ``listener.name.<listener>.<name>``, then ``name`` (KIP-103, KIP-86).
        """
        prefix = f"listener.name.{listener.lower()}."
        if mechanism is not None:
            particular = f"{prefix}{mechanism.lower()}.{name}"
            if particular in self._values:
                return self._values[particular]
        prefixed = prefix + name
        return self._values[prefixed if prefixed in self._values else name]

    def is_set_for_listener(self, listener: str, name: str) -> bool:
        """Whether the setting has a value given for just this listener."""
        return f"listener.name.{listener.lower()}.{name}" in self._values

    def given(self) -> Iterator[tuple[str, Value]]:
        """Every setting that has been given a value, wherever, with that in force."""
        for name in {**self.static, **self.dynamic_default, **self.dynamic_broker}:
            if name in self._values:
                yield name, self._values[name]

    @property
    def has_source_rules(self) -> bool:
        """Whether anybody has said where clients may come from."""
        return any((base_name(name) or name) in _SOURCE_RULES for name, _ in self.given())

    def is_set(self, name: str) -> bool:
        """Whether somebody gave the setting a value, wherever."""
        return name in self.static or name in self.dynamic_default or name in self.dynamic_broker

    # -- values made of several settings -----------------------------------------------------

    @property
    def embedded(self) -> bool:
        """Whether this broker is alone, with its own metadata store."""
        return not self.get_optional_str("zookeeper.connect")

    @property
    def broker_id(self) -> int:
        """The configured id; -1 when ZooKeeper is to give one."""
        broker_id = self.get_int("broker.id")
        return 1 if broker_id == -1 and self.embedded else broker_id

    @property
    def log_dirs(self) -> list[str]:
        """Data directories: ``log.dirs``, else ``log.dir``."""
        text = self.get_optional_str("log.dirs")
        if text is None:
            text = self.get_str("log.dir")
        return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))

    @property
    def retention_ms(self) -> int:
        """``log.retention.ms``, else minutes, else hours; -1 is for ever."""
        retention = self.get_optional_int("log.retention.ms")
        if retention is None:
            minutes = self.get_optional_int("log.retention.minutes")
            if minutes is not None:
                retention = minutes * _MS_PER_MINUTE
            else:
                retention = self.get_int("log.retention.hours") * _MS_PER_HOUR
        return max(retention, -1)

    @property
    def roll_ms(self) -> int:
        """``log.roll.ms``, else hours."""
        roll = self.get_optional_int("log.roll.ms")
        return self.get_int("log.roll.hours") * _MS_PER_HOUR if roll is None else roll

    @property
    def roll_jitter_ms(self) -> int:
        """``log.roll.jitter.ms``, else hours."""
        jitter = self.get_optional_int("log.roll.jitter.ms")
        return self.get_int("log.roll.jitter.hours") * _MS_PER_HOUR if jitter is None else jitter

    @property
    def flush_interval_ms(self) -> int:
        """``log.flush.interval.ms``, else the interval of the flush scheduler."""
        interval = self.get_optional_int("log.flush.interval.ms")
        return self.get_int("log.flush.scheduler.interval.ms") if interval is None else interval

    def effective(self, name: str) -> Value:
        """The value in force, where ``log.retention.ms`` and its like stand for their group."""
        match name:
            case "log.retention.ms":
                return self.retention_ms
            case "log.roll.ms":
                return self.roll_ms
            case "log.roll.jitter.ms":
                return self.roll_jitter_ms
            case "log.flush.interval.ms":
                return self.flush_interval_ms
            case _:
                return self._values[name]

    @property
    def zookeeper_connection_timeout_ms(self) -> int:
        """``zookeeper.connection.timeout.ms``, else the session time-out."""
        timeout = self.get_optional_int("zookeeper.connection.timeout.ms")
        return self.get_int("zookeeper.session.timeout.ms") if timeout is None else timeout

    @property
    def security_protocols(self) -> dict[str, str]:
        """Security protocol by listener name; a profile's names need not be repeated."""
        key = "listener.security.protocol.map"
        protocols = parse_protocol_map(self.get_str(key))
        if self.is_set(key) and self.get_str("profile") != "default":
            protocols = {**parse_protocol_map(str(self.defaults[key])), **protocols}
        return protocols

    @property
    def listeners(self) -> list[Endpoint]:
        """Addresses to listen on: ``listeners``, else PLAINTEXT on host.name and port."""
        text = self.get_optional_str("listeners")
        if text is None:
            host = self.get_str("host.name")
            return [Endpoint("PLAINTEXT", "PLAINTEXT", host, self.get_int("port"))]
        return parse_endpoints("listeners", text, self.security_protocols)

    @property
    def advertised_listeners(self) -> list[Endpoint]:
        """Addresses told to clients: ``advertised.listeners``, else the listeners.

        The caller fills in what listeners leave open: an empty host (this machine's name), port 0
        (the port really bound). An address that means "all interfaces" leaves the host open too,
        where Kafka would not start.
        """
        text = self.get_optional_str("advertised.listeners")
        if text is not None:
            return parse_endpoints("advertised.listeners", text, self.security_protocols)
        host = port = None
        if not self.is_set("listeners"):
            host = self.get_optional_str("advertised.host.name")
            if self.get_optional_str("listeners") is None:  # else there are several
                port = self.get_optional_int("advertised.port")
        return [
            endpoint._replace(
                host=endpoint.routable_host if host is None else host,
                port=endpoint.port if port is None else port,
            )
            for endpoint in self.listeners
        ]

    @property
    def inter_broker_listener(self) -> str:
        """Name of the listener brokers use among themselves."""
        name = self.get_optional_str("inter.broker.listener.name")
        return self.get_str("security.inter.broker.protocol") if name is None else name.upper()

    @property
    def max_connections_overrides(self) -> dict[str, int]:
        """Limits of ``max.connections.per.ip.overrides`` by host."""
        return checks.parse_connection_overrides(self.get_str("max.connections.per.ip.overrides"))

    # -- dynamic layers ----------------------------------------------------------------------

    def on_change(self, names: Iterable[str], callback: Listener) -> None:
        """Call ``callback`` with those of ``names`` whose value in force has changed.

        Each name stands for itself under listeners' prefixes too; it is given as it stands there.
        """
        self._subscribers.append((frozenset(names), callback))

    def on_replaced(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when dynamic settings were written, be it to the values they had."""
        self._replaced.append(callback)

    def set_dynamic_default(self, overrides: Mapping[str, str]) -> None:
        """Replace the cluster's dynamic default by what the metadata store now holds."""
        self._replace_dynamic(overrides, self.dynamic_broker)

    def set_dynamic_broker(self, overrides: Mapping[str, str]) -> None:
        """Replace this broker's dynamic values by what the metadata store now holds."""
        self._replace_dynamic(self.dynamic_default, overrides)

    def with_dynamic(self, default: Mapping[str, str], broker: Mapping[str, str]) -> "BrokerConfig":
        """A copy whose dynamic layers are these. Raises ConfigError where they do not fit."""
        copy = object.__new__(BrokerConfig)
        copy.static, copy.defaults = self.static, self.defaults
        copy._subscribers, copy._replaced = [], []
        copy.dynamic_default, copy.dynamic_broker = dict(default), dict(broker)
        copy._values = copy._parsed({**_usable(default), **_usable(broker)})
        checks.check(copy)
        return copy

    def _replace_dynamic(self, default: Mapping[str, str], broker: Mapping[str, str]) -> None:
        try:
            changed_to = self.with_dynamic(default, broker)
        except ConfigError as error:
            # The rest of the cluster may live with them; a broker they do not fit keeps its own.
            log.error("Dynamic settings do not fit this broker and are left out. reason=%s", error)
            return
        before, self._values = self._values, changed_to._values
        self.dynamic_default = changed_to.dynamic_default
        self.dynamic_broker = changed_to.dynamic_broker
        changed = frozenset(
            name
            for name in before.keys() | self._values.keys()
            if before.get(name) != self._values.get(name)
        )
        if changed:
            log.info("Dynamic settings changed. names=%s", ",".join(sorted(changed)))
        for names, callback in self._subscribers:
            concerned = frozenset(n for n in changed if n in names or base_name(n) in names)
            if concerned:
                callback(concerned)
        for replaced in self._replaced:
            replaced()


def _usable(overrides: Mapping[str, str]) -> dict[str, Value]:
    """The dynamic values that can be in force; others were not let in by this broker's rules."""
    values: dict[str, Value] = {}
    for name, text in overrides.items():
        option = DYNAMIC_ONLY_OPTIONS.get(name) or option_of(name)
        if option is None:
            continue  # somebody's own name: kept and described, nothing acts on it
        if option.dynamic is Dynamic.READ_ONLY:
            log.error("A setting that is read-only is ignored where it is dynamic. name=%s", name)
            continue
        try:
            values[name] = option._replace(name=name).parse(text)
        except ConfigError as error:
            log.error("A dynamic setting is ignored. name=%s reason=%s", name, error)
    return values
