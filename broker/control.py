"""The controller's requests to its own broker, where they meet what the broker must know first."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest
from kavka.replication.controller.channels import (
    BrokerChannel,
    ControlRequest,
    ControlResponse,
)
from kavka.replication.store.base import StoreError

if TYPE_CHECKING:
    from kavka.replication.controller.configs import ConfigStore

log = logging.getLogger("kavka.server")

OnResponse = Callable[[ControlResponse], None]


class ConfiguredChannel:
    """Reads the overrides of topics that are new here before their logs are opened with them.

    A ``BrokerChannel`` in front of another one; requests keep their order.
    """

    def __init__(self, channel: BrokerChannel, configs: "ConfigStore") -> None:
        self._channel = channel
        self._configs = configs
        self._waiting: deque[tuple[ControlRequest, OnResponse]] = deque()
        self._working: asyncio.Task[None] | None = None

    def send(self, request: ControlRequest, on_response: OnResponse) -> None:
        """Send a request when all before it are done; ``on_response`` is called on the loop."""
        if self._working is None and not isinstance(request, LeaderAndIsrRequest):
            self._channel.send(request, on_response)
            return
        self._waiting.append((request, on_response))
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    def close(self) -> None:
        """Forget what has not been sent."""
        self._waiting.clear()
        if self._working is not None:
            self._working.cancel()
            self._working = None
        self._channel.close()

    async def settled(self) -> None:
        """Wait until everything sent so far has arrived."""
        if self._working is not None:
            await asyncio.wait((self._working,))

    async def _work(self) -> None:
        while self._waiting:
            request, _ = self._waiting[0]
            if isinstance(request, LeaderAndIsrRequest):
                topics = [topic.topic_name for topic in request.topic_states]
                try:
                    await self._configs.load_topics(topics)
                except StoreError as error:
                    # A log with the broker's defaults is better than none.
                    log.error("overrides of topics could not be read: %s", error)
            request, on_response = self._waiting.popleft()
            self._channel.send(request, on_response)
        self._working = None
