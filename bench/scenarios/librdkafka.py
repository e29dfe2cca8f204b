"""librdkafka: bulk produce and consume of 1 KB messages, throughput and broker CPU per MB.

With the client's default batching (5 ms, 1 MB) and with batches of 16 KB. The client is the limit
of the throughput wherever the broker is not busy.
"""

from typing import Any, Final

from bench import librdkafka
from bench.run import Run, all_running

CASES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("default batches", {}),
    ("16 KB batches", {"batch.size": 16384, "linger.ms": 1}),
)


def run(run: Run) -> None:
    count = int(200_000 * run.options.scale)
    with all_running(run.contenders) as brokers:
        for label, config in CASES:
            for number in range(run.rounds + 1):
                print(f"  {label}, round {number} of {run.rounds}", flush=True)
                for broker in brokers:
                    topic = f"{label.replace(' ', '-')}-{number}"
                    made = librdkafka.produce(broker, topic, count, **config)
                    read = librdkafka.consume(broker, topic, count)
                    if not number:  # the first round warms up compilers and caches
                        continue
                    for what, figure in (("produce", made), ("consume", read)):
                        run.figures.add(
                            f"{what}, {label}: messages/s", broker.name, figure.messages_per_second
                        )
                        run.figures.add(
                            f"{what}, {label}: CPU ms per MB", broker.name, figure.cpu_ms_per_mb
                        )
