"""Overrides in the store: written, announced, heard of; and ids of producers beside them."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication import znodes
from kavka.replication.controller.configs import CHANGE_KEPT_MS, ConfigStore
from kavka.replication.controller.producer_ids import ProducerIds
from kavka.replication.registration import (
    RegistrationError,
    cluster_id,
    generated_broker_id,
    prepare_store,
    register,
)
from kavka.replication.store.base import NodeExists
from kavka.replication.store.local import LocalStore
from tests.unit.replication.harness import Harness, registration, run

Heard = list[tuple[str, dict[str, str]]]


def listen(configs: ConfigStore, kind: znodes.EntityType) -> Heard:
    heard: Heard = []

    def subscriber(name: str, overrides: Mapping[str, str]) -> None:
        heard.append((name, dict(overrides)))

    configs.subscribe(kind, subscriber)
    return heard


async def until_read(harness: Harness) -> None:
    """Until the announcement of a change has been followed."""
    await harness.store.exists("/")
    if harness.configs._processing is not None:
        await harness.configs._processing


def test_an_alteration_is_written_announced_and_heard(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        heard = listen(harness.configs, "topics")
        await harness.configs.alter("topics", "t", {"retention.ms": "5"})
        assert heard == [("t", {"retention.ms": "5"})]
        assert harness.configs.topic_overrides("t") == {"retention.ms": "5"}
        assert await harness.configs.read("topics", "t") == {"retention.ms": "5"}
        (change,) = await harness.store.children(znodes.CONFIG_CHANGES)
        data, _ = await harness.store.get(f"{znodes.CONFIG_CHANGES}/{change}")
        assert data == b'{"version":2,"entity_path":"topics/t"}'
        await until_read(harness)
        assert len(heard) == 1  # its own announcement is no news
        await harness.configs.alter("topics", "t", {})
        assert heard[1:] == [("t", {})]

    run(harness, scenario)


def test_alterations_by_others_are_heard(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        topics = listen(harness.configs, "topics")
        brokers = listen(harness.configs, "brokers")
        for path, entity in (("topics", "t"), ("brokers", "<default>"), ("brokers", "1")):
            await harness.store.create(
                f"/config/{path}/{entity}", znodes.encode_config({"k": entity})
            )
        for body in (
            b'{"version":1,"entity_type":"topics","entity_name":"t"}',
            b'{"version":2,"entity_path":"brokers/<default>"}',
            b"garbage",
            b'{"version":2,"entity_path":"planets/mars"}',
            b'{"version":2,"entity_path":"brokers/1"}',
        ):
            await harness.store.create("/config/changes/config_change_", body, sequence=True)
        await until_read(harness)
        await until_read(harness)
        assert topics == [("t", {"k": "t"})]
        assert brokers == [("<default>", {"k": "<default>"}), ("1", {"k": "1"})]

    run(harness, scenario)


def test_what_is_there_at_the_start_is_told_to_who_asked_before(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def first() -> None:
        await harness.configs.alter("topics", "t", {"a": "1"})
        await harness.configs.alter("brokers", "1", {"b": "2"})

    async def second() -> None:
        assert harness.configs.topic_overrides("t") == {"a": "1"}
        other = ConfigStore(harness.store, harness.clock)
        heard = listen(other, "brokers")
        await other.start()
        assert heard == [("1", {"b": "2"})]
        await other.stop()

    run(harness, first)
    run(harness, second)


def test_clients_of_users_are_under_their_users(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        heard = listen(harness.configs, "users")
        await harness.configs.alter("users", "ann/clients/app", {"a": "1"})
        await harness.configs.alter("users", "ann/clients/<default>", {"a": "2"})
        await harness.configs.alter("users", "<default>/clients/app", {"a": "3"})
        await harness.configs.alter("users", "<default>", {"a": "4"})
        assert heard[0] == ("ann/clients/app", {"a": "1"})
        data, _ = await harness.store.get("/config/users/ann")
        assert data == b""  # made on the way, as Kafka does
        announced = await harness.store.children(znodes.CONFIG_CHANGES)
        data, _ = await harness.store.get(f"{znodes.CONFIG_CHANGES}/{min(announced)}")
        assert data == b'{"version":2,"entity_path":"users/ann/clients/app"}'
        expected = {
            "ann": {},
            "ann/clients/app": {"a": "1"},
            "ann/clients/<default>": {"a": "2"},
            "<default>/clients/app": {"a": "3"},
            "<default>": {"a": "4"},
        }
        assert await harness.configs.read_all("users") == expected
        other = ConfigStore(harness.store, harness.clock)
        loaded = listen(other, "users")
        await other.start()
        assert dict(loaded) == expected
        await other.stop()

    run(harness, scenario)


def test_an_update_loses_nothing_that_others_write(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        heard = listen(harness.configs, "users")

        def setter(key: str) -> Callable[[dict[str, str]], None]:
            return lambda overrides: overrides.update({key: "1"})

        await asyncio.gather(
            *(harness.configs.update("users", "ann", setter(key)) for key in "abc"),
            *(harness.configs.update("users", "ann/clients/x", setter(key)) for key in "de"),
        )
        assert await harness.configs.read("users", "ann") == dict.fromkeys("abc", "1")
        assert await harness.configs.read("users", "ann/clients/x") == dict.fromkeys("de", "1")
        assert ("ann", dict.fromkeys("abc", "1")) in heard

        def refuse(overrides: dict[str, str]) -> None:
            raise KafkaError(ErrorCode.INVALID_REQUEST)

        with pytest.raises(KafkaError):
            await harness.configs.update("users", "ann", refuse)
        assert await harness.configs.read("users", "ann") == dict.fromkeys("abc", "1")

    run(harness, scenario)


def test_old_announcements_are_removed(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.configs.alter("topics", "t", {"a": "1"})
        await until_read(harness)
        harness.clock.advance(CHANGE_KEPT_MS / 1000 + 1)
        await harness.configs.alter("topics", "t", {"a": "2"})
        await until_read(harness)
        assert len(await harness.store.children(znodes.CONFIG_CHANGES)) == 1

    run(harness, scenario)


def test_topics_new_to_the_broker_are_read(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.create("/config/topics/t", znodes.encode_config({"a": "1"}))
        await harness.store.create("/config/topics/broken", b"{")
        assert harness.configs.topic_overrides("t") == {}
        await harness.configs.load_topics(["t", "u", "broken"])
        assert harness.configs.topic_overrides("t") == {"a": "1"}
        assert harness.configs.topic_overrides("broken") == {}

    run(harness, scenario)


def test_producer_ids_are_never_given_twice(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        other = ProducerIds(harness.store, 2)
        first = await asyncio.gather(*(harness.producer_ids.next() for _ in range(5)))
        second = await asyncio.gather(*(other.next() for _ in range(5)))
        assert sorted(first) == [0, 1, 2, 3, 4]
        assert sorted(second) == [1000, 1001, 1002, 1003, 1004]
        rest = [await harness.producer_ids.next() for _ in range(996)]
        assert rest[-2:] == [999, 2000]
        data, _ = await harness.store.get(znodes.PRODUCER_ID_BLOCK)
        assert data == (b'{"version":1,"broker":1,"block_start":"2000","block_end":"2999"}')

    run(harness, scenario)


def test_producer_ids_begin_above_those_of_logs_from_elsewhere(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        brought = ProducerIds(harness.store, 2, lambda: 4711)
        assert await brought.next() == 4712
        # Whoever writes the largest id there is must not use up all others.
        spoiled = ProducerIds(harness.store, 2, lambda: 2**63 - 1)
        assert await spoiled.next() == 5712

    run(harness, scenario)


def test_producer_ids_need_the_store(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.close()
        with pytest.raises(KafkaError) as caught:
            await harness.producer_ids.next()
        assert caught.value.code is ErrorCode.COORDINATOR_NOT_AVAILABLE

    run(harness, scenario)


def test_the_first_steps_of_a_broker(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        store: LocalStore = harness.store
        for path in znodes.PERSISTENT_PATHS:
            assert await store.exists(path) is not None
        await prepare_store(store)  # once more does no harm
        one = await cluster_id(store, Random(5))
        assert one == await cluster_id(store, Random(6))
        assert len(one) == 22
        stat = await store.exists("/brokers/ids/1")
        assert stat is not None
        assert stat.czxid == harness.epoch
        assert stat.ephemeral_owner == store.session_id
        # Its own registration from before is replaced, with a new epoch.
        assert await register(store, 1, registration(1), 0) > harness.epoch
        assert await generated_broker_id(store, 1000) == 1001
        assert await generated_broker_id(store, 1000) == 1002

    run(harness, scenario)


def test_registrations_that_clash(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        store: LocalStore = harness.store
        with pytest.raises(RegistrationError, match="broker 1 is advertised at host1:9092"):
            await register(store, 2, registration(1), 0)
        await store.create("/brokers/ids/3")  # not of this session
        with pytest.raises(RegistrationError, match=r"broker\.id=3 is in use"):
            await register(store, 3, registration(3), 0)
        with pytest.raises(NodeExists):
            await store.create("/brokers/ids/3")

    run(harness, scenario)
