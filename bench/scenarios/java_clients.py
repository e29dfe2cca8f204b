"""Java clients: Kafka's own performance tools against each broker, throughput and CPU per MB."""

import re
from typing import Final

from bench.brokers import KAFKA_RELEASE, Broker, Kafka
from bench.measure import cpu_seconds
from bench.run import Run, all_running
from bench.wire import Client

SIZE: Final = 1024
CASES: Final = (
    ("default batches", ()),  # 16 KB, no waiting
    ("64 KB batches, 5 ms", ("batch.size=65536", "linger.ms=5")),
)


def run(run: Run) -> None:
    if not Kafka.available():
        print("  no JVM or no Maven: left out")
        return
    count = int(400_000 * run.options.scale)
    with all_running(run.full) as brokers:
        for label, config in CASES:
            for number in range(run.rounds + 1):
                print(f"  {label}, round {number} of {run.rounds}", flush=True)
                for broker in brokers:
                    topic = f"java-{label[:2]}-{number}"
                    figures = _produce_and_consume(broker, topic, count, config)
                    for what, value in figures.items() if number else ():
                        run.figures.add(f"{what.format(label)}", broker.name, value)


def _produce_and_consume(
    broker: Broker, topic: str, count: int, config: tuple[str, ...]
) -> dict[str, float]:
    from tests import java

    with Client(broker.bootstrap) as client:
        client.create_topic(topic)
    megabytes = count * SIZE / 1e6
    cpu = cpu_seconds(broker.pid)
    said = java.run_tool(
        *(KAFKA_RELEASE, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic),
        *("--num-records", str(count), "--record-size", str(SIZE), "--throughput", "-1"),
        *("--producer-props", f"bootstrap.servers={broker.bootstrap}", *config),
    ).stdout
    made = cpu_seconds(broker.pid) - cpu
    rate = re.findall(r"([\d.]+) records/sec", said)
    cpu = cpu_seconds(broker.pid)
    java.run_tool(
        *(KAFKA_RELEASE, "org.apache.kafka.tools.ConsumerPerformance", "--topic", topic),
        *("--bootstrap-server", broker.bootstrap, "--messages", str(count)),
        *("--timeout", "30000"),
    )
    read = cpu_seconds(broker.pid) - cpu
    return {
        "produce, {}: messages/s": float(rate[-1]),
        "produce, {}: CPU ms per MB": made * 1000 / megabytes,
        "consume after {}: CPU ms per MB": read * 1000 / megabytes,
    }
