"""Three brokers with 300 partitions of three replicas: idle CPU, controlled shutdown, start-up.

Nobody produces or consumes. CPU of a core is that of each broker over some seconds of peace; the
figures say which broker it is. A controlled shutdown hands over about a hundred leaders; start-up
is over when all replicas of all partitions are in sync again.
"""

import time
from typing import Final

from bench.clusters import kavka_cluster
from bench.measure import cpu_seconds
from bench.run import Run
from tests.cluster.kafka_cluster import Cluster

TOPIC: Final = "idle"
PARTITIONS: Final = 300
PEACE: Final = 20.0  # seconds


def run(run: Run) -> None:
    figures = run.figures
    with kavka_cluster() as cluster:
        began = time.monotonic()
        cluster.create(TOPIC, PARTITIONS, 3)
        cluster.wait_for_isr(TOPIC, 3, 60)
        figures.add("creating the topic, s", "kavka", time.monotonic() - began)
        for number in range(run.rounds):
            print(f"  round {number + 1} of {run.rounds}", flush=True)
            time.sleep(5)
            for what, used in idle(cluster).items():
                figures.add(f"idle CPU of {what}, % of a core", "kavka", used)
            broker_id = number % len(cluster.members) + 1
            member = cluster[broker_id]
            began = time.monotonic()
            assert member.stop() == 0, member.log()
            figures.add("controlled shutdown of one, s", "kavka", time.monotonic() - began)
            began = time.monotonic()
            member.start()
            figures.add("its start until it is ready, s", "kavka", time.monotonic() - began)
            cluster.wait_for_isr(TOPIC, 3, 60)
            figures.add("its start until all is in sync, s", "kavka", time.monotonic() - began)
        began = time.monotonic()
        for member in cluster.running:
            assert member.stop() == 0, member.log()
        figures.add("controlled shutdown of all in turn, s", "kavka", time.monotonic() - began)
        began = time.monotonic()
        cluster.start()
        figures.add("start of all until they are ready, s", "kavka", time.monotonic() - began)
        cluster.wait_for_isr(TOPIC, 3, 60)
        figures.add("start of all until all is in sync, s", "kavka", time.monotonic() - began)


def idle(cluster: Cluster) -> dict[str, float]:
    """Per cent of a core, of the controller and of the brokers that are not."""
    controller = cluster.controller()
    before = {member: cpu_seconds(member.pid) for member in cluster.running}
    began = time.monotonic()
    time.sleep(PEACE)
    seconds = time.monotonic() - began
    used = {each: (cpu_seconds(each.pid) - cpu) / seconds * 100 for each, cpu in before.items()}
    others = [share for member, share in used.items() if member is not controller]
    return {"the controller": used[controller], "the busiest other": max(others)}
