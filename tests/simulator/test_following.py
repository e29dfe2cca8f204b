"""Followers in situations that chance seldom brings about, one by one, in virtual time."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kavka.config import topic as topic_settings
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from kavka.protocol.messages.k01_fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.client import BrokerAddress
from kavka.replication.fetching.manager import FetcherManager
from kavka.replication.znodes import TopicNode
from kavka.storage.log import Log
from tests.simulator.network import Network
from tests.simulator.node import Node, virtual_threads
from tests.simulator.store import SESSION_TIMEOUT, SimStore, ZooKeeper
from tests.simulator.world import Loop, World

pytestmark = pytest.mark.simulator

TP = TopicPartition("t", 0)
CLIENT = 1000


class Cluster:
    """Brokers 1, 2 and 3 without a nemesis; 1 is the preferred leader of everything."""

    def __init__(self, partitions: int = 1, **settings: str) -> None:
        self.world = World(1)
        self.network = Network(self.world)
        self.outside = Loop(self.world, "outside")
        self.zookeeper = ZooKeeper(self.world, Loop(self.world, "zookeeper"))
        given = {name.replace("_", "."): value for name, value in settings.items()}
        self.nodes = {
            number: Node(self.world, number, self.network, self.zookeeper, given)
            for number in (1, 2, 3)
        }
        self.tps = [TopicPartition("t", index) for index in range(partitions)]
        for node in self.nodes.values():
            node.start()
        self.wait(lambda: all(n.process and n.process.ready for n in self.nodes.values()))
        self.run(self._create())
        self.wait(lambda: all(self.isr(tp) == {1, 2, 3} for tp in self.tps))
        self.wait(lambda: all(self.leads(1, tp) for tp in self.tps))

    async def _create(self) -> None:
        store = SimStore(self.zookeeper, 0, self.outside)
        await store.create(znodes.config_path("topics", "t"), znodes.encode_config({}))
        replicas = {tp.partition: [1, 2, 3] for tp in self.tps}
        await store.create(
            znodes.topic_path("t"), znodes.encode_topic(TopicNode(b"0123456789abcdef", replicas))
        )

    def wait(self, holds: Callable[[], Any], seconds: float = 20.0) -> float:
        """Let time pass until something holds; how long that took."""
        began = self.world.now
        while not holds():
            assert self.world.now - began < seconds, "it does not come about"
            self.world.run(self.world.now + 0.01)
        return self.world.now - began

    def run(self, coro: Any) -> Any:
        task = self.outside.start(coro)
        self.wait(task.done)
        return task.result()

    def isr(self, tp: TopicPartition = TP) -> set[int]:
        path = znodes.state_path(*tp)
        if self.zookeeper.tree.exists(path) is None:
            return set()
        return set(znodes.decode_state(path, self.zookeeper.tree.get(path)[0]).isr)

    def leads(self, number: int, tp: TopicPartition = TP) -> bool:
        partition = self.nodes[number].partition(tp)
        return partition is not None and partition.is_leader

    def log(self, number: int, tp: TopicPartition = TP) -> Log:
        log = self.nodes[number].log(tp)
        assert log is not None
        return log

    def produce(
        self, *values: bytes, tp: TopicPartition = TP, acks: int = -1, to: int = 1
    ) -> ErrorCode:
        return ErrorCode(self.run(self._produce(values, tp, acks, to)))

    async def _produce(
        self, values: tuple[bytes, ...], tp: TopicPartition, acks: int, to: int
    ) -> int:
        link = await self.network.connect(
            self.outside, CLIENT, BrokerAddress(to, f"host{to}", 9092), 10.0
        )
        batch = build_batch(
            [Record(index, 1, None, value) for index, value in enumerate(values)], base_offset=0
        )
        response = await link.send(
            ProduceRequest(
                acks=acks,
                timeout_ms=3000,
                topic_data=[
                    TopicProduceData(
                        name=tp.topic,
                        partition_data=[PartitionProduceData(index=tp.partition, records=batch)],
                    )
                ],
            ),
            ProduceResponse,
            7,
            10.0,
        )
        link.close()
        return response.responses[0].partition_responses[0].error_code

    def consume(self, broker_id: int, offset: int, rack: str = "", wait_ms: int = 0) -> Any:
        """One partition's part of a consumer's fetch; its records as bytes."""
        return self.run(self._consume(broker_id, offset, rack, wait_ms))

    async def _consume(self, broker_id: int, offset: int, rack: str, wait_ms: int) -> PartitionData:
        link = await self.network.connect(
            self.outside, CLIENT, BrokerAddress(broker_id, f"host{broker_id}", 9092), 10.0
        )
        response = await link.send(
            FetchRequest(
                replica_id=-1,
                max_wait_ms=wait_ms,
                min_bytes=1,
                max_bytes=1 << 20,
                rack_id=rack,
                topics=[
                    FetchTopic(
                        topic="t",
                        partitions=[
                            FetchPartition(
                                partition=0, fetch_offset=offset, partition_max_bytes=1 << 20
                            )
                        ],
                    )
                ],
            ),
            FetchResponse,
            11,
            10.0,
        )
        link.close()
        return response.responses[0].partitions[0]

    def same_everywhere(self, tp: TopicPartition = TP) -> bool:
        logs = [self.log(number, tp) for number in self.nodes]
        return len({(log.log_end_offset, log.high_watermark) for log in logs}) == 1


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with virtual_threads():
        yield


def test_an_acknowledgement_takes_one_round_trip_not_a_wait() -> None:
    """Followers wait at the leader: a record goes out to them at once."""
    cluster = Cluster()
    cluster.produce(b"first")
    began = cluster.world.now
    for number in range(20):
        assert cluster.produce(b"%d" % number) is ErrorCode.NONE
    assert cluster.world.now - began < 20 * 0.1
    cluster.wait(cluster.same_everywhere)


def test_with_synchronous_flush_an_acknowledgement_does_not_wait_out_the_fetch() -> None:
    """What is synced while another fetch waits at the leader is told by a second one."""
    cluster = Cluster(partitions=3, log_flush_interval_messages="1")
    began = cluster.world.now
    for number in range(20):
        assert cluster.produce(b"x", tp=cluster.tps[number % 3]) is ErrorCode.NONE
    assert cluster.world.now - began < 20 * 0.1
    for tp in cluster.tps:
        for number in cluster.nodes:
            assert cluster.log(number, tp).recovery_point == cluster.log(number, tp).log_end_offset


def test_more_than_fits_into_one_answer_comes_in_several() -> None:
    cluster = Cluster(
        partitions=8, replica_fetch_response_max_bytes="3000", replica_fetch_max_bytes="1000"
    )
    for tp in cluster.tps:
        for _ in range(4):
            assert cluster.produce(b"v" * 900, tp=tp, acks=1) is ErrorCode.NONE
    for tp in cluster.tps:
        cluster.wait(lambda tp=tp: cluster.same_everywhere(tp))
        assert cluster.log(2, tp).log_end_offset == 4


def test_a_batch_larger_than_all_limits_is_copied_nevertheless() -> None:
    cluster = Cluster(
        partitions=3,
        replica_fetch_response_max_bytes="500",
        replica_fetch_max_bytes="100",
        log_segment_bytes="1000000",
    )
    for tp in cluster.tps:
        assert cluster.produce(b"v" * 50_000, tp=tp) is ErrorCode.NONE


def test_a_follower_behind_the_start_of_its_leaders_log_begins_anew_there() -> None:
    cluster = Cluster()
    cluster.produce(b"a")
    cluster.nodes[3].kill(power=False)
    cluster.wait(lambda: cluster.isr() == {1, 2})
    for _ in range(10):
        cluster.produce(b"b")
    cluster.wait(lambda: cluster.log(2).high_watermark == 11)
    for number in (1, 2):
        cluster.log(number).increment_log_start_offset(8)
    cluster.nodes[3].start()
    cluster.wait(lambda: cluster.isr() == {1, 2, 3})
    assert cluster.log(3).log_start_offset == 8
    assert cluster.produce(b"c") is ErrorCode.NONE
    assert cluster.log(3).log_end_offset == 12


def test_a_raised_log_start_reaches_followers_with_the_next_answer() -> None:
    cluster = Cluster()
    cluster.produce(b"a", b"b", b"c")
    cluster.wait(cluster.same_everywhere)
    cluster.log(1).increment_log_start_offset(2)
    cluster.wait(lambda: cluster.log(2).log_start_offset == cluster.log(3).log_start_offset == 2)


def test_news_beside_records_that_are_here_already_counts() -> None:
    """What was asked for before other records came: the leader does not say it again."""
    cluster = Cluster()
    cluster.produce(b"a", b"b", b"c")
    cluster.wait(cluster.same_everywhere)
    process = cluster.nodes[2].process
    assert process is not None
    assert process.broker is not None
    manager = process.broker.replicas._fetchers
    assert isinstance(manager, FetcherManager)
    (fetcher,) = (each for each in manager._fetchers.values() if TP in each._followings)
    data = PartitionData(
        high_watermark=3,
        log_start_offset=1,
        records=cluster.log(1).read(0, 1 << 20, 3).view(),
    )
    fetcher._take(fetcher._followings[TP], data)
    assert (cluster.log(2).log_start_offset, cluster.log(2).log_end_offset) == (1, 3)


def test_a_follower_with_a_full_disk_waits_and_goes_on_when_there_is_room() -> None:
    cluster = Cluster(log_segment_bytes="1000000", min_insync_replicas="2")
    cluster.produce(b"a")
    fs = cluster.nodes[3].fs
    before = fs.capacity
    fs.capacity = 0
    while cluster.log(3).log_end_offset == cluster.log(1).log_end_offset:
        assert cluster.produce(b"v" * 60_000, acks=1) is ErrorCode.NONE
        cluster.world.run(cluster.world.now + 0.5)
    messages = cluster.network.messages
    cluster.wait(lambda: cluster.isr() == {1, 2})
    assert cluster.network.messages - messages < 200, "it must not ask again and again"
    assert cluster.produce(b"v" * 1000) is ErrorCode.NONE
    fs.capacity = before
    cluster.wait(lambda: cluster.isr() == {1, 2, 3})
    cluster.wait(cluster.same_everywhere)


def test_a_follower_whose_disk_fails_leaves_the_others_alone() -> None:
    cluster = Cluster()
    cluster.produce(b"a")
    log = cluster.log(3)
    log.go_offline(OSError(errno.EIO, "broken"), "broken")
    cluster.produce(b"b", acks=1)
    cluster.wait(lambda: cluster.isr() == {1, 2})
    assert cluster.produce(b"c") is ErrorCode.NONE


def test_too_few_in_sync_is_said_before_and_nothing_is_written() -> None:
    cluster = Cluster(min_insync_replicas="3")
    assert cluster.produce(b"a") is ErrorCode.NONE
    cluster.nodes[3].kill(power=False)
    partition = cluster.nodes[1].partition(TP)
    assert partition is not None
    cluster.wait(lambda: partition.in_sync_replicas == [1, 2])
    end = cluster.log(1).log_end_offset
    assert cluster.produce(b"b") is ErrorCode.NOT_ENOUGH_REPLICAS
    assert cluster.log(1).log_end_offset == end
    assert cluster.produce(b"c", acks=1) is ErrorCode.NONE


def test_one_who_pauses_is_put_out_and_comes_back() -> None:
    cluster = Cluster()
    process = cluster.nodes[2].process
    assert process is not None
    process.loop.pause()
    cluster.produce(b"a", acks=1)
    cluster.wait(lambda: cluster.isr() == {1, 3})
    assert cluster.produce(b"b") is ErrorCode.NONE
    process.loop.resume()
    cluster.wait(lambda: cluster.isr() == {1, 2, 3})
    cluster.wait(cluster.same_everywhere)


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_throttled_replica_comes_back_slowly_and_the_others_do_not_notice(side: str) -> None:
    cluster = Cluster(
        log_segment_bytes="1000000",
        replica_fetch_max_bytes="5000",
        replica_fetch_response_max_bytes="5000",
    )
    cluster.nodes[3].kill(power=False)
    cluster.wait(lambda: cluster.isr() == {1, 2})
    for number in range(40):
        assert cluster.produce(b"%d" % (number % 10) * 4000) is ErrorCode.NONE
    cluster.nodes[3].start()
    cluster.wait(lambda: cluster.nodes[3].partition(TP) is not None)
    size = cluster.log(1).size
    for node in cluster.nodes.values():
        process = node.process
        assert process is not None
        assert process.broker is not None
        config = process.broker.config
        config.set_dynamic_broker({f"{side}.replication.throttled.rate": "5000"})
        throttled = topic_settings.resolve({f"{side}.replication.throttled.replicas": "*"}, config)
        process.broker.replicas.update_topic_config("t", throttled)
    left = size - cluster.log(3).size
    seconds = cluster.wait(lambda: cluster.isr() == {1, 2, 3}, 60)
    assert left > 150_000
    assert 10 < seconds < left / 5000  # the first ten seconds' worth may come at once
    began = cluster.world.now
    for _ in range(5):
        assert cluster.produce(b"y" * 4000) is ErrorCode.NONE
    assert cluster.world.now - began < 1, "a replica in sync is not throttled"


def test_a_new_leader_is_followed_at_once_though_another_fetch_waits() -> None:
    """With many partitions moving, the comparison of logs must not wait out the fetches of those
    that have moved already."""
    cluster = Cluster(partitions=6, replica_fetch_wait_max_ms="1900")
    for tp in cluster.tps:
        cluster.produce(b"a", tp=tp)
    cluster.nodes[1].kill(power=False)
    cluster.wait(lambda: all(cluster.isr(tp) == {2, 3} for tp in cluster.tps))

    def settled(tp: TopicPartition) -> bool:
        found = (cluster.nodes[number].partition(tp) for number in (2, 3))
        return any(each is not None and each.is_leader and each.is_settled for each in found)

    assert cluster.wait(lambda: all(map(settled, cluster.tps))) < 0.5
    began = cluster.world.now
    for tp in cluster.tps:
        leader = next(number for number in (2, 3) if cluster.leads(number, tp))
        assert cluster.produce(b"b", tp=tp, to=leader) is ErrorCode.NONE
    assert cluster.world.now - began < 1


RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"


def test_a_consumer_reads_in_its_own_rack_where_that_is_wished_for() -> None:
    cluster = Cluster(replica_selector_class=RACK_AWARE)
    cluster.produce(b"a", b"b")
    cluster.wait(cluster.same_everywhere, 0.3)
    sent_on = cluster.consume(1, 0, "rack2")
    assert (sent_on.error_code, sent_on.preferred_read_replica) == (0, 2)
    assert not sent_on.records
    near = cluster.consume(2, 0, "rack2")
    assert (near.error_code, near.preferred_read_replica) == (0, -1)
    assert near.high_watermark == 2
    assert near.records
    for rack in ("rack1", "elsewhere", ""):
        here = cluster.consume(1, 0, rack)
        assert (here.error_code, here.preferred_read_replica) == (0, -1)
        assert here.records


def test_a_follower_shows_what_is_replicated_as_soon_as_it_is() -> None:
    """It hears of a new high watermark at once, not with the next records."""
    cluster = Cluster(replica_selector_class=RACK_AWARE, replica_fetch_wait_max_ms="1900")
    for number in range(5):
        waiting = cluster.outside.start(cluster._consume(2, number, "rack2", 1500))
        cluster.world.run(cluster.world.now + 0.05)
        cluster.produce(b"x")
        began = cluster.world.now
        cluster.wait(waiting.done)
        assert waiting.result().records
        assert cluster.world.now - began < 0.2


def test_a_follower_that_lacks_an_offset_says_ask_again_and_one_that_is_not_asked_refuses() -> None:
    cluster = Cluster(replica_selector_class=RACK_AWARE)
    cluster.produce(b"a")
    assert cluster.consume(2, 7, "rack2").error_code == ErrorCode.OFFSET_NOT_AVAILABLE
    plain = Cluster()
    plain.produce(b"a")
    assert plain.consume(2, 0, "rack2").error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert plain.consume(1, 0, "rack2").preferred_read_replica == -1


@pytest.mark.parametrize("seed", range(5))
def test_a_leader_that_comes_back_at_once_from_a_power_loss_does_not_lead_on(seed: int) -> None:
    """Its session has not even expired, so that nobody has noticed: it must step back by itself,
    for the others have what it has lost."""
    cluster = Cluster(min_insync_replicas="2")
    for number in range(30):
        assert cluster.produce(b"%d" % number) is ErrorCode.NONE
    cluster.world.random.seed(seed)
    cluster.nodes[1].kill(power=True)
    cluster.nodes[1].start()
    cluster.wait(lambda: cluster.isr() == {2, 3})
    cluster.wait(lambda: cluster.isr() == {1, 2, 3})
    cluster.wait(cluster.same_everywhere)
    assert cluster.log(1).log_end_offset == 30
    assert not cluster.leads(1)


@pytest.mark.parametrize("seed", range(5))
def test_alone_with_synchronous_flush_an_acknowledged_record_outlives_a_power_loss(
    seed: int,
) -> None:
    cluster = Cluster(log_flush_interval_messages="1")
    for number in (2, 3):
        cluster.nodes[number].kill(power=False)
    cluster.wait(lambda: cluster.isr() == {1})
    for number in range(10):
        assert cluster.produce(b"%d" % number) is ErrorCode.NONE
    cluster.world.random.seed(seed)
    cluster.nodes[1].kill(power=True)
    cluster.nodes[1].start()
    cluster.wait(lambda: cluster.leads(1))
    assert cluster.log(1).log_end_offset == 10


def stop_without_zookeeper(cluster: Cluster) -> "asyncio.Task[None]":
    """Have broker 1 stop when it has noticed that it does not reach ZooKeeper."""
    process = cluster.nodes[1].process
    assert process is not None
    membership = process.membership
    assert membership is not None
    cluster.zookeeper.cut.add(1)
    cluster.wait(lambda: not membership._connected.is_set())
    return process.loop.start(process.stop())


def test_a_broker_that_stops_while_zookeeper_is_out_of_reach_hands_over_when_it_is_back() -> None:
    cluster = Cluster()
    cluster.produce(b"a")
    stopping = stop_without_zookeeper(cluster)
    cluster.world.run(cluster.world.now + 0.1)
    assert not stopping.done()
    assert cluster.leads(1)
    cluster.zookeeper.cut.remove(1)
    cluster.wait(lambda: cluster.leads(2) and cluster.isr() == {2, 3}, SESSION_TIMEOUT / 2)
    cluster.wait(stopping.done)
    assert cluster.produce(b"b", to=2) is ErrorCode.NONE


def test_a_broker_that_never_reaches_zookeeper_again_stops_all_the_same() -> None:
    cluster = Cluster()
    stopping = stop_without_zookeeper(cluster)
    cluster.wait(stopping.done, 60)
    cluster.wait(lambda: cluster.leads(2))
