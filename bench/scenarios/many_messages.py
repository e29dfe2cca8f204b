"""Many small messages: start-up, memory and time look-ups as their number grows.

Six partitions of 256 MB segments are filled with 100-byte messages in batches of 32 KB, to a
million, ten millions and so on up to ``--count`` (a hundred millions are about 11 GB). After each
step the broker is stopped cleanly and started again.
"""

import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator
from typing import Final

from bench.brokers import Kavka, running
from bench.measure import bytes_read, cpu_seconds, open_files, resident_mb
from bench.run import Run
from bench.wire import Client, batch_of, dated, produce_frame
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)

TOPIC: Final = "many"
PARTITIONS: Final = 6
SEGMENT: Final = 256 << 20
BATCH: Final = 32 << 10
MESSAGE: Final = 100
LOOKUPS: Final = 200
RESTARTS: Final = 5
START: Final = 1_700_000_000_000  # the first message's time; each batch of a partition is 10 ms on


def run(run: Run) -> None:
    steps = [10**power for power in range(6, int(math.log10(run.options.count)) + 1)]
    if steps[-1:] != [run.options.count]:
        steps.append(run.options.count)
    with running(Kavka) as broker:
        with Client(broker.bootstrap) as client:
            settings = {"segment.bytes": SEGMENT, "retention.ms": -1}
            client.create_topic(TOPIC, PARTITIONS, settings)
        batch = batch_of(BATCH, MESSAGE)
        per_batch = int.from_bytes(batch[57:61], "big")
        frames = _frames(batch)
        sent = 0
        for step in steps:
            more = -(-(step - sent * per_batch) // per_batch)
            print(f"  producing to {step:,} messages", flush=True)
            began, cpu = time.monotonic(), cpu_seconds(broker.pid)
            with Client(broker.bootstrap) as client:
                done = client.pump(itertools.islice(frames, more), 8, TOPIC)
            assert done == more
            label = f"{step / 1e6:g} M messages"
            seconds = time.monotonic() - began
            cpu = cpu_seconds(broker.pid) - cpu
            run.figures.add(f"{label}: produced, MB/s", "kavka", more * BATCH / 1e6 / seconds)
            run.figures.add(
                f"{label}: produce, CPU ns per message", "kavka", cpu * 1e9 / more / per_batch
            )
            run.figures.add(
                f"{label}: memory after producing, MB", "kavka", resident_mb(broker.pid)
            )
            sent += more
            _stop_and_start(run, broker, label)
            _look_up(run, broker, label, sent)


def _frames(batch: bytes) -> Iterator[bytes]:
    """Produce requests for the partitions in turn, later and later."""
    for number in itertools.count():
        at = START + number // PARTITIONS * 10
        yield produce_frame(TOPIC, number % PARTITIONS, dated(batch, at))


def _stop_and_start(run: Run, broker: Kavka, label: str) -> None:
    for _ in range(RESTARTS):
        broker.stop()
        began = time.monotonic()
        broker.start()
        took = time.monotonic() - began
        run.figures.add(f"{label}: start to ready after a clean stop, s", "kavka", took)
        run.figures.add(f"{label}: memory after start, MB", "kavka", resident_mb(broker.pid))


def _look_up(run: Run, broker: Kavka, label: str, batches: int) -> None:
    """Ask for the offsets of times all over the log, in one partition after the other."""
    rng = random.Random(1)
    last = batches // PARTITIONS * 10
    latencies: list[float] = []
    with Client(broker.bootstrap) as client:
        _ask(client, 0, START)  # the handler is imported now
        read, cpu = bytes_read(broker.pid), cpu_seconds(broker.pid)
        for number in range(LOOKUPS):
            at = START + rng.randrange(last)
            began = time.perf_counter()
            found = _ask(client, number % PARTITIONS, at)
            latencies.append(time.perf_counter() - began)
            assert at <= found < at + 10, (at, found)
        cpu = cpu_seconds(broker.pid) - cpu
        read = bytes_read(broker.pid) - read
    files = open_files(broker.pid)
    logs, all_logs = sum(path.endswith(".log") for path in files), 0
    all_logs = len([*broker.directory.glob(f"data/{TOPIC}-*/*.log")])
    size = sum(path.stat().st_size for path in broker.directory.glob(f"data/{TOPIC}-*/*.log"))
    figures = run.figures
    figures.add(f"{label}: time look-up, KB read each", "kavka", read / LOOKUPS / 1000)
    figures.add(f"{label}: time look-up, CPU µs", "kavka", cpu * 1e6 / LOOKUPS)
    figures.add(f"{label}: time look-up, p50 ms", "kavka", statistics.median(latencies) * 1000)
    figures.note(
        f"{label}: {size / 1e9:.2f} GB in {all_logs} segments, {logs} of them opened by "
        f"{LOOKUPS} look-ups."
    )


def _ask(client: Client, partition: int, timestamp: int) -> int:
    request = ListOffsetsRequest(
        topics=[
            ListOffsetsTopic(
                name=TOPIC,
                partitions=[ListOffsetsPartition(partition_index=partition, timestamp=timestamp)],
            )
        ]
    )
    answer = client.ask(request, ListOffsetsResponse, 1).topics[0].partitions[0]
    assert not answer.error_code, answer
    return answer.timestamp
