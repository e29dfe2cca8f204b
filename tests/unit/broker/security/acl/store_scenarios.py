"""What the store of ACLs must do over any metadata store: run over SQLite and over ZooKeeper."""

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from kavka.broker.security.acl import nodes
from kavka.broker.security.acl.model import (
    Binding,
    BindingFilter,
    Entry,
    Operation,
    Pattern,
    PatternType,
    Permission,
    Resource,
)
from kavka.broker.security.acl.store import AclStore
from kavka.replication.store.base import MetadataStore
from kavka.replication.store.notifications import KEPT_MS
from kavka.storage.clock import Clock

ALICE_READS = Entry("User:alice", "*", Operation.READ, Permission.ALLOW)
BOB_DESCRIBES = Entry("User:bob", "10.0.0.7", Operation.DESCRIBE_CONFIGS, Permission.DENY)
ALL_OF_IT = Entry("User:*", "*", Operation.ALL, Permission.ALLOW)

ORDERS = Pattern(Resource.TOPIC, "orders")
ALL_TOPICS = Pattern(Resource.TOPIC, "*")
BILLING = Pattern(Resource.GROUP, "billing-", PatternType.PREFIXED)
TRANSACTIONS = Pattern(Resource.TRANSACTIONAL_ID, "t x-ü")
USERS = Pattern(Resource.USER, "carol")

Wait = Callable[[Callable[[], bool]], Awaitable[None]]


class Later:
    """A clock as many milliseconds ahead of another as it is told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead_ms = 0

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self.ahead_ms

    def monotonic(self) -> float:
        return self._clock.monotonic()


class Member:
    """The ACLs as one broker has them."""

    def __init__(self, store: MetadataStore, clock: Clock) -> None:
        self.store = store
        self.clock = Later(clock)
        self.changes = 0
        self.acls = AclStore(store, self.clock, random.Random(7), self._on_change)

    def _on_change(self) -> None:
        self.changes += 1

    def all(self) -> set[Binding]:
        return set(self.acls.table.bindings())


async def bodies_and_paths_are_kafkas(member: Member) -> None:
    store = member.store
    await member.acls.start()
    for kind in ("Topic", "Group", "Cluster", "TransactionalId", "DelegationToken"):
        assert await store.exists(f"/kafka-acl/{kind}") is not None
        assert await store.exists(f"/kafka-acl-extended/prefixed/{kind}") is not None
    assert await store.exists("/kafka-acl/User") is None
    await member.acls.add(ORDERS, [ALICE_READS])
    data, _ = await store.get("/kafka-acl/Topic/orders")
    assert data == (
        b'{"version":1,"acls":[{"principal":"User:alice","permissionType":"Allow",'
        b'"operation":"Read","host":"*"}]}'
    )
    await member.acls.add(BILLING, [BOB_DESCRIBES])
    data, _ = await store.get("/kafka-acl-extended/prefixed/Group/billing-")
    assert json.loads(data)["acls"] == [
        {
            "principal": "User:bob",
            "permissionType": "Deny",
            "operation": "DescribeConfigs",
            "host": "10.0.0.7",
        }
    ]
    (change,) = await store.children("/kafka-acl-changes")
    assert change == "acl_changes_0000000000"
    data, _ = await store.get(f"/kafka-acl-changes/{change}")
    assert data == b"Topic:orders"
    (change,) = await store.children("/kafka-acl-extended-changes")
    data, _ = await store.get(f"/kafka-acl-extended-changes/{change}")
    assert json.loads(data) == {
        "version": 1,
        "resourceType": "Group",
        "name": "billing-",
        "patternType": "PREFIXED",
    }


async def what_was_added_is_found_by_others_until_it_is_removed(
    first: Member, second: Member, wait: Wait
) -> None:
    await first.acls.start()
    await first.acls.add(ORDERS, [ALICE_READS])
    await second.acls.start()
    assert second.all() == first.all() == {Binding(ORDERS, ALICE_READS)}
    for pattern in (ALL_TOPICS, BILLING, TRANSACTIONS, USERS):
        await second.acls.add(pattern, [ALL_OF_IT, BOB_DESCRIBES])
    assert len(second.all()) == 9  # at once where it was done
    await wait(lambda: first.all() == second.all())
    assert first.acls.find(BindingFilter(Resource.GROUP)) == sorted(
        [Binding(BILLING, ALL_OF_IT), Binding(BILLING, BOB_DESCRIBES)]
    )
    gone = await first.acls.remove(BILLING, [ALL_OF_IT, ALICE_READS])
    assert gone == {ALL_OF_IT}
    await wait(lambda: first.all() == second.all())
    await first.acls.remove(BILLING, [BOB_DESCRIBES])
    await wait(lambda: first.all() == second.all())
    assert not first.acls.table.entries(BILLING)
    assert await first.store.exists(nodes.pattern_path(BILLING)) is None
    await second.acls.stop()
    await first.acls.add(BILLING, [ALICE_READS])
    await second.acls.start()
    assert second.all() == first.all()


async def what_is_there_already_is_not_announced(member: Member) -> None:
    await member.acls.start()
    await member.acls.add(ORDERS, [ALICE_READS])
    before = member.changes
    await member.acls.add(ORDERS, [ALICE_READS])
    assert await member.acls.remove(ORDERS, [BOB_DESCRIBES]) == frozenset()
    assert member.changes == before
    assert len(await member.store.children(nodes.LITERAL_CHANGES)) == 1


async def two_that_write_at_once_lose_nothing(first: Member, second: Member, gather: Any) -> None:
    await first.acls.start()
    await second.acls.start()
    some = [Entry(f"User:{n}", "*", Operation.READ, Permission.ALLOW) for n in range(6)]
    members = [first, second] * 3
    await gather(
        *(member.acls.add(ORDERS, [entry]) for member, entry in zip(members, some, strict=True))
    )
    data, _ = await first.store.get("/kafka-acl/Topic/orders")
    assert nodes.decode_entries("", data) == set(some)


async def old_announcements_are_removed(first: Member, second: Member, wait: Wait) -> None:
    await first.acls.start()
    await second.acls.start()
    await first.acls.add(ORDERS, [ALICE_READS])
    await wait(lambda: second.all() == first.all())
    first.clock.ahead_ms = second.clock.ahead_ms = KEPT_MS + 60_000
    await first.acls.add(ALL_TOPICS, [ALICE_READS])
    await wait(lambda: second.all() == first.all())
    await first.acls.settled()
    await second.acls.settled()
    for left in await first.store.children(nodes.LITERAL_CHANGES):
        data, _ = await first.store.get(f"{nodes.LITERAL_CHANGES}/{left}")
        assert data != b"Topic:orders"
