"""Start-up: from starting the process to the first acknowledged message, and memory then."""

import time

from bench.measure import cpu_seconds, resident_mb
from bench.run import Run
from bench.wire import Client, batch_of, produce_frame


def run(run: Run) -> None:
    for make in run.alternating():
        broker = make({})
        try:
            broker.prepare()
            began = time.monotonic()
            broker.start()
            ready = time.monotonic() - began
            with Client(broker.bootstrap) as client:
                client.create_topic("first")
                assert client.pump([produce_frame("first", 0, batch_of(1100))], 1, "first") == 1
            took = time.monotonic() - began
            cpu = cpu_seconds(broker.pid)
            run.figures.add("start → ready, ms", broker.name, ready * 1000)
            run.figures.add("start → first acknowledged message, ms", broker.name, took * 1000)
            run.figures.add("CPU until then, ms", broker.name, cpu * 1000)
            time.sleep(1)
            run.figures.add("resident memory, MB", broker.name, resident_mb(broker.pid))
        finally:
            broker.remove()
