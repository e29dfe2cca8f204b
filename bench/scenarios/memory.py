"""Memory: resident MB when idle, and after gigabytes have gone in and out (10 GB at --scale 1)."""

from typing import Final

from bench.measure import resident_mb
from bench.run import Run
from bench.scenarios.consume import read_all
from bench.wire import Client, batch_of, produce_frame, times

BATCH: Final = 64 << 10
ROUNDS: Final = 10
SETTINGS: Final = {"retention.bytes": 1 << 30, "segment.bytes": 256 << 20}


def run(run: Run) -> None:
    batch = batch_of(BATCH)
    count = int(1e9 * run.options.scale) // len(batch)
    for make in run.full:
        print(f"  {make.name}", flush=True)
        broker = make({"log.retention.check.interval.ms": "5000"})
        broker.start()
        try:
            run.figures.add("idle, MB", broker.name, resident_mb(broker.pid))
            for number in range(ROUNDS):
                topic = f"t{number}"
                with Client(broker.bootstrap) as client:
                    client.create_topic(topic, settings=dict(SETTINGS))
                    client.pump(times(produce_frame(topic, 0, batch), count), 8, topic)
                    read_all(broker.bootstrap, topic)
                if number in (0, ROUNDS - 1):
                    gone = (number + 1) * run.options.scale
                    label = f"after {gone:g} GB in and out, MB"
                    run.figures.add(label, broker.name, resident_mb(broker.pid))
                _delete(broker.bootstrap, topic)
        finally:
            broker.remove()


def _delete(bootstrap: str, topic: str) -> None:
    from kavka.protocol.messages.k20_delete_topics import (
        DeleteTopicsRequest,
        DeleteTopicsResponse,
    )

    with Client(bootstrap) as client:
        request = DeleteTopicsRequest(topic_names=[topic], timeout_ms=60_000)
        answer = client.ask(request, DeleteTopicsResponse, 1)
        assert not answer.responses[0].error_code
