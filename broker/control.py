"""What controllers tell this broker: in order, fenced, and with what must be known first."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)
from kavka.protocol.schema import ZERO_UUID
from kavka.replication.controller.channels import (
    BrokerChannel,
    ControlRequest,
    ControlResponse,
)
from kavka.replication.store.base import StoreError

if TYPE_CHECKING:
    from kavka.replication.controller.configs import ConfigStore
    from kavka.replication.metadata import MetadataCache

log = logging.getLogger("kavka.server")

OnResponse = Callable[[ControlResponse], None]

_NO_EPOCH: Final = -1


class ControllerEpoch(Protocol):
    """Who knows the latest controller: the replica manager."""

    controller_epoch: int


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


class OwnChannel:
    """The way from this broker's own controller to its inbox, which others use as well."""

    def __init__(self, inbox: BrokerChannel) -> None:
        self._inbox = inbox
        self._closed = False

    def send(self, request: ControlRequest, on_response: OnResponse) -> None:
        """Send a request; it is fenced by its epoch if the controller is replaced meanwhile."""

        def respond(response: ControlResponse) -> None:
            if not self._closed:
                on_response(response)

        self._inbox.send(request, respond)

    async def settled(self) -> None:
        """Wait until everything sent so far has arrived."""
        await self._inbox.settled()

    def close(self) -> None:
        """Hear no more answers; the inbox stays open."""
        self._closed = True


class FencedChannel:
    """Refuses what comes from a controller that has been replaced, or is meant for the broker as
    it was before it registered again (KIP-380).

    In front of the channel that carries requests out. Where a request's version knows no topic
    ids, those that this broker knows are filled in.
    """

    def __init__(
        self, channel: BrokerChannel, replicas: "ControllerEpoch", metadata: "MetadataCache"
    ) -> None:
        self._broker_epoch = _NO_EPOCH
        self._held: list[tuple[ControlRequest, OnResponse]] | None = None
        self._channel = channel
        self._replicas = replicas
        self._metadata = metadata

    @property
    def broker_epoch(self) -> int:
        """The transaction that created this broker's registration; set by who registers."""
        return self._broker_epoch

    @broker_epoch.setter
    def broker_epoch(self, epoch: int) -> None:
        self._broker_epoch = epoch
        held, self._held = self._held, None
        for request, on_response in held or ():
            self.send(request, on_response)

    def hold(self) -> None:
        """Keep requests until the broker is registered: they may be meant for the one that had its
        id before it, and had records that this one has lost."""
        self._held = []

    def send(self, request: ControlRequest, on_response: OnResponse) -> None:
        """Carry out a request, or answer why not."""
        if self._held is not None:
            self._held.append((request, on_response))
            return
        code = self._refusal(request)
        if code is not ErrorCode.NONE:
            log.warning(
                "A controller's request is refused request=%s controller=%d epoch=%d error=%s",
                *(type(request).__name__, request.controller_id, request.controller_epoch),
                code.name,
            )
            on_response(refused(request, code))
            return
        self._replicas.controller_epoch = request.controller_epoch
        if not isinstance(request, StopReplicaRequest):
            for topic in request.topic_states:
                if topic.topic_id == ZERO_UUID:
                    topic.topic_id = self._metadata.topic_id(topic.topic_name) or ZERO_UUID
        self._channel.send(request, on_response)

    def _refusal(self, request: ControlRequest) -> ErrorCode:
        # A larger epoch is not wrong: a controller may hear of a registration before who made it.
        if _NO_EPOCH != request.broker_epoch < self._broker_epoch:
            return ErrorCode.STALE_BROKER_EPOCH
        if request.controller_epoch < self._replicas.controller_epoch:
            return ErrorCode.STALE_CONTROLLER_EPOCH
        return ErrorCode.NONE

    async def settled(self) -> None:
        """Wait for what is behind."""
        await self._channel.settled()

    def close(self) -> None:
        """Close what is behind."""
        self._channel.close()


def refused(request: ControlRequest, code: ErrorCode) -> ControlResponse:
    """The answer to a request of which nothing was done."""
    match request:
        case LeaderAndIsrRequest():
            return LeaderAndIsrResponse(error_code=code)
        case UpdateMetadataRequest():
            return UpdateMetadataResponse(error_code=code)
        case StopReplicaRequest():
            return StopReplicaResponse(error_code=code)
