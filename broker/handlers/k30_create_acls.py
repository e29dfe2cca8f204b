"""CreateAcls (30): add ACLs, each for itself; one that is there already is no error.

v0 literal patterns only · v1 pattern types (KIP-290) · v2 flexible · v3 user resources (KIP-373).
This broker obeys an ACL when the answer comes, the others as soon as they hear of it.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit, audit_each
from kavka.broker.authorization import DENIED_IN_WORDS, Operation, require_cluster
from kavka.broker.security.acl.wire import NO_AUTHORIZER, binding_from, description
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k30_create_acls import (
    AclCreationResult,
    CreateAclsRequest,
    CreateAclsResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.broker.security.acl.model import Binding, Pattern

KEY: Final = 30


async def handle(
    broker: "Broker", request: "Request", body: CreateAclsRequest
) -> CreateAclsResponse:
    require_cluster(broker, request, Operation.ALTER)
    acls = None if broker.authorizer is None else broker.authorizer.acls
    if acls is None:
        return _all(ErrorCode.SECURITY_DISABLED, NO_AUTHORIZER, body)
    results = [AclCreationResult() for _ in body.creations]
    wanted: dict[Pattern, dict[int, Binding]] = {}
    for place, creation in enumerate(body.creations):
        try:
            binding = binding_from(creation)
        except KafkaError as error:
            _fail(results[place], error)
            audit(
                request, "CreateAcls", f"{creation.principal} {creation.resource_name}", error.code
            )
        else:
            wanted.setdefault(binding.pattern, {})[place] = binding
    for pattern, bindings in wanted.items():
        try:
            await acls.add(pattern, {binding.entry for binding in bindings.values()})
        except KafkaError as error:
            for place in bindings:
                _fail(results[place], error)
        told = ((description(bindings[place]), results[place].error_code) for place in bindings)
        audit_each(request, "CreateAcls", told)
    return CreateAclsResponse(results=results)


def _fail(result: AclCreationResult, error: KafkaError) -> None:
    result.error_code, result.error_message = error.code, error.message


def _all(code: ErrorCode, message: str | None, body: CreateAclsRequest) -> CreateAclsResponse:
    return CreateAclsResponse(
        results=[AclCreationResult(error_code=code, error_message=message) for _ in body.creations]
    )


def error_response(code: ErrorCode, body: CreateAclsRequest) -> CreateAclsResponse:
    return _all(code, DENIED_IN_WORDS.get(code), body)
