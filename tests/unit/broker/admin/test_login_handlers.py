"""Users (KIP-554) and delegation tokens (KIP-48) as clients ask for them."""

from pathlib import Path
from typing import Any

import pytest

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages import (
    k38_create_delegation_token as k38,
)
from kavka.protocol.messages import (
    k39_renew_delegation_token as k39,
)
from kavka.protocol.messages import (
    k40_expire_delegation_token as k40,
)
from kavka.protocol.messages import (
    k41_describe_delegation_token as k41,
)
from kavka.protocol.messages import (
    k50_describe_user_scram_credentials as k50,
)
from kavka.protocol.messages import (
    k51_alter_user_scram_credentials as k51,
)
from tests.unit.broker.admin.harness import Admin, run

KEY = {"delegation.token.master.key": "master"}
ALICE, BOB, CAROL = "User:alice", "User:bob", "User:carol"
TOKEN_REQUESTS = [
    (k38.CreateDelegationTokenRequest(), k38.CreateDelegationTokenResponse),
    (k39.RenewDelegationTokenRequest(), k39.RenewDelegationTokenResponse),
    (k40.ExpireDelegationTokenRequest(), k40.ExpireDelegationTokenResponse),
    (k41.DescribeDelegationTokenRequest(), k41.DescribeDelegationTokenResponse),
]
token_requests = pytest.mark.parametrize(("request_", "response"), TOKEN_REQUESTS)


async def create(admin: Admin, version: int, who: str = ALICE, **fields: Any) -> Any:
    request = k38.CreateDelegationTokenRequest(max_lifetime_ms=-1, **fields)
    return await admin.ask(version, request, k38.CreateDelegationTokenResponse, "SASL", who)


async def described(admin: Admin, who: str, owners: list[str] | None = None) -> list[str]:
    request = k41.DescribeDelegationTokenRequest(
        owners=None
        if owners is None
        else [
            k41.DescribeDelegationTokenOwner(principal_type="User", principal_name=name)
            for name in owners
        ]
    )
    answer = await admin.ask(3, request, k41.DescribeDelegationTokenResponse, "SASL", who)
    assert answer.error_code == 0
    return sorted(token.principal_name for token in answer.tokens)


@token_requests
def test_without_a_master_key_there_are_no_tokens(
    tmp_path: Path, request_: Any, response: Any
) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        low, high = admin.broker.offered_versions[request_.API_KEY]
        for version in range(low, high + 1):
            answer = await admin.ask(version, request_, response, "SASL", ALICE)
            assert answer.error_code == ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED

    run(admin, scenario)


@pytest.mark.parametrize(
    ("listener", "principal", "by_token"),
    [("PLAINTEXT", ALICE, False), ("SSL", "User:ANONYMOUS", False), ("SASL", ALICE, True)],
)
@token_requests
def test_who_may_not_ask(
    tmp_path: Path, request_: Any, response: Any, listener: str, principal: str, by_token: bool
) -> None:
    admin = Admin(tmp_path, KEY)

    async def scenario() -> None:
        answer = await admin.ask(1, request_, response, listener, principal, by_token)
        assert answer.error_code == ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED

    run(admin, scenario)


