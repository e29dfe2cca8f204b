"""What an ACL says, in the codes of the protocol, and the filters that select ACLs.

Rules of ``ResourcePatternFilter`` and ``AccessControlEntryFilter`` (security reference §3.1, §3.4).
"""

import re
from enum import IntEnum
from typing import Final, NamedTuple

CLUSTER_NAME: Final = "kafka-cluster"
"""The name of the one cluster resource."""

WILDCARD: Final = "*"
"""As the name of a literal pattern: every resource; as a host: from everywhere."""

EVERYBODY: Final = "User:*"
"""The principal of entries that concern everybody."""

_PRINCIPAL: Final = re.compile(r"[^:]+:.+", re.DOTALL)


class Resource(IntEnum):
    """What something may be done to (``ResourceType``)."""

    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7

    @property
    def word(self) -> str:
        """The name in paths of the metadata store and in texts: ``TransactionalId``."""
        return _camel_case(self)


class Operation(IntEnum):
    """What may be done (``AclOperation``)."""

    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14

    @property
    def word(self) -> str:
        """The name in bodies of the metadata store: ``DescribeConfigs``."""
        return _camel_case(self)


class Permission(IntEnum):
    """Whether an entry gives or takes (``AclPermissionType``)."""

    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3

    @property
    def word(self) -> str:
        """The name in bodies of the metadata store: ``Allow``."""
        return _camel_case(self)


class PatternType(IntEnum):
    """How a pattern's name is meant (KIP-290). ``MATCH`` and ``ANY`` exist in filters only."""

    UNKNOWN = 0
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


def _camel_case(member: IntEnum) -> str:
    return "".join(part.capitalize() for part in member.name.split("_"))


class Pattern(NamedTuple):
    """The resources an ACL is about: the one of that name, or all whose names begin so."""

    resource: Resource
    name: str
    type: PatternType = PatternType.LITERAL

    def __str__(self) -> str:
        star = WILDCARD if self.type is PatternType.PREFIXED else ""
        return f"{self.resource.word}:{self.name}{star}"


class Entry(NamedTuple):
    """Who may, or may not, do what from where."""

    principal: str
    host: str
    operation: Operation
    permission: Permission


class Binding(NamedTuple):
    """One ACL: an entry and what it is about."""

    pattern: Pattern
    entry: Entry


class BindingFilter(NamedTuple):
    """Selects ACLs; None and ``ANY`` let everything through."""

    resource: Resource = Resource.ANY
    name: str | None = None
    type: PatternType = PatternType.ANY
    principal: str | None = None
    host: str | None = None
    operation: Operation = Operation.ANY
    permission: Permission = Permission.ANY

    def matches(self, binding: Binding) -> bool:
        """Whether an ACL is selected."""
        return self.matches_pattern(binding.pattern) and self.matches_entry(binding.entry)

    def matches_pattern(self, pattern: Pattern) -> bool:
        """Whether ACLs of the pattern may be selected."""
        if self.resource not in (Resource.ANY, pattern.resource):
            return False
        if self.type not in (PatternType.ANY, PatternType.MATCH, pattern.type):
            return False
        if self.name is None or self.name == pattern.name:
            return True
        if self.type is not PatternType.MATCH:
            return False
        if pattern.type is PatternType.PREFIXED:
            return self.name.startswith(pattern.name)
        return pattern.name == WILDCARD

    def matches_entry(self, entry: Entry) -> bool:
        """Whether an entry may be selected."""
        return (
            self.principal in (None, entry.principal)
            and self.host in (None, entry.host)
            and self.operation in (Operation.ANY, entry.operation)
            and self.permission in (Permission.ANY, entry.permission)
        )

    @property
    def only(self) -> Binding | None:
        """The one ACL that can be selected; None when there may be several."""
        if (
            self.name is None
            or self.principal is None
            or self.host is None
            or self.resource is Resource.ANY
            or self.type in (PatternType.ANY, PatternType.MATCH)
            or self.operation is Operation.ANY
            or self.permission is Permission.ANY
        ):
            return None
        return Binding(
            Pattern(self.resource, self.name, self.type),
            Entry(self.principal, self.host, self.operation, self.permission),
        )


def is_principal(text: str) -> bool:
    """Whether a text has the form ``Type:name`` (``SecurityUtils.parseKafkaPrincipal``)."""
    return _PRINCIPAL.fullmatch(text) is not None
