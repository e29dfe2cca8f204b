"""Delegation tokens: the rules of their life, their nodes, and who follows them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kavka.broker.security.token_store import TokenStore, decode_token, encode_token
from kavka.broker.security.tokens import Principal, Token, Tokens, principal
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.sasl.scram import ScramMechanism
from kavka.replication.store.local import LocalStore
from kavka.replication.znodes import BadNode
from kavka.storage.clock import ManualClock

ALICE, BOB, CAROL = (Principal("User", name) for name in ("alice", "bob", "carol"))
LIFE, RENEWAL = 1000_000, 100_000


def some_bytes(count: int) -> bytes:
    some_bytes.calls += 1  # type: ignore[attr-defined]
    return some_bytes.calls.to_bytes(count, "big")  # type: ignore[attr-defined, no-any-return]


some_bytes.calls = 0  # type: ignore[attr-defined]


def tokens_at(clock: ManualClock) -> Tokens:
    return Tokens("master", LIFE, RENEWAL, clock, some_bytes)


def issued(tokens: Tokens, token_id: str = "t1", owner: Principal = ALICE) -> Token:
    token = tokens.issue(token_id, owner, owner, [BOB], -1)
    tokens.replace(token_id, token)
    return token


def code_of(action: Callable[[], object]) -> ErrorCode:
    with pytest.raises(KafkaError) as error:
        action()
    return error.value.code


def test_times_of_a_new_token() -> None:
    clock = ManualClock()
    now = clock.wall_ms()
    tokens = tokens_at(clock)
    for asked, life in ((-1, LIFE), (0, LIFE), (LIFE * 2, LIFE), (50_000, 50_000)):
        token = tokens.issue("t", ALICE, ALICE, [], asked)
        assert token.issue_ms == now and token.max_ms == now + life
        assert token.expiry_ms == now + min(life, RENEWAL)


def test_the_secret_is_the_hmac_of_the_id() -> None:
    first, second = tokens_at(ManualClock()), tokens_at(ManualClock())
    assert first.hmac_of("t1") == second.hmac_of("t1") != first.hmac_of("t2")
    assert len(first.hmac_of("t1")) == 64
    other = Tokens("other", LIFE, RENEWAL, ManualClock(), some_bytes)
    assert other.hmac_of("t1") != first.hmac_of("t1")


def test_renewing() -> None:
    clock = ManualClock()
    tokens = tokens_at(clock)
    issued(tokens)
    secret = tokens.hmac_of("t1")
    clock.advance(50)
    for who in (ALICE, BOB):
        assert tokens.renewed(who, secret, -1).expiry_ms == clock.wall_ms() + RENEWAL
    assert tokens.renewed(ALICE, secret, 7).expiry_ms == clock.wall_ms() + 7
    token = tokens.renewed(ALICE, secret, LIFE * 9)
    assert token.expiry_ms == token.max_ms
    assert code_of(lambda: tokens.renewed(CAROL, secret, -1)) is (
        ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
    )
    assert code_of(lambda: tokens.renewed(ALICE, secret[:-1], -1)) is (
        ErrorCode.DELEGATION_TOKEN_NOT_FOUND
    )
    clock.advance(RENEWAL / 1000)
    assert code_of(lambda: tokens.renewed(ALICE, secret, -1)) is ErrorCode.DELEGATION_TOKEN_EXPIRED


def test_expiring() -> None:
    clock = ManualClock()
    tokens = tokens_at(clock)
    issued(tokens)
    secret = tokens.hmac_of("t1")
    assert tokens.expired(BOB, secret, 5) == (
        tokens.renewed(BOB, secret, 5),
        False,
    )
    token, over = tokens.expired(ALICE, secret, -1)
    assert over and token.expiry_ms == clock.wall_ms()
    assert code_of(lambda: tokens.expired(CAROL, secret, -1)) is (
        ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
    )


def test_who_sees_which() -> None:
    tokens = tokens_at(ManualClock())
    issued(tokens, "a", ALICE)
    issued(tokens, "c", CAROL)

    def seen(
        who: Principal, owners: list[Principal] | None, allowed: tuple[str, ...] = ()
    ) -> set[str]:
        found = tokens.visible(who, owners, lambda token_id: token_id in allowed)
        return {token.token_id for token in found}

    assert seen(ALICE, None) == {"a"}
    assert seen(BOB, None) == {"a", "c"}
    assert seen(BOB, [CAROL]) == {"c"}
    assert seen(ALICE, [CAROL]) == set()
    assert seen(ALICE, [CAROL], ("c",)) == {"c"}
    assert seen(ALICE, None, ("c",)) == {"a", "c"}


def test_an_expired_token_lets_nobody_in_though_nobody_has_removed_it() -> None:
    clock = ManualClock()
    tokens = tokens_at(clock)
    issued(tokens)
    assert tokens.usable("t1") is not None
    clock.advance(RENEWAL / 1000 + 1)
    assert tokens.usable("t1") is None
    assert [token.token_id for token in tokens.overdue()] == ["t1"]


def test_credentials_are_derived_once_and_forgotten_with_the_token() -> None:
    tokens = tokens_at(ManualClock())
    issued(tokens)
    mechanism = ScramMechanism.SHA_256
    assert tokens.known_credential("t1", mechanism) is None
    credential = tokens.derivation("t1", mechanism)()
    tokens.keep_credential("t1", mechanism, credential)
    assert tokens.known_credential("t1", mechanism) == credential
    tokens.replace("t1", None)
    assert tokens.known_credential("t1", mechanism) is None
    tokens.keep_credential("t1", mechanism, credential)
    assert tokens.known_credential("t1", mechanism) is None
    assert code_of(lambda: tokens.renewed(ALICE, tokens.hmac_of("t1"), 1)) is (
        ErrorCode.DELEGATION_TOKEN_NOT_FOUND
    )


# -- nodes --------------------------------------------------------------------------------------

TOKEN = Token("id-1", ALICE, ALICE, (BOB, Principal("User", "a b,ü")), 1, 2, 3)


def test_the_node_is_as_kafka_writes_it() -> None:
    assert json.loads(encode_token(TOKEN)) == {
        "version": 1,
        "owner": "User%3Aalice",
        "renewers": ["User%3Abob", "User%3Aa%20b%2C%C3%BC"],
        "issueTimestamp": 1,
        "maxTimestamp": 3,
        "expiryTimestamp": 2,
        "tokenId": "id-1",
    }
    assert decode_token("/t", encode_token(TOKEN)) == TOKEN
    for_alice = TOKEN._replace(requester=BOB)
    assert json.loads(encode_token(for_alice))["tokenRequester"] == "User%3Abob"
    assert decode_token("/t", encode_token(for_alice)) == for_alice


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"owner":1}', b"\xff"])
def test_nodes_that_are_none(data: bytes) -> None:
    with pytest.raises(BadNode):
        decode_token("/t", data)


def test_principals() -> None:
    assert principal("User:a:b") == Principal("User", "a:b")
    assert str(principal("User:a:b")) == "User:a:b"


class Broker:
    """The tokens as one broker has them."""

    def __init__(self, store: LocalStore, clock: ManualClock) -> None:
        self.tokens = tokens_at(clock)
        self.store = TokenStore(
            *(self.tokens, store, clock, some_bytes),
            is_controller=lambda: True,
            check_interval=3600,
        )

    def ids(self) -> list[str]:
        return sorted(token.token_id for token in self.tokens)


def with_two_brokers(
    path: Path,
    scenario: Callable[[Broker, Broker, LocalStore, ManualClock], Awaitable[None]],
) -> None:
    async def run() -> None:
        clock = ManualClock()
        store = await LocalStore.open(str(path / "metadata.db"), clock)
        one, other = Broker(store, clock), Broker(store, clock)
        try:
            await one.store.start()
            await other.store.start()
            await scenario(one, other, store, clock)
        finally:
            await one.store.stop()
            await other.store.stop()
            await store.close()

    asyncio.run(run())


async def followed(broker: Broker, store: LocalStore, wanted: list[str]) -> None:
    for _ in range(100):
        await broker.store.settled()
        if broker.ids() == wanted:
            return
        await store.exists("/")
    assert broker.ids() == wanted


def test_a_broker_hears_of_the_others_tokens(tmp_path: Path) -> None:
    async def scenario(one: Broker, other: Broker, store: LocalStore, clock: ManualClock) -> None:
        token = one.tokens.issue(one.store.new_id(), ALICE, ALICE, [], -1)
        assert len(token.token_id) == 22 and "=" not in token.token_id
        await one.store.put(token)
        assert one.ids() == [token.token_id]
        await followed(other, store, [token.token_id])
        secret = other.tokens.hmac_of(token.token_id)
        renewed = other.tokens.renewed(ALICE, secret, RENEWAL * 2)
        await other.store.put(renewed)
        await one.store.settled()
        late = Broker(store, clock)
        await late.store.start()
        assert list(late.tokens) == [renewed]
        await late.store.stop()
        await other.store.remove(renewed)
        await followed(one, store, [])
        assert await store.children("/delegation_token/tokens") == []

    with_two_brokers(tmp_path, scenario)


def test_the_controller_removes_what_is_over(tmp_path: Path) -> None:
    async def scenario(one: Broker, other: Broker, store: LocalStore, clock: ManualClock) -> None:
        await one.store.put(one.tokens.issue("short", ALICE, ALICE, [], 10))
        await one.store.put(one.tokens.issue("long", ALICE, ALICE, [], -1))
        clock.advance(1)
        await one.store.remove_overdue()
        assert one.ids() == ["long"]
        await followed(other, store, ["long"])

    with_two_brokers(tmp_path, scenario)


def test_a_node_of_nonsense_is_no_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(one: Broker, other: Broker, store: LocalStore, clock: ManualClock) -> None:
        await store.create("/delegation_token/tokens/bad", b"{}")
        late = Broker(store, clock)
        await late.store.start()
        assert late.ids() == []
        await late.store.stop()

    with_two_brokers(tmp_path, scenario)
    assert "ignored" in caplog.text
