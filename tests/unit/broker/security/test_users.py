"""Users of the metadata store: describing and altering them (KIP-554), and following the store."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kavka.broker.security import user_admin
from kavka.broker.security.user_admin import Change, Upsertion
from kavka.broker.security.users import Users, new_salt
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramMechanism
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.registration import prepare_store
from kavka.replication.store.local import LocalStore
from kavka.storage.clock import ManualClock

SHA_256, SHA_512 = ScramMechanism.SHA_256, ScramMechanism.SHA_512
SECRET = bytes(32)


def upsert(
    user: str, mechanism: ScramMechanism = SHA_256, password: str = "pw", iterations: int = 4096
) -> Change:
    salted = scram.salted_password(mechanism, password, b"salt", max(iterations, 1))
    return Change(user, mechanism.code, Upsertion(iterations, b"salt", salted))


def delete(user: str, mechanism: ScramMechanism = SHA_256) -> Change:
    return Change(user, mechanism.code)


def with_store(path: Path, scenario: Callable[[ConfigStore, LocalStore], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = ManualClock()
        store = await LocalStore.open(str(path / "metadata.db"), clock)
        await prepare_store(store)
        configs = ConfigStore(store, clock)
        try:
            await scenario(configs, store)
        finally:
            await configs.stop()
            await store.close()

    asyncio.run(run())


async def altered(configs: ConfigStore, *changes: Change) -> dict[str, int]:
    results = await user_admin.alter(configs, changes)
    return {user: 0 if error is None else int(error.code) for user, error in results.items()}


async def described(configs: ConfigStore, *users: str) -> dict[str, object]:
    results = await user_admin.describe(configs, users)
    return {
        user: int(found.code) if isinstance(found, KafkaError) else found
        for user, found in results.items()
    }


def test_users_are_made_described_and_removed(tmp_path: Path) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        odd = "a/b, c=d é*"
        assert await altered(
            configs, upsert("alice"), upsert("alice", SHA_512, iterations=8192), upsert(odd)
        ) == {"alice": 0, odd: 0}
        assert await described(configs) == {
            "alice": {SHA_256: 4096, SHA_512: 8192},
            odd: {SHA_256: 4096},
        }
        assert await described(configs, odd) == {odd: {SHA_256: 4096}}
        assert await altered(configs, delete("alice"), delete(odd)) == {"alice": 0, odd: 0}
        assert await described(configs) == {"alice": {SHA_512: 8192}}

    with_store(tmp_path, scenario)


def test_the_node_is_as_kafka_writes_it(tmp_path: Path) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        await altered(configs, upsert("a b"))
        data, _ = await store.get("/config/users/a%20b")
        credential = scram.credential_of(SHA_256, "pw", b"salt", 4096)
        text = (
            f"salt=c2FsdA==,stored_key={scram.encode(credential.stored_key)},"
            f"server_key={scram.encode(credential.server_key)},iterations=4096"
        )
        assert data.decode() == f'{{"version":1,"config":{{"SCRAM-SHA-256":"{text}"}}}}'
        (change,) = await store.children("/config/changes")
        data, _ = await store.get(f"/config/changes/{change}")
        assert data == b'{"version":2,"entity_path":"users/a%20b"}'

    with_store(tmp_path, scenario)


def test_quotas_of_the_same_user_stay(tmp_path: Path) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        await configs.alter("users", "alice", {"producer_byte_rate": "1024"})
        await configs.alter("users", "<default>", {"producer_byte_rate": "1"})
        await configs.alter("users", "alice/clients/app", {"producer_byte_rate": "2"})
        await altered(configs, upsert("alice"))
        assert await described(configs) == {"alice": {SHA_256: 4096}}
        await altered(configs, delete("alice"))
        assert await configs.read("users", "alice") == {"producer_byte_rate": "1024"}

    with_store(tmp_path, scenario)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (upsert(""), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"),
        (delete(""), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"),
        (upsert("u", iterations=4095), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations"),
        (upsert("u", iterations=-1), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations"),
        (upsert("u", iterations=16385), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations"),
        (Change("u", 0), ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"),
        (
            upsert("u")._replace(mechanism_code=3),
            ErrorCode.UNSUPPORTED_SASL_MECHANISM,
            "Unknown SCRAM mechanism",
        ),
        (delete("u"), ErrorCode.RESOURCE_NOT_FOUND, "does not exist"),
    ],
)
def test_changes_that_are_refused(
    tmp_path: Path, change: Change, code: ErrorCode, message: str
) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        results = await user_admin.alter(configs, [change, upsert("other")])
        error = results[change.user]
        assert error is not None and error.code is code
        assert error.message is not None and message in error.message
        assert results["other"] is None
        assert await described(configs) == {"other": {SHA_256: 4096}}

    with_store(tmp_path, scenario)


def test_one_bad_change_spares_none_of_the_same_user(tmp_path: Path) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        twice = ErrorCode.DUPLICATE_RESOURCE
        assert await altered(configs, upsert("u"), upsert("u")) == {"u": twice}
        assert await altered(configs, upsert("u"), delete("u")) == {"u": twice}
        gone = ErrorCode.RESOURCE_NOT_FOUND
        assert await altered(configs, upsert("u"), delete("u", SHA_512)) == {"u": gone}
        assert await described(configs) == {}

    with_store(tmp_path, scenario)


def test_questions_that_are_refused(tmp_path: Path) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        await altered(configs, upsert("u"))
        await configs.alter("users", "quota only", {"producer_byte_rate": "1"})
        assert await described(configs, "u", "", "v", "w", "w", "quota only") == {
            "u": {SHA_256: 4096},
            "": ErrorCode.UNACCEPTABLE_CREDENTIAL,
            "v": ErrorCode.RESOURCE_NOT_FOUND,
            "w": ErrorCode.DUPLICATE_RESOURCE,
            "quota only": ErrorCode.RESOURCE_NOT_FOUND,
        }

    with_store(tmp_path, scenario)


def test_who_follows_the_store_knows_of_every_change(tmp_path: Path) -> None:
    async def scenario(configs: ConfigStore, store: LocalStore) -> None:
        await altered(configs, upsert("early"))
        followed = ConfigStore(store, ManualClock())
        users = Users(SECRET)
        followed.subscribe("users", users.entity_changed)
        await followed.start()
        assert list(users) == ["early"]
        await altered(configs, upsert("late", SHA_512), delete("early"))
        for _ in range(100):
            if list(users) == ["late"]:
                break
            await store.exists("/")
        assert list(users) == ["late"]
        assert users.credential("late", SHA_256) is None
        assert users.credential("late", SHA_512) is not None
        await followed.stop()

    with_store(tmp_path, scenario)


# -- what is stored -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "salt=c2FsdA==",
        "salt=c2FsdA==,stored_key=AAAA,server_key=AAAA,iterations=4096",
        "salt=!,stored_key=AAAA,server_key=AAAA,iterations=4096",
        "salt=c2FsdA==,salt=c2FsdA==",
        "[iterations=4096,password=secret]",
    ],
)
def test_a_bad_credential_is_ignored_and_not_quoted(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    users = Users(SECRET)
    good = scram.render_credential(scram.credential_of(SHA_512, "pw", b"salt", 4096))
    users.entity_changed("u", {"SCRAM-SHA-256": text, "SCRAM-SHA-512": good})
    assert users.credential("u", SHA_256) is None
    assert users.credential("u", SHA_512) is not None
    assert "ignored" in caplog.text
    assert "c2FsdA" not in caplog.text and "secret" not in caplog.text


def test_credentials_survive_their_text() -> None:
    for mechanism in ScramMechanism:
        credential = scram.credential_of(mechanism, "pw", new_salt(), 4096)
        text = scram.render_credential(credential)
        assert scram.parse_credential(mechanism, text) == credential
        assert "pw" not in repr(credential) and text not in repr(credential)


def test_salts_are_kafkas() -> None:
    salts = {new_salt() for _ in range(50)}
    assert len(salts) == 50
    assert all(salt.decode().isalnum() and 20 <= len(salt) <= 26 for salt in salts)


def test_who_has_changed_is_told() -> None:
    users = Users(SECRET)
    heard: list[str] = []
    users.on_change = heard.append
    credential = {
        "SCRAM-SHA-256": scram.render_credential(scram.credential_of(SHA_256, "x", b"s", 4096))
    }
    users.entity_changed("a%40b", credential)
    users.entity_changed("a%40b", {**credential, "producer_byte_rate": "1"})
    users.entity_changed("a%40b", {})
    users.entity_changed("<default>", credential)
    users.entity_changed("u/clients/c", credential)
    assert heard == ["a@b", "a@b"]
    assert list(users) == []
