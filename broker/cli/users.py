"""``kavka users``: users of the metadata store, without a broker that would have to let us in.

A broker whose listeners all want a login needs a first user. As Kafka's kafka-configs does with
``--zookeeper``, this writes to the store itself: to the file of a broker that is not running, or
to the ZooKeeper of a cluster. Passwords come from a prompt or a file, never from an argument, which
everybody on the machine could read.
"""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import click

from kavka.config import load as sources
from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from kavka.broker.security.user_admin import Change
    from kavka.config.broker import BrokerConfig
    from kavka.protocol.sasl.scram import ScramMechanism
    from kavka.replication.controller.configs import ConfigStore

_STORE_FILE: Final = "metadata.db"
_MECHANISM_NAMES: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_PASSWORD_BYTES_MAX: Final = 4096

T = TypeVar("T")

_CONFIG: Final = click.option(
    "--config",
    "path",
    metavar="FILE",
    help="The broker's server.properties.",
)
_SET: Final = click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="One setting, over those of the file and the environment; may be repeated.",
)
_MECHANISMS: Final = click.option(
    "--mechanism",
    "mechanism_names",
    type=click.Choice(_MECHANISM_NAMES),
    multiple=True,
    help="For this mechanism only; may be repeated. By default for both.",
)


@click.group()
def users() -> None:
    """Users that log in by SCRAM or PLAIN, in the metadata store itself.

    For the first user of a broker that lets nobody in without a login. The broker must not be
    running unless it is one of a cluster with ZooKeeper; of a running one use Kafka's
    kafka-configs --bootstrap-server … --alter --entity-type users.
    """


@users.command("list")
@_CONFIG
@_SET
def list_users(path: str | None, assignments: tuple[str, ...]) -> int:
    """List users and their mechanisms."""
    from kavka.broker.security import user_admin

    found = _run(path, assignments, lambda store: user_admin.describe(store, ()))
    for name, credentials in sorted(found.items()):
        assert isinstance(credentials, dict)
        shown = ", ".join(f"{m.sasl_name} ({count})" for m, count in credentials.items())
        click.echo(f"{name}: {shown}")
    return 0


@users.command("set")
@click.argument("name")
@_CONFIG
@_SET
@_MECHANISMS
@click.option(
    "--iterations",
    type=click.IntRange(4096, 16384),
    default=4096,
    show_default=True,
    help="Rounds of deriving keys: more make stolen credentials harder to try passwords on.",
)
@click.option(
    "--password-file",
    metavar="FILE",
    help="Its first line is the password; - is standard input. Otherwise a prompt asks for it.",
)
@click.option("--any-password", is_flag=True, help="Accept a password against the rules.")
def set_password(
    name: str,
    path: str | None,
    assignments: tuple[str, ...],
    mechanism_names: tuple[str, ...],
    iterations: int,
    password_file: str | None,
    any_password: bool,
) -> int:
    """Add the user NAME, or give it another password."""
    password = _password(name, password_file)
    if not any_password:
        from kavka.broker.security import password_rules

        problem = password_rules.problem(password, name)
        if problem is not None:
            raise ConfigError("", f"The password is not accepted: {problem}")
    elif not password:
        raise ConfigError("", "The password is empty")
    from kavka.broker.security.user_admin import Change, Upsertion
    from kavka.broker.security.users import new_salt
    from kavka.protocol.sasl.scram import salted_password

    changes = []
    for mechanism in _mechanisms(mechanism_names):
        salt = new_salt()
        salted = salted_password(mechanism, password, salt, iterations)
        changes.append(Change(name, mechanism.code, Upsertion(iterations, salt, salted)))
    _alter(path, assignments, changes)
    click.echo(f"{name} can log in by {', '.join(mechanism_names or _MECHANISM_NAMES)}")
    return 0


@users.command("delete")
@click.argument("name")
@_CONFIG
@_SET
@_MECHANISMS
def delete_user(
    name: str, path: str | None, assignments: tuple[str, ...], mechanism_names: tuple[str, ...]
) -> int:
    """Take the user NAME its password away."""
    from kavka.broker.security import user_admin
    from kavka.broker.security.user_admin import Change

    wanted = _mechanisms(mechanism_names)

    async def delete(store: "ConfigStore") -> None:
        found = (await user_admin.describe(store, [name]))[name]
        there = found if isinstance(found, dict) else {}
        changes = [Change(name, each.code) for each in wanted if each in there]
        if not changes:
            raise ConfigError("", f"There is no user {name}")
        await _write(store, changes)

    _run(path, assignments, delete)
    click.echo(f"{name} cannot log in any more")
    return 0


def _password(name: str, file: str | None) -> str:
    if file is None and sys.stdin.isatty():
        return str(
            click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt="Once more")
        )
    where = "standard input" if file in (None, "-") else file
    try:
        if file is None or file == "-":
            data = sys.stdin.buffer.readline(_PASSWORD_BYTES_MAX)
        else:
            with open(file, "rb") as opened:
                data = opened.readline(_PASSWORD_BYTES_MAX)
        return data.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError("", f"The password in {where} cannot be read: {reason}") from None


def _mechanisms(names: tuple[str, ...]) -> "list[ScramMechanism]":
    from kavka.protocol.sasl.scram import MECHANISMS

    return [MECHANISMS[name] for name in dict.fromkeys(names or _MECHANISM_NAMES)]


def _alter(path: str | None, assignments: tuple[str, ...], changes: "list[Change]") -> None:
    _run(path, assignments, lambda store: _write(store, changes))


async def _write(store: "ConfigStore", changes: "list[Change]") -> None:
    from kavka.broker.security import user_admin

    for error in (await user_admin.alter(store, changes)).values():
        if error is not None:
            raise ConfigError("", str(error))


def _run(
    path: str | None,
    assignments: tuple[str, ...],
    work: "Callable[[ConfigStore], Awaitable[T]]",
) -> T:
    """Do ``work`` with the metadata store that the settings name."""
    import asyncio

    config = sources.load(path, os.environ, assignments)

    async def run() -> T:
        async with _opened(config) as store:
            return await work(store)

    return asyncio.run(run())


@asynccontextmanager
async def _opened(config: "BrokerConfig") -> "AsyncIterator[ConfigStore]":
    from kavka.replication import registration
    from kavka.replication.controller.configs import ConfigStore
    from kavka.replication.store.base import MetadataStore, StoreError
    from kavka.storage.clock import SystemClock
    from kavka.storage.fs import FileSystem
    from kavka.storage.meta import DirectoryLock, LogDirectoryError

    clock = SystemClock()
    lock: DirectoryLock | None = None
    try:
        store: MetadataStore
        if config.embedded:
            from kavka.replication.store.local import LocalStore

            directory = os.path.abspath(config.log_dirs[0])
            fs = FileSystem()
            fs.mkdir(directory, parents=True)
            lock = DirectoryLock(fs, directory)
            store = await LocalStore.open(os.path.join(directory, _STORE_FILE), clock)
        else:
            from kavka.broker.cluster import zookeeper

            store = await zookeeper.open_store(config)
        try:
            await registration.prepare_store(store)
            yield ConfigStore(store, clock)
        finally:
            await store.close()
    except (StoreError, LogDirectoryError) as error:
        raise ConfigError("", str(error)) from None
    except OSError as error:
        raise ConfigError(
            "", f"{error.filename or 'The store'} cannot be used: {error.strerror or error}"
        ) from None
    finally:
        if lock is not None:
            lock.release()
