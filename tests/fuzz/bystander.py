"""A good client beside the bad ones: it must notice nothing."""

import zlib
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, Producer

from tests.fuzz.beside import Beside

PATIENCE_SECONDS: Final = 30.0
_BATCH: Final = 20
_PACE_SECONDS: Final = 0.01  # between batches, to leave most of the machine to the attack


class Bystander(Beside):
    """Produces numbered messages and consumes them as a member of a group, until it is stopped.

    Leaving the context raises what went wrong: a failed delivery, a lost, changed, repeated or
    reordered message, or an error reported by either client.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        super().__init__("bystander")
        self.produced = 0
        self.consumed = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "log_level": 2,
                "compression.type": "lz4",
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"group-of-{topic}",
                "auto.offset.reset": "earliest",
                "check.crcs": True,
                "log_level": 2,
            }
        )
        self._consumer.subscribe([topic])

    def work(self) -> None:
        try:
            while not self.stopping.wait(_PACE_SECONDS):
                self._produce()
                self._consume()
            while self.consumed < self.produced:
                self._consume()
            self._consumer.commit(asynchronous=False)
        finally:
            self._consumer.close()

    def _produce(self) -> None:
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)

        for _ in range(_BATCH):
            value = content(self.produced)
            self._producer.produce(self._topic, value, partition=0, on_delivery=delivered)
            self.produced += 1
        left = self._producer.flush(PATIENCE_SECONDS)
        assert not left and not failed, f"{left} messages were not delivered, errors: {failed}"

    def _consume(self) -> None:
        batch = self._consumer.consume(_BATCH, timeout=PATIENCE_SECONDS)
        assert batch, f"no message came after {self.consumed} of {self.produced}"
        for message in batch:
            assert message.error() is None, message.error()
            found = message.offset(), message.value()
            assert found == (self.consumed, content(self.consumed)), f"{found[0]}: {found[1]!r}"
            self.consumed += 1


def content(number: int) -> bytes:
    """The value of a message: its number, and bytes that follow from it."""
    return b"%d:%08x:" % (number, zlib.crc32(b"%d" % number)) + bytes([number % 256]) * (
        number % 900
    )
