"""DescribeUserScramCredentials (50): which users can log in by SCRAM, with how many iterations.

Flexible from v0 on (KIP-554). Any broker answers; keys and salts never leave the store.
"""

from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import Operation, require_cluster
from kavka.broker.security import user_admin
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k50_describe_user_scram_credentials import (
    CredentialInfo,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 50


async def handle(
    broker: "Broker", request: "Request", body: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    require_cluster(broker, request, Operation.DESCRIBE)
    names = [user.name for user in body.users or ()]
    found = await user_admin.describe(broker.logins.store, names)
    return DescribeUserScramCredentialsResponse(
        results=[_result(name, outcome) for name, outcome in found.items()]
    )


def _result(
    name: str, outcome: "user_admin.Iterations | KafkaError"
) -> DescribeUserScramCredentialsResult:
    if isinstance(outcome, KafkaError):
        return DescribeUserScramCredentialsResult(
            user=name, error_code=outcome.code, error_message=outcome.message
        )
    return DescribeUserScramCredentialsResult(
        user=name,
        credential_infos=[
            CredentialInfo(mechanism=mechanism.code, iterations=iterations)
            for mechanism, iterations in outcome.items()
        ],
    )


def error_response(
    code: ErrorCode, body: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    return DescribeUserScramCredentialsResponse(error_code=code)
