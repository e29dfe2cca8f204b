"""The SQLite store against a model of ZooKeeper's rules, and its watches."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kavka.replication.store.base import (
    ANY_VERSION,
    BadVersion,
    Check,
    Create,
    Delete,
    EventType,
    MultiFailed,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    Operation,
    SessionEvent,
    SessionExpired,
    SetData,
    StoreError,
    StoreUnavailable,
    WatchEvent,
)
from kavka.replication.store.local import LocalStore
from kavka.storage.clock import ManualClock

CLOCK = ManualClock()


class ModelNode:
    def __init__(self, data: bytes, ephemeral: bool) -> None:
        self.data = data
        self.ephemeral = ephemeral
        self.version = 0
        self.creates = 0
        self.deletes = 0


class Model:
    """ZooKeeper's rules over a dict."""

    def __init__(self) -> None:
        self.nodes = {"/": ModelNode(b"", False)}

    def children(self, path: str) -> list[str]:
        prefix = "/" if path == "/" else path + "/"
        return sorted(
            p[len(prefix) :]
            for p in self.nodes
            if p != "/" and p.startswith(prefix) and "/" not in p[len(prefix) :]
        )

    def need(self, path: str, version: int) -> ModelNode:
        if path not in self.nodes:
            raise NoNode(path)
        if version not in (ANY_VERSION, self.nodes[path].version):
            raise BadVersion(path)
        return self.nodes[path]

    def apply(self, operation: Operation) -> str | None:
        match operation:
            case Create(path, data, ephemeral, sequence):
                parent_path = path.rpartition("/")[0] or "/"
                parent = self.need(parent_path, ANY_VERSION)
                if sequence:
                    path = f"{path}{parent.creates:010d}"
                if parent.ephemeral:
                    raise NoChildrenForEphemerals(path)
                if path in self.nodes:
                    raise NodeExists(path)
                self.nodes[path] = ModelNode(data, ephemeral)
                parent.creates += 1
                return path
            case SetData(path, data, version):
                node = self.need(path, version)
                node.data = data
                node.version += 1
            case Delete(path, version):
                self.need(path, version)
                if self.children(path):
                    raise NotEmpty(path)
                del self.nodes[path]
                self.nodes[path.rpartition("/")[0] or "/"].deletes += 1
            case Check(path, version):
                self.need(path, version)
        return None

    def copy(self) -> "Model":
        clone = Model()
        clone.nodes = {}
        for path, node in self.nodes.items():
            clone.nodes[path] = ModelNode(node.data, node.ephemeral)
            clone.nodes[path].__dict__.update(node.__dict__)
        return clone


