"""Calls to another broker: one connection, requests pipelined, answers in their order.

The controller's channels, the fetchers of followers, controlled shutdown and transaction markers
go this way. Versions are fixed by the caller: brokers do not negotiate (``inter.broker.protocol``).

A connection that breaks, or whose next answer is overdue, fails everything that is under way and
is over; whether and when to connect anew is the caller's business. What was sent may have been
done nevertheless.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from kavka.config.limits import ANSWER_BYTES_MAX, CALLS_UNDER_WAY_MAX
from kavka.protocol import codec
from kavka.protocol.errors import MalformedFrame
from kavka.protocol.headers import encode_request, parse_response_header
from kavka.protocol.schema import Message

if TYPE_CHECKING:
    from ssl import SSLContext

log = logging.getLogger("kavka.replication")

R = TypeVar("R", bound=Message)

_SIZE: Final = Struct(">i")
_LEAST_SIZE: Final = 4  # a correlation id
_BUFFER: Final = 1 << 16
_KEPT: Final = 12 << 20  # a larger buffer is given back when its answer is dealt with
_LAST_CORRELATION_ID: Final = 2**31 - 1


class BrokerUnavailable(Exception):
    """A broker could not be reached, left, or did not answer in time. Try again later."""


class BrokerAddress(NamedTuple):
    """Where a broker's inter-broker listener is reached."""

    node_id: int
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.node_id} at {self.host}:{self.port}"


class ClientSecurity(NamedTuple):
    """How a connection is secured before the first request; by default not at all.

    ``tls`` makes or finds the context when a connection needs it. ``handshake`` authenticates,
    by requests of its own; what it raises ends the connection.
    """

    tls: "Callable[[], SSLContext] | None" = None
    check_hostname: bool = True  # False: the certificate need not name the host
    handshake: "Callable[[BrokerClient], Awaitable[None]] | None" = None


PLAINTEXT: Final = ClientSecurity()

OnBody = Callable[[memoryview], None]
OnFailure = Callable[[Exception], None]


class _Call:
    """A request that has no answer yet."""

    __slots__ = ("correlation_id", "deadline", "key", "on_body", "on_failure", "version")

    def __init__(
        self,
        key: int,
        version: int,
        correlation_id: int,
        deadline: float,
        on_body: OnBody,
        on_failure: OnFailure,
    ) -> None:
        self.key = key
        self.version = version
        self.correlation_id = correlation_id
        self.deadline = deadline
        self.on_body = on_body
        self.on_failure = on_failure


