"""ACLs in the metadata store: paths and bodies of Kafka's (security reference §3.2).

Literal patterns lie under ``/kafka-acl``, prefixed ones, which came later, under
``/kafka-acl-extended``, each with announcements of changes of their own.
"""

from collections.abc import Iterable
from typing import Final

from kavka.broker.security.acl.model import (
    Entry,
    Operation,
    Pattern,
    PatternType,
    Permission,
    Resource,
)
from kavka.replication.znodes import BadNode, dump_body, load_body

LITERAL_ROOT: Final = "/kafka-acl"
LITERAL_CHANGES: Final = "/kafka-acl-changes"
PREFIXED_ROOT: Final = "/kafka-acl-extended/prefixed"
PREFIXED_CHANGES: Final = "/kafka-acl-extended-changes"
CHANGE_PREFIX: Final = "acl_changes_"

ROOTS: Final = {PatternType.LITERAL: LITERAL_ROOT, PatternType.PREFIXED: PREFIXED_ROOT}
RESOURCES: Final = {
    resource.word: resource for resource in Resource if resource > Resource.ANY
}  # by the word in a path
_OPERATIONS: Final = {
    operation.word: operation for operation in Operation if operation > Operation.ANY
}
_PERMISSIONS: Final = {each.word: each for each in (Permission.DENY, Permission.ALLOW)}

PERSISTENT_PATHS: Final = (
    LITERAL_ROOT,
    LITERAL_CHANGES,
    "/kafka-acl-extended",
    PREFIXED_ROOT,
    PREFIXED_CHANGES,
    # Not User: Kafka 2.3 does not start where it finds a type that it does not know.
    *(
        f"{root}/{resource.word}"
        for root in ROOTS.values()
        for resource in (
            Resource.TOPIC,
            Resource.GROUP,
            Resource.CLUSTER,
            Resource.TRANSACTIONAL_ID,
            Resource.DELEGATION_TOKEN,
        )
    ),
)
"""What the first broker with an authorizer creates, parents first."""


def type_path(resource: Resource, kind: PatternType) -> str:
    """Where the patterns of a resource type are."""
    return f"{ROOTS[kind]}/{resource.word}"


def pattern_path(pattern: Pattern) -> str:
    """Where the ACLs of a pattern are."""
    return f"{type_path(pattern.resource, pattern.type)}/{pattern.name}"


def can_be_a_node(name: str) -> bool:
    """Whether a resource of this name can have ACLs: names of nodes are less free than others."""
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """The body of a pattern's node."""
    acls = [
        {
            "principal": entry.principal,
            "permissionType": entry.permission.word,
            "operation": entry.operation.word,
            "host": entry.host,
        }
        for entry in sorted(entries)
    ]
    return dump_body({"version": 1, "acls": acls})


def decode_entries(path: str, data: bytes) -> frozenset[Entry]:
    """The ACLs of a pattern's node. Raises BadNode."""
    if not data:
        return frozenset()
    body = load_body(path, data)
    try:
        return frozenset(
            Entry(
                str(acl["principal"]),
                str(acl["host"]),
                _OPERATIONS[acl["operation"]],
                _PERMISSIONS[acl["permissionType"]],
            )
            for acl in body["acls"]
        )
    except (KeyError, TypeError) as error:
        raise BadNode(f"{path} does not hold ACLs: {error!r}") from None


def encode_change(pattern: Pattern) -> bytes:
    """The announcement that a pattern's ACLs have changed."""
    if pattern.type is PatternType.LITERAL:
        return f"{pattern.resource.word}:{pattern.name}".encode()
    return dump_body(
        {
            "version": 1,
            "resourceType": pattern.resource.word,
            "name": pattern.name,
            "patternType": pattern.type.name,
        }
    )


def decode_change(path: str, data: bytes) -> Pattern:
    """The pattern whose ACLs have changed. Raises BadNode."""
    try:
        if not path.startswith(PREFIXED_CHANGES):
            word, _, name = data.decode().partition(":")
            return Pattern(RESOURCES[word], name)
        body = load_body(path, data)
        kind = PatternType[body["patternType"]]
        if kind not in ROOTS:
            raise KeyError(kind.name)
        return Pattern(RESOURCES[body["resourceType"]], str(body["name"]), kind)
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise BadNode(f"{path} names no ACLs: {error!r}") from None
