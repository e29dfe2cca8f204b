"""Connections over real sockets, driven by a small event loop that a test turns by hand."""

import contextlib
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kavka.broker.buffers import FrameBuffers
from kavka.broker.connection import Connection
from kavka.broker.hub import Bounds, Hub
from kavka.broker.request import Disconnect, Pending
from kavka.broker.security.tls.connection import TlsConnection
from kavka.broker.security.tls.handshakes import Handshakes
from kavka.config.listeners import Endpoint
from kavka.protocol.errors import MalformedFrame
from kavka.storage.clock import ManualClock
from tests.unit.broker.tls.certificates import Certificates, Contexts

from .tls_client import TlsClient

TLS_ENDPOINT = Endpoint("SSL", "SSL", "127.0.0.1", 0)
ENDPOINT = Endpoint("PLAINTEXT", "PLAINTEXT", "127.0.0.1", 0)
PATIENCE_SECONDS = 10.0  # before a condition that does not come true fails the test


class HandTurnedLoop:
    """The part of an event loop that connections use. Nothing happens unless a test turns it."""

    def __init__(self) -> None:
        self.readers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.writers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.timers: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []

    def add_reader(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        self.readers[fd] = (callback, args)

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        self.writers[fd] = (callback, args)

    def remove_writer(self, fd: int) -> bool:
        return self.writers.pop(fd, None) is not None

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.soon.append((callback, args))

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any
    ) -> "HandTurnedLoop":
        self.timers.append((delay, callback, args))
        return self

    def cancel(self) -> None:
        """A timer handle's method; the timers of this loop fire only by `fire_timers`."""

    def fire_timers(self) -> None:
        timers, self.timers = self.timers, []
        for _, callback, args in timers:
            callback(*args)

    def turn(self, timeout: float = 0) -> bool:
        """One turn; False when there was nothing to do."""
        soon, self.soon = self.soon, []
        readable, writable, _ = select.select(
            list(self.readers), list(self.writers), [], 0 if soon else timeout
        )
        for fd in readable:
            if fd in self.readers:
                callback, args = self.readers[fd]
                callback(*args)
        for fd in writable:
            if fd in self.writers:
                callback, args = self.writers[fd]
                callback(*args)
        for callback, args in soon:
            callback(*args)
        return bool(soon or readable or writable)

    def settle(self) -> None:
        """Turn until nothing is left to do."""
        while self.turn():
            pass

    def until(self, condition: Callable[[], bool]) -> None:
        """Turn until ``condition`` holds."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < give_up, "the condition never came true"
            self.turn(0.05)


class Command:
    """Frames are key, version and correlation id as Kafka's, then a payload."""

    ECHO, PARK, EXCLUSIVE, BIG, BOOM, SILENT, SLICE, MALFORMED, DISCONNECT, KEEP, HOLD = range(11)
    MUTE = 11


HEAD = struct.Struct(">hhi")


def frame(command: int, correlation_id: int, payload: bytes = b"") -> bytes:
    body = HEAD.pack(command, 0, correlation_id) + payload
    return struct.pack(">i", len(body)) + body


def answer(correlation_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">ii", len(payload) + 4, correlation_id) + payload


class FileSlice:
    """A stand-in for storage's FetchSlice."""

    def __init__(self, path: str, position: int, size: int) -> None:
        self.file = open(path, "rb")  # noqa: SIM115 -- open as long as somebody holds the slice
        self.position = position
        self.size = size

    def read_into(self, view: memoryview, start: int) -> int:
        return os.preadv(self.file.fileno(), [view], self.position + start)

    def view(self) -> memoryview:
        return memoryview(os.pread(self.file.fileno(), self.size, self.position))


class FakeService:
    """Does what the frames say; parked answers wait in ``parked`` by correlation id."""

    def __init__(self) -> None:
        self.parked: dict[int, Pending] = {}
        self.served: list[int] = []
        self.kept: list[memoryview] = []
        self.slices: list[FileSlice] = []
        self.mute = 0.0  # seconds

    def serve(self, connection: Connection, view: memoryview) -> Any:
        command, _, correlation_id = HEAD.unpack_from(view)
        payload = bytes(view[HEAD.size :])
        self.served.append(correlation_id)
        match command:
            case Command.ECHO:
                return answer(correlation_id, payload)
            case Command.PARK | Command.EXCLUSIVE:
                pending = Pending(exclusive=command == Command.EXCLUSIVE)
                self.parked[correlation_id] = pending
                return pending
            case Command.MUTE:
                connection.mute(self.mute)
                return answer(correlation_id, payload)
            case Command.BIG:
                return answer(correlation_id, bytes(int(payload)))
            case Command.BOOM:
                raise ValueError("a defect")
            case Command.SILENT:
                return None
            case Command.SLICE:
                size = sum(part.size for part in self.slices)
                return [struct.pack(">ii", size + 4, correlation_id), *self.slices]
            case Command.MALFORMED:
                raise MalformedFrame("nonsense")
            case Command.DISCONNECT:
                raise Disconnect("no other way to say it")
            case Command.KEEP:
                assert connection.keep_frame()
                self.kept.append(view)
                return None
            case Command.HOLD:
                assert connection.keep_frame()
                self.parked[correlation_id] = Pending(exclusive=True)
                return self.parked[correlation_id]
        raise AssertionError(command)

    def encode(self, pending: Pending) -> Any:
        if pending.error is not None:
            raise pending.error
        return pending.response


