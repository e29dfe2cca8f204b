"""The same connections under the event loops that brokers really run on."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kavka.broker.network import Network
from kavka.config.broker import BrokerConfig
from kavka.storage.clock import SystemClock

from .conftest import PATIENCE_SECONDS, Command, FakeService, FileSlice, answer, frame


def uvloop_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


class Running:
    """A network on an event loop in its own thread."""

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = make_loop()
        self.service = FakeService()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        config = BrokerConfig(
            {"listeners": "PLAINTEXT://127.0.0.1:0", "max.connections.per.ip": "1000"}
        )
        self.network = self.on_loop(lambda: Network(config, SystemClock(), self.loop, self.service))
        self.on_loop(self.network.bind)
        self.on_loop(self.network.listen)
        self.address = self.network.bound()[0][2:]

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def on_loop(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE_SECONDS)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        self.on_loop(self.network.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


@pytest.fixture(params=[uvloop_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    network = Running(request.param)
    yield network
    network.close()


def read(client: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = client.recv(size - len(got))
        assert data, "closed too early"
        got += data
    return bytes(got)


def test_pipelined_requests_of_many_connections(running: Running) -> None:
    clients = [running.connect() for _ in range(20)]
    payload = bytes(200)
    for client in clients:
        client.sendall(b"".join(frame(Command.ECHO, i, payload) for i in range(500)))
    want = b"".join(answer(i, payload) for i in range(500))
    for client in clients:
        assert read(client, len(want)) == want
        client.close()


def test_large_frames_and_slow_answers(running: Running) -> None:
    payload = bytes(range(256)) * 12_000
    client = running.connect()
    sender = threading.Thread(
        target=client.sendall, args=(b"".join(frame(Command.ECHO, i, payload) for i in range(4)),)
    )
    sender.start()
    want = b"".join(answer(i, payload) for i in range(4))
    assert read(client, len(want)) == want
    sender.join()
    client.close()


def test_parked_answers_and_slices(running: Running, tmp_path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "segment").write_bytes(content)
    running.service.slices = [FileSlice(str(tmp_path / "segment"), 0, len(content))]
    client = running.connect()
    client.sendall(frame(Command.PARK, 1) + frame(Command.SLICE, 2) + frame(Command.EXCLUSIVE, 3))
    while 3 not in running.on_loop(lambda: dict(running.service.parked)):
        pass
    running.on_loop(lambda: running.service.parked[3].complete(answer(3)))
    running.on_loop(lambda: running.service.parked[1].complete(answer(1)))
    want = answer(1) + answer(2, content) + answer(3)
    assert read(client, len(want)) == want
    client.sendall(frame(Command.ECHO, 4))
    assert read(client, 8) == answer(4)
    client.close()


def test_idle_connections_cost_little(running: Running) -> None:
    count = 500
    before = resident_bytes()
    clients = [running.connect() for _ in range(count)]
    for i, client in enumerate(clients):
        client.sendall(frame(Command.ECHO, i))
    for i, client in enumerate(clients):
        assert read(client, 8) == answer(i)
    assert (resident_bytes() - before) / count < 10_000  # both ends live in this process
    for client in clients:
        client.close()


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
