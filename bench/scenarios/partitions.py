"""Partitions: CPU per MB for the same bytes spread over 6, 30 and 300 partitions."""

from itertools import cycle, islice
from typing import Final

from bench import librdkafka
from bench.measure import cpu_seconds
from bench.run import Run, all_running
from bench.wire import Client, batch_of, produce_frame

PARTITIONS: Final = (6, 30, 300)
BATCH: Final = 16 << 10
MEGABYTES: Final = 200


def run(run: Run) -> None:
    batch = batch_of(BATCH)
    count = int(MEGABYTES * run.options.scale * 1e6) // len(batch)
    with all_running(run.full) as brokers:
        for number in range(run.rounds + 1):
            print(f"  round {number} of {run.rounds}", flush=True)
            for broker in brokers:
                for partitions in PARTITIONS:
                    topic = f"t{number}-{partitions}"
                    with Client(broker.bootstrap) as client:
                        client.create_topic(topic, partitions)
                        frames = [produce_frame(topic, index, batch) for index in range(partitions)]
                        client.pump(islice(cycle(frames), partitions * 4), 5, topic)
                        cpu = cpu_seconds(broker.pid)
                        client.pump(islice(cycle(frames), count), 5, topic)
                        cpu = cpu_seconds(broker.pid) - cpu
                    if number:
                        run.figures.add(
                            f"16 KB requests, {partitions} partitions: CPU ms per MB",
                            broker.name,
                            cpu * 1e9 / (count * len(batch)),
                        )
                    made = librdkafka.produce(
                        broker, f"l{number}-{partitions}", count * 16, partitions
                    )
                    if number:
                        run.figures.add(
                            f"librdkafka, {partitions} partitions: CPU ms per MB",
                            broker.name,
                            made.cpu_ms_per_mb,
                        )
    for way in ("16 KB requests", "librdkafka"):
        few, many = (
            run.figures.median(f"{way}, {count} partitions: CPU ms per MB") for count in (6, 300)
        )
        run.figures.add(f"{way}: 300 partitions ÷ 6", "kavka", many / few)
