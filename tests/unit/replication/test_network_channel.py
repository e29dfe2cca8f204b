"""The controller's way to another broker: in order, and patient."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)
from kavka.protocol.messages.k18_api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
)
from kavka.protocol.schema import Message
from kavka.replication.client import BrokerClient, BrokerUnavailable
from kavka.replication.controller import network
from kavka.replication.controller.network import NetworkChannel, Versions


class Peer:
    """A broker that is there or not, and remembers what it was asked."""

    def __init__(self) -> None:
        self.unreachable = 0  # connections that fail before one succeeds
        self.dropped = 0  # requests whose answer is lost
        self.asked: list[tuple[Message, int]] = []
        self.connections = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect(self) -> BrokerClient:
        if self.unreachable:
            self.unreachable -= 1
            raise BrokerUnavailable("nobody there")
        self.connections += 1
        return cast(BrokerClient, Line(self))


class Line:
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.closed = False
        self.address = "peer"

    async def send(self, request: Message, response: type[Message], version: int) -> Message:
        assert not self.closed
        if isinstance(request, ApiVersionsRequest):
            keys = [ApiVersion(api_key=key, max_version=99) for key in (5, 6, 7)]
            return ApiVersionsResponse(api_keys=[ApiVersion(api_key=4, max_version=3), *keys])
        self.peer.asked.append((request, version))
        await self.peer.gate.wait()
        if self.peer.dropped:
            self.peer.dropped -= 1
            self.closed = True
            raise BrokerUnavailable("gone")
        return response()

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "BACKOFF_S", 0.0)


def with_peer(
    scenario: Callable[[Peer, NetworkChannel], Coroutine[Any, Any, None]],
    versions: Versions | None = None,
) -> None:
    async def run() -> None:
        peer = Peer()
        channel = NetworkChannel(2, peer.connect, versions)
        await scenario(peer, channel)
        channel.close()

    asyncio.run(run())


def test_requests_go_one_by_one_and_in_order_by_the_newest_versions() -> None:
    async def scenario(peer: Peer, channel: NetworkChannel) -> None:
        answers: list[Message] = []
        peer.gate.clear()
        for request in (LeaderAndIsrRequest(), UpdateMetadataRequest(), LeaderAndIsrRequest()):
            channel.send(request, answers.append)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(peer.asked) == 1
        peer.gate.set()
        await channel.settled()
        assert [type(answer) for answer in answers] == [
            *(LeaderAndIsrResponse, UpdateMetadataResponse, LeaderAndIsrResponse)
        ]
        assert [version for _, version in peer.asked] == [3, 8, 3]
        assert peer.connections == 1

    with_peer(scenario)


def test_a_broker_that_cannot_be_reached_is_tried_until_it_can() -> None:
    async def scenario(peer: Peer, channel: NetworkChannel) -> None:
        peer.unreachable, peer.dropped = 5, 2
        answers: list[Message] = []
        channel.send(LeaderAndIsrRequest(controller_epoch=1), answers.append)
        channel.send(LeaderAndIsrRequest(controller_epoch=2), answers.append)
        await channel.settled()
        assert len(answers) == 2
        epochs = [cast(LeaderAndIsrRequest, request).controller_epoch for request, _ in peer.asked]
        assert epochs == [1, 1, 1, 2]  # the first again, until it is answered
        assert peer.connections == 3
        assert {version for _, version in peer.asked} == {2}

    with_peer(scenario, network.fixed_versions((2, 3)))


def test_a_closed_channel_answers_nobody() -> None:
    async def scenario(peer: Peer, channel: NetworkChannel) -> None:
        answers: list[Message] = []
        peer.gate.clear()
        channel.send(LeaderAndIsrRequest(), answers.append)
        channel.send(LeaderAndIsrRequest(), answers.append)
        for _ in range(10):
            await asyncio.sleep(0)
        channel.close()
        peer.gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(peer.asked), answers) == (1, [])

    with_peer(scenario)
