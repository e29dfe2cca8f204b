"""What a broker knows of the cluster changes by UpdateMetadata, and by nothing else."""

import asyncio

from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication.metadata import MetadataCache

ONE, TWO = b"1" * 16, b"2" * 16


def broker(broker_id: int) -> UpdateMetadataBroker:
    return UpdateMetadataBroker(
        id=broker_id,
        endpoints=[
            UpdateMetadataEndpoint(
                port=9092, host=f"h{broker_id}", listener="PLAINTEXT", security_protocol=0
            )
        ],
    )


def topic(name: str, topic_id: bytes, leaders: dict[int, int]) -> UpdateMetadataTopicState:
    return UpdateMetadataTopicState(
        topic_name=name,
        topic_id=topic_id,
        partition_states=[
            UpdateMetadataPartitionState(
                partition_index=index, leader=leader, leader_epoch=3, isr=[1], replicas=[1, 2]
            )
            for index, leader in leaders.items()
        ],
    )


def update(
    *topics: UpdateMetadataTopicState, brokers: tuple[int, ...] = (1,)
) -> UpdateMetadataRequest:
    return UpdateMetadataRequest(
        controller_id=1, topic_states=list(topics), live_brokers=[broker(b) for b in brokers]
    )


def test_brokers_are_replaced_and_partitions_merged() -> None:
    cache = MetadataCache("c")
    cache.update(update(topic("t", ONE, {0: 1}), brokers=(1, 2)))
    cache.update(update(topic("t", ONE, {1: 1})))
    assert list(cache.brokers) == [1]
    assert sorted(cache.topics["t"].partitions) == [0, 1]
    assert cache.topics["t"].partitions[0].replicas == (1, 2)
    assert cache.controller_id == 1
    assert cache.topic_name(ONE) == "t"
    assert cache.topic_id("t") == ONE
    assert cache.has_partition("t", 1)
    assert not cache.has_partition("t", 2)


def test_unchanged_topics_stay_the_same_object() -> None:
    cache = MetadataCache("c")
    cache.update(update(topic("a", ONE, {0: 1}), topic("b", TWO, {0: 1})))
    a, b = cache.topics["a"], cache.topics["b"]
    brokers_version, version = cache.brokers_version, cache.version
    cache.update(update(topic("b", TWO, {0: 1})))
    assert cache.topics["a"] is a
    assert cache.topics["b"] is not b
    assert cache.brokers_version == brokers_version
    assert cache.version > version


def test_a_deleted_topic_goes_and_its_watchers_are_told() -> None:
    cache = MetadataCache("c")
    told: list[TopicPartition] = []
    cache.on_partitions_deleted(told.extend)
    cache.update(update(topic("t", ONE, {0: 1, 1: 1})))
    cache.update(update(topic("t", ONE, {0: -2, 1: -2, 7: -2})))
    assert cache.topics == {}
    assert cache.topic_name(ONE) is None
    assert told == [TopicPartition("t", 0), TopicPartition("t", 1)]


def test_a_topic_of_the_same_name_with_another_id_is_another_topic() -> None:
    cache = MetadataCache("c")
    told: list[TopicPartition] = []
    cache.on_partitions_deleted(told.extend)
    cache.update(update(topic("t", ONE, {0: 1, 1: 1})))
    cache.update(update(topic("t", TWO, {0: 1})))
    assert sorted(cache.topics["t"].partitions) == [0]
    assert (cache.topic_name(ONE), cache.topic_name(TWO)) == (None, "t")
    assert len(told) == 2


def test_an_id_that_an_old_controller_did_not_know_is_no_other_topics() -> None:
    cache = MetadataCache("c")
    told: list[TopicPartition] = []
    cache.on_partitions_deleted(told.extend)
    cache.update(update(topic("t", ZERO_UUID, {0: 1, 1: 1})))
    assert (cache.topic_id("t"), cache.topic_name(ZERO_UUID)) == (ZERO_UUID, None)
    cache.update(update(topic("t", ONE, {0: 1})))
    cache.update(update(topic("t", ZERO_UUID, {0: 1})))
    assert (cache.topic_id("t"), cache.topic_name(ONE)) == (ONE, "t")
    assert sorted(cache.topics["t"].partitions) == [0, 1]
    assert told == []
    cache.update(update(topic("t", ZERO_UUID, {0: -2, 1: -2})))
    assert (cache.topic_id("t"), cache.topic_name(ONE)) == (None, None)
    assert len(told) == 2


def test_leaders_must_be_alive() -> None:
    cache = MetadataCache("c")
    cache.update(update(topic("t", ONE, {0: 1, 1: 2, 2: -1})))
    assert cache.has_leaders("t", [0])
    assert not cache.has_leaders("t", [0, 1])
    assert not cache.has_leaders("t", [2])
    assert not cache.has_leaders("t", [3])
    assert not cache.has_leaders("u", [])


def test_waiting_for_a_change() -> None:
    async def scenario() -> None:
        cache = MetadataCache("c")
        waiting = asyncio.ensure_future(cache.wait_until(lambda: "b" in cache.topics, 30))
        cancelled = asyncio.ensure_future(cache.wait_until(lambda: "b" in cache.topics, 30))
        await asyncio.sleep(0)
        cancelled.cancel()
        cache.update(update(topic("a", ONE, {0: 1})))
        await asyncio.sleep(0)
        assert not waiting.done()
        cache.update(update(topic("b", TWO, {0: 1})))
        assert await waiting
        assert await cache.wait_until(lambda: True, 0)
        assert not await cache.wait_until(lambda: False, 0)
        assert not await cache.wait_until(lambda: False, 0.001)
        assert cache._changed._waiters == []

    asyncio.run(scenario())
