"""AlterUserScramCredentials (51): set and remove passwords of users, salted by the client.

Flexible from v0 on (KIP-554). The controller does it; each user has a result of its own.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.audit import audit_each
from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.security import user_admin
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k51_alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 51


async def handle(
    broker: "Broker", request: "Request", body: AlterUserScramCredentialsRequest
) -> AlterUserScramCredentialsResponse:
    if not broker.controller.active:
        return error_response(ErrorCode.NOT_CONTROLLER, body)
    require_cluster(broker, request, Operation.ALTER)
    results = await user_admin.alter(broker.logins.store, _changes(body))
    audit_each(
        request,
        "AlterUserScramCredentials",
        (
            (f"User:{user}", ErrorCode.NONE if error is None else error.code)
            for user, error in results.items()
        ),
    )
    return AlterUserScramCredentialsResponse(
        results=[
            AlterUserScramCredentialsResult(user=user)
            if error is None
            else AlterUserScramCredentialsResult(
                user=user, error_code=error.code, error_message=error.message
            )
            for user, error in results.items()
        ]
    )


def _changes(body: AlterUserScramCredentialsRequest) -> list[user_admin.Change]:
    return [
        *(user_admin.Change(each.name, each.mechanism) for each in body.deletions),
        *(
            user_admin.Change(
                each.name,
                each.mechanism,
                user_admin.Upsertion(each.iterations, each.salt, each.salted_password),
            )
            for each in body.upsertions
        ),
    ]


def error_response(
    code: ErrorCode, body: AlterUserScramCredentialsRequest
) -> AlterUserScramCredentialsResponse:
    names = dict.fromkeys(change.user for change in _changes(body))
    return AlterUserScramCredentialsResponse(
        results=[AlterUserScramCredentialsResult(user=name, error_code=code) for name in names]
    )
