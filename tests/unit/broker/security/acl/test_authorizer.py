"""Super users, what is open by default, lists of listeners, and how long a decision holds."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kavka.broker.context import Broker
from kavka.broker.security.acl import authorizer as subject
from kavka.broker.security.acl.authorizer import Authorizer
from kavka.broker.security.acl.model import Entry, Operation, Pattern, Permission, Resource
from kavka.broker.security.acl.opening import open_authorizer
from kavka.broker.security.acl.store import AclStore
from kavka.config.broker import BrokerConfig
from kavka.replication.store.local import LocalStore
from kavka.storage.clock import ManualClock

READ, WRITE, DESCRIBE = Operation.READ, Operation.WRITE, Operation.DESCRIBE
TOPIC = Resource.TOPIC
CLASS = "authorizer.class.name=kafka.security.auth.SimpleAclAuthorizer"


def acls() -> AclStore:
    store: Any = SimpleNamespace(on_session_event=lambda callback: None)
    return AclStore(store, ManualClock(), random.Random(1))


def put(store: AclStore, pattern: Pattern, *entries: Entry) -> None:
    store.table.replace(pattern, entries)
    store.on_change()


def allow(principal: str, operation: Operation, host: str = "*") -> Entry:
    return Entry(principal, host, operation, Permission.ALLOW)


def test_a_decision_holds_until_an_acl_changes() -> None:
    store = acls()
    authorizer = Authorizer(store)
    ask = ("User:a", "/10.0.0.1", READ, TOPIC, "t")
    assert not authorizer.allowed(*ask)
    store.table.replace(Pattern(TOPIC, "t"), [allow("User:a", READ, "10.0.0.1")])
    assert not authorizer.allowed(*ask)  # nobody has been told
    store.on_change()
    assert authorizer.allowed(*ask)
    assert not authorizer.allowed("User:a", "/10.0.0.2", READ, TOPIC, "t")
    assert not authorizer.allowed("User:b", "/10.0.0.1", READ, TOPIC, "t")
    assert not authorizer.allowed("User:a", "/10.0.0.1", WRITE, TOPIC, "t")
    assert not authorizer.allowed("User:a", "/10.0.0.1", READ, Resource.GROUP, "t")
    put(store, Pattern(TOPIC, "t"))
    assert not authorizer.allowed(*ask)


def test_super_users_may_do_everything() -> None:
    store = acls()
    authorizer = Authorizer(store, frozenset({"User:root"}))
    deny = Entry("User:*", "*", Operation.ALL, Permission.DENY)
    put(store, Pattern(TOPIC, "*"), deny)
    assert authorizer.allowed("User:root", "/1.1.1.1", WRITE, TOPIC, "t")
    assert authorizer.allowed_some("User:root", "/1.1.1.1", WRITE, TOPIC)
    assert not authorizer.allowed("User:other", "/1.1.1.1", WRITE, TOPIC, "t")
    assert not authorizer.allowed_some("User:other", "/1.1.1.1", WRITE, TOPIC)


def test_what_has_no_acls_may_be_open() -> None:
    store = acls()
    authorizer = Authorizer(store, open_by_default=True)
    assert authorizer.allowed("User:a", "/1.1.1.1", WRITE, TOPIC, "t")
    assert authorizer.allowed_some("User:a", "/1.1.1.1", WRITE, TOPIC)
    put(store, Pattern(TOPIC, "t"), allow("User:b", READ))
    assert not authorizer.allowed("User:a", "/1.1.1.1", WRITE, TOPIC, "t")
    assert authorizer.allowed("User:a", "/1.1.1.1", WRITE, TOPIC, "u")


def test_decisions_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ACL_DECISIONS_MAX", 10)
    store = acls()
    put(store, Pattern(TOPIC, "t7"), allow("User:a", READ))
    authorizer = Authorizer(store)
    for _ in range(2):
        for n in range(25):
            allowed = authorizer.allowed("User:a", "/1.1.1.1", READ, TOPIC, f"t{n}")
            assert allowed is (n == 7)
            authorizer.allowed_some(f"User:{n}", "/1.1.1.1", READ, TOPIC)
    assert len(authorizer._decisions) <= 10
    assert len(authorizer._some_decisions) <= 10


def opened(directory: Path, *settings: str) -> Broker:
    """A broker with the authorizer of its settings, whose store is closed again."""

    config = BrokerConfig(dict(setting.split("=", 1) for setting in settings))
    broker = Broker(config, ManualClock())

    async def whole() -> None:
        store = broker.store = await LocalStore.open(str(directory / "m.db"), broker.clock)
        async with AsyncExitStack() as teardown:
            await open_authorizer(broker, random.Random(1), teardown)
        await store.close()

    asyncio.run(whole())
    return broker


def test_settings_that_ask_for_none_get_none(tmp_path: Path) -> None:
    broker = opened(tmp_path, "super.users=User:a")
    assert broker.authorizer is None


def test_settings_of_the_authorizer(tmp_path: Path) -> None:
    broker = opened(
        tmp_path, CLASS, "super.users=User:CN=a,O=b; User:c;", "allow.everyone.if.no.acl.found=TRUE"
    )
    authorizer = broker.authorizer
    assert authorizer is not None
    assert authorizer.open_by_default
    deny = Entry("User:*", "*", Operation.ALL, Permission.DENY)
    assert authorizer.acls is not None
    put(authorizer.acls, Pattern(TOPIC, "t"), deny)
    for principal, may in {"User:CN=a,O=b": True, "User:c": True, "User:d": False}.items():
        assert authorizer.allowed(principal, "/1.1.1.1", READ, TOPIC, "t") is may


TWO_LISTENERS = "listeners=PLAIN://127.0.0.1:9092,CROSS://127.0.0.1:9011"
PROTOCOLS = "listener.security.protocol.map=PLAIN:PLAINTEXT,CROSS:PLAINTEXT"
INTER_BROKER = "inter.broker.listener.name=PLAIN"
ONLY_A = "listener.name.cross.allowed.principals=User:a"


def test_a_list_for_one_listener_needs_no_acls_and_follows_its_setting(tmp_path: Path) -> None:
    broker = opened(tmp_path, TWO_LISTENERS, PROTOCOLS, INTER_BROKER, ONLY_A)
    authorizer = broker.authorizer
    assert authorizer is not None and authorizer.acls is None
    assert authorizer.allowed("User:b", "/1.1.1.1", READ, TOPIC, "t")
    assert authorizer.allowed_some("User:b", "/1.1.1.1", WRITE, TOPIC)
    assert authorizer.admits("CROSS", "User:a")
    assert not authorizer.admits("CROSS", "User:b")
    assert authorizer.admits("PLAIN", "User:b")
    broker.config.set_dynamic_broker({"listener.name.cross.allowed.principals": "User:b;User:c"})
    assert not authorizer.admits("CROSS", "User:a")
    assert authorizer.admits("CROSS", "User:b")
    broker.config.set_dynamic_broker({"listener.name.cross.allowed.principals": ""})
    assert authorizer.admits("CROSS", "User:d")


def test_a_list_may_come_while_the_broker_runs(tmp_path: Path) -> None:
    broker = opened(tmp_path, TWO_LISTENERS, PROTOCOLS, INTER_BROKER)
    assert broker.authorizer is None
    broker.config.set_dynamic_broker({"listener.name.cross.allowed.principals": "User:a"})
    authorizer = broker.authorizer
    assert authorizer is not None
    assert not authorizer.admits("CROSS", "User:b")
