"""Three members, six partitions, one killed: the others take over and nothing is skipped."""

import json
import subprocess
import sys
import threading
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.clients.test_confluent import create

TOPIC = "work"
GROUP = "workers"
PARTITIONS = range(6)


class Member:
    """A consumer process and what it has said so far."""

    def __init__(self, broker: BrokerProcess) -> None:
        self.assigned: list[int] = []
        self.values: list[int] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.clients.group_member", broker.bootstrap, GROUP, TOPIC],
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.assigned = event.get("assigned", self.assigned)
            if "value" in event:
                self.values.append(event["value"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


def send(broker: BrokerProcess, values: range) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(TOPIC, str(value), partition=value % len(PARTITIONS))
    assert producer.flush(30) == 0


def owned(members: list[Member]) -> list[int]:
    return sorted(partition for member in members for partition in member.assigned)


def test_the_survivors_take_over(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", {"group.min.session.timeout.ms": "500"}) as broker:
        create(broker, TOPIC, partitions=len(PARTITIONS))
        send(broker, range(600))
        members = [Member(broker) for _ in range(3)]
        try:
            wait_for(
                "two partitions for each",
                lambda: (
                    owned(members) == list(PARTITIONS)
                    and all(len(member.assigned) == 2 for member in members)
                ),
            )
            victim, *survivors = members
            # Who came first may have read all there was before the others came.
            seen_before = len(victim.values)
            send(broker, range(600, 1200))
            wait_for("the victim to work", lambda: len(victim.values) > seen_before)
            victim.kill()
            send(broker, range(1200, 1800))
            wait_for("the survivors to own all", lambda: owned(survivors) == list(PARTITIONS))
            wait_for(
                "every message",
                lambda: {v for member in members for v in member.values} == set(range(1800)),
            )
            committed = _committed(broker)
            wait_for("everything to be committed", lambda: _committed(broker) == [300] * 6)
            assert sum(committed) <= 1800
        finally:
            for member in members:
                member.kill()
        assert broker.stop() == 0
        broker.start()
        assert _committed(broker) == [300] * 6, "commits survive a restart"


def _committed(broker: BrokerProcess) -> list[int]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": GROUP})
    offsets = consumer.committed([TopicPartition(TOPIC, p) for p in PARTITIONS], timeout=30)
    consumer.close()
    return [max(offset.offset, 0) for offset in offsets]
