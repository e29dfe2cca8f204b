"""The controller's way to another broker: a connection, and patience.

Requests go out one at a time and in order, each until it is answered; a broker that cannot be
reached is tried again until the controller gives it up, because it has lost its registration.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from kavka.protocol import keys
from kavka.protocol.errors import ErrorCode, MalformedFrame
from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.schema import Message
from kavka.replication.client import BrokerClient, BrokerUnavailable
from kavka.replication.controller import shapes
from kavka.replication.controller.channels import ControlRequest, ControlResponse

logger = logging.getLogger("kavka.controller")

BACKOFF_S: Final = 0.1

_KEYS: Final = (4, 5, 6)
_RESPONSES: Final[Mapping[type[Message], type[ControlResponse]]] = {
    LeaderAndIsrRequest: LeaderAndIsrResponse,
    UpdateMetadataRequest: UpdateMetadataResponse,
    StopReplicaRequest: StopReplicaResponse,
}

Connect = Callable[[], Awaitable[BrokerClient]]
Versions = Mapping[int, int]
"""By API key the version to be used."""


def fixed_versions(release: tuple[int, ...]) -> Versions:
    """What an ``inter.broker.protocol.version`` fixes."""
    if release >= (2, 2):
        return {4: 2, 5: 1, 6: 5, 7: 2}
    if release >= (1, 0):
        return {4: 1, 5: 0, 6: 4, 7: 1}
    if release >= (0, 10, 2):
        return {4: 0, 5: 0, 6: 3, 7: 1}
    return {4: 0, 5: 0, 6: 2, 7: 1}


async def newest_versions(client: BrokerClient) -> Versions:
    """The newest versions that both ends know, by asking. Raises BrokerUnavailable."""
    answer = await client.send(ApiVersionsRequest(), ApiVersionsResponse, 0)
    if answer.error_code != ErrorCode.NONE:
        raise BrokerUnavailable(
            f"broker {client.address} does not tell its versions: "
            f"{ErrorCode(answer.error_code).name}"
        )
    known = {api.api_key: api.max_version for api in answer.api_keys}
    # A broker whose table does not list them speaks what Kafka 2.3 does.
    fixed = fixed_versions((2, 3))
    return {key: min(known.get(key, fixed[key]), keys.LATEST[key][1]) for key in fixed}


class NetworkChannel:
    """A ``BrokerChannel`` to a broker elsewhere. Owned by the event loop.

    ``versions`` are fixed, or None to use the newest that both ends know.
    """

    def __init__(self, broker_id: int, connect: Connect, versions: Versions | None) -> None:
        self._broker_id = broker_id
        self._connect = connect
        self._fixed = versions
        self._versions: Versions = versions or {}
        self._waiting: deque[tuple[ControlRequest, Callable[[ControlResponse], None]]] = deque()
        self._client: BrokerClient | None = None
        self._complained = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def send(self, request: ControlRequest, on_response: Callable[[ControlResponse], None]) -> None:
        """Send a request when all before it are answered."""
        assert not self._closed
        self._waiting.append((request, on_response))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._work(), name=f"kavka-controller-to-{self._broker_id}"
            )

    async def settled(self) -> None:
        """Wait until everything sent so far is answered."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def close(self) -> None:
        """Forget everything; what has been sent may still be done by the broker."""
        self._closed = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._client is not None:
            self._client.close()

    async def _work(self) -> None:
        try:
            while self._waiting:
                request, on_response = self._waiting[0]
                response = await self._until_answered(request)
                self._waiting.popleft()
                on_response(response)
        except Exception:
            logger.exception("The way to a broker is broken broker=%d", self._broker_id)
            raise
        finally:
            self._task = None

    async def _until_answered(self, request: ControlRequest) -> ControlResponse:
        while True:
            try:
                return await self._exchange(request)
            except (BrokerUnavailable, MalformedFrame, OSError) as error:
                if not self._complained:
                    self._complained = True
                    logger.warning(
                        "A broker cannot be told what to do yet broker=%d error=%s",
                        *(self._broker_id, error),
                    )
                if self._client is not None:
                    self._client.close()
                    self._client = None
                await asyncio.sleep(BACKOFF_S)

    async def _exchange(self, request: ControlRequest) -> ControlResponse:
        client = self._client
        if client is None or client.closed:
            client = self._client = await self._connect()
            if self._fixed is None:
                self._versions = await newest_versions(client)
        key = request.API_KEY
        assert key in _KEYS
        version = self._versions[key]
        responses: list[ControlResponse] = []
        for part in shapes.to_wire(request, version):
            responses.append(await client.send(part, _RESPONSES[type(part)], version))
        if self._complained:
            self._complained = False
            logger.info("A broker can be reached again broker=%d", self._broker_id)
        return shapes.response_from_wire(request, version, responses)


class NoChannel:
    """The way to a broker that has no listener for other brokers: nothing gets there."""

    def send(self, request: ControlRequest, on_response: Callable[[ControlResponse], None]) -> None:
        """Lose the request."""

    async def settled(self) -> None:
        """Nothing will ever be answered."""

    def close(self) -> None:
        """Nothing to forget."""
