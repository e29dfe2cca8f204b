"""One connection before a gate: frames in, answers out, time and threads by hand."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from struct import Struct
from typing import Any, cast

from kavka.broker.connection import Connection
from kavka.broker.context import Broker
from kavka.broker.dispatch import Dispatcher, offered_versions
from kavka.broker.request import ANONYMOUS, Disconnect, Pending
from kavka.broker.security.sasl.gate import Gate, House, Policy
from kavka.broker.security.sasl.mechanism import Mechanism
from kavka.broker.security.sasl.plain import PlainMechanism
from kavka.broker.security.sasl.scram_server import ScramServer
from kavka.broker.security.tokens import Tokens
from kavka.broker.security.users import Users
from kavka.config.broker import BrokerConfig
from kavka.config.limits import FRAME_BYTES_MAX_BEFORE_AUTHENTICATION, FRAME_BYTES_MIN
from kavka.config.listeners import Endpoint
from kavka.protocol import codec
from kavka.protocol.headers import encode_request, parse_request_header, parse_response_header
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest
from kavka.protocol.messages.k36_sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.client import PlainClient, SaslClient, ScramClient
from kavka.protocol.sasl.scram import MECHANISMS, ScramMechanism
from kavka.protocol.schema import Message
from kavka.storage.clock import ManualClock

SERVED = b"served by the dispatcher"
DELAY = 0.1
MAX_FRAME = 1 << 20
SECRET = bytes(range(32))
SIZE = Struct(">i")

BOB_SHA_256 = scram.credential_of(ScramMechanism.SHA_256, "bob's", b"a salt", 4096)
BOB_SHA_512 = scram.credential_of(ScramMechanism.SHA_512, "bob's", b"a salt", 4096)
CAROL_SHA_512 = scram.credential_of(ScramMechanism.SHA_512, "carol's", b"another", 4096)


def some_users() -> Users:
    """Bob by both mechanisms, carol by SHA-512 alone."""
    users = Users(SECRET)
    users.entity_changed(
        "bob",
        {
            "SCRAM-SHA-256": scram.render_credential(BOB_SHA_256),
            "SCRAM-SHA-512": scram.render_credential(BOB_SHA_512),
            "producer_byte_rate": "1024",
        },
    )
    users.entity_changed("carol%40x", {"SCRAM-SHA-512": scram.render_credential(CAROL_SHA_512)})
    return users


@functools.cache
def real_dispatcher() -> Dispatcher:
    broker = Broker(BrokerConfig(), ManualClock())
    broker.offered_versions = offered_versions("latest")
    return Dispatcher(broker)


class FakeDispatcher:
    """Answers ApiVersions as the real one, and anything else at once."""

    def __init__(self) -> None:
        self._real = real_dispatcher()
        self.served: list[int] = []

    def serve(self, connection: Connection, frame: memoryview) -> Any:
        key = parse_request_header(frame)[0].api_key
        if key == 18:
            return self._real.serve(connection, frame)
        self.served.append(key)
        return SERVED

    def encode(self, pending: Pending) -> Any:
        raise AssertionError("nothing was parked here")


class FakeLoop:
    """Timers wait for :meth:`advance`; threads for :meth:`run_threads`."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.timers: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []
        self.work: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> "FakeTimer":
        entry = (self._clock.monotonic() + delay, callback, args)
        self.timers.append(entry)
        return FakeTimer(self, entry)

    def run_in_executor(self, executor: Any, function: Callable[[], Any]) -> "FakeFuture":
        future = FakeFuture()
        self.work.append((cast("asyncio.Future[Any]", future), function))
        return future

    def run_threads(self) -> None:
        work, self.work = self.work, []
        for future, function in work:
            cast(FakeFuture, future).run(function)

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)
        now = self._clock.monotonic()
        due = [timer for timer in self.timers if timer[0] <= now + 1e-9]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, callback, args in due:
            callback(*args)


class FakeTimer:
    def __init__(self, loop: FakeLoop, entry: Any) -> None:
        self._loop, self._entry = loop, entry

    def cancel(self) -> None:
        self._loop.timers = [each for each in self._loop.timers if each is not self._entry]


class FakeFuture:
    def __init__(self) -> None:
        self._callback: Callable[[Any], None] | None = None
        self._result: Any = None
        self._error: Exception | None = None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callback = callback

    def run(self, function: Callable[[], Any]) -> None:
        try:
            self._result = function()
        except Exception as error:
            self._error = error
        assert self._callback is not None
        self._callback(self)

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class FakeConnection:
    """What a gate sees of a connection; ``sent`` is what the client has got."""

    def __init__(self, protocol: str = "SASL_PLAINTEXT") -> None:
        self.endpoint = Endpoint("SASL", protocol, "127.0.0.1", 9093)
        self.peer = "127.0.0.1:50000"
        self.client_host = "/127.0.0.1"
        self.principal = ANONYMOUS
        self.by_token = False
        self.client_id = ""
        self.client_id_bytes = b""
        self.client_software = ""
        self.max_frame = FRAME_BYTES_MAX_BEFORE_AUTHENTICATION
        self.min_frame = FRAME_BYTES_MIN
        self.service: Any = None
        self.closed = False
        self.sent: list[bytes] = []
        self.waiting: Pending | None = None

    def set_client_id(self, raw: bytes) -> None:
        self.client_id_bytes = raw

    def flush(self) -> None:
        assert not self.closed

    def close(self, reason: str | None = None) -> None:
        self.closed = True

    def answer_ready(self, pending: Pending) -> None:
        assert pending is self.waiting
        self.waiting = None
        answer = self.service.encode(pending)
        if answer is not None:
            self.sent.append(answer)