NAMES = st.sampled_from(["a", "b"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
DATA = st.binary(max_size=3)
VERSIONS = st.sampled_from([ANY_VERSION, ANY_VERSION, 0, 1])
CREATES = st.builds(Create, PATHS, DATA, st.sampled_from([False, False, True]), st.booleans())
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    CREATES,
    st.builds(SetData, PATHS, DATA, VERSIONS),
    st.builds(Delete, PATHS, VERSIONS),
    st.builds(Check, PATHS, VERSIONS),
)


class StoreMachine(RuleBasedStateMachine):
    """Random operations on the store and the model; they must agree after every step."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = self.begin()
        self.model = Model()
        self.seen: list[WatchEvent] = []
        self.expected: list[WatchEvent] = []
        self.data_watches: set[str] = set()
        self.child_watches: set[str] = set()

    def begin(self) -> Any:
        """A new and empty store."""
        self.crashed: list[LocalStore] = []
        self.directory = tempfile.TemporaryDirectory()
        self.path = str(Path(self.directory.name) / "metadata.db")
        return self.run(LocalStore.open(self.path, CLOCK))

    def go_on(self, crash: bool) -> Any:
        """The store after the end of the session, or a crash."""
        if crash:  # what a dead process would have left
            left = Path(self.path).parent / f"crash{len(self.crashed)}"
            left.mkdir()
            for file in Path(self.path).parent.glob("metadata.db*"):
                shutil.copy(file, left)
            self.crashed.append(self.store)
            self.path = str(left / "metadata.db")
        else:
            self.run(self.store.close())
        return self.run(LocalStore.open(self.path, CLOCK))

    def end(self) -> None:
        """No store is needed any more."""
        for store in [self.store, *self.crashed]:
            self.run(store.close())
        self.directory.cleanup()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def expect_events(self, operation: Operation, path: str) -> None:
        parent = path.rpartition("/")[0] or "/"
        match operation:
            case Create():
                self.expect_data(path, EventType.CREATED)
                self.expect_child(parent)
            case SetData():
                self.expect_data(path, EventType.CHANGED)
            case Delete():
                if path in self.data_watches | self.child_watches:
                    self.expected.append(WatchEvent(EventType.DELETED, path))
                self.data_watches.discard(path)
                self.child_watches.discard(path)
                self.expect_child(parent)

    def expect_data(self, path: str, kind: EventType) -> None:
        if path in self.data_watches:
            self.data_watches.remove(path)
            self.expected.append(WatchEvent(kind, path))

    def expect_child(self, path: str) -> None:
        if path in self.child_watches:
            self.child_watches.remove(path)
            self.expected.append(WatchEvent(EventType.CHILD, path))

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=4))
    def multi(self, operations: list[Operation]) -> None:
        trial = self.model.copy()
        results: list[str | None] = []
        try:
            for index, operation in enumerate(operations):  # noqa: B007
                results.append(trial.apply(operation))
        except StoreError as error:
            with pytest.raises(MultiFailed) as caught:
                self.run(as_coroutine(self.store.multi(operations)))
            assert caught.value.index == index
            assert type(caught.value.error) is type(error)
            return
        self.model = trial
        for operation, result in zip(operations, results, strict=True):
            self.expect_events(operation, result or operation.path)
        given = self.run(as_coroutine(self.store.multi(operations)))
        for operation, result, real in zip(operations, results, given, strict=True):
            match operation:
                case Create():
                    assert real == result
                case SetData():
                    assert real.data_length == len(operation.data)
                case _:
                    assert real is None

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=4))
    def pipelined(self, operations: list[Operation]) -> None:
        """Single operations, all sent before the first answer is read."""

        def send(operation: Operation) -> "asyncio.Future[Any]":
            match operation:
                case Create(path, data, ephemeral, sequence):
                    return self.store.create(path, data, ephemeral=ephemeral, sequence=sequence)
                case SetData():
                    return self.store.set(*operation)
                case Delete():
                    return self.store.delete(*operation)
                case Check():
                    return self.store.multi([operation])

        async def send_all() -> list[Any]:
            futures = [send(operation) for operation in operations]
            return await asyncio.gather(*futures, return_exceptions=True)

        for operation, real in zip(operations, self.run(send_all()), strict=True):
            try:
                result = self.model.apply(operation)
            except StoreError as error:
                real = real.error if isinstance(real, MultiFailed) else real
                assert type(real) is type(error)
            else:
                assert not isinstance(real, Exception)
                if isinstance(operation, Create):
                    assert real == result
                self.expect_events(operation, result or operation.path)

    def watch(self, event: WatchEvent) -> None:
        self.seen.append(event)

    @rule(path=PATHS)
    def get(self, path: str) -> None:
        try:
            node = self.model.need(path, ANY_VERSION)
        except NoNode:
            with pytest.raises(NoNode):
                self.run(as_coroutine(self.store.get(path, self.watch)))
        else:
            data, stat = self.run(as_coroutine(self.store.get(path, self.watch)))
            assert (data, stat.version) == (node.data, node.version)
            self.data_watches.add(path)

    @rule(path=PATHS)
    def exists(self, path: str) -> None:
        stat = self.run(as_coroutine(self.store.exists(path, self.watch)))
        assert (stat is not None) == (path in self.model.nodes)
        self.data_watches.add(path)

    @rule(path=st.one_of(PATHS, st.just("/")))
    def children(self, path: str) -> None:
        if path not in self.model.nodes:
            with pytest.raises(NoNode):
                self.run(as_coroutine(self.store.children(path, self.watch)))
        else:
            names = self.run(as_coroutine(self.store.children(path, self.watch)))
            assert sorted(names) == self.model.children(path)
            self.child_watches.add(path)

    @rule(crash=st.booleans())
    def reopen(self, crash: bool) -> None:
        """Ephemerals are gone, everything else is there; watches are not."""
        self.store = self.go_on(crash)
        self.data_watches.clear()
        self.child_watches.clear()
        for path in [path for path, node in self.model.nodes.items() if node.ephemeral]:
            self.model.apply(Delete(path))

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.seen == self.expected
        for path, node in self.model.nodes.items():
            data, stat = self.run(as_coroutine(self.store.get(path)))
            assert data == node.data
            assert stat.version == node.version
            assert stat.cversion == node.creates + node.deletes
            assert stat.num_children == len(self.model.children(path))
            assert (stat.ephemeral_owner != 0) == node.ephemeral
            assert stat.czxid <= stat.mzxid
            if node.ephemeral:
                assert stat.ephemeral_owner == self.store.session_id

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.end()
            self.loop.close()


async def as_coroutine(future: "asyncio.Future[Any]") -> Any:
    return await future


StoreMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreAgainstModel = StoreMachine.TestCase


def in_store(tmp_path: Path, scenario: Callable[[LocalStore], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = await LocalStore.open(str(tmp_path / "metadata.db"), CLOCK)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_a_watch_fires_once(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        seen: list[WatchEvent] = []
        await store.create("/a")
        await store.get("/a", seen.append)
        await store.set("/a", b"1")
        await store.set("/a", b"2")
        assert seen == [WatchEvent(EventType.CHANGED, "/a")]

    in_store(tmp_path, scenario)


def test_the_same_watch_set_twice_fires_once(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        seen: list[WatchEvent] = []

        def watch(event: WatchEvent) -> None:
            seen.append(event)

        await store.create("/a")
        await store.get("/a", watch)
        await store.exists("/a", watch)
        await store.children("/a", watch)
        await store.delete("/a")
        assert seen == [WatchEvent(EventType.DELETED, "/a")]

    in_store(tmp_path, scenario)


def test_an_event_comes_before_later_data(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        order: list[str] = []
        await store.create("/a", b"old")
        await store.get("/a", lambda _: order.append("event"))
        write = store.set("/a", b"new")
        read = store.get("/a")
        read.add_done_callback(lambda _: order.append("read"))
        write.add_done_callback(lambda _: order.append("write"))
        await read
        await asyncio.sleep(0)
        assert order == ["event", "write", "read"]

    in_store(tmp_path, scenario)


def test_a_failing_watch_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(store: LocalStore) -> None:
        def watch(event: WatchEvent) -> None:
            raise RuntimeError("broken watch")

        await store.create("/a")
        await store.get("/a", watch)
        await store.set("/a", b"1")
        assert (await store.get("/a"))[0] == b"1"

    in_store(tmp_path, scenario)
    assert "A watch failed" in caplog.text


def test_a_refused_multi_writes_nothing_and_tells_nobody(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        seen: list[WatchEvent] = []
        await store.create("/a", b"1")
        await store.get("/a", seen.append)
        await store.exists("/b", seen.append)
        with pytest.raises(MultiFailed) as caught:
            await store.multi([SetData("/a", b"2"), Create("/b"), Check("/a", 7)])
        assert caught.value.index == 2
        assert isinstance(caught.value.error, BadVersion)
        assert (await store.get("/a"))[0] == b"1"
        assert await store.exists("/b") is None
        assert seen == []

    in_store(tmp_path, scenario)


def test_zxids_grow_over_restarts(tmp_path: Path) -> None:
    zxids: list[int] = []

    async def scenario(store: LocalStore) -> None:
        path = await store.create("/n", ephemeral=True)
        stat = await store.exists(path)
        assert stat is not None
        zxids.append(stat.czxid)

    in_store(tmp_path, scenario)
    in_store(tmp_path, scenario)
    assert zxids[0] < zxids[1]


def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        with pytest.raises(StoreUnavailable, match="in use by another broker"):
            await LocalStore.open(str(tmp_path / "metadata.db"), CLOCK)

    in_store(tmp_path, scenario)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable, match=r"metadata\.db"):
        in_store(tmp_path, lambda store: as_coroutine(store.children("/")))


def test_a_closed_store_refuses(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        await store.close()
        with pytest.raises(SessionExpired):
            await store.get("/")

    in_store(tmp_path, scenario)


def test_a_write_that_fails_fails_its_whole_batch_and_the_store_goes_on(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        seen: list[WatchEvent] = []
        await store.create("/a")
        await store.get("/a", seen.append)

        def disk_full(tree: Any) -> None:
            raise StoreUnavailable("disk full")

        # Queued together while the thread is busy, so that they are one transaction.
        held = store._submit(lambda tree: gate.wait())
        written = store.set("/a", b"1")
        failed: asyncio.Future[None] = store._submit(disk_full)
        gate.set()
        results = await asyncio.gather(held, written, failed, return_exceptions=True)
        assert [type(result) for result in results][1:] == [StoreUnavailable] * 2
        assert seen == [WatchEvent(EventType.CHANGED, "/a")]  # it had better look again
        assert (await store.get("/a"))[0] == b""
        await store.set("/a", b"2")

    gate = threading.Event()
    in_store(tmp_path, scenario)


def test_paths_are_checked(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        for path in ("a", "/a/", "//a", "/a//b", ""):
            with pytest.raises(ValueError, match="path of a node"):
                await store.create(path)

    in_store(tmp_path, scenario)


def test_a_bug_in_the_thread_ends_the_session_and_hangs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(store: LocalStore) -> None:
        told: list[SessionEvent] = []
        store.on_session_event(told.append)
        await store.create("/kept")
        broken = store._submit(lambda tree: 1 // 0)
        behind = store.create("/lost")
        for future in (broken, behind):
            with pytest.raises(SessionExpired):
                await future
        assert told == [SessionEvent.EXPIRED]
        with pytest.raises(SessionExpired):
            await store.get("/kept")

    async def afterwards(store: LocalStore) -> None:
        assert await store.children("/") == ["kept"]

    in_store(tmp_path, scenario)
    assert "The metadata store has failed" in caplog.text
    in_store(tmp_path, afterwards)