def test_the_life_of_a_token(tmp_path: Path) -> None:
    admin = Admin(tmp_path, KEY)

    async def scenario() -> None:
        renewer = k38.CreatableRenewers(principal_type="User", principal_name="bob")
        for version in range(4):
            token = await create(admin, version, renewers=[renewer])
            assert (token.error_code, token.principal_name) == (0, "alice")
            assert token.issue_timestamp_ms < token.expiry_timestamp_ms < token.max_timestamp_ms
            assert len(token.hmac) == 64
            renewed = await admin.ask(
                min(version, 2),
                k39.RenewDelegationTokenRequest(hmac=token.hmac, renew_period_ms=7),
                k39.RenewDelegationTokenResponse,
                *("SASL", BOB),
            )
            assert renewed.error_code == 0
            assert renewed.expiry_timestamp_ms == admin.harness.clock.wall_ms() + 7
            foreign = await admin.ask(
                min(version, 2),
                k40.ExpireDelegationTokenRequest(hmac=token.hmac, expiry_time_period_ms=-1),
                k40.ExpireDelegationTokenResponse,
                *("SASL", CAROL),
            )
            assert foreign.error_code == ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
            assert foreign.expiry_timestamp_ms == -1
            expired = await admin.ask(
                min(version, 2),
                k40.ExpireDelegationTokenRequest(hmac=token.hmac, expiry_time_period_ms=-1),
                k40.ExpireDelegationTokenResponse,
                *("SASL", ALICE),
            )
            assert expired.error_code == 0
            gone = await admin.ask(
                min(version, 2),
                k39.RenewDelegationTokenRequest(hmac=token.hmac),
                k39.RenewDelegationTokenResponse,
                *("SASL", ALICE),
            )
            assert gone.error_code == ErrorCode.DELEGATION_TOKEN_NOT_FOUND

    run(admin, scenario)


def test_tokens_for_others_and_renewers_of_other_kinds(tmp_path: Path) -> None:
    admin = Admin(tmp_path, KEY)

    async def scenario() -> None:
        token = await create(admin, 3, owner_principal_type="User", owner_principal_name="carol")
        assert (token.error_code, token.principal_name) == (0, "carol")
        assert token.token_requester_principal_name == "alice"
        assert await described(admin, ALICE) == ["carol"]
        assert await described(admin, CAROL, ["carol"]) == ["carol"]
        assert await described(admin, CAROL, ["bob"]) == []
        assert await described(admin, CAROL, []) == []
        group = k38.CreatableRenewers(principal_type="Group", principal_name="all")
        refused = await create(admin, 1, renewers=[group])
        assert refused.error_code == ErrorCode.INVALID_PRINCIPAL_TYPE
        assert refused.expiry_timestamp_ms == -1

    run(admin, scenario)


def test_users_are_altered_and_described(tmp_path: Path) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        altered = await admin.ask(
            0,
            k51.AlterUserScramCredentialsRequest(
                deletions=[k51.ScramCredentialDeletion(name="bob", mechanism=1)],
                upsertions=[
                    k51.ScramCredentialUpsertion(
                        name="alice", mechanism=2, iterations=4096, salt=b"s", salted_password=b"p"
                    )
                ],
            ),
            k51.AlterUserScramCredentialsResponse,
        )
        assert {result.user: result.error_code for result in altered.results} == {
            "bob": ErrorCode.RESOURCE_NOT_FOUND,
            "alice": 0,
        }
        assert list(admin.broker.logins.users) == ["alice"]
        for users in (None, [], [k50.UserName(name="alice")]):
            found = await admin.ask(
                0,
                k50.DescribeUserScramCredentialsRequest(users=users),
                k50.DescribeUserScramCredentialsResponse,
            )
            (result,) = found.results
            (info,) = result.credential_infos
            assert (found.error_code, result.user) == (0, "alice")
            assert (info.mechanism, info.iterations) == (2, 4096)

    run(admin, scenario)


def test_only_the_controller_alters_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(tmp_path)

    async def scenario() -> None:
        monkeypatch.setattr(type(admin.broker.controller), "active", False)
        request = k51.AlterUserScramCredentialsRequest(
            deletions=[k51.ScramCredentialDeletion(name="bob", mechanism=1)],
            upsertions=[k51.ScramCredentialUpsertion(name="bob", mechanism=2)],
        )
        answer = await admin.ask(0, request, k51.AlterUserScramCredentialsResponse)
        assert [(r.user, r.error_code) for r in answer.results] == [
            ("bob", ErrorCode.NOT_CONTROLLER)
        ]
        monkeypatch.undo()

    run(admin, scenario)
