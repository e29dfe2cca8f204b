"""Where clients may come from: networks that a listener lets in, and named sets of them.

Made from ``source.allow``, ``source.deny`` and ``source.rule.sets`` once when they change; asked
for every accepted connection. Imported only where somebody has set them.
"""

import re
import socket
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from kavka.config.limits import SOURCE_RULE_SETS_MAX
from kavka.config.option import ConfigError
from kavka.config.options import base_name

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig

ALLOW: Final = "source.allow"
DENY: Final = "source.deny"
SETS: Final = "source.rule.sets"

Network: TypeAlias = IPv4Network | IPv6Network

_SET_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


class Networks:
    """A set of addresses, of both families."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[Network]) -> None:
        v4, v6 = [], []
        for network in networks:
            if isinstance(network, IPv4Network):
                v4.append(network)
            else:
                v6.append(network)
        self._v4 = _Ranges(collapse_addresses(v4))
        self._v6 = _Ranges(collapse_addresses(v6))

    def __contains__(self, ip: str) -> bool:
        if ":" in ip:
            address = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
            return int.from_bytes(address) in self._v6
        return int.from_bytes(socket.inet_pton(socket.AF_INET, ip)) in self._v4

    @property
    def everything(self) -> bool:
        """Whether every address is in it."""
        return self._v4.whole(32) and self._v6.whole(128)

    @property
    def nothing(self) -> bool:
        """Whether no address is in it."""
        return self._v4.empty and self._v6.empty


class _Ranges:
    """Numbers in disjoint ranges."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, networks: Iterable[IPv4Network] | Iterable[IPv6Network]) -> None:
        ordered = sorted((int(n.network_address), int(n.broadcast_address)) for n in networks)
        self._firsts = [first for first, _ in ordered]
        self._lasts = [last for _, last in ordered]

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def whole(self, bits: int) -> bool:
        return self._firsts == [0] and self._lasts == [(1 << bits) - 1]

    @property
    def empty(self) -> bool:
        return not self._firsts


class SourceRules(NamedTuple):
    """The rules of one listener."""

    allow: Networks
    deny: Networks
    of_brokers: bool
    """Whether other brokers come through this listener: they are let in whatever the rules say."""

    def refusing(self, ip: str) -> str | None:
        """The setting that keeps an address out; None when it is let in."""
        if ip in self.deny:
            return DENY
        return None if ip in self.allow else ALLOW


def rules_of(config: "BrokerConfig", listener: str, *, of_brokers: bool) -> SourceRules | None:
    """The rules of a listener; None when it lets everybody in.

    The listener of brokers has only rules given under its own name, unless it is the only one.
    Raises ConfigError for what is no address and for sets that do not exist or contain
    themselves.
    """
    sets = parse_sets(config.get_str(SETS))
    only_its_own = of_brokers and len(config.listeners) > 1

    def networks(key: str) -> Networks:
        entries = config.listener_value(listener, key)
        if only_its_own and not config.is_set_for_listener(listener, key):
            entries = config.defaults[key]
        assert isinstance(entries, tuple)
        return Networks(_expand(key, entries, sets))

    rules = SourceRules(networks(ALLOW), networks(DENY), of_brokers and not config.embedded)
    return None if rules.allow.everything and rules.deny.nothing else rules


def parse_sets(text: str) -> dict[str, frozenset[Network]]:
    """``source.rule.sets`` by name, with what the sets that are named inside contain.

    Raises ConfigError.
    """
    written: dict[str, list[str]] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, entries = part.partition("=")
        name = name.strip()
        if not equals or not _SET_NAME.fullmatch(name):
            raise ConfigError(
                SETS, f"Invalid set {part.strip()} in {SETS}: write it as name=address address"
            )
        if name in written:
            raise ConfigError(SETS, f"The set {name} stands in {SETS} twice")
        written[name] = entries.replace(",", " ").split()
    if len(written) > SOURCE_RULE_SETS_MAX:
        raise ConfigError(SETS, f"{SETS} may have at most {SOURCE_RULE_SETS_MAX} sets")
    sets: dict[str, frozenset[Network]] = {}

    def resolve(name: str, inside: tuple[str, ...]) -> None:
        if name in inside:
            raise ConfigError(SETS, f"The set {name} of {SETS} contains itself")
        if name in sets or name not in written:
            return
        for entry in written[name]:
            if entry.startswith("@"):
                resolve(entry[1:], (*inside, name))
        sets[name] = frozenset(_expand(SETS, written[name], sets))

    for name in written:
        resolve(name, ())
    return sets


def _expand(
    key: str, entries: Iterable[str], sets: Mapping[str, Iterable[Network]]
) -> list[Network]:
    found: list[Network] = []
    for entry in entries:
        if entry.startswith("@"):
            if entry[1:] not in sets:
                raise ConfigError(key, f"{key} names the set {entry}, which {SETS} does not have")
            found.extend(sets[entry[1:]])
            continue
        try:
            found.append(ip_network(entry, strict=False))
        except ValueError:
            raise ConfigError(
                key,
                f"Invalid address {entry} in {key}: write a network such as 10.0.0.0/8, an "
                "address, or @name for a set",
            ) from None
    return found


def check(config: "BrokerConfig") -> None:
    """Raise ConfigError for the first rule that is wrong, under whatever listener."""
    sets = parse_sets(config.get_str(SETS))
    for name, value in config.given():
        if (base_name(name) or name) in (ALLOW, DENY) and isinstance(value, tuple):
            _expand(name, value, sets)
