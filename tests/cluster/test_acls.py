"""ACLs in a real ZooKeeper: the store's scenarios, and brokers that share them with old tools."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from kavka.broker.security.acl import store as subject
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from kavka.replication import registration
from kavka.replication.store.link import ZooKeeperSettings
from kavka.replication.store.zookeeper import ZooKeeperStore
from kavka.storage.clock import SystemClock
from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.kafka_process import zookeeper_tool
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.secured import ADMIN, log_in, settings
from tests.unit.broker.security.acl import store_scenarios as scenarios
from tests.unit.broker.security.acl.store_scenarios import Member as Keeper
from tests.wire import WireClient

pytestmark = [pytest.mark.cluster, needs_zookeeper]

PREFIXED = ("--resource-pattern-type", "prefixed")


def run(
    zookeeper: ZooKeeper, count: int, scenario: Callable[[list[Keeper]], Awaitable[None]]
) -> None:
    servers, _, path = zookeeper.chroot().partition("/")

    async def whole() -> None:
        settings = ZooKeeperSettings(servers, f"/{path}")
        stores = [await ZooKeeperStore.open(settings) for _ in range(count)]
        try:
            await registration.prepare_store(stores[0])
            members = [Keeper(store, SystemClock()) for store in stores]
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


# -- brokers that share them --------------------------------------------------------------------


def acls_tool(release: str, connect: str, *arguments: str) -> str:
    return zookeeper_tool(
        *(release, "kafka.admin.AclCommand", "--authorizer-properties"),
        *(f"zookeeper.connect={connect}", *arguments),
    )


def may_describe(member: Member, topic: str) -> bool:
    """Whether alice may, as this broker has it."""
    port = int(member.settings["listeners"].split(",")[0].rpartition(":")[2])
    request = MetadataRequest(topics=[MetadataRequestTopic(name=topic)])
    request.allow_auto_topic_creation = False
    with log_in(WireClient(port), "alice") as alice:
        (answer,) = alice.ask(request, MetadataResponse, 9).topics
    return answer.error_code != ErrorCode.TOPIC_AUTHORIZATION_FAILED


def wait_until_described(members: Sequence[Member], topic: str, *, described: bool = True) -> None:
    for member in members:
        wait_for(
            f"{topic} on {member.broker_id}",
            lambda member=member: may_describe(member, topic) is described,
        )


@pytest.mark.java
def test_brokers_obey_what_old_tools_write_and_old_tools_read_what_brokers_write(
    zookeeper: ZooKeeper, tmp_path: Path
) -> None:
    cluster = Cluster(zookeeper, tmp_path, size=0)
    for broker_id in (1, 2):
        own = settings(["alice"])
        plain, sasl = own["listeners"].split(",")
        own["listeners"] = f"{sasl},{plain}"
        # Brokers come to each other by the plain listener.
        own["super.users"] = f"User:{ADMIN};User:ANONYMOUS"
        own["authorizer.class.name"] = "kafka.security.auth.SimpleAclAuthorizer"
        cluster.add(broker_id, own)
    try:
        cluster.start()
        members = list(cluster.members.values())
        cluster.create("orders", partitions=2, replicas=2)
        assert not any(may_describe(member, "orders") for member in members)
        for release, topic, prefix in (("1.1", "orders", ()), ("2.3", "bills-7", PREFIXED)):
            rights = ("--allow-principal", "User:alice", "--operation", "Read")
            named = (*rights, "--topic", topic[:6] if prefix else topic, *prefix)
            acls_tool(release, cluster.connect, "--add", *named)
            wait_until_described(members, topic)
            acls_tool(release, cluster.connect, "--remove", "--force", *named)
            wait_until_described(members, topic, described=False)
        for member in members:  # another one than wrote the one before
            admin = AdminClient({"bootstrap.servers": member.bootstrap})
            name = f"by-{member.broker_id}"
            for kind in (ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED):
                acl = AclBinding(
                    *(ResourceType.TOPIC, name, kind, "User:alice", "*"),
                    *(AclOperation.DESCRIBE, AclPermissionType.ALLOW),
                )
                admin.create_acls([acl])[acl].result(30)
            wait_until_described(members, name)
            listed = acls_tool("2.3", cluster.connect, "--list", "--topic", name)
            assert f"Topic:LITERAL:{name}" in listed
            listed = acls_tool("2.3", cluster.connect, "--list", "--topic", name, *PREFIXED)
            assert f"Topic:PREFIXED:{name}" in listed
            listed = acls_tool("1.1", cluster.connect, "--list", "--topic", name)
            assert "User:alice has Allow permission for operations: Describe" in listed
    finally:
        cluster.stop()
