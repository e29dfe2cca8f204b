"""Who may connect: how many in all, on a listener, from an address, and from where.

Two kinds of limits. Above ``max.connections`` or ``max.connection.creation.rate`` of the broker or
of a listener clients wait: the listener accepts nobody for a while. What concerns one address, and
what the instance's flavour allows, is refused at once: the connection is closed, counted and
logged.

The listener of brokers, where clients have others, is held up by its own limit only. When it has
pushed the broker above ``max.connections``, clients that were silent longest are closed.
"""

import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.config.flavours import Flavour, flavour_of
from kavka.config.limits import REFUSAL_LINES_PER_SECOND_MAX
from kavka.replication.rate import DEFAULT_SAMPLE_SECONDS, DEFAULT_SAMPLES, Rate

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig
    from kavka.config.sources import SourceRules
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.network")

UNLIMITED: Final = 2**31 - 1

MAX_CONNECTIONS: Final = "max.connections"
CREATION_RATE: Final = "max.connection.creation.rate"
PER_IP: Final = "max.connections.per.ip"
FLAVOUR: Final = "instance.flavour"
SOURCE: Final = "source"
RATE: Final = "connection_creation_rate"


class Samples(NamedTuple):
    """How rates are measured: ``quota.window.num`` samples of ``quota.window.size.seconds``."""

    number: int
    seconds: float


SAMPLES: Final = Samples(DEFAULT_SAMPLES, DEFAULT_SAMPLE_SECONDS)


class Limits(NamedTuple):
    """The settings that admission goes by."""

    maximum: int = UNLIMITED
    per_ip: int = UNLIMITED
    overrides: Mapping[str, int] = {}
    """Instead of ``per_ip``, by address."""
    by_listener: Mapping[str, int] = {}
    protected: str | None = None
    """The listener of brokers, where clients have others."""
    rate: int = UNLIMITED
    """Connections a second that clients may make."""
    rates: Mapping[str, int] = {}
    """The same of a listener; that of brokers has only its own."""
    flavour: Flavour | None = None
    sources: "Mapping[str, SourceRules]" = MappingProxyType({})
    """Who may come from where, by listener; those that let everybody in are not there."""


class Refused(NamedTuple):
    """Why a connection is not let in."""

    kind: str
    text: str
    hold: float = 0.0
    """Seconds until it is closed: who is told sooner only tries again sooner."""


