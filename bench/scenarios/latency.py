"""Latency: produce to acknowledgement, and to a waiting consumer, at fixed rates.

Each time runs from when a message was due, not from when it could be sent: a stall counts for all
that it delayed.
"""

import statistics
import time
from struct import Struct
from typing import Final

from bench.background import Background
from bench.brokers import Broker
from bench.run import Run, all_running
from bench.wire import Client, batch_of, fetch_frame, next_offset, paced, produce_frame
from kavka.protocol.messages.k01_fetch import FetchResponse
from kavka.protocol.records.batch import (
    Record,
    build_batch,
    iter_batches,
    iter_records,
    read_header,
)

RATES: Final = (100, 1000, 5000)
SECONDS: Final = 5.0
PERCENTILES: Final = (("p50", 499), ("p99", 989), ("p99.9", 998))
_TIME: Final = Struct(">d")
END_TO_END_RATE: Final = 500


def run(run: Run) -> None:
    seconds = SECONDS * run.options.scale
    with all_running(run.full) as brokers:
        for number in range(run.rounds + 1):
            print(f"  round {number} of {run.rounds}", flush=True)
            for broker in brokers:
                for rate in RATES:
                    topic = f"t{number}-{rate}"
                    with Client(broker.bootstrap) as client:
                        client.create_topic(topic)
                        frame = produce_frame(topic, 0, batch_of(1100))
                        client.pump([frame], 1, topic)
                        taken = paced(client, [frame], int(rate * seconds), rate)
                    if number:
                        _note(run, f"produce acks=1, {rate}/s", broker.name, taken)
                taken = _end_to_end(broker, f"e{number}", int(END_TO_END_RATE * seconds))
                if number:
                    _note(run, f"produce to consumer, {END_TO_END_RATE}/s", broker.name, taken)


def _note(run: Run, label: str, name: str, taken: list[float]) -> None:
    cuts = statistics.quantiles(taken, n=1000, method="inclusive")
    for percentile, index in PERCENTILES:
        run.figures.add(f"{label}: {percentile}, ms", name, cuts[index] * 1000)


def _end_to_end(broker: Broker, topic: str, count: int) -> list[float]:
    with Client(broker.bootstrap) as client:
        client.create_topic(topic)
        consumer = Background(lambda: _receive(broker.bootstrap, topic, count))
        time.sleep(0.3)
        start = time.monotonic()
        for number in range(count):
            due = start + number / END_TO_END_RATE
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            record = Record(0, int(time.time() * 1000), None, _TIME.pack(due) + bytes(1000))
            batch = build_batch([record], base_offset=0)
            client.socket.sendall(produce_frame(topic, 0, batch))
            client.receive_frame()
        return consumer.result()


def _receive(bootstrap: str, topic: str, count: int) -> list[float]:
    taken: list[float] = []
    offset = 0
    with Client(bootstrap) as client:
        while len(taken) < count:
            client.socket.sendall(fetch_frame(topic, [(0, offset)]))
            answer = client.receive(FetchResponse, 6).responses[0].partitions[0]
            now = time.monotonic()
            records = memoryview(answer.records or b"")
            for at, _, _ in iter_batches(records):
                for record in iter_records(records, at, read_header(records, at), 1 << 20):
                    assert record.value is not None
                    taken.append(now - _TIME.unpack_from(record.value)[0])
            offset = next_offset(records, offset)
    return taken
