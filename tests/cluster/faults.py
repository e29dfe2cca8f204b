"""Random faults upon a cluster that is written to; afterwards everything must be there.

    python -m tests.cluster.faults --seconds 600 --seed 7

Prints what it did and what it found. The same seed makes the same plan; what the brokers make of
it depends on the machine.
"""

import argparse
import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kavka.protocol.messages.k43_elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
)
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.proxy import Proxies
from tests.cluster.witness import Writer, compare_replicas, judge
from tests.cluster.zookeeper import ZooKeeper, running_zookeeper
from tests.wire import WireClient

TOPIC = "faulty"
PARTITIONS = 6


class Faults:
    """A plan from a seed, and its execution."""

    def __init__(self, cluster: Cluster, zookeeper: ZooKeeper, proxies: Proxies, seed: int) -> None:
        self.cluster = cluster
        self.zookeeper = zookeeper
        self.proxies = proxies
        self.random = random.Random(seed)
        self.done: list[str] = []
        self._began = time.monotonic()

    def go_on(self, seconds: float) -> None:
        """Do one thing after another for so long; then let everything heal."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (3, self.kill),
            (3, self.pause),
            (2, self.restart),
            (2, self.kill_two),
            (3, self.cut),
            (2, self.elect),
            (1, self.restart_zookeeper),
        ]
        weights = [weight for weight, _ in actions]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            (_, action), *_ = self.random.choices(actions, weights)
            action()
            time.sleep(self.random.uniform(0.2, 2.0))

    def note(self, what: str) -> None:
        self.done.append(f"{time.monotonic() - self._began:6.1f} s  {what}")
        print(self.done[-1], flush=True)

    def one(self) -> Member:
        return self.cluster[self.random.randint(1, len(self.cluster.members))]

    def kill(self) -> None:
        member, away = self.one(), self.random.uniform(0.0, 4.0)
        self.note(f"kill {member.broker_id} for {away:.1f} s")
        member.kill()
        time.sleep(away)
        member.start()

    def kill_two(self) -> None:
        first, second = self.random.sample(sorted(self.cluster.members), 2)
        self.note(f"kill {first} and {second}")
        self.cluster[first].kill()
        time.sleep(self.random.uniform(0.0, 2.5))
        self.cluster[second].kill()
        time.sleep(self.random.uniform(0.0, 1.0))
        self.cluster[first].launch()
        self.cluster[second].launch()
        self.cluster[first].await_ready()
        self.cluster[second].await_ready()

    def pause(self) -> None:
        member, away = self.one(), self.random.uniform(0.1, 4.0)
        self.note(f"pause {member.broker_id} for {away:.1f} s")
        member.pause()
        time.sleep(away)
        member.resume()

    def restart(self) -> None:
        member = self.one()
        self.note(f"restart {member.broker_id}")
        assert member.stop() == 0, member.log()
        member.start()

    def cut(self) -> None:
        member = self.one()
        self.note(f"cut the connections of {member.broker_id}")
        self.proxies.cut(member.broker_id)

    def elect(self) -> None:
        self.note("elect preferred leaders")
        request = ElectLeadersRequest(topic_partitions=None, timeout_ms=2000)
        for member in self.cluster.members.values():  # the others refuse
            with contextlib.suppress(OSError), WireClient(member.port, timeout=5) as client:
                client.ask(request, ElectLeadersResponse, 1)

    def restart_zookeeper(self) -> None:
        away = self.random.uniform(0.0, 4.0)
        self.note(f"ZooKeeper is away for {away:.1f} s")
        self.zookeeper.stop()
        time.sleep(away)
        self.zookeeper.start()


@contextmanager
def proxied_cluster(zookeeper: ZooKeeper, directory: Path) -> Iterator[tuple[Cluster, Proxies]]:
    """Three brokers that clients and other brokers reach by proxies only."""
    cluster = Cluster(zookeeper, directory)
    proxies = Proxies({member.broker_id: member.port for member in cluster.members.values()})
    for member in cluster.members.values():
        port = proxies.ports[member.broker_id]
        member.settings["advertised.listeners"] = f"PLAINTEXT://127.0.0.1:{port}"
    try:
        yield cluster.start(), proxies
    except BaseException:
        (directory / "logs.txt").write_text(cluster.logs())
        print(f"logs of the brokers: {directory / 'logs.txt'}")
        raise
    finally:
        cluster.stop()
        proxies.close()


def run(zookeeper: ZooKeeper, directory: Path, seconds: float, seed: int) -> str:
    """Do it, judge it, and give a line about it."""
    with proxied_cluster(zookeeper, directory) as (cluster, proxies):
        cluster.create(TOPIC, PARTITIONS, min_insync_replicas="2")
        writer = Writer(cluster, TOPIC, PARTITIONS, rate=1200).start()
        faults = Faults(cluster, zookeeper, proxies, seed)
        faults.go_on(seconds)
        faults.note("heal")
        writer.progress(90)
        cluster.wait_for_isr(TOPIC, 3, 90)
        writer.stop()
        judge(writer)
        size = compare_replicas(cluster, TOPIC, PARTITIONS)
        return (
            f"seed {seed}: {len(faults.done) - 1} faults in {seconds:.0f} s, {writer.count} "
            f"records acknowledged, all there once and in order, {size} bytes the same on 3 "
            f"replicas; longest pause {writer.slowest:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kavka-faults-"))
    print(f"seed {options.seed}, {directory}")
    with running_zookeeper(directory / "zookeeper") as zookeeper:
        print(run(zookeeper, directory, options.seconds, options.seed))


if __name__ == "__main__":
    main()
