"""What describes and alters SCRAM users (KIP-554), by the rules of a broker that keeps its metadata
in ZooKeeper (``ZkAdminManager``).

Each user has one result; what is wrong with one of a request's changes to a user spares none of the
others.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramCredential, ScramError, ScramMechanism
from kavka.replication.controller.patience import in_time, store_failure
from kavka.replication.store.base import StoreError
from kavka.replication.znodes import desanitize, sanitize

if TYPE_CHECKING:
    from kavka.replication.controller.configs import ConfigStore

_BY_CODE: Final = {mechanism.code: mechanism for mechanism in ScramMechanism}
_NO_NAME: Final = "Username must not be empty"

Iterations = dict[ScramMechanism, int]


class Change(NamedTuple):
    """A credential to be set, or removed; with the protocol's number of its mechanism."""

    user: str
    mechanism_code: int
    upsertion: "Upsertion | None" = None


class Upsertion(NamedTuple):
    """What a credential is made of: the client has salted the password."""

    iterations: int
    salt: bytes
    salted_password: bytes

    def __repr__(self) -> str:
        return f"<Upsertion iterations={self.iterations}>"


# -- describe -----------------------------------------------------------------------------------


async def describe(
    store: "ConfigStore", users: Sequence[str]
) -> dict[str, Iterations | KafkaError]:
    """Iterations by mechanism of these users, or of all that have credentials for no names.

    Raises KafkaError when the store fails.
    """
    try:
        if not users:
            async with in_time():
                nodes = await store.read_all("users")
            named = [
                (name, overrides)
                for node, overrides in nodes.items()
                if "/" not in node and (name := desanitize(node)) is not None
            ]
            return {name: found for name, overrides in named if (found := _described(overrides))}
        results: dict[str, Iterations | KafkaError] = {}
        for name, times in Counter(users).items():
            results[name] = await _describe_one(store, name, times)
        return results
    except StoreError as error:
        raise store_failure(error) from None


async def _describe_one(store: "ConfigStore", name: str, times: int) -> Iterations | KafkaError:
    if not name:
        return KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, _NO_NAME)
    if times > 1:
        return KafkaError(
            ErrorCode.DUPLICATE_RESOURCE,
            "Cannot describe SCRAM credentials for the same user twice in a single request: "
            f"{name}",
        )
    async with in_time():
        found = _described(await store.read("users", sanitize(name)))
    return found or KafkaError(
        ErrorCode.RESOURCE_NOT_FOUND,
        f"Attempt to describe a user credential that does not exist: {name}",
    )


def _described(overrides: Mapping[str, str]) -> Iterations:
    found: Iterations = {}
    for mechanism in ScramMechanism:
        text = overrides.get(mechanism.sasl_name)
        if text is not None:
            try:
                found[mechanism] = scram.parse_credential(mechanism, text).iterations
            except ScramError:
                continue  # nobody can log in with it: as good as none
    return found


# -- alter --------------------------------------------------------------------------------------


async def alter(store: "ConfigStore", changes: Iterable[Change]) -> dict[str, KafkaError | None]:
    """Make the changes; what kept each user's from being made, None where nothing did."""
    by_user: dict[str, list[Change]] = {}
    for change in changes:
        by_user.setdefault(change.user, []).append(change)
    results: dict[str, KafkaError | None] = {}
    for user, of_user in by_user.items():
        try:
            async with in_time():
                await _alter_one(store, user, of_user)
            results[user] = None
        except KafkaError as error:
            results[user] = error
        except StoreError as error:
            results[user] = store_failure(error)
    return results


async def _alter_one(store: "ConfigStore", user: str, changes: Sequence[Change]) -> None:
    for change in changes:
        _check(change)
    if len({change.mechanism_code for change in changes}) < len(changes):
        raise KafkaError(
            ErrorCode.DUPLICATE_RESOURCE,
            "A user credential cannot be altered twice in the same request",
        )

    def apply(overrides: dict[str, str]) -> None:
        for change in changes:
            mechanism = _BY_CODE[change.mechanism_code]
            if change.upsertion is not None:
                credential = _credential(mechanism, change.upsertion)
                overrides[mechanism.sasl_name] = scram.render_credential(credential)
            elif overrides.pop(mechanism.sasl_name, None) is None:
                raise KafkaError(
                    ErrorCode.RESOURCE_NOT_FOUND,
                    "Attempt to delete a user credential that does not exist",
                )

    await store.update("users", sanitize(user), apply)


def _check(change: Change) -> None:
    if not change.user:
        raise KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, _NO_NAME)
    if change.mechanism_code not in _BY_CODE:
        raise KafkaError(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    if change.upsertion is not None:
        iterations = change.upsertion.iterations
        if iterations < scram.ITERATIONS_MIN:
            raise KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations")
        if iterations > scram.ITERATIONS_MAX:
            raise KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations")


def _credential(mechanism: ScramMechanism, upsertion: Upsertion) -> ScramCredential:
    keys = scram.keys_of(mechanism, upsertion.salted_password)
    return ScramCredential(upsertion.salt, keys.stored_key, keys.server_key, upsertion.iterations)
