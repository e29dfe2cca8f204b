"""Produce: broker CPU per request by batch size, acks, partitions, sync, codec and producer.

One connection with five requests under way, prebuilt frames. The floors receive and write the same
bytes and answer: one in Python, one in C that checks a CRC too. "×" against them is what a broker
costs over doing nothing.
"""

import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Final, NamedTuple

from bench.brokers import Broker
from bench.floor import CFloor, PythonFloor
from bench.measure import cpu_seconds
from bench.run import Run, all_running
from bench.wire import Client, batch_of, produce_frame, produce_many_frame
from kavka.protocol.messages.k22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from kavka.protocol.records.batch import Record, build_batch

KB: Final = 1 << 10
NOW: Final = int(time.time() * 1000)  # of the records: retention takes what is old
MB: Final = 1_000_000  # of a batch: what Kafka's max.message.bytes lets through


class Case(NamedTuple):
    """One row of the matrix."""

    label: str
    size: int
    requests: int
    partitions: int = 1
    acks: int = 1
    settings: dict[str, object] = {}  # noqa: RUF012 - never changed
    codec: int = 0
    per_request: int = 1  # partitions in each request
    idempotent: bool = False


CASES: Final = (
    Case("16 KB", 16 * KB, 12_000),
    Case("64 KB", 64 * KB, 5_000),
    Case("1 MB", MB, 400),
    Case("16 KB acks=0", 16 * KB, 12_000, acks=0),
    Case("16 KB acks=all", 16 * KB, 12_000, acks=-1),
    Case("16 KB sync flush", 16 * KB, 1_500, settings={"flush.messages": 1}),
    Case("16 KB idempotent", 16 * KB, 12_000, acks=-1, idempotent=True),
    Case("16 KB lz4", 16 * KB, 12_000, codec=3),
    Case("16 KB zstd", 16 * KB, 12_000, codec=4),
    Case("16 KB 30 partitions", 16 * KB, 12_000, partitions=30),
    Case("16 KB 300 partitions", 16 * KB, 12_000, partitions=300),
    Case("1 KB × 30 partitions a request", KB, 2_000, partitions=30, per_request=30),
)


def run(run: Run) -> None:
    floors = [PythonFloor, *([CFloor] if CFloor.available() else [])]
    with all_running([*run.full, *floors]) as brokers:
        for number, case in enumerate(CASES):
            print(f"  {case.label}", flush=True)
            # The floors write what one partition gets, and know nothing of acks and settings.
            plain = case.acks == 1 and case.partitions == 1 and not case.settings
            some = [one for one in brokers if plain or not one.name.endswith("floor")]
            for round_number in range(run.rounds + 1):
                for broker in some:
                    topic = f"t{number:02}{round_number:02}"
                    cpu = measure(broker, topic, case, run.options.scale)
                    if round_number:  # the first round warms up compilers and caches
                        run.figures.add(f"{case.label}: CPU µs per request", broker.name, cpu)


def measure(broker: Broker, topic: str, case: Case, scale: float) -> float:
    """CPU of the broker per request, µs."""
    count = max(int(case.requests * scale), 10)
    with Client(broker.bootstrap) as client:
        is_floor = broker.name.endswith("floor")
        if not is_floor:
            client.create_topic(topic, case.partitions, dict(case.settings))
        frames = build(client, topic, case, count)
        if case.acks == 0:
            # Nothing is answered: a last request with acks=1 tells that all has been done.
            frames.append(produce_frame(topic, 0, batch_of(KB)))
            cpu = cpu_seconds(broker.pid)
            for frame in frames:
                client.socket.sendall(frame)
            client.receive_frame()
        else:
            cpu = cpu_seconds(broker.pid)
            checked = "" if is_floor or case.per_request > 1 else topic
            done = client.pump(frames, 5, checked)
            assert done == count
        return (cpu_seconds(broker.pid) - cpu) * 1e6 / count


def build(client: Client, topic: str, case: Case, count: int) -> list[bytes]:
    """The request frames of one run."""
    if case.idempotent:
        return _idempotent(client, topic, case, count)
    batch = batch_of(case.size) if not case.codec else _compressed(case)
    if case.per_request > 1:
        return [produce_many_frame(topic, range(case.partitions), batch, case.acks)] * count
    one_each = [produce_frame(topic, index, batch, case.acks) for index in range(case.partitions)]
    return list(islice(cycle(one_each), count))


def _compressed(case: Case) -> bytes:
    """A batch that is as large as the others after compression."""
    plain = batch_of(2 * case.size, 512)
    value = plain[100:1100]
    return build_batch(
        (Record(n, NOW, None, value[n:] + value[:n], ()) for n in range(80)),
        base_offset=0,
        codec=case.codec,
    )


def _idempotent(client: Client, topic: str, case: Case, count: int) -> list[bytes]:
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    while (producer := client.ask(request, InitProducerIdResponse, 1)).error_code:
        time.sleep(0.1)  # the ids are being fetched
    values: Sequence[bytes] = [b"x" * KB] * (case.size // (KB + 10))
    frames = []
    for number in range(count):
        batch = build_batch(
            (Record(n, NOW, None, value, ()) for n, value in enumerate(values)),
            base_offset=0,
            producer_id=producer.producer_id,
            producer_epoch=producer.producer_epoch,
            base_sequence=number * len(values),
        )
        frames.append(produce_frame(topic, 0, batch, case.acks))
    return frames
