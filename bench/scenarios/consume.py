"""Consume: broker CPU per MB fetched, hot, cold, while catching up, and by ten readers at once."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.background import Background
from bench.brokers import Broker
from bench.measure import cpu_seconds
from bench.run import Run, all_running
from bench.wire import Client, batch_of, fetch_frame, next_offset, produce_frame, times
from kavka.protocol.messages.k01_fetch import FetchResponse

BATCH: Final = 64 << 10
MEGABYTES: Final = 256
READERS: Final = 10


def run(run: Run) -> None:
    batch = batch_of(BATCH)
    count = int(MEGABYTES * run.options.scale * 1e6) // len(batch)
    with all_running(run.full) as brokers:
        for number in range(run.rounds + 1):
            print(f"  round {number} of {run.rounds}", flush=True)
            for broker in brokers:
                topic = f"t{number}"
                with Client(broker.bootstrap) as client:
                    client.create_topic(topic)
                    client.pump(times(produce_frame(topic, 0, batch), count), 8, topic)
                cases: dict[str, Callable[[], float]] = {
                    "hot": lambda: read_all(broker.bootstrap, topic),  # noqa: B023
                    "cold": lambda: _read_cold(broker, topic),  # noqa: B023
                    "ten readers": lambda: _read_by_many(broker, topic),  # noqa: B023
                }
                for label, case in cases.items():
                    cpu, began = cpu_seconds(broker.pid), time.monotonic()
                    megabytes = case()
                    seconds = time.monotonic() - began
                    cpu = cpu_seconds(broker.pid) - cpu
                    if number:
                        figure = cpu * 1000 / megabytes
                        run.figures.add(f"{label}: CPU ms per MB", broker.name, figure)
                        run.figures.add(f"{label}: MB/s", broker.name, megabytes / seconds)
                catch_up = _catch_up(broker, topic, batch, count)
                if number:
                    run.figures.add(
                        "producing and catching up: CPU ms per MB", broker.name, catch_up
                    )


def read_all(bootstrap: str, topic: str, until: int = 0) -> float:
    """Read partition 0 to its end, or to an offset; how many MB came."""
    size = offset = 0
    with Client(bootstrap) as client:
        while True:
            client.socket.sendall(fetch_frame(topic, [(0, offset)], max_wait_ms=100))
            answer = client.receive(FetchResponse, 6).responses[0].partitions[0]
            assert not answer.error_code
            if answer.records:
                size += len(answer.records)
                offset = next_offset(memoryview(answer.records), offset)
            if offset >= until if until else not answer.records:
                return size / 1e6


def _read_cold(broker: Broker, topic: str) -> float:
    for path in Path(broker.directory).glob(f"data/{topic}-0/*.log"):
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return read_all(broker.bootstrap, topic)


def _read_by_many(broker: Broker, topic: str) -> float:
    readers = [Background(lambda: read_all(broker.bootstrap, topic)) for _ in range(READERS)]
    return sum(reader.result() for reader in readers)


def _catch_up(broker: Broker, topic: str, batch: bytes, count: int) -> float:
    """A reader begins at the start while as much again is produced; CPU ms per MB of both."""
    per_batch = int.from_bytes(batch[57:61], "big")
    with Client(broker.bootstrap) as client:
        cpu = cpu_seconds(broker.pid)
        reader = Background(lambda: read_all(broker.bootstrap, topic, until=2 * count * per_batch))
        client.pump(times(produce_frame(topic, 0, batch), count), 8, topic)
        megabytes = reader.result() + count * len(batch) / 1e6
    return (cpu_seconds(broker.pid) - cpu) * 1000 / megabytes
