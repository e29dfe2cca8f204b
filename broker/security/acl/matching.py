"""The decision over ACLs (``AclAuthorizer.authorize``; security reference §3.3).

A Deny that fits wins over every Allow. Allowing READ, WRITE, DELETE or ALTER also allows
DESCRIBE, and ALTER_CONFIGS also DESCRIBE_CONFIGS; denying them does not deny the other.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from kavka.broker.security.acl.model import (
    EVERYBODY,
    WILDCARD,
    Binding,
    Entry,
    Operation,
    Pattern,
    PatternType,
    Permission,
    Resource,
)

_NOBODY: Final[frozenset[Entry]] = frozenset()
_IMPLY: Final = {
    Operation.DESCRIBE: frozenset(
        (Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER)
    ),
    Operation.DESCRIBE_CONFIGS: frozenset((Operation.ALTER_CONFIGS,)),
}


class AclTable:
    """All ACLs there are, arranged for finding those of a resource."""

    def __init__(self) -> None:
        self._literal: dict[tuple[Resource, str], frozenset[Entry]] = {}
        # By resource, then length of the prefix: a name is cut to each length and looked up.
        self._prefixed: dict[Resource, dict[int, dict[str, frozenset[Entry]]]] = {}

    def replace(self, pattern: Pattern, entries: Iterable[Entry]) -> None:
        """Make ``entries`` the ACLs of a pattern; none at all removes it."""
        kept = frozenset(entries)
        resource, name, kind = pattern
        if kind is PatternType.LITERAL:
            if kept:
                self._literal[resource, name] = kept
            else:
                self._literal.pop((resource, name), None)
            return
        lengths = self._prefixed.setdefault(resource, {})
        if kept:
            lengths.setdefault(len(name), {})[name] = kept
        elif len(name) in lengths:
            lengths[len(name)].pop(name, None)
            if not lengths[len(name)]:
                del lengths[len(name)]

    def clear(self) -> None:
        """Forget everything."""
        self._literal.clear()
        self._prefixed.clear()

    def entries(self, pattern: Pattern) -> frozenset[Entry]:
        """The ACLs of exactly this pattern."""
        if pattern.type is PatternType.LITERAL:
            return self._literal.get((pattern.resource, pattern.name), _NOBODY)
        lengths = self._prefixed.get(pattern.resource, {})
        return lengths.get(len(pattern.name), {}).get(pattern.name, _NOBODY)

    def __iter__(self) -> Iterator[Pattern]:
        for resource, name in self._literal:
            yield Pattern(resource, name, PatternType.LITERAL)
        for resource, lengths in self._prefixed.items():
            for names in lengths.values():
                for name in names:
                    yield Pattern(resource, name, PatternType.PREFIXED)

    def bindings(self) -> Iterator[Binding]:
        """Every ACL."""
        for pattern in self:
            for entry in self.entries(pattern):
                yield Binding(pattern, entry)

    def about(self, resource: Resource, name: str) -> list[Entry]:
        """The ACLs that concern a resource: of its name, of all names, of what it begins with."""
        found = [
            *self._literal.get((resource, name), ()),
            *self._literal.get((resource, WILDCARD), ()),
        ]
        for length, names in self._prefixed.get(resource, {}).items():
            found.extend(names.get(name[:length], ()))
        return found


def decide(
    entries: Iterable[Entry], principal: str, host: str, operation: Operation
) -> bool | None:
    """Whether the ACLs that concern a resource let ``principal`` do ``operation`` to it.

    None when there are no ACLs: the broker's settings decide. ``host`` is a :func:`bare_host`.
    """
    implied_by = _IMPLY.get(operation, frozenset())
    verdict: bool | None = None
    for entry in entries:
        if verdict is None:
            verdict = False
        if entry.principal not in (principal, EVERYBODY) or not _is_from(entry, host):
            continue
        if entry.permission is Permission.ALLOW:
            if entry.operation in (operation, Operation.ALL) or entry.operation in implied_by:
                verdict = True
        elif entry.operation in (operation, Operation.ALL):
            return False
    return verdict


def decide_any(
    table: AclTable,
    principal: str,
    host: str,
    operation: Operation,
    resource: Resource,
    *,
    open_by_default: bool,
) -> bool:
    """Whether ``principal`` may do ``operation`` to some resource of a type (KIP-679).

    That is so when an Allow is not wholly covered by Denies: those of the same name, of a
    prefix of it, or of all names. ``open_by_default`` stands for allow.everyone.if.no.acl.found.
    """
    allowed: list[Pattern] = []
    denied: set[Pattern] = set()
    for pattern, entry in table.bindings():
        if (
            pattern.resource is resource
            and entry.principal in (principal, EVERYBODY)
            and _is_from(entry, host)
            and entry.operation in (operation, Operation.ALL)
        ):
            if entry.permission is Permission.ALLOW:
                allowed.append(pattern)
            else:
                denied.add(pattern)
    if Pattern(resource, WILDCARD) in denied:
        return False
    return open_by_default or any(not _is_covered(pattern, denied) for pattern in allowed)


def _is_covered(pattern: Pattern, denied: set[Pattern]) -> bool:
    resource, name, kind = pattern
    if kind is PatternType.LITERAL:
        if name == WILDCARD:
            return False
        if pattern in denied:
            return True
    return any(
        Pattern(resource, name[:length], PatternType.PREFIXED) in denied
        for length in range(1, len(name) + 1)
    )


def bare_host(host: str) -> str:
    """An address as ACLs name it: Java's spelling of it, without a slash in front."""
    host = host.removeprefix("/")
    if ":" not in host:
        return host
    from ipaddress import ip_address

    address, _, _zone = host.partition("%")
    try:
        parsed = ip_address(address)
    except ValueError:
        return host
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return ":".join(f"{int(group, 16):x}" for group in parsed.exploded.split(":"))


def _is_from(entry: Entry, host: str) -> bool:
    """Whether an entry concerns a client at the address ``host``, however it spells IPv6."""
    return entry.host in (host, WILDCARD) or (":" in entry.host and bare_host(entry.host) == host)
