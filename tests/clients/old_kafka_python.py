"""Run inside a process of its own, with kafka-python 2.0.2 first on the path (see its caller).

``produce API_VERSION BOOTSTRAP TOPIC`` reads messages as JSON lines from standard input;
``consume API_VERSION BOOTSTRAP TOPIC COUNT`` prints them.
"""

import json
import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition, __version__

assert __version__ == "2.0.2", __version__


def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("latin-1")


def binary(data: str | None) -> bytes | None:
    return None if data is None else data.encode("latin-1")


def produce(api_version: tuple[int, ...], bootstrap: str, topic: str, codec: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        api_version=api_version,
        compression_type=None if codec == "none" else codec,
        linger_ms=20,
    )
    futures = []
    for line in sys.stdin:
        key, value, timestamp = json.loads(line)
        futures.append(
            producer.send(
                topic,
                key=binary(key),
                value=binary(value),
                timestamp_ms=timestamp,
                partition=0,
            )
        )
    producer.flush(30)
    for future in futures:
        future.get(30)
    producer.close()


def consume(api_version: tuple[int, ...], bootstrap: str, topic: str, count: int) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        api_version=api_version,
        auto_offset_reset="earliest",
        consumer_timeout_ms=20000,
        group_id=f"{topic}-{api_version}",
        enable_auto_commit=False,
    )
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    for seen, item in enumerate(consumer, 1):
        print(json.dumps([text(item.key), text(item.value), item.timestamp]))
        if seen == count:
            break
    consumer.commit()
    consumer.close()


if __name__ == "__main__":
    action, version, bootstrap, topic, last = sys.argv[1:]
    api_version = tuple(int(part) for part in version.split("."))
    if action == "produce":
        produce(api_version, bootstrap, topic, last)
    else:
        consume(api_version, bootstrap, topic, int(last))
