"""Calls to another broker, over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from struct import Struct

import pytest

from kavka.config.limits import ANSWER_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.headers import encode_response, parse_request_header
from kavka.protocol.messages.k01_fetch import FetchRequest
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse
from kavka.replication.client import BrokerAddress, BrokerClient, BrokerUnavailable, ClientSecurity

SIZE = Struct(">i")
VERSION = 4


class Peer:
    """A broker that answers by a script; it remembers correlation ids and client ids."""

    def __init__(self, answer: Callable[["Peer", int], bytes | None]) -> None:
        self.answer = answer
        self.seen: list[tuple[int, str]] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                (size,) = SIZE.unpack(await reader.readexactly(4))
                header, _ = parse_request_header(await reader.readexactly(size))
                self.seen.append((header.correlation_id, header.client_id))
                answer = self.answer(self, header.correlation_id)
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ok(_: Peer, number: int) -> bytes:
    return encode_response(number, HeartbeatResponse(throttle_time_ms=number), VERSION)


def play(
    answer: Callable[[Peer, int], bytes | None],
    scenario: Callable[[BrokerClient, Peer], Awaitable[None]],
    timeout: float = 10.0,
    security: ClientSecurity | None = None,
) -> None:
    async def run() -> None:
        peer = Peer(answer)
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        address = BrokerAddress(7, "127.0.0.1", server.sockets[0].getsockname()[1])
        client = await BrokerClient.connect(
            address, "me", request_timeout=timeout, security=security or ClientSecurity()
        )
        try:
            await scenario(client, peer)
        finally:
            client.close()
            server.close()
            await server.wait_closed()

    asyncio.run(run())


async def beat(client: BrokerClient) -> HeartbeatResponse:
    return await client.send(HeartbeatRequest(), HeartbeatResponse, VERSION)


def test_answers_come_back_in_the_order_of_the_requests() -> None:
    async def scenario(client: BrokerClient, peer: Peer) -> None:
        answers = await asyncio.gather(*(beat(client) for _ in range(500)))
        assert [answer.throttle_time_ms for answer in answers] == list(range(500))
        assert peer.seen == [(number, "me") for number in range(500)]

    play(ok, scenario)


@pytest.mark.parametrize("size", [0, 1, 65_528, 65_529, 65_532, 1_000_000, 13 << 20])
def test_a_raw_body_of_any_size_arrives_whole_between_others(size: int) -> None:
    """Bodies that fill the buffer exactly, exceed it a little, and exceed what is kept of it."""
    wanted = bytes(range(256)) * (size // 256) + bytes(range(size % 256))

    def answer(_: Peer, number: int) -> bytes:
        if number % 2:
            return SIZE.pack(len(wanted) + 4) + SIZE.pack(number) + wanted
        return ok(_, number)

    async def scenario(client: BrokerClient, peer: Peer) -> None:
        bodies: list[bytes] = []
        failures: list[Exception] = []

        def take(view: memoryview) -> None:
            bodies.append(bytes(view))

        for _ in range(2):
            bodies.clear()
            before = client.send(HeartbeatRequest(), HeartbeatResponse, VERSION)
            client.exchange(FetchRequest(), 11, take, failures.append)
            after = client.send(HeartbeatRequest(), HeartbeatResponse, VERSION)
            client.exchange(FetchRequest(), 11, take, failures.append)
            await asyncio.gather(before, after, beat(client))
            assert bodies == [wanted, wanted]
            assert not failures
            client.exchange(FetchRequest(), 11, lambda view: None, failures.append)

    play(answer, scenario)


def test_a_broken_connection_fails_everything_under_way_and_later() -> None:
    async def scenario(client: BrokerClient, peer: Peer) -> None:
        over: list[str] = []
        client.when_closed(lambda: over.append("told"))
        results = await asyncio.gather(*(beat(client) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [BrokerUnavailable] * 3
        assert client.closed
        assert over == ["told"]
        with pytest.raises(BrokerUnavailable, match="is closed"):
            await beat(client)
        again = asyncio.Event()
        client.when_closed(again.set)
        await again.wait()

    play(lambda peer, number: None, scenario)


def test_an_overdue_answer_ends_the_connection() -> None:
    async def scenario(client: BrokerClient, peer: Peer) -> None:
        with pytest.raises(BrokerUnavailable, match="no answer in time"):
            await client.send(HeartbeatRequest(), HeartbeatResponse, VERSION, timeout=0.01)
        assert client.closed

    play(lambda peer, number: b"", scenario)


def test_a_wrong_correlation_id_ends_the_connection() -> None:
    async def scenario(client: BrokerClient, peer: Peer) -> None:
        with pytest.raises(MalformedFrame, match="answer 1 where 0 was due"):
            await beat(client)
        assert client.closed

    play(lambda peer, number: ok(peer, number + 1), scenario)


@pytest.mark.parametrize("size", [-1, 3, ANSWER_BYTES_MAX + 1])
def test_an_absurd_size_ends_the_connection(size: int) -> None:
    async def scenario(client: BrokerClient, peer: Peer) -> None:
        with pytest.raises(MalformedFrame):
            await beat(client)
        assert client.closed

    play(lambda peer, number: SIZE.pack(size) + b"\0" * 8, scenario)


def test_nobody_there_is_told_as_such() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(BrokerUnavailable, match="cannot connect to broker 7"):
            await BrokerClient.connect(
                BrokerAddress(7, "127.0.0.1", port), "me", request_timeout=1.0
            )

    asyncio.run(run())


def test_a_handshake_comes_first_and_may_refuse() -> None:
    async def handshake(client: BrokerClient) -> None:
        await beat(client)
        raise KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED)

    async def scenario(client: BrokerClient, peer: Peer) -> None:
        raise AssertionError("no connection was to be had")

    with pytest.raises(KafkaError) as raised:
        play(ok, scenario, security=ClientSecurity(handshake=handshake))
    assert raised.value.code is ErrorCode.SASL_AUTHENTICATION_FAILED
