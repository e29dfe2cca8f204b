"""How the controller's requests reach the brokers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from kavka.protocol.messages.k04_leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)

if TYPE_CHECKING:
    from kavka.replication.metadata import MetadataCache

ControlRequest: TypeAlias = LeaderAndIsrRequest | UpdateMetadataRequest | StopReplicaRequest
ControlResponse: TypeAlias = LeaderAndIsrResponse | UpdateMetadataResponse | StopReplicaResponse


class BrokerChannel(Protocol):
    """The way to one broker: requests arrive one at a time, in order, each until it is answered
    or the channel is closed.
    """

    def send(self, request: ControlRequest, on_response: Callable[[ControlResponse], None]) -> None:
        """Send a request; ``on_response`` is called on the event loop, maybe before this returns.

        It is not called any more once the channel is closed.
        """

    async def settled(self) -> None:
        """Wait until everything sent so far is answered."""

    def close(self) -> None:
        """Forget what has not been sent or answered."""


class Replicas(Protocol):
    """What the controller's requests want of a broker's replica manager."""

    def apply_leader_and_isr(self, request: LeaderAndIsrRequest) -> LeaderAndIsrResponse:
        """Lead and follow as told."""

    def stop_replica(self, request: StopReplicaRequest) -> StopReplicaResponse:
        """Stop replicas, and delete those that are to be deleted."""


class LocalChannel:
    """The way to the controller's own broker: no network, and done on return."""

    def __init__(self, replicas: Replicas, metadata: "MetadataCache") -> None:
        self._replicas = replicas
        self._metadata = metadata

    def send(self, request: ControlRequest, on_response: Callable[[ControlResponse], None]) -> None:
        match request:
            case LeaderAndIsrRequest():
                on_response(self._replicas.apply_leader_and_isr(request))
            case UpdateMetadataRequest():
                self._metadata.update(request)
                on_response(UpdateMetadataResponse())
            case StopReplicaRequest():
                on_response(self._replicas.stop_replica(request))

    async def settled(self) -> None:
        """Nothing is ever outstanding."""

    def close(self) -> None:
        """Nothing is ever outstanding."""
