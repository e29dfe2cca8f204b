"""Long polling: the cost of 1,000 and 3,000 consumers that wait 500 ms at a time for nothing."""

import time
from typing import Final

from bench.measure import cpu_seconds
from bench.run import Run, all_running
from bench.wire import Client, fetch_frame, pump

CONSUMERS: Final = (1_000, 3_000)
PARTITIONS: Final = 100
POLLS: Final = 16  # of each consumer


def run(run: Run) -> None:
    with all_running(run.full) as brokers:
        for broker in brokers:
            with Client(broker.bootstrap) as client:
                client.create_topic("quiet", PARTITIONS)
        for consumers in CONSUMERS:
            for number in range(run.rounds + 1):
                print(f"  {consumers:,}: round {number} of {run.rounds}", flush=True)
                for broker in brokers:
                    clients = [Client(broker.bootstrap) for _ in range(consumers)]
                    frames = [
                        fetch_frame("quiet", [(index % PARTITIONS, 0)])
                        for index in range(consumers)
                    ]
                    pump(clients, frames, 1)
                    cpu, began = cpu_seconds(broker.pid), time.monotonic()
                    polls = pump(clients, frames * POLLS, 1)
                    seconds = time.monotonic() - began
                    cpu = cpu_seconds(broker.pid) - cpu
                    for one in clients:
                        one.socket.close()
                    if number:
                        label = f"{consumers:,} consumers"
                        share = cpu * 100 / seconds
                        run.figures.add(f"{label}: % of a core", broker.name, share)
                        run.figures.add(f"{label}: CPU µs per poll", broker.name, cpu * 1e6 / polls)