class BrokerClient(asyncio.BufferedProtocol):
    """A connection to one broker. Made by :meth:`connect`; owned by the event loop."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        request_timeout: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.address = address
        self.closed = False
        self._client_id = client_id
        self._timeout = request_timeout
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._calls: deque[_Call] = deque()
        self._correlation_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = 0  # of what is received and not dealt with
        self._end = 0
        self._hear_of_end: list[Callable[[], None]] = []

    @classmethod
    async def connect(
        cls,
        address: BrokerAddress,
        client_id: str,
        *,
        request_timeout: float,
        connect_timeout: float = 10.0,
        security: ClientSecurity = PLAINTEXT,
    ) -> "BrokerClient":
        """Connect and authenticate. Times are in seconds.

        Raises BrokerUnavailable, and what ``security.handshake`` raises.
        """
        loop = asyncio.get_running_loop()
        tls: dict[str, object] = {}
        if security.tls is not None:
            tls["ssl"] = security.tls()
            tls["server_hostname"] = address.host if security.check_hostname else ""
        client: BrokerClient | None = None
        try:
            async with asyncio.timeout(connect_timeout):
                _, client = await loop.create_connection(
                    lambda: cls(address, client_id, request_timeout, loop),
                    address.host,
                    address.port,
                    **cast(Any, tls),
                )
                if security.handshake is not None:
                    await security.handshake(client)
        except BaseException as error:
            if client is not None:
                client.close()
            if isinstance(error, TimeoutError):
                raise BrokerUnavailable(
                    f"broker {address} did not let us in within {connect_timeout:g} s"
                ) from None
            if isinstance(error, OSError):
                raise BrokerUnavailable(
                    f"cannot connect to broker {address}: {error.strerror or error}"
                ) from error
            raise
        assert client is not None
        return client

    def __repr__(self) -> str:
        return f"<BrokerClient {self.address}>"

    # -- calling ----------------------------------------------------------------------------

    def send(
        self, request: Message, response: type[R], version: int, timeout: float | None = None
    ) -> "asyncio.Future[R]":
        """Send a request; the future gets its decoded answer, or fails with BrokerUnavailable.

        MalformedFrame if the answer makes no sense (the connection is closed then). Records in the
        answer are not valid any more when the future is seen: take :meth:`exchange` for those.
        """
        future: asyncio.Future[R] = self._loop.create_future()

        def answered(body: memoryview) -> None:
            message = codec.decode(response, body, version)
            if not future.done():
                future.set_result(message)

        def failed(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self.exchange(request, version, answered, failed, timeout)
        return future

    def exchange(
        self,
        request: Message,
        version: int,
        on_body: OnBody,
        on_failure: OnFailure,
        timeout: float | None = None,
    ) -> None:
        """Send a request; ``on_body`` gets the body of its answer as it came.

        The view is valid only until ``on_body`` returns: it is the receive buffer. One of the two
        is called, later and once. ``timeout`` (seconds) is by default that of the connection.
        """
        if self.closed or len(self._calls) >= CALLS_UNDER_WAY_MAX:
            what = "is closed" if self.closed else "has too many requests under way"
            error = BrokerUnavailable(f"the connection to broker {self.address} {what}")
            self._loop.call_soon(on_failure, error)
            return
        assert self._transport is not None
        key = request.API_KEY
        assert key is not None
        number = self._correlation_id
        self._correlation_id = 0 if number == _LAST_CORRELATION_ID else number + 1
        frame = encode_request(key, version, number, self._client_id, request)
        deadline = self._loop.time() + (self._timeout if timeout is None else timeout)
        self._calls.append(_Call(key, version, number, deadline, on_body, on_failure))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)
        self._transport.write(frame)

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Have it known that the connection is over, whoever ended it; at once if it is."""
        if self.closed:
            self._loop.call_soon(callback)
        else:
            self._hear_of_end.append(callback)

    def close(self, reason: str = "the connection was closed") -> None:
        """End the connection; what is under way fails."""
        self._finish(BrokerUnavailable(f"broker {self.address}: {reason}"))

    # -- asyncio's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        try:
            self._deliver()
        except MalformedFrame as error:
            log.error("An answer makes no sense: %s broker=%s", error, self.address)
            self._finish(error)
        except Exception as error:
            # Whoever was to take the answer in has failed: what he has done of it nobody knows.
            log.exception("An answer could not be taken in broker=%s", self.address)
            self._finish(error)

    def eof_received(self) -> bool:
        return False  # the transport closes, and tells of it

    def connection_lost(self, exc: Exception | None) -> None:
        why = "the connection was closed by it" if exc is None else str(exc)
        self._finish(BrokerUnavailable(f"broker {self.address}: {why}"))

    # -- inside -----------------------------------------------------------------------------

    def _deliver(self) -> None:
        while not self.closed:
            have = self._end - self._start
            if have < 4:
                self._make_room(_BUFFER)
                return
            size = _SIZE.unpack_from(self._buffer, self._start)[0]
            if not _LEAST_SIZE <= size <= ANSWER_BYTES_MAX:
                raise MalformedFrame(f"an answer of {size} bytes")
            if have < 4 + size:
                self._make_room(4 + size)
                return
            at = self._start + 4
            self._start = at + size
            if not self._calls:
                raise MalformedFrame("an answer to nothing")
            call = self._calls.popleft()
            try:
                frame = self._view[at : self._start]
                number, body = parse_response_header(call.key, call.version, frame)
                if number != call.correlation_id:
                    raise MalformedFrame(f"answer {number} where {call.correlation_id} was due")
                call.on_body(frame[body:])
            except Exception as error:
                call.on_failure(error)
                raise

    def _make_room(self, needed: int) -> None:
        """Let ``needed`` bytes from the start on fit, with some space to receive into."""
        start, end = self._start, self._end
        have = end - start
        size = len(self._buffer)
        if size > _KEPT and needed <= _BUFFER:
            size = _BUFFER
        elif needed > size:
            size = needed
        elif start + needed <= size and end < size:
            if not have:
                self._start = self._end = 0
            return
        if size == len(self._buffer):
            self._buffer[:have] = self._buffer[start:end]
        else:
            buffer = bytearray(size)
            buffer[:have] = self._view[start:end]
            self._buffer = buffer
            self._view = memoryview(buffer)
        self._start, self._end = 0, have

    def _on_timer(self) -> None:
        self._timer = None
        if not self._calls:
            return
        call = self._calls[0]
        if call.deadline > self._loop.time():
            self._timer = self._loop.call_at(call.deadline, self._on_timer)
            return
        self.close(f"no answer in time to a request of key {call.key}")

    def _finish(self, error: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.on_failure(error)
        callbacks, self._hear_of_end = self._hear_of_end, []
        for callback in callbacks:
            callback()


async def call(
    address: BrokerAddress,
    client_id: str,
    request: Message,
    response: type[R],
    version: int,
    *,
    timeout: float,
    security: ClientSecurity = PLAINTEXT,
) -> R:
    """One request on a connection of its own. Raises as :meth:`BrokerClient.connect` and
    :meth:`BrokerClient.send` do."""
    client = await BrokerClient.connect(
        address, client_id, request_timeout=timeout, connect_timeout=timeout, security=security
    )
    try:
        return await client.send(request, response, version)
    finally:
        client.close()
