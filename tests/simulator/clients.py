"""Clients of a simulated cluster, which remember what they were promised and shown."""

import asyncio
from typing import TYPE_CHECKING

from kavka.protocol import codec
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
)
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kavka.protocol.records.batch import (
    Record,
    build_batch,
    iter_batches,
    iter_records,
    read_header,
)
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.client import BrokerAddress, BrokerUnavailable
from tests.simulator.network import Link, Network
from tests.simulator.world import Loop, World

if TYPE_CHECKING:
    from tests.simulator.node import Node

CLIENT_IDS = 1000  # what the network knows clients by

LOST = (
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode.UNKNOWN_PRODUCER_ID,
    ErrorCode.INVALID_PRODUCER_EPOCH,
)
"""What an idempotent producer that repeats until it is answered can only be told when something
acknowledged is gone."""


class History:
    """What clients know for certain."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.acknowledged: dict[TopicPartition, dict[bytes, int]] = {}  # value: offset, or -1
        self.shown: dict[tuple[TopicPartition, int], bytes] = {}
        self.latest: dict[TopicPartition, int] = {}

    def acknowledge(self, tp: TopicPartition, values: list[bytes], base_offset: int) -> None:
        known = self.acknowledged.setdefault(tp, {})
        for index, value in enumerate(values):
            offset = base_offset + index if base_offset >= 0 else -1
            if value in known:
                self.world.trouble(f"{value!r} of {tp} was acknowledged twice")
            known[value] = offset

    def show(self, tp: TopicPartition, offset: int, value: bytes) -> None:
        before = self.shown.setdefault((tp, offset), value)
        if before != value:
            self.world.trouble(f"{tp} showed {before!r} at {offset}, and now {value!r}")


class Client:
    """Finds leaders by asking any broker what it believes."""

    def __init__(
        self, number: int, world: World, network: Network, nodes: "dict[int, Node]"
    ) -> None:
        self.number = number
        self.world = world
        self.network = network
        self.nodes = nodes
        self.loop = Loop(world, f"client {number}")
        self.stopping = False
        self._links: dict[int, Link] = {}

    def leader(self, tp: TopicPartition) -> int | None:
        asked = [node for node in self.nodes.values() if node.process and node.process.ready]
        if not asked:
            return None
        node = self.world.random.choice(asked)
        assert node.process is not None
        assert node.process.broker is not None
        state = node.process.broker.metadata.partition(*tp)
        return None if state is None or state.leader < 0 else state.leader

    async def link(self, broker_id: int) -> Link:
        link = self._links.get(broker_id)
        if link is None or link.closed:
            address = BrokerAddress(broker_id, f"host{broker_id}", 9092)
            link = await self.network.connect(
                self.loop, CLIENT_IDS + self.number, address, timeout=3.0
            )
            self._links[broker_id] = link
        return link

    def is_the_leader(self, tp: TopicPartition, broker_id: int) -> bool:
        """Whether a broker is the leader according to the metadata store, whom to believe. One
        that does not know yet that it is deposed may say anything, and acknowledges nothing."""
        zookeeper = next(iter(self.nodes.values())).zookeeper
        path = znodes.state_path(*tp)
        return znodes.decode_state(path, zookeeper.tree.get(path)[0]).leader == broker_id

    async def pause(self) -> None:
        await asyncio.sleep(self.world.random.uniform(0.01, 0.2))


class Producer(Client):
    """Idempotent, acks=all, one batch at a time, repeated until it is acknowledged."""

    def __init__(
        self,
        number: int,
        tp: TopicPartition,
        history: History,
        world: World,
        network: Network,
        nodes: "dict[int, Node]",
    ) -> None:
        super().__init__(number, world, network, nodes)
        self.tp = tp
        self.history = history
        self.sent = 0  # records acknowledged so far
        self.idle = True
        self.loop.start(self._run())

    async def _run(self) -> None:
        while True:
            self.idle = True
            await self.pause()
            if self.stopping:
                continue
            self.idle = False
            count = self.world.random.randint(1, 4)
            values = [f"{self.number}.{self.sent + index}".encode() for index in range(count)]
            base_offset = await self._until_acknowledged(values)
            self.history.acknowledge(self.tp, values, base_offset)
            self.sent += count

    async def _until_acknowledged(self, values: list[bytes]) -> int:
        while True:
            leader = self.leader(self.tp)
            if leader is not None:
                try:
                    link = await self.link(leader)
                    response = await link.send(self._request(values), ProduceResponse, 7)
                except BrokerUnavailable:
                    pass
                else:
                    result = response.responses[0].partition_responses[0]
                    code = ErrorCode(result.error_code)
                    if code is ErrorCode.NONE:
                        return result.base_offset
                    if code is ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
                        return -1
                    if code in LOST and self.is_the_leader(self.tp, leader):
                        self.world.trouble(
                            f"producer {self.number} is told {code.name} by {leader}: what it "
                            f"had acknowledged is gone from {self.tp}"
                        )
            await self.pause()

    def _request(self, values: list[bytes]) -> ProduceRequest:
        now = self.network.world.now
        batch = build_batch(
            [
                Record(index, 1_600_000_000_000 + int(now * 1000), None, value)
                for index, value in enumerate(values)
            ],
            base_offset=0,
            producer_id=self.number,
            producer_epoch=0,
            base_sequence=self.sent,
        )
        return ProduceRequest(
            acks=-1,
            timeout_ms=1500,
            topic_data=[
                TopicProduceData(
                    name=self.tp.topic,
                    partition_data=[PartitionProduceData(index=self.tp.partition, records=batch)],
                )
            ],
        )


class Consumer(Client):
    """Reads a partition, again and again from somewhere, and asks where it ends."""

    def __init__(
        self,
        number: int,
        tp: TopicPartition,
        history: History,
        world: World,
        network: Network,
        nodes: "dict[int, Node]",
    ) -> None:
        super().__init__(number, world, network, nodes)
        self.tp = tp
        self.history = history
        self.offset = 0
        self._asked: int | None = None  # the leader that was read from last
        self.loop.start(self._run())

    async def _run(self) -> None:
        while True:
            leader = self.leader(self.tp)
            if leader is not None:
                try:
                    link = await self.link(leader)
                    if leader != self._asked or self.world.random.random() < 0.1:
                        await self._ask_for_the_end(link)
                    self._asked = leader
                    await self._read(link)
                except BrokerUnavailable:
                    pass
            await self.pause()

    async def _ask_for_the_end(self, link: Link) -> None:
        response = await link.send(
            ListOffsetsRequest(
                replica_id=-1,
                topics=[
                    ListOffsetsTopic(
                        name=self.tp.topic,
                        partitions=[
                            ListOffsetsPartition(partition_index=self.tp.partition, timestamp=-1)
                        ],
                    )
                ],
            ),
            ListOffsetsResponse,
            5,
        )
        answer = response.topics[0].partitions[0]
        leader = link.address.node_id
        if (
            answer.error_code == ErrorCode.NONE
            and answer.offset < self.offset
            and self.is_the_leader(self.tp, leader)
        ):
            self.world.trouble(
                f"{self.tp} ends at {answer.offset} according to its leader {leader}, but "
                f"{self.offset} was read before"
            )

    async def _read(self, link: Link) -> None:
        future: asyncio.Future[int] = self.loop.create_future()

        def answered(body: memoryview) -> None:
            response = codec.decode(FetchResponse, body, 11)
            code = 0
            for topic in response.responses:
                for data in topic.partitions:
                    code = data.error_code
                    if data.records is not None:
                        self._take(memoryview(bytes(data.records)))
            if not future.done():
                future.set_result(code)

        def failed(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        link.exchange(
            FetchRequest(
                replica_id=-1,
                max_wait_ms=200,
                min_bytes=1,
                max_bytes=1 << 20,
                session_epoch=-1,
                topics=[
                    FetchTopic(
                        topic=self.tp.topic,
                        partitions=[
                            FetchPartition(
                                partition=self.tp.partition,
                                fetch_offset=self.offset,
                                partition_max_bytes=1 << 16,
                            )
                        ],
                    )
                ],
            ),
            11,
            answered,
            failed,
        )
        code = await future
        if code == ErrorCode.OFFSET_OUT_OF_RANGE and self.is_the_leader(
            self.tp, link.address.node_id
        ):
            self.world.trouble(
                f"{self.tp} was read up to {self.offset}, and its leader "
                f"{link.address.node_id} has never had that"
            )
        if self.world.random.random() < 0.05:
            self.offset = self.world.random.randint(0, self.offset)

    def _take(self, records: memoryview) -> None:
        for pos, _, _ in iter_batches(records):
            header = read_header(records, pos)
            for record in iter_records(records, pos, header, 1 << 20):
                if record.offset >= self.offset:
                    self.history.show(self.tp, record.offset, record.value or b"")
                    self.offset = record.offset + 1
