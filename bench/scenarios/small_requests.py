"""Small requests: broker CPU per Produce request of 1 KB, pipelined and from many connections."""

from typing import Final

from bench.brokers import Broker
from bench.floor import CFloor, PythonFloor
from bench.measure import cpu_seconds
from bench.run import Run, all_running
from bench.wire import Client, batch_of, produce_frame, pump, times

CASES: Final = (  # connections, requests under way on each, requests
    (1, 1, 5_000),
    (1, 32, 60_000),
    (16, 1, 20_000),
    (16, 8, 40_000),
    (256, 1, 20_000),
)
SIZE: Final = 1100


def run(run: Run) -> None:
    floors = [PythonFloor, *([CFloor] if CFloor.available() else [])]
    with all_running([*run.full, *floors]) as brokers:
        for number, (connections, depth, requests) in enumerate(CASES):
            label = f"{connections} × {depth}"
            print(f"  {label}", flush=True)
            for round_number in range(run.rounds + 1):
                for broker in brokers:
                    count = int(requests * run.options.scale)
                    topic = f"t{number}{round_number:02}"
                    cpu = measure(broker, topic, connections, depth, count)
                    if round_number:
                        what = f"{label} under way: CPU µs per request"
                        run.figures.add(what, broker.name, cpu)


def measure(broker: Broker, topic: str, connections: int, depth: int, count: int) -> float:
    """CPU of the broker per request, µs."""
    clients = [Client(broker.bootstrap) for _ in range(connections)]
    if not broker.name.endswith("floor"):
        clients[0].create_topic(topic)
    frame = produce_frame(topic, 0, batch_of(SIZE))
    cpu = cpu_seconds(broker.pid)
    done = pump(clients, times(frame, count), depth)
    cpu = cpu_seconds(broker.pid) - cpu
    for client in clients:
        client.socket.close()
    return cpu * 1e6 / done
