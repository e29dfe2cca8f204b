"""A broker's first steps at the metadata store: its paths, the cluster's id, its registration."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from random import Random
from typing import Final

from kavka.replication import znodes
from kavka.replication.store.base import (
    Create,
    MetadataStore,
    MultiFailed,
    NodeExists,
    NoNode,
    SetData,
    Stat,
)
from kavka.replication.znodes import Registration

logger = logging.getLogger("kavka.registration")


class RegistrationError(Exception):
    """The broker cannot join; the message is one sentence that says what to change."""


async def prepare_store(store: MetadataStore) -> None:
    """Create the paths every cluster has, where they do not exist. Raises StoreError."""
    wanted = dict.fromkeys(
        path for whole in znodes.PERSISTENT_PATHS for path in _with_parents(whole)
    )
    for result in await asyncio.gather(
        *(store.create(path) for path in wanted), return_exceptions=True
    ):
        if isinstance(result, BaseException) and not isinstance(result, NodeExists):
            raise result


def _with_parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    for length in range(2, len(parts) + 1):
        yield "/".join(parts[:length])


async def cluster_id(store: MetadataStore, random: Random) -> str:
    """The cluster's id: 22 characters; the first broker makes it up. Raises StoreError."""
    while True:
        try:
            data, _ = await store.get(znodes.CLUSTER_ID)
        except NoNode:
            made = znodes.encode_uuid(random.randbytes(16))
            with contextlib.suppress(NodeExists):
                await store.create(znodes.CLUSTER_ID.rpartition("/")[0])
            with contextlib.suppress(NodeExists):
                await store.create(znodes.CLUSTER_ID, znodes.encode_cluster_id(made))
        else:
            return znodes.decode_cluster_id(data)


_REGISTER_ATTEMPTS: Final = 3


async def register(
    store: MetadataStore, broker_id: int, registration: Registration, now_ms: int
) -> int:
    """Announce the broker for as long as the session lasts; give its epoch.

    Raises RegistrationError if its id or one of its addresses is another live broker's, and
    StoreError.
    """
    path = znodes.broker_path(broker_id)
    await check_addresses(store, broker_id, registration)
    for _ in range(_REGISTER_ATTEMPTS):
        try:
            # Written in two steps so that the answer tells the transaction: the epoch.
            _, stat = await store.multi(
                [
                    Create(path, ephemeral=True),
                    SetData(path, znodes.encode_registration(registration, now_ms), 0),
                ]
            )
        except MultiFailed as failure:
            if not isinstance(failure.error, NodeExists):
                raise failure.error from None
            there = await store.exists(path)
            if there is None:
                continue
            if there.ephemeral_owner != store.session_id:
                break
            with contextlib.suppress(NoNode):
                await store.delete(path)
        else:
            assert isinstance(stat, Stat)
            logger.info("Broker is registered broker=%d epoch=%d", broker_id, stat.czxid)
            return stat.czxid
    raise RegistrationError(
        f"broker.id={broker_id} is in use by another broker of this cluster: give this one "
        "another broker.id, or wait until the other's session has ended"
    )


async def update(
    store: MetadataStore, broker_id: int, registration: Registration, now_ms: int
) -> None:
    """Say of a registered broker what has changed. The broker keeps its epoch.

    Does nothing when the registration is gone: the broker will register anew. Raises StoreError.
    """
    data = znodes.encode_registration(registration, now_ms)
    try:
        await store.set(znodes.broker_path(broker_id), data)
    except NoNode:
        logger.info("The broker is not registered, its new addresses wait broker=%d", broker_id)
        return
    logger.info(
        "The broker's registration is changed broker=%d endpoints=%s",
        *(broker_id, ",".join(map(str, registration.endpoints))),
    )


async def check_addresses(store: MetadataStore, broker_id: int, registration: Registration) -> None:
    """Raises RegistrationError if another live broker is reached at one of the addresses."""
    own = {(endpoint.host, endpoint.port) for endpoint in registration.endpoints}
    for name in await store.children(znodes.BROKER_IDS):
        if name == str(broker_id):
            continue
        path = f"{znodes.BROKER_IDS}/{name}"
        try:
            data, _ = await store.get(path)
            other = znodes.decode_registration(path, data)
        except (NoNode, znodes.BadNode):
            continue  # gone, or nothing that could be reached
        for endpoint in other.endpoints:
            if (endpoint.host, endpoint.port) in own:
                raise RegistrationError(
                    f"broker {name} is advertised at {endpoint.host}:{endpoint.port} as well: "
                    "change advertised.listeners (or listeners) of this broker"
                )


async def generated_broker_id(store: MetadataStore, reserved_max: int) -> int:
    """An id for a broker that has none (broker.id=-1), above ``reserved.broker.max.id``.

    Raises StoreError.
    """
    stat = await store.set(znodes.BROKER_SEQUENCE, b"")
    return reserved_max + stat.version
