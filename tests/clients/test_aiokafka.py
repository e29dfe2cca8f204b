"""aiokafka: produce and consume with every codec, and a group."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.broker_process import BrokerProcess
from tests.clients.messages import CODECS, Message, sample


async def produce(broker: BrokerProcess, topic: str, codec: str, idempotent: bool) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap,
        compression_type=None if codec == "none" else codec,
        enable_idempotence=idempotent,
        linger_ms=20,
    )
    await producer.start()
    try:
        futures = [
            await producer.send(
                topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                timestamp_ms=message.timestamp,
                partition=0,
            )
            for message in sample()
        ]
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


async def consume(broker: BrokerProcess, topic: str, count: int) -> list[Message]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        got = []
        async with asyncio.timeout(30):
            while len(got) < count:
                item = await consumer.getone()
                got.append(Message(item.key, item.value, tuple(item.headers), item.timestamp))
        return got
    finally:
        await consumer.stop()


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker: BrokerProcess, topic: str, codec: str, idempotent: bool) -> None:
    async def run() -> list[Message]:
        await produce(broker, topic, codec, idempotent)
        return await consume(broker, topic, len(sample()))

    assert asyncio.run(run()) == sample()


def test_group_of_two_shares_the_partitions(broker: BrokerProcess, topic: str) -> None:
    async def run() -> set[bytes]:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        for i in range(90):
            await producer.send(topic, str(i).encode(), partition=i % 3)
        await producer.stop()
        members = [
            AIOKafkaConsumer(
                topic,
                bootstrap_servers=broker.bootstrap,
                group_id=topic,
                auto_offset_reset="earliest",
            )
            for _ in range(2)
        ]
        await asyncio.gather(*(member.start() for member in members))
        seen: set[bytes] = set()

        async def read(member: AIOKafkaConsumer) -> None:
            while len(seen) < 90:
                batches = await member.getmany(timeout_ms=200)
                seen.update(item.value for items in batches.values() for item in items)

        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(read(member) for member in members))
        finally:
            await asyncio.gather(*(member.stop() for member in members))
        return seen

    assert asyncio.run(run()) == {str(i).encode() for i in range(90)}
