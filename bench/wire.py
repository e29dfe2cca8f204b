"""A load generator that speaks the protocol itself, so that little but the broker is measured.

Frames are built before the clock starts. It is one thread of Python, and still takes less of a
core than any broker it loads.
"""

import random
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from struct import Struct
from typing import Final

from kavka.protocol import headers
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kavka.protocol.messages.k01_fetch import FetchPartition, FetchRequest, FetchTopic
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.records.batch import CRC_START, Record, build_batch
from kavka.protocol.records.crc import crc32c
from tests.wire import WireClient

PRODUCE_VERSION: Final = 7
FETCH_VERSION: Final = 6  # the last one without sessions: the same frame can be sent again
METADATA_VERSION: Final = 4
CREATE_VERSION: Final = 2
_SIZE: Final = Struct(">i")
_TIMES: Final = Struct(">qq")
_FIRST_TIMESTAMP_AT: Final = 27
_CRC: Final = Struct(">I")
_CRC_AT: Final = 17


class Client(WireClient):
    """One connection to a broker given as ``host:port``."""

    def __init__(self, bootstrap: str, *, timeout: float = 120.0) -> None:
        super().__init__(int(bootstrap.rpartition(":")[2]), timeout=timeout, client_id="bench")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _exactly(self, size: int) -> bytes:
        """Without joining pieces again and again, which would make the client the slow one."""
        data = bytearray(size)
        view = memoryview(data)
        have = 0
        while have < size:
            count = self.socket.recv_into(view[have:])
            if not count:
                return b""
            have += count
        return bytes(data)

    def create_topic(
        self, name: str, partitions: int = 1, settings: dict[str, object] | None = None
    ) -> None:
        """Create a topic and wait until all its partitions have leaders."""
        request = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=name,
                    num_partitions=partitions,
                    replication_factor=1,
                    configs=[
                        CreatableTopicConfig(name=key, value=str(value))
                        for key, value in (settings or {}).items()
                    ],
                )
            ],
            timeout_ms=60_000,
        )
        answer = self.ask(request, CreateTopicsResponse, CREATE_VERSION)
        assert answer.topics[0].error_code == 0, answer
        while not self._is_led(name, partitions):
            time.sleep(0.01)

    def _is_led(self, name: str, partitions: int) -> bool:
        topic = self.metadata([name]).topics[0]
        if len(topic.partitions) != partitions or any(one.error_code for one in topic.partitions):
            return False
        # Metadata may be ahead of the leaders themselves.
        request = ListOffsetsRequest(
            topics=[
                ListOffsetsTopic(
                    name=name,
                    partitions=[
                        ListOffsetsPartition(partition_index=index, timestamp=-1)
                        for index in range(partitions)
                    ],
                )
            ]
        )
        ends = self.ask(request, ListOffsetsResponse, 1).topics[0].partitions
        return not any(each.error_code for each in ends)

    def metadata(self, topics: Sequence[str]) -> MetadataResponse:
        """What the broker tells of topics."""
        from kavka.protocol.messages.k03_metadata import MetadataRequestTopic

        request = MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in topics])
        return self.ask(request, MetadataResponse, METADATA_VERSION)

    def pump(self, frames: Iterable[bytes], depth: int, topic: str = "") -> int:
        """Send request frames with at most ``depth`` of them unanswered; how many there were.

        For answers to Produce of one partition of ``topic``, whose errors end it.
        """
        return pump([self], frames, depth, topic)


def pump(clients: Sequence[Client], frames: Iterable[bytes], depth: int, topic: str = "") -> int:
    """:meth:`Client.pump` over several connections, which take the frames as they can."""
    left = iter(frames)
    error_at = 22 + len(topic) if topic else 0
    poll = select.epoll()
    waiting = dict.fromkeys(range(len(clients)), 0)
    rest = [b""] * len(clients)
    total = 0
    numbers = {client.socket.fileno(): number for number, client in enumerate(clients)}
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    for number, client in enumerate(clients):
        poll.register(client.socket.fileno(), select.EPOLLIN)
        waiting[number] = _send(client, left, depth)
    while any(waiting.values()):
        for descriptor, _ in poll.poll(60):
            number = numbers[descriptor]
            client = clients[number]
            kept = rest[number]
            have = len(kept)
            view[:have] = kept
            count = client.socket.recv_into(view[have:])
            if not count:
                raise ConnectionError("the broker closed the connection")
            end, at = have + count, 0
            while end - at >= 4 and (after := at + 4 + _SIZE.unpack_from(view, at)[0]) <= end:
                if error_at and (view[at + error_at] or view[at + error_at + 1]):
                    raise ValueError(f"an answer has an error: {bytes(view[at:after])!r}")
                at = after
                waiting[number] -= 1
                total += 1
            rest[number] = bytes(view[at:end])
            waiting[number] += _send(client, left, depth - waiting[number])
    poll.close()
    return total