class Network:
    """A hub with a hand-turned loop and clients connected to it."""

    def __init__(self, contexts: Contexts | None = None, **options: Any) -> None:
        self.contexts = contexts  # of TLS; None: plain connections
        self.loop = HandTurnedLoop()
        self.clock = ManualClock()
        self.service = FakeService()
        receive_buffer = options.pop("receive_buffer", 1024)
        budget = options.pop("budget", 1 << 24)
        settings = {
            "max_frame": 1 << 20,
            "in_flight": 8,
            "output": 1 << 16,
            "idle": 600.0,
            **options,
        }
        self.buffers = FrameBuffers(budget, 1 << 22)
        self.hub = Hub(
            self.loop, self.clock, self.service, Bounds(**settings), self.buffers, receive_buffer
        )
        self.clients: list[Any] = []

    def client(self, tcp: bool = False) -> tuple[Any, Connection]:
        """A connected pair: the client's socket and the broker's connection."""
        theirs, ours = self.sockets(tcp)
        if self.contexts is None:
            self.clients.append(theirs)
            return theirs, Connection(self.hub, ours, ("10.0.0.1", 5001), ENDPOINT)
        connection = self.serve_tls(ours)
        client = TlsClient(theirs, self.contexts.client)
        self.clients.append(client)
        client.shake_hands(self.loop.settle)
        return client, connection

    def serve_tls(self, ours: socket.socket, ip: str = "10.0.0.1") -> TlsConnection:
        """A connection that waits for a handshake."""
        assert self.contexts is not None
        if self.hub.handshakes is None:
            self.hub.handshakes = Handshakes(self.hub)
        return TlsConnection(
            self.hub,
            ours,
            (ip, 5001),
            TLS_ENDPOINT,
            None,
            self.hub.handshakes,
            self.contexts.server,
            self.contexts.principal_of,
        )

    def sockets(self, tcp: bool = False) -> tuple[socket.socket, socket.socket]:
        """A connected pair: the client's socket and the broker's."""
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as server:
                theirs = socket.create_connection(server.getsockname())
                ours, _ = server.accept()
        else:
            theirs, ours = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(PATIENCE_SECONDS)
        return theirs, ours

    def exchange(self, client: socket.socket, data: bytes) -> bytes:
        """Send, let the broker do all it can, and return what has come back."""
        client.sendall(data)
        self.loop.settle()
        return self.received(client)

    def exchange_all(self, client: socket.socket, data: bytes) -> bytes:
        """Send more than the kernel holds, and return the answer, which is 4 bytes shorter."""
        self.send(client, data)
        return self.read(client, len(data) - 4)

    def send(self, client: socket.socket, data: bytes) -> None:
        """Send more than the kernel holds, and let the broker do all it can."""
        client.setblocking(False)
        rest = memoryview(data)

        def sent() -> bool:
            nonlocal rest
            with contextlib.suppress(BlockingIOError):
                rest = rest[client.send(rest) :]
            return not rest

        self.loop.until(sent)
        self.loop.settle()

    def read(self, client: socket.socket, size: int) -> bytes:
        """Turn the loop until ``size`` bytes have arrived at the client."""
        got = bytearray()

        def complete() -> bool:
            got.extend(self.received(client))
            return len(got) >= size

        self.loop.until(complete)
        return bytes(got)

    def received(self, client: socket.socket) -> bytes:
        """What has arrived at the client up to now."""
        collected = bytearray()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := client.recv(1 << 20):
                collected += data
        client.settimeout(PATIENCE_SECONDS)
        return bytes(collected)

    def complete(self, correlation_id: int, payload: bytes = b"") -> None:
        self.service.parked[correlation_id].complete(answer(correlation_id, payload))

    def close(self) -> None:
        self.hub.close()
        for client in self.clients:
            client.close()


@pytest.fixture(params=["plain", "TLSv1.2", "TLSv1.3"])
def make_network(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[Callable[..., Network]]:
    """Makes networks that speak TLS, or not: what holds for connections holds for both."""
    made: list[Network] = []
    contexts = None if request.param == "plain" else certificates.contexts(request.param)

    def make(**options: Any) -> Network:
        made.append(Network(contexts, **options))
        return made[-1]

    yield make
    for network in made:
        network.close()


@pytest.fixture
def network(make_network: Callable[..., Network]) -> Network:
    return make_network()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The log lines of the network so far, from INFO up."""
    caplog.set_level(logging.INFO, logger="kavka.network")
    return lambda: [record.getMessage() for record in caplog.records]
