"""``python -m bench.quotas``: what limits come to when real clients run into them.

Every line is one client or group of clients on a broker of its own: the rate asked for, and the
lowest and highest that was measured over any ten seconds that begin with a second.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kavka.protocol.messages.k49_alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityData,
    EntryData,
    OpData,
)
from tests.broker_process import BrokerProcess, running_broker
from tests.wire import WireClient

SIZE = 1_000
WINDOW = 10


class Meter:
    """Bytes by the second in which they were moved."""

    def __init__(self, seconds: int) -> None:
        self.by_second = [0] * (seconds + 1)
        self.began = time.monotonic()
        self.throttles: list[float] = []

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.began >= len(self.by_second) - 1

    def add(self, size: int) -> None:
        second = int(time.monotonic() - self.began)
        if second < len(self.by_second):
            self.by_second[second] += size

    def rates(self) -> list[float]:
        whole = self.by_second[:-1]
        return [
            sum(whole[begin : begin + WINDOW]) / WINDOW for begin in range(len(whole) - WINDOW + 1)
        ]


def limit(broker: BrokerProcess, client_id: str, **limits: float) -> None:
    entry = EntryData(
        entity=[EntityData(entity_type="client-id", entity_name=client_id)],
        ops=[OpData(key=key, value=float(value)) for key, value in limits.items()],
    )
    with WireClient(broker.port) as client:
        request = AlterClientQuotasRequest(entries=[entry])
        answer = client.ask(request, AlterClientQuotasResponse, 1)
    assert not answer.entries[0].error_code, answer


def create(broker: BrokerProcess, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        future.result(30)


def produce(broker: BrokerProcess, topic: str, client_id: str, meter: Meter) -> None:
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "client.id": client_id,
            "batch.size": 65_536,
            "linger.ms": 5,
            "queue.buffering.max.kbytes": 4_096,
            "throttle_cb": lambda event: meter.throttles.append(event.throttle_time),
        }
    )
    value = b"x" * SIZE
    while not meter.is_over:
        try:
            producer.produce(topic, value, on_delivery=lambda error, _: error or meter.add(SIZE))
        except BufferError:
            producer.poll(0.01)
        producer.poll(0)
    producer.purge()
    producer.flush(5)  # what was purged is not moved


def consume(broker: BrokerProcess, topic: str, client_id: str, meter: Meter) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "client.id": client_id,
            "group.id": client_id,
            "throttle_cb": lambda event: meter.throttles.append(event.throttle_time),
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    while not meter.is_over:
        for message in consumer.consume(500, 0.2):
            if message.error() is None:
                meter.add(len(message.value()))
    consumer.close()


def report(what: str, asked: float, meters: list[Meter]) -> None:
    rates = [sum(each) for each in zip(*(meter.rates() for meter in meters), strict=True)]
    throttles = [each for meter in meters for each in meter.throttles]
    low, high = min(rates), max(rates)
    print(
        f"{what:42} asked {asked / 1e6:6.2f} MB/s  measured {low / 1e6:6.2f}–{high / 1e6:6.2f}"
        f"  ({low / asked - 1:+6.1%} {high / asked - 1:+6.1%})"
        f"  throttles {len(throttles)}, longest {max(throttles, default=0):.2f} s",
        flush=True,
    )


def run(seconds: int, *works: tuple[object, ...]) -> list[Meter]:
    meters = [Meter(seconds) for _ in works]
    threads = [
        threading.Thread(target=work[0], args=(*work[1:], meter))  # type: ignore[arg-type]
        for work, meter in zip(works, meters, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return meters


def of_clients(directory: Path, seconds: int, settings: Mapping[str, str]) -> None:
    with running_broker(directory / "clients", settings) as broker:
        create(broker, "t", "beside")
        for rate in (200_000, 1_000_000, 10_000_000):
            limit(broker, "slow", producer_byte_rate=rate, consumer_byte_rate=rate)
            slow, beside = run(
                seconds,
                (produce, broker, "t", "slow"),
                (produce, broker, "beside", "fast"),
            )
            report("producer", rate, [slow])
            print(f"{'  another beside it':42} {max(beside.rates()) / 1e6:.1f} MB/s", flush=True)
            (slow,) = run(seconds, (consume, broker, "beside", "slow"))
            report("consumer", rate, [slow])


def of_instance(directory: Path, seconds: int) -> None:
    rate = 20_000_000
    with running_broker(directory / "instance", {"instance.bandwidth.bytes": str(rate)}) as broker:
        topics = [f"t{number}" for number in range(4)]
        create(broker, *topics)
        meters = run(seconds, *((produce, broker, topic, topic) for topic in topics))
        report("instance, four producers", rate, meters)
        shares = [sum(meter.by_second) / sum(sum(m.by_second) for m in meters) for meter in meters]
        print(f"{'  shares':42} {', '.join(f'{share:.1%}' for share in sorted(shares))}")
        # What was written in one time lasts for as long, less what is still in the clients.
        shorter = max(seconds * 3 // 4, WINDOW + 1)
        meters = run(shorter, *((consume, broker, topic, topic) for topic in topics))
        report("instance, four consumers", rate, meters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=25, help="of each measurement")
    parser.add_argument("--kafka", action="store_true", help="with the bursts of Kafka's own rule")
    options = parser.parse_args()
    settings = {"quota.burst.seconds": "-1"} if options.kafka else {}
    with tempfile.TemporaryDirectory() as directory:
        of_clients(Path(directory), options.seconds, settings)
        if not options.kafka:
            of_instance(Path(directory), options.seconds)


if __name__ == "__main__":
    main()
