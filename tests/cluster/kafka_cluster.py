"""Brokers of one cluster in processes of their own, over a real ZooKeeper."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic
from kazoo.client import KazooClient

from kavka.protocol.messages.k10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from tests.broker_process import BrokerProcess, free_port, wait_for
from tests.cluster.zookeeper import Ensemble, ZooKeeper
from tests.wire import WireClient

# As small as a cluster gets that still does everything: nobody waits for fifty partitions.
SETTINGS: Mapping[str, str] = {
    "zookeeper.session.timeout.ms": "1500",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "log.level": "INFO",
    "replica.fetch.wait.max.ms": "100",
    "replica.fetch.backoff.ms": "100",
    "controlled.shutdown.retry.backoff.ms": "500",
}


class Member(BrokerProcess):
    """One broker of a cluster."""

    def __init__(self, broker_id: int, data_dir: Path, settings: Mapping[str, str]) -> None:
        super().__init__(data_dir, {"broker.id": str(broker_id), **settings})
        self.broker_id = broker_id
        address = self.settings["listeners"].rpartition(":")[2]
        self.port = int(address)

    @property
    def running(self) -> bool:
        return self.process is not None

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Cluster:
    """Members of one cluster. They can be killed, stopped and started one by one."""

    def __init__(
        self,
        zookeeper: ZooKeeper | Ensemble,
        directory: Path,
        size: int = 3,
        settings: Mapping[str, str] | None = None,
        racks: Sequence[str] = (),
    ) -> None:
        self.zookeeper = zookeeper
        self.directory = directory
        self.connect = zookeeper.chroot()
        self.settings = {**SETTINGS, **(settings or {}), "zookeeper.connect": self.connect}
        self.members: dict[int, Member] = {}
        for broker_id in range(1, size + 1):
            own = {"broker.rack": racks[broker_id - 1]} if racks else {}
            self.add(broker_id, own)

    def add(self, broker_id: int, settings: Mapping[str, str] | None = None) -> Member:
        """A further member, not started."""
        own = {"listeners": f"PLAINTEXT://127.0.0.1:{free_port()}", **(settings or {})}
        member = Member(broker_id, self.directory / f"broker-{broker_id}", {**self.settings, **own})
        self.members[broker_id] = member
        return member

    def __getitem__(self, broker_id: int) -> Member:
        return self.members[broker_id]

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members.values() if member.running]

    @property
    def bootstrap(self) -> str:
        """All members, running or not: clients go on to the next."""
        return ",".join(member.bootstrap for member in self.members.values())

    def start(self) -> "Cluster":
        """Start all, and return when all know of all."""
        for member in self.members.values():
            member.launch()
        for member in self.members.values():
            member.await_ready()
        self.wait_for_brokers(self.members)
        return self

    def stop(self) -> None:
        """Stop all at once, at the end of a test."""
        for member in self.running:
            member.resume()
            member.kill()

    def logs(self) -> str:
        return "\n".join(f"--- {m.broker_id}\n{m.log()}" for m in self.members.values())

    # -- looking at it ----------------------------------------------------------------------

    def admin(self, members: Sequence[Member] | None = None, **settings: Any) -> AdminClient:
        asked = self.running if members is None else members
        bootstrap = ",".join(member.bootstrap for member in asked)
        return AdminClient({"bootstrap.servers": bootstrap, **settings})

    def metadata(self, member: Member | None = None) -> ClusterMetadata:
        """What one member (by default the first that runs) says of the cluster."""
        asked = member or self.running[0]
        return AdminClient({"bootstrap.servers": asked.bootstrap}).list_topics(timeout=10)

    def wait_for_brokers(self, broker_ids: Any, timeout: float = 30.0) -> None:
        """Until every running member says that exactly these are alive."""
        wanted = set(broker_ids)
        for member in self.running:
            wait_for(
                f"brokers {wanted} according to {member.broker_id}\n",
                lambda member=member: set(self.metadata(member).brokers) == wanted,
                timeout,
            )

    def controller(self) -> Member:
        """The running member that is the controller."""

        def found() -> Member | None:
            member = self.members.get(self.metadata().controller_id)
            return member if member is not None and member.running else None

        return wait_for("a controller", found)

    def create(
        self,
        topic: str,
        partitions: int = 3,
        replicas: int = 3,
        replica_assignment: Sequence[Sequence[int]] | None = None,
        **config: str,
    ) -> None:
        """Create a topic; every running member knows it when this returns."""
        configs = {name.replace("_", "."): value for name, value in config.items()}
        if replica_assignment is None:
            new = NewTopic(topic, partitions, replicas, config=configs)
        else:
            partitions = len(replica_assignment)
            placed = [list(brokers) for brokers in replica_assignment]
            new = NewTopic(topic, partitions, replica_assignment=placed, config=configs)
        admin = self.admin()
        admin.create_topics([new], operation_timeout=20)[topic].result(30)
        for member in self.running:
            wait_for(
                f"topic {topic}",
                lambda member=member: self._is_led(self.metadata(member), topic, partitions),
            )

    @staticmethod
    def _is_led(metadata: ClusterMetadata, topic: str, partitions: int) -> bool:
        known = metadata.topics.get(topic)
        return (
            known is not None
            and len(known.partitions) == partitions
            and all(partition.leader >= 0 for partition in known.partitions.values())
        )

    def leader(self, topic: str, partition: int = 0) -> Member:
        """The member that leads a partition."""

        def led() -> Member | None:
            found = self.metadata().topics[topic].partitions[partition].leader
            return self.members.get(found)

        return wait_for(f"a leader of {topic}-{partition}", led)

    def coordinator(self, key: str, transactional: bool = False) -> Member:
        """The member that coordinates a group, or a transactional id."""

        def ask() -> Member | None:
            request = FindCoordinatorRequest(key=key, key_type=int(transactional))
            with WireClient(self.running[0].port) as client:
                response = client.ask(request, FindCoordinatorResponse, 1)
            return self.members.get(response.node_id)

        return wait_for(f"a coordinator of {key}", ask)

    def isr(self, topic: str, partition: int = 0, member: Member | None = None) -> set[int]:
        return set(self.metadata(member).topics[topic].partitions[partition].isrs)

    def wait_for_isr(self, topic: str, size: int, timeout: float = 30.0) -> None:
        """Until all partitions of a topic have so many replicas in sync.

        Asks ZooKeeper, where leaders write it: brokers are told some seconds later only, when the
        changes have come to rest.
        """
        store = KazooClient(self.connect)
        store.start()

        def in_sync() -> bool:
            partitions = f"/brokers/topics/{topic}/partitions"
            return all(
                len(json.loads(store.get(f"{partitions}/{index}/state")[0])["isr"]) == size
                for index in store.get_children(partitions)
            )

        try:
            wait_for(f"{size} in-sync replicas of {topic}", in_sync, timeout)
        finally:
            store.stop()
            store.close()


@contextmanager
def running_cluster(
    zookeeper: ZooKeeper | Ensemble,
    directory: Path,
    size: int = 3,
    settings: Mapping[str, str] | None = None,
    racks: Sequence[str] = (),
) -> Iterator[Cluster]:
    cluster = Cluster(zookeeper, directory, size, settings, racks)
    try:
        yield cluster.start()
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()


def timed(action: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began
