"""A blocking client that speaks single requests, for what no client library lets a test do."""

import socket
import struct
from typing import TypeVar

from kavka.protocol import codec, headers
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
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.schema import Message

Answer = TypeVar("Answer", bound=Message)


class WireClient:
    """One connection; a request is sent and its response awaited."""

    def __init__(
        self,
        port: int,
        *,
        timeout: float = 30.0,
        client_id: str = "wire",
        host: str = "127.0.0.1",
        source: str | None = None,
    ) -> None:
        self.socket = socket.create_connection(
            (host, port), timeout=timeout, source_address=(source, 0) if source else None
        )
        self.client_id = client_id
        self._correlation_id = 0

    @classmethod
    def over(cls, connected: socket.socket) -> "WireClient":
        """A client of a connection that is there already."""
        client = cls.__new__(cls)
        client.socket, client.client_id, client._correlation_id = connected, "wire", 0
        return client

    def __enter__(self) -> "WireClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, request: Message, version: int) -> int:
        """Send without waiting; the correlation id."""
        self._correlation_id += 1
        assert request.API_KEY is not None
        frame = headers.encode_request(
            request.API_KEY, version, self._correlation_id, self.client_id, request
        )
        self.socket.sendall(frame)
        return self._correlation_id

    def receive(self, answer: type[Answer], version: int) -> Answer:
        """The next response; raises ConnectionError when the broker closed instead."""
        frame = self.receive_frame()
        if not frame:
            raise ConnectionError("the broker closed the connection")
        assert answer.API_KEY is not None
        _, body = headers.parse_response_header(answer.API_KEY, version, frame)
        return codec.decode(answer, frame, version, body)

    def receive_frame(self) -> bytes:
        """The next response frame without its size; empty when the broker closed."""
        size = self._exactly(4)
        return self._exactly(struct.unpack(">i", size)[0]) if size else b""

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return data

    def ask(self, request: Message, answer: type[Answer], version: int) -> Answer:
        """Send a request and wait for its response."""
        self.send(request, version)
        return self.receive(answer, version)

    def create_topics(self, *names: str, partitions: int = 1, **config: str) -> None:
        """Create topics of one replica on this broker; returns when they are led."""
        configs = [
            CreatableTopicConfig(name=name.replace("_", "."), value=config[name]) for name in config
        ]
        asked = [
            CreatableTopic(
                name=name, num_partitions=partitions, replication_factor=1, configs=configs
            )
            for name in names
        ]
        request = CreateTopicsRequest(topics=asked, timeout_ms=10_000)
        answer = self.ask(request, CreateTopicsResponse, 2)
        assert not any(topic.error_code for topic in answer.topics)
        for name in names:
            for index in range(partitions):
                while self.fetch(name, 0, partition=index).responses[0].partitions[0].error_code:
                    pass

    def produce(
        self, topic: str, records: bytes, *, partition: int = 0, acks: int = -1, version: int = 7
    ) -> ProduceResponse:
        """Produce prepared record data to one partition."""
        return self.ask(produce_request(topic, records, partition, acks), ProduceResponse, version)

    def fetch(
        self,
        topic: str,
        offset: int,
        *,
        partition: int = 0,
        version: int = 11,
        max_wait_ms: int = 0,
        min_bytes: int = 1,
        max_bytes: int = 50_000_000,
    ) -> FetchResponse:
        """Fetch from one partition."""
        request = fetch_request(topic, offset, partition, max_wait_ms, min_bytes, max_bytes)
        return self.ask(request, FetchResponse, version)


def produce_request(
    topic: str, records: bytes, partition: int = 0, acks: int = -1
) -> ProduceRequest:
    """A Produce for one partition."""
    data = PartitionProduceData(index=partition, records=records)
    return ProduceRequest(
        acks=acks,
        timeout_ms=30_000,
        topic_data=[TopicProduceData(name=topic, partition_data=[data])],
    )


def fetch_request(
    topic: str,
    offset: int,
    partition: int = 0,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 50_000_000,
) -> FetchRequest:
    """A Fetch of one partition, without a session."""
    wanted = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        topics=[FetchTopic(topic=topic, partitions=[wanted])],
    )