class Talk:
    """A client at a gate."""

    def __init__(
        self,
        *,
        listed: Mapping[str, str] | None = None,
        users: Users | None = None,
        tokens: Tokens | None = None,
        mechanisms: Mapping[str, Callable[[], Mechanism]] | None = None,
        max_session_ms: int = 0,
    ) -> None:
        self.clock = ManualClock()
        self.loop = FakeLoop(self.clock)
        self.dispatcher = FakeDispatcher()
        self.users = some_users() if users is None else users
        self.nonces = 0
        if mechanisms is None:
            mechanisms = {
                "PLAIN": lambda: PlainMechanism({"alice": "alice's", **(listed or {})}, self.users),
                **{
                    name: lambda each=each: ScramServer(
                        each, self.users, lambda: tokens, self.new_nonce
                    )
                    for name, each in MECHANISMS.items()
                },
            }
        house = House(
            self.dispatcher,
            offered_versions("latest"),
            self.clock,
            cast(asyncio.AbstractEventLoop, self.loop),
            lambda: cast(Executor, None),
            MAX_FRAME,
            lambda: DELAY,
        )
        self.connection = FakeConnection()
        self.gate = Gate(house, Policy(mechanisms, lambda _: max_session_ms))
        self.connection.service = self.gate
        self.number = 0

    def new_nonce(self) -> str:
        self.nonces += 1
        return f"server-nonce-{self.nonces}"

    # -- frames -----------------------------------------------------------------------------

    def frame(self, frame: bytes) -> bytes | None:
        """Send the inside of a frame; the answer, if it comes at once."""
        connection = self.connection
        assert not connection.closed, "the connection has been closed"
        assert connection.waiting is None, "an exclusive request is in work"
        try:
            answer = connection.service.serve(cast(Connection, connection), memoryview(frame))
        except Disconnect:
            connection.closed = True
            return None
        if isinstance(answer, Pending):
            assert answer.exclusive
            connection.waiting = answer
            answer.await_with(connection)
            return None
        if answer is not None:
            connection.sent.append(answer)
        return cast("bytes | None", answer)

    def settled(self) -> bytes | None:
        """Let threads end and delays pass; the newest answer, if one came meanwhile."""
        before = len(self.connection.sent)
        self.loop.run_threads()
        if self.connection.waiting is not None:
            self.loop.advance(DELAY)
        assert self.connection.waiting is None
        sent = self.connection.sent
        return sent[-1] if len(sent) > before else None

    def request(self, message: Message, version: int) -> bytes | None:
        self.number += 1
        key = message.API_KEY
        assert key is not None
        return self.frame(encode_request(key, version, self.number, "me", message)[4:])

    def ask(self, message: Message, response: type[Any], version: int) -> Any:
        """Send a request and decode its answer, waiting for it; None if there is none."""
        answer = self.request(message, version)
        if answer is None:
            answer = self.settled()
        if answer is None:
            return None
        key = message.API_KEY
        assert key is not None
        assert SIZE.unpack_from(answer)[0] == len(answer) - 4
        number, at = parse_response_header(key, version, answer, 4)
        assert number == self.number
        return codec.decode(response, memoryview(answer), version, at)

    # -- steps ------------------------------------------------------------------------------

    def versions(self, version: int = 0) -> bytes | None:
        body = ApiVersionsRequest(client_software_name="lib", client_software_version="1.0")
        return self.request(body, version)

    def handshake(self, mechanism: str, version: int = 1) -> Any:
        body = SaslHandshakeRequest(mechanism=mechanism)
        return self.ask(body, SaslHandshakeResponse, version)

    def token(self, token: bytes, version: int = 2) -> Any:
        body = SaslAuthenticateRequest(auth_bytes=token)
        return self.ask(body, SaslAuthenticateResponse, version)

    def raw(self, token: bytes) -> bytes | None:
        """Send a token without a header; the server's, None if it sent nothing."""
        answer = self.frame(token)
        if answer is None:
            answer = self.settled()
        if answer is None:
            return None
        assert SIZE.unpack_from(answer)[0] == len(answer) - 4
        return answer[4:]

    def log_in(self, mechanism: str, client: SaslClient) -> Any:
        """The whole exchange; the last answer."""
        assert self.handshake(mechanism).error_code == 0
        token: bytes | None = client.first()
        answer = None
        while token is not None:
            answer = self.token(token)
            if answer is None or answer.error_code:
                return answer
            token = client.next(answer.auth_bytes)
        return answer

    @property
    def principal(self) -> str:
        return self.connection.principal

    @property
    def let_in(self) -> bool:
        return self.connection.principal != ANONYMOUS


def scram_client(mechanism: str, user: str, password: str, *, token: bool = False) -> ScramClient:
    return ScramClient(MECHANISMS[mechanism], user, password, "client-nonce", token=token)


def plain_client(user: str, password: str) -> PlainClient:
    return PlainClient(user, password)
