"""Connections: accepting 3,000, 10,000 and 20,000, their memory, and their cost while idle."""

import resource
import time
from typing import Final

from bench.measure import cpu_seconds, resident_mb
from bench.run import Run
from bench.wire import Client, pump
from kavka.protocol import headers
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest

COUNTS: Final = (3_000, 10_000, 20_000)
IDLE_SECONDS: Final = 5.0
SPARE_FILES: Final = 200


def run(run: Run) -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    frame = headers.encode_request(18, 2, 1, "bench", ApiVersionsRequest())
    for make in run.full:
        for wanted in COUNTS:
            count = min(wanted, limit - SPARE_FILES)
            if count < wanted:
                run.figures.note(f"{wanted:,} were {count:,}: the limit of open files is {limit}.")
            print(f"  {make.name}: {wanted:,}", flush=True)
            broker = make({})
            broker.start()
            try:
                with Client(broker.bootstrap) as client:
                    pump([client], [frame] * 100, 1)
                memory, cpu = resident_mb(broker.pid), cpu_seconds(broker.pid)
                began = time.monotonic()
                clients = [Client(broker.bootstrap) for _ in range(count)]
                assert pump(clients, [frame] * count, 1) == count
                seconds = time.monotonic() - began
                cpu = cpu_seconds(broker.pid) - cpu
                memory = resident_mb(broker.pid) - memory
                figures, name = run.figures, broker.name
                label = f"{wanted:,}"
                figures.add(f"{label}: accepted and answered, s", name, seconds)
                figures.add(f"{label}: CPU µs per connection", name, cpu * 1e6 / count)
                figures.add(f"{label}: memory, KB per connection", name, memory * 1024 / count)
                cpu = cpu_seconds(broker.pid)
                time.sleep(IDLE_SECONDS)
                cpu = cpu_seconds(broker.pid) - cpu
                figures.add(f"{label}: idle, % of a core", name, cpu * 100 / IDLE_SECONDS)
                for one in clients:
                    one.socket.close()
            finally:
                broker.remove()
