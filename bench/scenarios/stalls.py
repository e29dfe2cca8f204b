"""Stalls: a fetch's waiting time while cleaner, retention, cold reads and syncs are at work.

A probe fetches one small batch 500 times a second, on a connection of its own, from the broker
under load and, at the same time, from a second broker that is idle: what the two have in common is
the machine's (two cores for all of it), what is left is the broker's. The loads are, alone and
together: a pass of the cleaner over 200 MB; a retention pass over 1,000 partitions that removes
3,000 segments; a consumer that reads 1 GB that is not in the page cache; four producers to a topic
with flush.messages=1.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from bench.background import Background
from bench.brokers import Kavka, running
from bench.measure import cpu_seconds
from bench.run import Run
from bench.wire import (
    Client,
    batch_of,
    dated,
    fetch_frame,
    next_offset,
    paced,
    produce_frame,
    pump,
    times,
)
from kavka.protocol.messages.k01_fetch import FetchResponse
from kavka.protocol.messages.k44_incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

PROBES_PER_SECOND: Final = 500
SECONDS: Final = 12.0
PARTITIONS: Final = 1000
FIRST_RETENTION_CHECK: Final = 31.0  # seconds after start
COLD_BYTES: Final = 1 << 30
DIRTY_BYTES: Final = 200 << 20
SETTINGS: Final = {
    "log.retention.check.interval.ms": "2000",
    "log.cleaner.backoff.ms": "1000",
    "log.segment.delete.delay.ms": "1000",
}
SET: Final = 0  # the operation of IncrementalAlterConfigs
TOPIC: Final = 2  # the resource type


class Loads:
    """What keeps the broker busy."""

    def __init__(self, broker: Kavka, scale: float) -> None:
        self._broker = broker
        self._scale = scale
        with self._client() as client:
            client.create_topic("hot")
            client.create_topic("synced", settings={"flush.messages": 1})
            client.create_topic("cold", settings={"segment.bytes": 256 << 20})
            client.create_topic(
                "compacted",
                settings={
                    "cleanup.policy": "compact",
                    "segment.bytes": 32 << 20,
                    "min.cleanable.dirty.ratio": "0.01",
                    "min.compaction.lag.ms": 10**12,
                },
            )
            client.create_topic("expiring", PARTITIONS, {"segment.bytes": 1500, "retention.ms": -1})
            client.pump([produce_frame("hot", 0, batch_of(1100))], 1, "hot")
            batch = batch_of(64 << 10)
            count = int(COLD_BYTES * scale) // len(batch)
            client.pump(times(produce_frame("cold", 0, batch), count), 8, "cold")

    def _client(self) -> Client:
        return Client(self._broker.bootstrap)

    def _alter(self, topic: str, **settings: object) -> None:
        resource = AlterConfigsResource(
            resource_type=TOPIC,
            resource_name=topic,
            configs=[
                AlterableConfig(name=name.replace("_", "."), config_operation=SET, value=str(value))
                for name, value in settings.items()
            ],
        )
        with self._client() as client:
            answer = client.ask(
                IncrementalAlterConfigsRequest(resources=[resource]),
                IncrementalAlterConfigsResponse,
                0,
            )
        assert not answer.responses[0].error_code, answer

    @contextlib.contextmanager
    def cleaner(self) -> Iterator[None]:
        """Dirty records wait; the cleaner may begin now."""
        with self._client() as client:
            frames = (
                produce_frame("compacted", 0, batch_of(16 << 10, 1000, seed=seed, keys=50_000))
                for seed in range(int(DIRTY_BYTES * self._scale) >> 14)
            )
            client.pump(frames, 8, "compacted")
        self._alter("compacted", min_compaction_lag_ms=0)
        yield
        self._alter("compacted", min_compaction_lag_ms=10**12)

    @contextlib.contextmanager
    def retention(self) -> Iterator[None]:
        """Three old segments in each of a thousand partitions may go now."""
        batch = dated(batch_of(1100), int(time.time() * 1000) - 3_600_000)
        with self._client() as client:
            frames = [produce_frame("expiring", index, batch) for index in range(PARTITIONS)]
            client.pump(frames * 3, 8, "expiring")
        self._alter("expiring", retention_ms=1000)
        yield
        self._alter("expiring", retention_ms=-1)

    @contextlib.contextmanager
    def cold_read(self) -> Iterator[None]:
        """A consumer reads what is not in memory, again and again."""
        reader = Background(self._read_cold)
        yield
        reader.stop()

    def _read_cold(self) -> NoReturn:
        while True:
            for path in self._broker.directory.glob("data/cold-0/*.log"):
                _drop_from_cache(path)
            with self._client() as client:
                offset = 0
                while True:
                    client.socket.sendall(fetch_frame("cold", [(0, offset)], max_bytes=4 << 20))
                    answer = client.receive(FetchResponse, 6).responses[0].partitions[0]
                    assert not answer.error_code
                    if not answer.records:
                        break
                    offset = next_offset(memoryview(answer.records), offset)

    @contextlib.contextmanager
    def sync_producer(self) -> Iterator[None]:
        """Four connections produce to a topic that is synced at each append."""
        producer = Background(self._produce_synced)
        yield
        producer.stop()

    def _produce_synced(self) -> None:
        clients = [self._client() for _ in range(4)]
        pump(clients, times(produce_frame("synced", 0, batch_of(1100)), 10**9), 1, "synced")


def _drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(run: Run) -> None:
    scale = run.options.scale
    with running(Kavka, SETTINGS) as broker, running(Kavka) as other:
        began = time.monotonic()
        loads = Loads(broker, scale)
        with Client(other.bootstrap) as client:
            client.create_topic("hot")
            client.pump([produce_frame("hot", 0, batch_of(1100))], 1, "hot")
        time.sleep(max(0.0, began + FIRST_RETENTION_CHECK - time.monotonic()))
        single: dict[str, list[Callable[[], contextlib.AbstractContextManager[None]]]] = {
            "idle": [],
            "cleaner": [loads.cleaner],
            "retention": [loads.retention],
            "cold read": [loads.cold_read],
            "sync producer": [loads.sync_producer],
        }
        together = [load for each in single.values() for load in each]
        for label, what in {**single, "all together": together}.items():
            print(f"  {label}", flush=True)
            with contextlib.ExitStack() as stack:
                for load in what:
                    stack.enter_context(load())
                cpu = cpu_seconds(broker.pid)
                probes = [
                    (name, Background(lambda at=one.bootstrap: _probe(at, scale)))
                    for name, one in (("kavka", broker), ("idle broker beside", other))
                ]
                for name, probe in probes:
                    _note(run, label, name, probe.result())
                busy = (cpu_seconds(broker.pid) - cpu) / (SECONDS * scale)
                run.figures.add(f"{label}: broker's CPU, % of a core", "kavka", busy * 100)


def _probe(bootstrap: str, scale: float) -> list[float]:
    count = int(PROBES_PER_SECOND * SECONDS * scale)
    with Client(bootstrap) as client:
        return paced(client, [fetch_frame("hot", [(0, 0)])], count, PROBES_PER_SECOND)


def _note(run: Run, label: str, name: str, taken: list[float]) -> None:
    cuts = statistics.quantiles(taken, n=1000, method="inclusive")
    for what, value in (("p50", cuts[499]), ("p99.9", cuts[998]), ("worst", max(taken))):
        run.figures.add(f"{label}: fetch {what}, ms", name, value * 1000)
