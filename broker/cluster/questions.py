"""Questions to other brokers: one connection to each, made when it is needed and kept."""

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from kavka.protocol.errors import MalformedFrame
from kavka.protocol.schema import Message
from kavka.replication.client import BrokerClient, BrokerUnavailable

if TYPE_CHECKING:
    from kavka.broker.cluster.peers import Peers
    from kavka.replication.metadata import MetadataCache

R = TypeVar("R", bound=Message)

log = logging.getLogger("kavka.cluster")


class Questions:
    """Asks brokers by their id."""

    def __init__(self, peers: "Peers", metadata: "MetadataCache") -> None:
        self._peers = peers
        self._metadata = metadata
        self._clients: dict[int, BrokerClient] = {}
        self._connecting: dict[int, asyncio.Lock] = {}

    async def ask(
        self, broker_id: int, request: Message, response_class: type[R], version: int
    ) -> R | None:
        """The answer, None when there is none to be had."""
        try:
            client = await self._client(broker_id)
            return await client.send(request, response_class, version)
        except (BrokerUnavailable, MalformedFrame, OSError) as error:
            log.info(
                "Another broker cannot be asked broker=%d request=%s error=%s",
                *(broker_id, type(request).__name__, error),
            )
            return None

    def close(self) -> None:
        """Ask nobody any more."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    async def _client(self, broker_id: int) -> BrokerClient:
        async with self._connecting.setdefault(broker_id, asyncio.Lock()):
            client = self._clients.get(broker_id)
            if client is None or client.closed:
                address = self._peers.address(self._metadata, broker_id)
                if address is None:
                    raise BrokerUnavailable(f"no address of broker {broker_id} is known")
                client = self._clients[broker_id] = await self._peers.connect(address)
            return client
