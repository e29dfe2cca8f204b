"""A broker that logs in at another: the client of replication before a real gate."""

import asyncio
from struct import Struct
from typing import cast

import pytest

from kavka.broker.request import ANONYMOUS
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse
from kavka.replication.client import BrokerAddress, BrokerClient, BrokerUnavailable, ClientSecurity
from kavka.replication.sasl import handshake
from tests.unit.broker.sasl.harness import SERVED, Talk

SIZE = Struct(">i")


class Peer:
    """A gate behind a socket; the dispatcher's answer is no Kafka and ends the connection."""

    def __init__(self) -> None:
        self.talk = Talk()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = self.talk
        try:
            while not talk.connection.closed:
                (size,) = SIZE.unpack(await reader.readexactly(4))
                answer = talk.frame(await reader.readexactly(size))
                if answer is None:
                    answer = talk.settled()
                if answer is None or answer == SERVED:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def log_in(mechanism: str, user: str, password: str) -> str:
    """The principal at the peer; raises as connecting does."""
    peer = Peer()

    async def run() -> None:
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        address = BrokerAddress(2, "127.0.0.1", cast(int, server.sockets[0].getsockname()[1]))
        security = ClientSecurity(handshake=handshake(mechanism, lambda: (user, password)))
        try:
            client = await BrokerClient.connect(address, "1", request_timeout=10, security=security)
            with pytest.raises(BrokerUnavailable):
                await client.send(HeartbeatRequest(), HeartbeatResponse, 4)
            client.close()
        finally:
            server.close()

    asyncio.run(run())
    assert peer.talk.dispatcher.served == [12]
    return peer.talk.principal


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_good_credentials(mechanism: str) -> None:
    assert log_in(mechanism, "bob", "bob's") == "User:bob"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("user", ["bob", "nobody"])
def test_bad_credentials(mechanism: str, user: str) -> None:
    with pytest.raises(BrokerUnavailable) as refused:
        log_in(mechanism, user, "s3cret")
    assert f"does not let {user!r} in by {mechanism}" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_mechanism_that_is_not_offered() -> None:
    peer = Peer()
    peer.talk = Talk(mechanisms={"OAUTHBEARER": lambda: None})  # type: ignore[dict-item, return-value]

    async def run() -> None:
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        address = BrokerAddress(2, "127.0.0.1", cast(int, server.sockets[0].getsockname()[1]))
        security = ClientSecurity(handshake=handshake("PLAIN", lambda: ("a", "b")))
        try:
            await BrokerClient.connect(address, "1", request_timeout=10, security=security)
        finally:
            server.close()

    with pytest.raises(BrokerUnavailable, match="it offers OAUTHBEARER only"):
        asyncio.run(run())
    assert peer.talk.principal == ANONYMOUS
