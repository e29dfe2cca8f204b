"""The handlers of administration over a real store and controller, asked by frames."""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from kavka.broker.configs import Configs
from kavka.broker.context import Broker
from kavka.broker.dispatch import Dispatcher, offered_versions
from kavka.broker.request import Pending
from kavka.broker.security.logins import Logins
from kavka.protocol import codec, headers
from kavka.protocol.schema import Message
from tests.unit.replication.harness import NODE, Harness

M = TypeVar("M", bound=Message)


PROTOCOLS = {"SASL": "SASL_PLAINTEXT"}


class Connection:
    """As much of a connection as handlers touch."""

    def __init__(self, listener: str) -> None:
        self.endpoint = SimpleNamespace(name=listener, protocol=PROTOCOLS.get(listener, listener))
        self.client_id = ""
        self.client_id_bytes = b""
        self.client_host = "/127.0.0.1"
        self.principal = "User:ANONYMOUS"
        self.by_token = False

    def set_client_id(self, raw: bytes) -> None:
        self.client_id_bytes = raw
        self.client_id = raw.decode()

    def keep_frame(self) -> bool:
        return False

    def mute(self, seconds: float) -> None:
        """Who asks here waits for nothing."""


class _Awaiter:
    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer_ready(self, pending: Pending) -> None:
        self.ready.set_result(None)


class Admin:
    """One broker, and a client that asks it."""

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        self.harness = Harness(directory, settings)

    async def start(self, *others: int) -> None:
        harness = self.harness
        await harness.start(*others)
        broker = self.broker = Broker(harness.config, harness.clock)
        broker.loop = asyncio.get_running_loop()
        broker.node_id = NODE
        broker.metadata = harness.metadata
        broker.controller = harness.controller
        broker.configs = Configs(harness.config, NODE, harness.metadata, harness.configs)
        broker.offered_versions = offered_versions("latest")
        self.dispatcher = Dispatcher(broker)
        broker.store = harness.store
        broker.logins = Logins(broker, self.dispatcher)
        broker.logins.follow(harness.configs)
        await broker.logins.open_tokens()

    async def stop(self) -> None:
        await self.broker.logins.close_tokens()
        await self.harness.stop()

    async def ask(
        self,
        version: int,
        request: Message,
        response_class: type[M],
        listener: str = "PLAINTEXT",
        principal: str = "User:ANONYMOUS",
        by_token: bool = False,
    ) -> M:
        """Send a request and decode its answer; every byte of the answer must be used."""
        key = request.API_KEY
        frame = headers.encode_request(key, version, 7, "me", request)[4:]
        connection: Any = Connection(listener)
        connection.principal, connection.by_token = principal, by_token
        answer = self.dispatcher.serve(connection, memoryview(bytearray(frame)))
        if isinstance(answer, Pending):
            if not answer.done:
                awaiter = _Awaiter()
                answer.await_with(awaiter)
                await awaiter.ready
            answer = self.dispatcher.encode(answer)
        assert isinstance(answer, bytes)
        assert struct.unpack(">i", answer[:4])[0] == len(answer) - 4
        correlation_id, at = headers.parse_response_header(key, version, answer, 4)
        assert correlation_id == 7
        response = codec.decode(response_class, answer, version, at)
        assert codec.encode(response, version) == answer[at:]
        return response


def run(admin: Admin, scenario: Callable[[], Coroutine[Any, Any, None]], *others: int) -> None:
    """Run a scenario against a started broker."""

    async def whole() -> None:
        await admin.start(*others)
        try:
            await scenario()
        finally:
            await admin.stop()

    asyncio.run(whole())
