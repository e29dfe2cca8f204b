"""An instance has no more partitions than its flavour, whatever asks for them."""

import asyncio
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.operations import CreatedTopic, NewPartitions, NewTopic
from kavka.replication.store.base import Create
from kavka.replication.znodes import TopicNode
from tests.unit.replication.harness import NODE, TIMEOUT_MS, Harness, run

SMALL = {"instance.flavour": "100"}
CAP = 300


async def create(
    harness: Harness, *topics: tuple[str, int], timeout_ms: int = TIMEOUT_MS, dry: bool = False
) -> list[CreatedTopic]:
    new = [NewTopic(name, partitions=count) for name, count in topics]
    return await harness.controller.create_topics(new, timeout_ms=timeout_ms, validate_only=dry)


def refused(error: KafkaError | None) -> str:
    assert error is not None
    assert error.code is ErrorCode.POLICY_VIOLATION
    assert error.message is not None
    return error.message


@pytest.mark.parametrize("partitions", [1, 3])
def test_exactly_the_cap_fits_and_one_more_does_not(tmp_path: Path, partitions: int) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        topics = [(f"t{number}", partitions) for number in range(CAP // partitions)]
        assert all(created.error is None for created in await create(harness, *topics))
        assert harness.controller.partition_cap.used == CAP
        (more,) = await create(harness, ("one-more", 1))
        message = refused(more.error)
        assert "300 of the 300 partitions of flavour 100 are used, 1 more requested" in message
        assert "one-more" not in harness.metadata.topics
        assert harness.controller.partition_cap.refused == 1

    run(harness, scenario)


def test_what_still_fits_of_one_request_is_created(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        first, second, third = await create(harness, ("a", 200), ("b", 101), ("c", 100))
        assert first.error is None
        assert "200 of the 300" in refused(second.error)
        assert "101 more requested" in refused(second.error)
        assert third.error is None

    run(harness, scenario)


def test_added_partitions_count(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        await create(harness, ("a", 100), ("b", 150))
        extend = harness.controller.create_partitions
        wanted = [NewPartitions("a", 151)]
        error = (await extend(wanted, timeout_ms=TIMEOUT_MS))["a"]
        assert "250 of the 300 partitions of flavour 100 are used, 51 more" in refused(error)
        error = (await extend(wanted, timeout_ms=TIMEOUT_MS, validate_only=True))["a"]
        refused(error)
        assert (await extend([NewPartitions("a", 150)], timeout_ms=TIMEOUT_MS))["a"] is None
        both = [NewPartitions("a", 151), NewPartitions("b", 151)]
        for error in (await extend(both, timeout_ms=TIMEOUT_MS)).values():
            refused(error)

    run(harness, scenario)


def test_a_deleted_topic_makes_room_at_once(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        await create(harness, ("a", CAP))
        refused((await create(harness, ("b", 1)))[0].error)
        await harness.controller.delete_topics(["a"], timeout_ms=TIMEOUT_MS)
        assert (await create(harness, ("b", CAP)))[0].error is None

    run(harness, scenario)


def test_trying_takes_no_room(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        for _ in range(2):
            assert (await create(harness, ("a", CAP), dry=True))[0].error is None
            refused((await create(harness, ("a", CAP + 1), dry=True))[0].error)
        assert harness.controller.partition_cap.used == 0
        for _ in range(2):  # the second fails, for the topic exists
            await create(harness, ("a", CAP))
        assert harness.controller.partition_cap.used == CAP

    run(harness, scenario)


def test_creations_at_the_same_time_do_not_pass_the_cap_together(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        # Without a time-out nobody waits until the metadata cache shows what was created.
        results = await asyncio.gather(
            *(create(harness, (f"t{number}", 50), timeout_ms=0) for number in range(10))
        )
        codes = [created.error.code for (created,) in results if created.error is not None]
        assert codes.count(ErrorCode.POLICY_VIOLATION) == 4
        assert codes.count(ErrorCode.REQUEST_TIMED_OUT) == 6
        refused((await create(harness, ("late", 1), timeout_ms=0))[0].error)

    run(harness, scenario)


def test_the_coordinators_topics_do_not_count(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        await create(harness, ("a", CAP))
        assert (await create(harness, (GROUP_METADATA_TOPIC, 50)))[0].error is None
        assert harness.controller.partition_cap.used == CAP
        # Two underscores alone make no topic internal: everybody can write them.
        refused((await create(harness, ("__mine", 1)))[0].error)

    run(harness, scenario)


def test_a_larger_flavour_makes_room_while_the_broker_runs(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        await create(harness, ("a", CAP))
        harness.config.set_dynamic_default({"instance.flavour": "300"})
        assert (await create(harness, ("b", 600)))[0].error is None
        assert "900 of the 900" in refused((await create(harness, ("c", 1)))[0].error)
        harness.config.set_dynamic_default({"instance.flavour": "none"})
        assert (await create(harness, ("c", 1)))[0].error is None

    run(harness, scenario)


def test_topics_of_other_tools_are_only_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = Harness(tmp_path, SMALL)

    async def scenario() -> None:
        node = TopicNode(b"\1" * 16, dict.fromkeys(range(CAP + 1), (NODE,)))
        path = znodes.topic_path("by-hand")
        await harness.store.multi([Create(path, znodes.encode_topic(node))])
        last = TopicPartition("by-hand", CAP)
        assert await harness.metadata.wait_until(
            lambda: harness.metadata.has_partition(*last), TIMEOUT_MS / 1000
        )
        assert "more partitions than its flavour allows used=301 cap=300" in caplog.text
        assert "0 of the 300" not in refused((await create(harness, ("a", 1)))[0].error)

    run(harness, scenario)