def _send(client: Client, frames: Iterator[bytes], count: int) -> int:
    batch = list(islice(frames, count))
    if batch:
        client.socket.sendall(batch[0] if len(batch) == 1 else b"".join(batch))
    return len(batch)


def paced(client: Client, frames: Sequence[bytes], count: int, per_second: float) -> list[float]:
    """Send ``count`` frames at a fixed rate, in turn; the seconds that each answer took.

    Counted from when a request was due, not from when it could be sent: who stalls pays for all
    that it delayed (no coordinated omission).
    """
    sock = client.socket
    taken: list[float] = []
    due: list[float] = []
    start = time.perf_counter()
    sent = 0
    rest = b""
    while len(taken) < count:
        now = time.perf_counter()
        while sent < count and start + sent / per_second <= now:
            sock.sendall(frames[sent % len(frames)])
            due.append(start + sent / per_second)
            sent += 1
        wait = start + sent / per_second - time.perf_counter() if sent < count else 60.0
        readable, _, _ = select.select([sock], [], [], max(wait, 0))
        if not readable:
            continue
        data = rest + sock.recv(1 << 20)
        now = time.perf_counter()
        at = 0
        while len(data) - at >= 4 and (after := at + 4 + _SIZE.unpack_from(data, at)[0]) <= len(
            data
        ):
            taken.append(now - due[len(taken)])
            at = after
        rest = data[at:]
    return taken


def batch_of(size: int, record_size: int = 1024, *, seed: int = 1, keys: int = 0) -> bytes:
    """A record batch of about ``size`` bytes; with ``keys``, each record has one of so many."""
    rng = random.Random(seed)
    body = record_size if record_size < size else max(size - 80, 1)
    count = max(1, size // (body + 10))
    now = int(time.time() * 1000)
    return build_batch(
        (Record(number, now, _key(rng, keys), rng.randbytes(body), ()) for number in range(count)),
        base_offset=0,
    )


def _key(rng: random.Random, keys: int) -> bytes | None:
    return b"key-%d" % rng.randrange(keys) if keys else None


def dated(batch: bytes, timestamp: int) -> bytes:
    """The batch with all its records at another time (ms)."""
    patched = bytearray(batch)
    _TIMES.pack_into(patched, _FIRST_TIMESTAMP_AT, timestamp, timestamp)
    _CRC.pack_into(patched, _CRC_AT, crc32c(memoryview(patched)[CRC_START:]))
    return bytes(patched)


def produce_frame(
    topic: str, partition: int, batch: bytes, acks: int = 1, version: int = PRODUCE_VERSION
) -> bytes:
    """A whole Produce request of one partition."""
    return produce_many_frame(topic, [partition], batch, acks, version)


def produce_many_frame(
    topic: str,
    partitions: Sequence[int],
    batch: bytes,
    acks: int = 1,
    version: int = PRODUCE_VERSION,
) -> bytes:
    """A whole Produce request with the same batch for several partitions."""
    request = ProduceRequest(
        acks=acks,
        timeout_ms=30_000,
        topic_data=[
            TopicProduceData(
                name=topic,
                partition_data=[
                    PartitionProduceData(index=index, records=batch) for index in partitions
                ],
            )
        ],
    )
    return headers.encode_request(0, version, 1, "bench", request)


def fetch_frame(
    topic: str,
    offsets: Sequence[tuple[int, int]],
    *,
    max_bytes: int = 1 << 20,
    max_wait_ms: int = 500,
    min_bytes: int = 1,
) -> bytes:
    """A whole Fetch request for (partition, offset) pairs."""
    request = FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=52_428_800,
        topics=[
            FetchTopic(
                topic=topic,
                partitions=[
                    FetchPartition(
                        partition=index, fetch_offset=offset, partition_max_bytes=max_bytes
                    )
                    for index, offset in offsets
                ],
            )
        ],
    )
    return headers.encode_request(1, FETCH_VERSION, 1, "bench", request)


def next_offset(records: memoryview, offset: int) -> int:
    """The offset behind the last whole batch of a fetch; ``offset`` when there is none."""
    at = 0
    while len(records) - at >= 61:
        size = 12 + int.from_bytes(records[at + 8 : at + 12], "big")
        if at + size > len(records):
            break
        base = int.from_bytes(records[at : at + 8], "big")
        offset = base + int.from_bytes(records[at + 23 : at + 27], "big") + 1
        at += size
    return offset


def times(frame: bytes, count: int) -> Iterator[bytes]:
    """The same frame again and again."""
    return repeat(frame, count)
