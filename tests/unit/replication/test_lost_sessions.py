"""What administrators are told when the session with the metadata store ends, or when the store
is out of reach."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication import znodes
from kavka.replication.controller.operations import ElectionType, NewPartitions, NewTopic
from kavka.replication.store.base import SessionExpired, StoreClosed
from kavka.replication.store.local import LocalStore
from kavka.replication.store.outlasting import OutlastingStore
from tests.unit.replication.harness import NODE, TIMEOUT_MS, Harness, run
from tests.unit.replication.test_controller import T0, code, create


class RestlessStore:
    """A store whose sessions end, or that is out of reach, as it is told."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.ends = 0
        """So many of the next writes meet the end of a session."""
        self.does_it = False
        """Whether such a write takes effect nevertheless."""
        self._held: list[Callable[[], None]] | None = None

    def go_away(self) -> None:
        """Answer nothing any more."""
        self._held = []

    def come_back(self) -> None:
        held, self._held = self._held or [], None
        for ask in held:
            ask()

    def get(self, *arguments: Any) -> "asyncio.Future[Any]":
        return self._ask(lambda: self._store.get(*arguments), 0)

    def set(self, *arguments: Any) -> "asyncio.Future[Any]":
        return self._write(lambda: self._store.set(*arguments))

    def create(self, *arguments: Any, **options: Any) -> "asyncio.Future[Any]":
        return self._write(lambda: self._store.create(*arguments, **options))

    def multi(self, operations: Any) -> "asyncio.Future[Any]":
        return self._write(lambda: self._store.multi(operations))

    def _write(self, ask: Callable[[], Any]) -> "asyncio.Future[Any]":
        ends, self.ends = self.ends, max(self.ends - 1, 0)
        return self._ask(ask, ends)

    def _ask(self, ask: Callable[[], Any], ends: int) -> "asyncio.Future[Any]":
        outcome = asyncio.get_running_loop().create_future()

        async def run() -> None:
            error: Exception | None = None
            if not ends or self.does_it:
                try:
                    result = await ask()
                except Exception as failure:
                    error = failure
            if ends and error is None:
                error = SessionExpired("the session has ended")
            if outcome.done():  # given up meanwhile
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        def begin() -> None:
            if not outcome.cancelled():  # else it was given up before it was sent
                self._running = asyncio.ensure_future(run())

        if self._held is None:
            begin()
        else:
            self._held.append(begin)
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def restless(tmp_path: Path) -> Harness:
    harness = Harness(tmp_path)
    harness.wrap = RestlessStore
    return harness


@pytest.mark.parametrize("does_it", [False, True])
def test_a_topic_is_created_in_the_next_session(tmp_path: Path, does_it: bool) -> None:
    harness = restless(tmp_path)

    async def scenario() -> None:
        harness.store.does_it, harness.store.ends = does_it, 2
        for topic in ("new", "newer"):
            wanted = NewTopic(topic, assignment={0: [NODE]})
            (made,) = await harness.controller.create_topics([wanted], timeout_ms=TIMEOUT_MS)
            assert made.error is None
            harness.store.ends = 1
        assert harness.metadata.has_leaders("newer", [0])

    run(harness, scenario)


@pytest.mark.parametrize("does_it", [False, True])
def test_a_topic_is_extended_configured_and_deleted_in_the_next_session(
    tmp_path: Path, does_it: bool
) -> None:
    harness = restless(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [NODE])
        controller, store = harness.controller, harness.store
        store.does_it, store.ends = does_it, 1
        wanted = [NewPartitions("t", 3)]
        assert await controller.create_partitions(wanted, timeout_ms=TIMEOUT_MS) == {"t": None}
        assert harness.metadata.has_leaders("t", range(3))
        store.ends = 1
        configs = OutlastingStore(store)
        path = znodes.config_path("topics", "t")
        await configs.set(path, znodes.encode_config({"segment.bytes": "2048"}))
        assert b"2048" in (await configs.get(path))[0]
        store.ends = 1
        assert await controller.delete_topics(["t"], timeout_ms=TIMEOUT_MS) == {"t": None}
        assert "t" not in harness.metadata.topics

    run(harness, scenario)


def test_somebody_elses_topic_of_that_name_is_told_from_ones_own(tmp_path: Path) -> None:
    harness = restless(tmp_path)

    async def scenario() -> None:
        store = harness.store
        node = znodes.TopicNode(b"\1" * 16, {0: (NODE,)})
        plan = harness.controller._admin.plan(NewTopic("t", assignment={0: [NODE]}))
        await store.create(znodes.topic_path("t"), znodes.encode_topic(node))
        outcomes = await harness.controller._admin.create([plan])
        assert code(outcomes["t"]) is ErrorCode.TOPIC_ALREADY_EXISTS

    run(harness, scenario)


def test_a_term_that_ends_meanwhile_is_told_so(tmp_path: Path) -> None:
    harness = restless(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [NODE])
        harness.store.ends = 1
        with pytest.raises(KafkaError) as refused:
            await harness.controller.alter_reassignments({T0: [NODE, 2]})
        assert refused.value.code is ErrorCode.NOT_CONTROLLER

    run(harness, scenario, 2)


def test_nobody_waits_longer_than_he_wants_and_what_is_late_is_not_done(tmp_path: Path) -> None:
    harness = restless(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [NODE])
        controller, store = harness.controller, harness.store
        store.go_away()
        wanted = NewTopic("late", assignment={0: [NODE]})
        (made,) = await controller.create_topics([wanted], timeout_ms=10)
        assert code(made.error) is ErrorCode.REQUEST_TIMED_OUT
        # One that the controller is at, and one that waits for its turn behind it.
        with pytest.raises(KafkaError) as refused:
            await controller.elect_leaders(ElectionType.PREFERRED, [T0], timeout_ms=10)
        assert refused.value.code is ErrorCode.REQUEST_TIMED_OUT
        with pytest.raises(KafkaError) as refused:
            await controller.alter_reassignments({T0: [NODE, 2]}, timeout_ms=10)
        assert refused.value.code is ErrorCode.REQUEST_TIMED_OUT
        with pytest.raises(KafkaError) as refused:
            await controller.list_reassignments(None, timeout_ms=10)
        assert refused.value.code is ErrorCode.REQUEST_TIMED_OUT
        store.come_back()
        await harness.settle()
        assert await controller.list_reassignments(None) == []
        path = znodes.topic_path("t")
        node = znodes.decode_topic(path, (await store.get(path))[0])
        assert node.partitions == {0: (NODE,)}
        assert await store.exists(znodes.topic_path("late")) is None
        assert "late" not in harness.metadata.topics

    run(harness, scenario, 2)


def test_a_closed_store_has_no_next_session(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        store = OutlastingStore(harness.store)
        assert await store.exists("/nothing") is None
        await harness.store.close()
        with pytest.raises(StoreClosed):
            await store.exists("/nothing")

    async def whole() -> None:
        await harness.start()
        await scenario()
        await harness.controller.stop()
        await harness.configs.stop()

    asyncio.run(whole())
