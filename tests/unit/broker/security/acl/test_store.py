"""ACLs in the metadata store, over SQLite; two brokers that share it stand for a cluster."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kavka.broker.security.acl import nodes
from kavka.broker.security.acl import store as subject
from kavka.broker.security.acl.model import (
    Binding,
    Entry,
    Operation,
    Pattern,
    PatternType,
    Permission,
    Resource,
)
from kavka.broker.security.acl.store import AclStore
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.store.base import (
    Create,
    MetadataStore,
    MultiFailed,
    SessionEvent,
    SessionExpired,
    StoreUnavailable,
)
from kavka.replication.store.local import LocalStore
from kavka.replication.znodes import BadNode
from kavka.storage.clock import ManualClock
from tests.unit.broker.security.acl import store_scenarios as scenarios
from tests.unit.broker.security.acl.store_scenarios import (
    ALICE_READS,
    ALL_OF_IT,
    BILLING,
    BOB_DESCRIBES,
    ORDERS,
    Member,
)

CLOCK = ManualClock()


def run(directory: Path, scenario: Callable[[LocalStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = await LocalStore.open(str(directory / "metadata.db"), CLOCK)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(whole())


async def wait_over(store: MetadataStore, condition: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if condition():
            return
        await store.exists("/")  # every event up to now has been delivered when it answers
    raise AssertionError("it did not come about")


def test_bodies_and_paths_are_kafkas(tmp_path: Path) -> None:
    run(tmp_path, lambda store: scenarios.bodies_and_paths_are_kafkas(Member(store, CLOCK)))


def test_what_was_added_is_found_by_others_until_it_is_removed(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        members = Member(store, CLOCK), Member(store, CLOCK)
        await scenarios.what_was_added_is_found_by_others_until_it_is_removed(
            *members, lambda condition: wait_over(store, condition)
        )

    run(tmp_path, scenario)


def test_what_is_there_already_is_not_announced(tmp_path: Path) -> None:
    run(
        tmp_path,
        lambda store: scenarios.what_is_there_already_is_not_announced(Member(store, CLOCK)),
    )


def test_two_that_write_at_once_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_BACK_OFF_SECONDS", (0.0, 0.0))

    async def scenario(store: LocalStore) -> None:
        members = Member(store, CLOCK), Member(store, CLOCK)
        await scenarios.two_that_write_at_once_lose_nothing(*members, asyncio.gather)

    run(tmp_path, scenario)


def test_old_announcements_are_removed(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        members = Member(store, CLOCK), Member(store, CLOCK)
        await scenarios.old_announcements_are_removed(
            *members, lambda condition: wait_over(store, condition)
        )

    run(tmp_path, scenario)


class Obstinate:
    """A store whose writes fail as told, before or after they are done."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self.failures: list[BaseException] = []
        self.answers_lost = 0
        self.session_callbacks: list[Callable[[SessionEvent], None]] = []

    def on_session_event(self, callback: Callable[[SessionEvent], None]) -> None:
        self.session_callbacks.append(callback)

    def multi(self, operations: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._multi(operations))

    async def _multi(self, operations: Any) -> Any:
        if self.answers_lost:
            # Done, the connection lost, asked again: that finds its own doing.
            self.answers_lost -= 1
            await self._store.multi(operations)
        if self.failures:
            raise self.failures.pop()
        return await self._store.multi(operations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def obstinate(store: MetadataStore) -> tuple[Any, AclStore]:
    wrapped: Any = Obstinate(store)
    return wrapped, AclStore(wrapped, CLOCK, random.Random(1))


def test_a_write_that_others_are_always_faster_at_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_BACK_OFF_SECONDS", (0.0, 0.0))

    async def scenario(store: LocalStore) -> None:
        wrapped, acls = obstinate(store)
        await acls.start()
        conflict = MultiFailed(0, subject.BadVersion("somebody was faster"))
        wrapped.failures = [conflict] * (subject.UPDATE_ATTEMPTS - 1)
        await acls.add(ORDERS, [ALICE_READS])
        wrapped.failures = [conflict] * subject.UPDATE_ATTEMPTS
        with pytest.raises(KafkaError) as caught:
            await acls.add(ORDERS, [ALL_OF_IT])
        assert caught.value.code is ErrorCode.UNKNOWN_SERVER_ERROR
        assert acls.table.entries(ORDERS) == {ALICE_READS}
        wrapped.failures = [SessionExpired("it has been away")]  # the next one can do it as well
        await acls.add(BILLING, [BOB_DESCRIBES])
        assert acls.table.entries(BILLING) == {BOB_DESCRIBES}
        wrapped.failures = [StoreUnavailable("the disk is full")]
        with pytest.raises(KafkaError, match="disk is full"):
            await acls.add(ORDERS, [ALL_OF_IT])

    run(tmp_path, scenario)


def test_a_removal_whose_answer_was_lost_says_what_it_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_BACK_OFF_SECONDS", (0.0, 0.0))

    async def scenario(store: LocalStore) -> None:
        wrapped, acls = obstinate(store)
        await acls.start()
        for entries in ([ALICE_READS], [ALICE_READS, BOB_DESCRIBES]):
            await acls.add(ORDERS, entries)
            wrapped.answers_lost = 1
            assert await acls.remove(ORDERS, [ALICE_READS]) == {ALICE_READS}
            assert ALICE_READS not in acls.table.entries(ORDERS)

    run(tmp_path, scenario)


def test_after_a_lost_session_everything_is_read_anew(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        wrapped, acls = obstinate(store)
        other = Member(store, CLOCK)
        await acls.start()
        await other.acls.start()
        await acls.add(ORDERS, [ALICE_READS])
        for changes in acls._changes.values():
            changes._on_change = lambda event: None  # type: ignore[method-assign]
        for callback in wrapped.session_callbacks:
            callback(SessionEvent.EXPIRED)
        # The watches are gone with the session.
        await store.delete(nodes.pattern_path(ORDERS))
        await store.create(nodes.pattern_path(BILLING), nodes.encode_entries([BOB_DESCRIBES]))
        for callback in wrapped.session_callbacks:
            callback(SessionEvent.CONNECTED)
        await acls.settled()
        assert set(acls.table.bindings()) == {Binding(BILLING, BOB_DESCRIBES)}

    run(tmp_path, scenario)


def test_what_cannot_be_read_keeps_a_broker_from_starting_and_a_running_one_as_it_was(
    tmp_path: Path,
) -> None:
    async def scenario(store: LocalStore) -> None:
        acls = AclStore(store, CLOCK, random.Random(1))
        await acls.start()
        await acls.add(ORDERS, [ALICE_READS])
        await store.set(
            nodes.pattern_path(ORDERS), b'{"version":1,"acls":[{"principal":"User:x"}]}'
        )
        await store.multi(
            [Create("/kafka-acl-changes/acl_changes_", b"Topic:orders", sequence=True)]
        )
        await store.multi([Create("/kafka-acl-changes/acl_changes_", b"nonsense", sequence=True)])
        await store.exists("/")
        await acls.settled()
        assert acls.table.entries(ORDERS) == {ALICE_READS}
        with pytest.raises(BadNode, match="/kafka-acl/Topic/orders"):
            await AclStore(store, CLOCK, random.Random(1)).start()
        await store.delete(nodes.pattern_path(ORDERS))
        await store.create("/kafka-acl/Planet")
        with pytest.raises(BadNode, match="Planet"):
            await AclStore(store, CLOCK, random.Random(1)).start()

    run(tmp_path, scenario)


def test_a_node_has_a_size(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        acls = AclStore(store, CLOCK, random.Random(1))
        await acls.start()
        much = limits.ACL_NODE_BYTES_MAX // 1000
        entries = [
            Entry(f"User:{n}{'x' * 1000}", "*", Operation.READ, Permission.ALLOW)
            for n in range(much)
        ]
        with pytest.raises(KafkaError) as caught:
            await acls.add(ORDERS, entries)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
        assert set(acls.table) == set()

    run(tmp_path, scenario)


@pytest.mark.parametrize("resource", [each for each in Resource if each > Resource.ANY])
@pytest.mark.parametrize("kind", [PatternType.LITERAL, PatternType.PREFIXED])
def test_bodies_are_read_as_they_were_written(resource: Resource, kind: PatternType) -> None:
    pattern = Pattern(resource, "a name: ü", kind)
    changes = nodes.LITERAL_CHANGES if kind is PatternType.LITERAL else nodes.PREFIXED_CHANGES
    change = nodes.encode_change(pattern)
    assert nodes.decode_change(f"{changes}/acl_changes_0000000001", change) == pattern
    entries = {
        Entry("User:CN=a, O=b", "::1", operation, permission)
        for operation in Operation
        if operation > Operation.ANY
        for permission in (Permission.ALLOW, Permission.DENY)
    }
    assert nodes.decode_entries("", nodes.encode_entries(entries)) == entries
    assert nodes.decode_entries("", b"") == frozenset()


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"acls":[{"principal":"User:a","host":"*"}]}', b'{"acls":[7]}']
)
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(BadNode):
        nodes.decode_entries("/kafka-acl/Topic/t", body)
    with pytest.raises(BadNode):
        nodes.decode_change("/kafka-acl-extended-changes/acl_changes_0", body)
    with pytest.raises(BadNode):
        nodes.decode_change("/kafka-acl-changes/acl_changes_0", body)