class Admission:
    """Counts connections and refuses those above the limits. Owned by the event loop."""

    def __init__(self, limits: Limits, clock: "Clock", samples: Samples = SAMPLES) -> None:
        """``samples`` is how rates are measured."""
        self._clock = clock
        self._samples = samples
        self._paces: dict[str | None, Rate] = {}  # of listeners, and under None of the broker
        self.total = 0
        self.by_listener: Counter[str] = Counter()
        self.refusals = Refusals()
        self.live_brokers: Callable[[], int] = lambda: 1
        """How many brokers share what the flavour allows."""
        self.is_broker: Callable[[str], bool] = lambda ip: False
        """Whether a broker of the cluster has this address."""
        self.rate: Callable[[str], float] | None = None
        """Counts a connection from an address; seconds to hold it before it is closed, 0 to let
        it in (KIP-612)."""
        self.on_excess: Callable[[int], None] = lambda excess: None
        """Called to close so many connections of clients."""
        self._by_ip: dict[str, int] = {}
        self._waiting: list[Callable[[], None]] = []
        self._limits = limits

    @property
    def protected(self) -> str | None:
        """The listener of brokers, where clients have others."""
        return self._limits.protected

    def set_limits(self, limits: Limits) -> None:
        """Take over changed limits. They hold for connections to come, but ``max.connections``
        at once.
        """
        self._limits = limits
        self._shed()
        self._wake()

    # -- room -----------------------------------------------------------------------------

    def lacks_room(self, listener: str) -> str | None:
        """None if another connection may be accepted, else what has to be waited for."""
        limits = self._limits
        if self.total >= limits.maximum and listener != limits.protected:
            return f"the broker has {MAX_CONNECTIONS}={limits.maximum} connections"
        own = limits.by_listener.get(listener, UNLIMITED)
        if self.by_listener[listener] >= own:
            return f"the listener has {MAX_CONNECTIONS}={own} connections"
        return None

    def call_when_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when it is worth asking again whether there is room."""
        self._waiting.append(callback)

    def _wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()

    # -- one by one -----------------------------------------------------------------------

    def admit(self, listener: str, ip: str) -> Refused | None:
        """Count a connection from ``ip``, or say why there may not be this one."""
        limits = self._limits
        refused = self._refuse_source(listener, ip)
        if refused is not None:
            return refused
        if self.rate is not None and (hold := self.rate(ip)) > 0:
            return Refused(RATE, "the address makes connections too fast", hold)
        if limits.flavour is not None and listener != limits.protected:
            clients = self.total
            if limits.protected is not None:
                clients -= self.by_listener[limits.protected]
            share = limits.flavour.connections_of(self.live_brokers())
            if clients >= share:
                return Refused(
                    FLAVOUR,
                    f"the broker's share of the {limits.flavour.connections} connections of "
                    f"flavour {limits.flavour.name}, {share}, is used",
                )
        count = self._by_ip.get(ip, 0)
        limit = limits.overrides.get(ip, limits.per_ip)
        if count >= limit:
            return Refused(PER_IP, f"the address has {PER_IP}={limit} connections")
        self._by_ip[ip] = count + 1
        self.by_listener[listener] += 1
        self.total += 1
        self._shed()
        return None

    def pause(self, listener: str) -> float:
        """Count a connection that was let in; seconds for which the listener is to let in nobody.

        Clients wait then, as above ``max.connections`` (KIP-612).
        """
        limits = self._limits
        longest = 0.0
        for name, bound in ((listener, limits.rates.get(listener)), (None, limits.rate)):
            if bound is None or bound == UNLIMITED or (not name and listener == limits.protected):
                continue
            now = self._clock.monotonic()
            rate = self._paces.get(name)
            if rate is None:
                rate = self._paces[name] = Rate(*self._samples, now)
            rate.record(1, now)
            longest = max(longest, rate.excess(bound, now))
        return min(longest, self._samples.seconds)

    def _refuse_source(self, listener: str, ip: str) -> Refused | None:
        rules = self._limits.sources.get(listener)
        if rules is None:
            return None
        rule = rules.refusing(ip)
        if rule is None or (rules.of_brokers and self.is_broker(ip)):
            return None
        # Imported here because most brokers let everybody in.
        from kavka.broker.audit import audit_refused

        audit_refused(ip, listener, rule)
        return Refused(SOURCE, f"the address is not let in by {rule}")

    def leave(self, listener: str, ip: str) -> None:
        """A counted connection has closed."""
        self.total -= 1
        self.by_listener[listener] -= 1
        count = self._by_ip[ip] - 1
        if count:
            self._by_ip[ip] = count
        else:
            del self._by_ip[ip]
        self._wake()

    def _shed(self) -> None:
        limits = self._limits
        excess = self.total - limits.maximum
        if excess <= 0:
            return
        if limits.protected is not None:
            excess = min(excess, self.total - self.by_listener[limits.protected])
        if excess > 0:
            self.on_excess(excess)


class Refusals:
    """Counts refused connections, and bounds what is logged of them."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """Refused connections so far, by listener and kind of refusal."""
        self._lines = 0  # since the last report, as is the rest
        self._unlogged: Counter[str] = Counter()  # by address
        self._of_others = 0  # of addresses that are too many to be counted one by one

    def note(self, listener: str, ip: str, port: int, refused: Refused) -> bool:
        """Count a refusal; True for the first since the last report: one is to be scheduled."""
        self.counts[listener, refused.kind] += 1
        first = not self._lines
        if ip in self._unlogged:
            self._unlogged[ip] += 1
        elif self._lines < REFUSAL_LINES_PER_SECOND_MAX:
            self._lines += 1
            self._unlogged[ip] = 0
            facts = f"peer={format_peer(ip, port)} listener={listener}"
            log.warning("refusing connection: %s %s", refused.text, facts)
        else:
            self._of_others += 1
        return first

    def report(self) -> None:
        """Say what was not logged one by one since the last report, and count anew."""
        for ip, count in self._unlogged.items():
            if count:
                log.warning(
                    "refused further connections within a second count=%d peer=%s", count, ip
                )
        if self._of_others:
            log.warning(
                "refused connections of other addresses within a second count=%d", self._of_others
            )
        self._lines = self._of_others = 0
        self._unlogged.clear()


def format_peer(ip: str, port: int) -> str:
    """``host:port`` of a peer."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def limits_of(config: "BrokerConfig", listeners: Iterable[str]) -> Limits:
    """What the settings say about connections to these listeners.

    Host names among the overrides are looked up here, once. Raises ConfigError.
    """
    names = list(listeners)
    inter_broker = config.inter_broker_listener
    protected = inter_broker if inter_broker in names and len(names) > 1 else None
    overrides: dict[str, int] = {}
    for host, limit in config.max_connections_overrides.items():
        overrides.update(dict.fromkeys(_addresses_of(host), limit))

    def by_listener(key: str) -> dict[str, int]:
        return {
            name: own
            for name in names
            if config.is_set_for_listener(name, key)
            and isinstance(own := config.listener_value(name, key), int)
        }

    return Limits(
        maximum=config.get_int(MAX_CONNECTIONS),
        per_ip=config.get_int(PER_IP),
        overrides=overrides,
        by_listener=by_listener(MAX_CONNECTIONS),
        protected=protected,
        rate=config.get_int(CREATION_RATE),
        rates=by_listener(CREATION_RATE),
        flavour=flavour_of(config),
        sources=_sources(config, names, inter_broker),
    )


def _sources(
    config: "BrokerConfig", listeners: Iterable[str], inter_broker: str
) -> "dict[str, SourceRules]":
    if not config.has_source_rules:
        return {}
    from kavka.config import sources  # most brokers let everybody in

    rules = {
        name: sources.rules_of(config, name, of_brokers=name == inter_broker) for name in listeners
    }
    return {name: each for name, each in rules.items() if each is not None}


def _addresses_of(host: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    log.warning("a host of max.connections.per.ip.overrides is unknown host=%s", host)
    return []
