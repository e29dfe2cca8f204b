"""``kavka users``: the first user of a broker that nobody can log in to yet."""

import asyncio
import io
import sys
from pathlib import Path

import pytest

from kavka.broker.cli.main import execute
from kavka.broker.security.users import Users
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramMechanism
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.store.local import LocalStore
from kavka.storage.clock import ManualClock
from kavka.storage.fs import FileSystem
from kavka.storage.meta import DirectoryLock

PASSWORD = "Tr0ub4dor&3x"


class Input(io.StringIO):
    """Standard input that is no terminal."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.buffer = io.BytesIO(data)  # type: ignore[misc, assignment]


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    """The option that names a data directory, which does not exist yet."""
    return ["--set", f"log.dirs={tmp_path}/deep/data,{tmp_path}/other"]


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Input(text.encode()))


def users_in(path: Path) -> Users:
    async def read() -> Users:
        opened = await LocalStore.open(str(path), ManualClock())
        configs, users = ConfigStore(opened, ManualClock()), Users(bytes(32))
        configs.subscribe("users", users.entity_changed)
        await configs.start()
        await configs.stop()
        await opened.close()
        return users

    return asyncio.run(read())


def fits(path: Path, user: str, mechanism: ScramMechanism, password: str) -> bool:
    credential = users_in(path / "deep/data/metadata.db").credential(user, mechanism)
    return credential is not None and scram.password_fits(mechanism, credential, password)


def test_from_nothing_to_a_user_and_back(
    tmp_path: Path,
    store: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given(monkeypatch, f"{PASSWORD}\nmore")
    assert execute(["users", "set", "admin", *store]) == 0
    for mechanism in ScramMechanism:
        assert fits(tmp_path, "admin", mechanism, PASSWORD)
    assert execute(["users", "list", *store]) == 0
    assert "admin: SCRAM-SHA-256 (4096), SCRAM-SHA-512 (4096)" in capsys.readouterr().out
    assert execute(["users", "delete", "admin", "--mechanism", "SCRAM-SHA-256", *store]) == 0
    assert not fits(tmp_path, "admin", ScramMechanism.SHA_256, PASSWORD)
    assert execute(["users", "delete", "admin", *store]) == 0
    assert not list(users_in(tmp_path / "deep/data/metadata.db"))
    assert PASSWORD not in capsys.readouterr().out


def test_a_new_password_replaces_the_old_one(
    tmp_path: Path, store: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, PASSWORD)
    assert execute(["users", "set", "admin", *store]) == 0
    secret = tmp_path / "secret"
    secret.write_text("An0ther:one\r\n")
    options = ["--password-file", str(secret), "--iterations", "8192"]
    assert execute(["users", "set", "admin", "--mechanism", "SCRAM-SHA-512", *options, *store]) == 0
    assert fits(tmp_path, "admin", ScramMechanism.SHA_256, PASSWORD)
    assert fits(tmp_path, "admin", ScramMechanism.SHA_512, "An0ther:one")


@pytest.mark.parametrize(
    ("password", "reason"),
    [("Password1!", "weak"), ("short", "8 to 32"), ("", "8 to 32"), ("xNimda99!z", "user's name")],
)
def test_passwords_against_the_rules(
    store: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    password: str,
    reason: str,
) -> None:
    given(monkeypatch, password)
    assert execute(["users", "set", "admin", *store]) == 1
    said = capsys.readouterr().err
    assert reason in said and (not password or password not in said)
    given(monkeypatch, password)
    assert execute(["users", "set", "admin", "--any-password", *store]) == (0 if password else 1)


def test_no_users_of_a_running_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = DirectoryLock(FileSystem(), str(tmp_path))
    try:
        given(monkeypatch, PASSWORD)
        assert execute(["users", "set", "admin", "--set", f"log.dirs={tmp_path}"]) == 1
        assert "another broker" in capsys.readouterr().err
    finally:
        lock.release()


@pytest.mark.parametrize(
    "arguments",
    [
        ["delete", "nobody"],
        ["set", "admin", "--password-file", "/nowhere"],
        ["set", ""],
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str],
    store: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given(monkeypatch, PASSWORD)
    assert execute(["users", *arguments, *store]) == 1
    said = capsys.readouterr().err
    assert said.startswith("kavka: ") and said.count("\n") == 1
