"""A member of a consumer group in a process of its own, to be killed.

``python -m tests.clients.group_member BOOTSTRAP GROUP TOPIC`` prints a JSON line for each change
of its assignment and for each message, and commits what it has printed.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    bootstrap, group, topic = sys.argv[1:]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 2000,
            "heartbeat.interval.ms": 300,
        }
    )

    def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        say(assigned=sorted(partition.partition for partition in partitions))

    consumer.subscribe([topic], on_assign=assigned)
    while True:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            say(value=int(message.value()), partition=message.partition())
            consumer.commit(message, asynchronous=True)


if __name__ == "__main__":
    main()
