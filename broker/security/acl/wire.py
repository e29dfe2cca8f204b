"""ACLs and filters as the three APIs carry them, and what is wrong with some (reference §3.4)."""

from enum import IntEnum
from typing import Protocol, TypeVar

from kavka.broker.security.acl.model import (
    CLUSTER_NAME,
    Binding,
    BindingFilter,
    Entry,
    Operation,
    Pattern,
    PatternType,
    Permission,
    Resource,
    is_principal,
)
from kavka.broker.security.acl.nodes import can_be_a_node
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k30_create_acls import AclCreation

NO_AUTHORIZER = "No Authorizer is configured on the broker"

E = TypeVar("E", bound=IntEnum)


class Filter(Protocol):
    """The fields that DescribeAcls and the filters of DeleteAcls have in common."""

    resource_type_filter: int
    resource_name_filter: str | None
    pattern_type_filter: int
    principal_filter: str | None
    host_filter: str | None
    operation: int
    permission_type: int


def filter_from(asked: Filter) -> BindingFilter:
    """The filter of a request. Raises INVALID_REQUEST for codes that mean nothing."""
    return BindingFilter(
        _known(Resource, asked.resource_type_filter, "resource type"),
        asked.resource_name_filter,
        _known(PatternType, asked.pattern_type_filter, "pattern type"),
        asked.principal_filter,
        asked.host_filter,
        _known(Operation, asked.operation, "operation"),
        _known(Permission, asked.permission_type, "permission type"),
    )


def binding_from(asked: AclCreation) -> Binding:
    """The ACL that is to be created. Raises INVALID_REQUEST for one that cannot be."""
    resource = _one(Resource, asked.resource_type, "resource type")
    kind = _known(PatternType, asked.resource_pattern_type, "pattern type")
    operation = _one(Operation, asked.operation, "operation")
    permission = _one(Permission, asked.permission_type, "permission type")
    name = asked.resource_name
    if kind not in (PatternType.LITERAL, PatternType.PREFIXED):
        raise _invalid(f"An ACL cannot be created with the pattern type {kind.name}")
    if not name:
        raise _invalid("Invalid empty resource name")
    if resource is Resource.CLUSTER and name != CLUSTER_NAME:
        raise _invalid(f"The only valid name for the CLUSTER resource is {CLUSTER_NAME}")
    if not can_be_a_node(name):
        raise _invalid(
            f"A resource name with ACLs must not contain a slash or unprintable characters: {name}"
        )
    if not is_principal(asked.principal):
        raise _invalid(
            "expected a string in format principalType:principalName but got "
            f"{asked.principal or 'nothing'}"
        )
    if not asked.host:
        raise _invalid("Invalid empty host, * stands for all")
    entry = Entry(asked.principal, asked.host, operation, permission)
    return Binding(Pattern(resource, name, kind), entry)


def description(binding: Binding) -> str:
    """An ACL in words, for the audit log."""
    pattern, entry = binding
    verb = "may" if entry.permission is Permission.ALLOW else "may not"
    return f"{pattern} {entry.principal} {verb} {entry.operation.word} from {entry.host}"


def _known(codes: type[E], code: int, what: str) -> E:
    try:
        member = codes(code)
    except ValueError:
        member = codes(0)
    if not member:
        raise _invalid(f"Unknown {what} {code}")
    return member


def _one(codes: type[E], code: int, what: str) -> E:
    member = _known(codes, code, what)
    if member.name == "ANY":
        raise _invalid(f"An ACL cannot be created with the {what} ANY")
    return member


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)
