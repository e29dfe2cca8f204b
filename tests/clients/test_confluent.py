"""librdkafka through its Python binding: produce and consume with every codec, admin calls."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.broker_process import BrokerProcess
from tests.clients.messages import CODECS, Message, sample


def create(broker: BrokerProcess, topic: str, partitions: int = 1, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    future = admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic]
    future.result(30)


def produce(broker: BrokerProcess, topic: str, messages: list[Message], **config: object) -> None:
    failed: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 20, **config})
    for message in messages:
        producer.produce(
            topic,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
            timestamp=message.timestamp,
            partition=0,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(30) == 0
    assert not failed


def consume(broker: BrokerProcess, topic: str, count: int, **config: object) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"group-of-{topic}",
            "auto.offset.reset": "earliest",
            "check.crcs": True,
            **config,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    got: list[Message] = []
    while len(got) < count:
        batch = consumer.consume(count - len(got), timeout=20)
        assert batch, f"{len(got)} of {count} messages came"
        for item in batch:
            assert item.error() is None, item.error()
            got.append(
                Message(
                    item.key(),
                    item.value(),
                    tuple(item.headers() or ()),
                    item.timestamp()[1],
                )
            )
    consumer.close()
    return got


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker: BrokerProcess, topic: str, codec: str) -> None:
    create(broker, topic)
    produce(broker, topic, sample(), **{"compression.type": codec})
    assert consume(broker, topic, len(sample())) == sample()


def test_idempotent_producer(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    for _ in range(2):
        produce(broker, topic, sample(500), **{"enable.idempotence": True, "batch.size": 4000})
    assert consume(broker, topic, 1000) == sample(500) * 2


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(broker: BrokerProcess, topic: str, acks: str) -> None:
    create(broker, topic)
    produce(broker, topic, sample(), acks=acks)
    assert consume(broker, topic, len(sample())) == sample()


def test_two_groups_each_get_everything(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, partitions=3)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for i in range(300):
        producer.produce(topic, value=str(i), partition=i % 3)
    assert producer.flush(30) == 0
    for group in ("one", "other"):
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": f"{topic}-{group}",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([topic])
        seen: set[int] = set()
        while len(seen) < 300:
            batch = consumer.consume(300, timeout=20)
            assert batch, f"{len(seen)} of 300 messages came"
            seen.update(int(message.value()) for message in batch)
        consumer.commit(asynchronous=False)
        consumer.close()


def test_committed_offsets_are_found_again(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    produce(broker, topic, sample(20))
    config = {"bootstrap.servers": broker.bootstrap, "group.id": topic}
    consumer = Consumer(config)
    consumer.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    consumer.close()
    again = Consumer(config)
    (committed,) = again.committed([TopicPartition(topic, 0)], timeout=20)
    again.close()
    assert committed.offset == 7


def test_offsets_for_times(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    messages = sample(50)
    produce(broker, topic, messages, **{"batch.num.messages": 7})
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": topic})
    for wanted in (0, 13, 49):
        (found,) = consumer.offsets_for_times(
            [TopicPartition(topic, 0, messages[wanted].timestamp)], timeout=20
        )
        assert found.offset == wanted
    (beyond,) = consumer.offsets_for_times(
        [TopicPartition(topic, 0, messages[-1].timestamp + 1)], timeout=20
    )
    consumer.close()
    assert beyond.offset == -1  # none


def test_admin_creates_grows_describes_and_deletes(
    broker: BrokerProcess, topic_name: Callable[[], str]
) -> None:
    topic = topic_name()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    create(broker, topic, partitions=2)
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    metadata = admin.list_topics(topic, timeout=20)
    assert sorted(metadata.topics[topic].partitions) == [0, 1, 2, 3, 4]
    admin.delete_topics([topic])[topic].result(30)
    assert topic not in admin.list_topics(timeout=20).topics
