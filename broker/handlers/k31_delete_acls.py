"""DeleteAcls (31): remove the ACLs that filters select; the answer lists them by filter.

v0 literal patterns only · v1 pattern types (KIP-290) · v2 flexible · v3 user resources (KIP-373).
An ACL that several filters select is listed for the first of them.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit, audit_each
from kavka.broker.authorization import DENIED_IN_WORDS, Operation, require_cluster
from kavka.broker.security.acl.nodes import can_be_a_node
from kavka.broker.security.acl.wire import NO_AUTHORIZER, description, filter_from
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k31_delete_acls import (
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsRequest,
    DeleteAclsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.broker.security.acl.model import Binding, BindingFilter, Pattern
    from kavka.broker.security.acl.store import AclStore

KEY: Final = 31


async def handle(
    broker: "Broker", request: "Request", body: DeleteAclsRequest
) -> DeleteAclsResponse:
    require_cluster(broker, request, Operation.ALTER)
    acls = None if broker.authorizer is None else broker.authorizer.acls
    if acls is None:
        return _all(ErrorCode.SECURITY_DISABLED, NO_AUTHORIZER, body)
    results = [DeleteAclsFilterResult() for _ in body.filters]
    # Everything is selected before anything is removed.
    wanted: dict[Pattern, dict[Binding, DeleteAclsFilterResult]] = {}
    for result, asked in zip(results, body.filters, strict=True):
        try:
            selection = filter_from(asked)
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
            audit(request, "DeleteAcls", asked.resource_name_filter or "*", error.code)
            continue
        for binding in _selected(acls, selection):
            wanted.setdefault(binding.pattern, {}).setdefault(binding, result)
    for pattern, by_binding in wanted.items():
        await _remove(request, acls, pattern, by_binding)
    return DeleteAclsResponse(filter_results=results)


def _selected(acls: "AclStore", selection: "BindingFilter") -> "Sequence[Binding]":
    """The ACLs to remove. The only one that there can be is looked for in the metadata store, as
    this broker may not have heard of it yet.
    """
    only = selection.only
    if only is not None and can_be_a_node(only.pattern.name):
        return [only]
    return acls.find(selection)


async def _remove(
    request: "Request",
    acls: "AclStore",
    pattern: "Pattern",
    by_binding: "dict[Binding, DeleteAclsFilterResult]",
) -> None:
    failure: KafkaError | None = None
    removed = entries = frozenset(binding.entry for binding in by_binding)
    try:
        removed = await acls.remove(pattern, entries)
    except KafkaError as error:
        failure = error
    code = ErrorCode.NONE if failure is None else failure.code
    told = [binding for binding in by_binding if binding.entry in removed]
    for binding in told:
        entry = binding.entry
        by_binding[binding].matching_acls.append(
            DeleteAclsMatchingAcl(
                error_code=code,
                error_message=None if failure is None else failure.message,
                resource_type=pattern.resource,
                resource_name=pattern.name,
                pattern_type=pattern.type,
                principal=entry.principal,
                host=entry.host,
                operation=entry.operation,
                permission_type=entry.permission,
            )
        )
    audit_each(request, "DeleteAcls", ((description(binding), code) for binding in told))


def _all(code: ErrorCode, message: str | None, body: DeleteAclsRequest) -> DeleteAclsResponse:
    return DeleteAclsResponse(
        filter_results=[
            DeleteAclsFilterResult(error_code=code, error_message=message) for _ in body.filters
        ]
    )


def error_response(code: ErrorCode, body: DeleteAclsRequest) -> DeleteAclsResponse:
    return _all(code, DENIED_IN_WORDS.get(code), body)
