"""kafka-python 3: produce and consume with every codec, groups, admin calls."""

from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.broker_process import BrokerProcess
from tests.clients.messages import CODECS, Message, sample


def produce(broker: BrokerProcess, topic: str, messages: list[Message], **config: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20, **config)
    futures = [
        producer.send(
            topic,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
            timestamp_ms=message.timestamp,
            partition=0,
        )
        for message in messages
    ]
    producer.flush(30)
    for future in futures:
        future.get(30)
    producer.close()


def consume(broker: BrokerProcess, topic: str, count: int, **config: Any) -> list[Message]:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=20000,
        check_crcs=True,
        **config,
    )
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    got = []
    for item in consumer:
        got.append(Message(item.key, item.value, tuple(item.headers), item.timestamp))
        if len(got) == count:
            break
    consumer.close()
    return got


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker: BrokerProcess, topic: str, codec: str) -> None:
    produce(broker, topic, sample(), compression_type=None if codec == "none" else codec)
    assert consume(broker, topic, len(sample())) == sample()


def test_group_commits_and_resumes(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, sample(30))
    for start in (0, 10, 20):
        consumer = KafkaConsumer(
            topic,
            bootstrap_servers=broker.bootstrap,
            group_id=topic,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            consumer_timeout_ms=20000,
            max_poll_records=10,
        )
        offsets = [next(consumer).offset for _ in range(10)]
        consumer.commit()
        consumer.close()
        assert offsets == list(range(start, start + 10))


def test_admin_lists_and_deletes(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, sample(3))
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    assert topic in admin.list_topics()
    admin.delete_topics([topic])
    assert topic not in admin.list_topics()
    admin.close()
