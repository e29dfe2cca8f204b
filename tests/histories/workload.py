"""Clients of librdkafka that write, read and do both in transactions, and note it all down.

Any broker or cluster will do, and whoever runs the workload may do to it what he likes meanwhile.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from itertools import count

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from tests.histories.history import History, Partition
from tests.histories.record import Entry, Recorder

TIMEOUT = 60.0
CLIENT = {
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "metadata.recovery.strategy": "none",
}
_ENOUGH = 4  # records of one poll, so that readers and writers meet


class Workload:
    """So many writers, readers and transactors over the partitions of one topic."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        *,
        rounds: int,
        writers: int = 2,
        readers: int = 2,
        transactors: int = 3,
        seed: int = 0,
        isolation: str = "read_committed",
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._partitions = [(topic, number) for number in range(partitions)]
        self._rounds = rounds
        self._seed = seed
        self._isolation = isolation
        self._values = count()
        self._written = threading.Event()
        self._recorder = Recorder()
        self._turns = count()
        self._crew: list[tuple[Callable[[random.Random, int], None], int]] = [
            *((self._write, n) for n in range(writers)),
            *((self._transact, n) for n in range(transactors)),
            *((self._read, n) for n in range(readers)),
        ]
        self._writing = writers + transactors

    def run(self, disturb: Callable[[int], None] = lambda turn: None) -> History:
        """Do it all. ``disturb`` is told of every round that a writer or transactor begins, by
        number, in that client's thread."""
        self._disturb = disturb
        with ThreadPoolExecutor(len(self._crew)) as executor:
            work = [
                executor.submit(role, random.Random(self._seed * 1_000 + at), number)
                for at, (role, number) in enumerate(self._crew)
            ]
            try:
                left = set(work[: self._writing])
                while left:
                    done, left = wait(left, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
            finally:
                self._written.set()
            for each in work:
                each.result()
        self._read_everything()
        return self._recorder.history(self._partitions)

    # -- roles --------------------------------------------------------------------------------

    def _write(self, rng: random.Random, number: int) -> None:
        """Idempotent sends, some at a time."""
        client, producer = self._recorder.new_client(), self._producer()
        for _ in range(self._rounds):
            self._disturb(next(self._turns))
            with self._recorder.op(client) as entry:
                sent = [self._send(rng, producer, entry) for _ in range(rng.randint(1, 5))]
                producer.flush(TIMEOUT)
                if all(fate.get("error", "none so far") is None for fate in sent):
                    entry.ok()
                    continue
            client, producer = self._recorder.new_client(), self._producer()

    def _transact(self, rng: random.Random, number: int) -> None:
        """Polls and sends in one transaction, which is then committed, or now and then not."""
        name = f"{self._topic}-transactor-{number}"
        client, producer, consumer = self._transactor(name)
        moved = True
        for _ in range(self._rounds):
            self._disturb(next(self._turns))
            try:
                with self._recorder.op(client, transactional=True) as entry:
                    if moved:
                        entry.moved.update(self._partitions)
                        moved = False
                    producer.begin_transaction()
                    entry.polled(self._poll(consumer, 0.02))
                    for _ in range(rng.randint(1, 4)):
                        self._send(rng, producer, entry)
                    producer.flush(TIMEOUT)
                    if rng.random() < 0.8:
                        entry.committing()
                        if _retried(partial(producer.commit_transaction, TIMEOUT)):
                            entry.ok()
                            continue
                    if _retried(partial(producer.abort_transaction, TIMEOUT)):
                        entry.failed()
                        continue
            except KafkaException:
                pass
            # It is not known what became of it: begin a new life, which ends the old one's work.
            consumer.close()
            client, producer, consumer = self._transactor(name)
            moved = True
        consumer.close()

    def _read(self, rng: random.Random, number: int) -> None:
        """A member of a group that reads what is committed."""
        client = self._recorder.new_client()
        moved: set[Partition] = set()

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            moved.update((p.topic, p.partition) for p in partitions)

        consumer = self._consumer(f"{self._topic}-readers")
        consumer.subscribe([self._topic], on_assign=assigned)
        while not self._written.is_set():
            with self._recorder.op(client) as entry:
                records = self._poll(consumer, 0.1)
                entry.moved.update(moved)
                moved.clear()
                entry.polled(records)
                entry.ok()
        consumer.close()

    def _read_everything(self) -> None:
        consumer = self._consumer(f"{self._topic}-last", **{"enable.partition.eof": True})
        consumer.assign([TopicPartition(*p, OFFSET_BEGINNING) for p in self._partitions])
        ended: set[Partition] = set()
        with self._recorder.op(self._recorder.new_client()) as entry:
            while len(ended) < len(self._partitions):
                message = consumer.poll(TIMEOUT)
                assert message is not None, f"no end of {set(self._partitions) - ended}"
                error = message.error()
                if error is None:
                    entry.polled([_record(message)])
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add((message.topic(), message.partition()))
            entry.ok()
        consumer.close()

    # -- clients ------------------------------------------------------------------------------

    def _send(self, rng: random.Random, producer: Producer, entry: Entry) -> dict[str, object]:
        """Send a record to some partition; the dictionary gets the ``error``, None for none."""
        partition, value = rng.choice(self._partitions), str(next(self._values))
        fate: dict[str, object] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            fate["error"] = error
            if error is None:
                entry.acknowledged(partition, value, message.offset())

        entry.send(partition, value)
        producer.produce(self._topic, value, partition=partition[1], on_delivery=delivered)
        return fate

    def _poll(self, consumer: Consumer, seconds: float) -> list[tuple[Partition, int, str]]:
        found = consumer.consume(_ENOUGH, seconds)
        return [_record(message) for message in found if message.error() is None]

    def _producer(self, **settings: object) -> Producer:
        common = {"bootstrap.servers": self._bootstrap, **CLIENT}
        return Producer({**common, "enable.idempotence": True, "linger.ms": 0, **settings})

    def _consumer(self, group: str, **settings: object) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                **CLIENT,
                "group.id": group,
                "isolation.level": self._isolation,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6_000,
                **settings,
            }
        )

    def _transactor(self, name: str) -> tuple[int, Producer, Consumer]:
        producer = self._producer(**{"transactional.id": name})
        assert _retried(partial(producer.init_transactions, TIMEOUT))
        consumer = self._consumer(name)
        consumer.assign([TopicPartition(*p, OFFSET_BEGINNING) for p in self._partitions])
        return self._recorder.new_client(), producer, consumer


def _record(message: Message) -> tuple[Partition, int, str]:
    return (message.topic(), message.partition()), message.offset(), message.value().decode()


def _retried(what: Callable[[], None]) -> bool:
    """Do it, again as long as the client says so; False when the transaction must be aborted."""
    for _ in range(200):
        try:
            what()
        except KafkaException as failure:
            error = failure.args[0]
            if error.txn_requires_abort():
                return False
            if not error.retriable():
                raise
        else:
            return True
    return False
