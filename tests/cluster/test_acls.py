"""The store of ACLs over a real ZooKeeper: the scenarios that it passes over SQLite."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from kavka.broker.security.acl import store as subject
from kavka.replication import registration
from kavka.replication.store.link import ZooKeeperSettings
from kavka.replication.store.zookeeper import ZooKeeperStore
from kavka.storage.clock import SystemClock
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.unit.broker.security.acl import store_scenarios as scenarios
from tests.unit.broker.security.acl.store_scenarios import Member

pytestmark = needs_zookeeper


def run(
    zookeeper: ZooKeeper, count: int, scenario: Callable[[list[Member]], Awaitable[None]]
) -> None:
    servers, _, path = zookeeper.chroot().partition("/")

    async def whole() -> None:
        settings = ZooKeeperSettings(servers, f"/{path}")
        stores = [await ZooKeeperStore.open(settings) for _ in range(count)]
        try:
            await registration.prepare_store(stores[0])
            members = [Member(store, SystemClock()) for store in stores]
            await scenario(members)
            for member in members:
                await member.acls.stop()
        finally:
            for store in stores:
                await store.close()

    asyncio.run(whole())


async def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)  # between polls of a condition, not instead of one


def test_bodies_and_paths_are_kafkas(zookeeper: ZooKeeper) -> None:
    run(zookeeper, 1, lambda members: scenarios.bodies_and_paths_are_kafkas(*members))


def test_what_was_added_is_found_by_others_until_it_is_removed(zookeeper: ZooKeeper) -> None:
    run(
        zookeeper,
        2,
        lambda members: scenarios.what_was_added_is_found_by_others_until_it_is_removed(
            *members, wait
        ),
    )


def test_what_is_there_already_is_not_announced(zookeeper: ZooKeeper) -> None:
    run(zookeeper, 1, lambda members: scenarios.what_is_there_already_is_not_announced(*members))


def test_two_that_write_at_once_lose_nothing(
    zookeeper: ZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_BACK_OFF_SECONDS", (0.0, 0.01))
    run(
        zookeeper,
        2,
        lambda members: scenarios.two_that_write_at_once_lose_nothing(*members, asyncio.gather),
    )


def test_old_announcements_are_removed(zookeeper: ZooKeeper) -> None:
    run(zookeeper, 2, lambda members: scenarios.old_announcements_are_removed(*members, wait))
