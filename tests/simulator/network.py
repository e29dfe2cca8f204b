"""The network between simulated processes: ordered connections that break, stall and are slow."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kavka.protocol import codec
from kavka.protocol.schema import Message
from kavka.replication.client import BrokerAddress, BrokerUnavailable
from tests.simulator.world import Loop, World

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R", bound=Message)


class Listener(Protocol):
    """A process that takes connections."""

    loop: Loop
    accepting: bool

    def receive(self, peer: "Peer", key: int, version: int, body: bytes) -> None: ...


class Peer:
    """The listening process's end of a connection. Handlers use it as they use a connection."""

    principal = "User:ANONYMOUS"
    client_host = "/127.0.0.1"
    takes_lanes = False

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.closed = False
        self.polled: Any = None
        self.parked: list[list[Any]] = []  # in order: pending, answer
        self.on_close: list[Callable[[], None]] = []

    def keep_frame(self) -> bool:
        return False

    def answer(self, body: bytes) -> None:
        self.link._carry_back(body)

    def hear_of_end(self) -> None:
        if not self.closed:
            self.closed = True
            self.polled = None
            for callback in self.on_close:
                callback()


class Network:
    """Who can reach whom, and how long that takes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.listeners: dict[int, Listener] = {}
        self._cut: set[frozenset[int]] = set()
        self.links: dict[Link, None] = {}
        self.messages = 0

    def cut(self, one: int, other: int) -> None:
        self._cut.add(frozenset((one, other)))

    def heal(self, one: int, other: int) -> None:
        self._cut.discard(frozenset((one, other)))
        for link in list(self.links):
            if link.ends == frozenset((one, other)):
                link.go_on()

    def heal_all(self) -> None:
        for pair in list(self._cut):
            one, other = pair
            self.heal(one, other)

    def is_cut(self, ends: frozenset[int]) -> bool:
        return ends in self._cut

    def delay(self) -> float:
        chance = self.world.random
        if chance.random() < 0.01:
            return chance.uniform(0.01, 0.3)
        return chance.uniform(0.0001, 0.002)

    async def connect(
        self, loop: Loop, here: int, address: BrokerAddress, timeout: float
    ) -> "Link":
        there = address.node_id
        await asyncio.sleep(self.delay())
        if self.is_cut(frozenset((here, there))):
            await asyncio.sleep(timeout)
            raise BrokerUnavailable(f"{there} cannot be reached from {here}")
        listener = self.listeners.get(there)
        if listener is None or listener.loop.dead or not listener.accepting:
            raise BrokerUnavailable(f"{there} refuses {here}")
        link = Link(self, loop, here, there, address, listener, timeout)
        self.links[link] = None
        return link

    def break_some(self) -> None:
        """Break one connection, at both ends."""
        if self.links:
            self.world.random.choice(list(self.links)).break_off()

    def process_died(self, listener: Listener) -> None:
        """Its kernel tells those who were connected to it; it had connections itself."""
        for link in list(self.links):
            if link.listener is listener or link.loop is listener.loop:
                link.break_off()


class Link:
    """A connection, as who opened it sees it (``kavka.replication.client.BrokerClient``)."""

    def __init__(
        self,
        network: Network,
        loop: Loop,
        here: int,
        there: int,
        address: BrokerAddress,
        listener: Listener,
        timeout: float,
    ) -> None:
        self.network = network
        self.loop = loop
        self.ends = frozenset((here, there))
        self.address = address
        self.listener = listener
        self.closed = False
        self.peer = Peer(self)
        self._timeout = timeout
        self._calls: list[tuple[Any, Any, float]] = []
        self._hear_of_end: list[Callable[[], None]] = []
        self._there_at = 0.0  # when the last message arrives, each way
        self._back_at = 0.0
        self._stalled: list[Callable[[], None]] = []

    def send(
        self, request: Message, response: type[R], version: int, timeout: float | None = None
    ) -> "asyncio.Future[R]":
        future: asyncio.Future[R] = self.loop.create_future()

        def answered(body: memoryview) -> None:
            if not future.done():
                future.set_result(codec.decode(response, body, version))

        def failed(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self.exchange(request, version, answered, failed, timeout)
        return future

    def exchange(
        self,
        request: Message,
        version: int,
        on_body: Callable[[memoryview], None],
        on_failure: Callable[[Exception], None],
        timeout: float | None = None,
    ) -> None:
        if self.closed:
            self.loop.call_soon(on_failure, BrokerUnavailable("closed"))
            return
        key = request.API_KEY
        assert key is not None
        body = codec.encode(request, version)
        deadline = self.loop.time() + (self._timeout if timeout is None else timeout)
        call = (on_body, on_failure, deadline)
        self._calls.append(call)
        self.loop.call_at(deadline, self._overdue, call)
        self._carry(lambda: self._arrive(key, version, body))

    def when_closed(self, callback: Callable[[], None]) -> None:
        if self.closed:
            self.loop.call_soon(callback)
        else:
            self._hear_of_end.append(callback)

    def close(self, reason: str = "closed") -> None:
        self._end(reason)
        if not self.network.is_cut(self.ends):
            self._tell_peer()

    def break_off(self) -> None:
        """Both ends hear that the connection is over, each for itself."""
        self.loop.call_later(self.network.delay(), self._end, "reset by the network")
        self._tell_peer()

    def _tell_peer(self) -> None:
        if not self.listener.loop.dead:
            self.listener.loop.call_later(self.network.delay(), self.peer.hear_of_end)

    def _overdue(self, call: object) -> None:
        if not self.closed and call in self._calls:
            self.close("no answer in time")

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self.network.links.pop(self, None)
        calls, self._calls = self._calls, []
        error = BrokerUnavailable(reason)
        for _, on_failure, _ in calls:
            on_failure(error)
        for callback in self._hear_of_end:
            callback()

    # -- the way there and back -----------------------------------------------------------

    def _carry(self, arrive: Callable[[], None]) -> None:
        if self.network.is_cut(self.ends):
            self._stalled.append(lambda: self._carry(arrive))
            return
        self._there_at = max(self._there_at, self.network.world.now + self.network.delay())
        self.listener.loop.call_at(self._there_at, arrive)

    def _arrive(self, key: int, version: int, body: bytes) -> None:
        if not self.peer.closed:
            self.network.messages += 1
            self.listener.receive(self.peer, key, version, body)

    def _carry_back(self, body: bytes) -> None:
        if self.network.is_cut(self.ends):
            self._stalled.append(lambda: self._carry_back(body))
            return
        self._back_at = max(self._back_at, self.network.world.now + self.network.delay())
        self.loop.call_at(self._back_at, self._answered, body)

    def _answered(self, body: bytes) -> None:
        if self.closed:
            return
        on_body, _, _ = self._calls.pop(0)
        on_body(memoryview(bytearray(body)))

    def go_on(self) -> None:
        """The way is free again: what was on it is sent once more, or the connection is over."""
        if self.network.world.random.random() < 0.3:
            self.break_off()
            return
        stalled, self._stalled = self._stalled, []
        for again in stalled:
            again()
