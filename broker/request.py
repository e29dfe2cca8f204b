"""A request as its handler sees it, and the kinds of answer a handler may give.

A handler returns one of

* a response message: it is encoded for the request's version and sent;
* :class:`Raw`, or the bare bytes of a response body: already encoded;
* :class:`Pending`: the answer comes later, by :meth:`Pending.complete`;
* None: the protocol has no response here (Produce with acks=0).

Answers leave a connection in the order of its requests, whichever is ready first.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.protocol.schema import Buffer, Message
    from kavka.storage.fetch_slice import FetchSlice

    Part: TypeAlias = Buffer | FetchSlice
    Response: TypeAlias = "Message | Raw | bytes | None"

ANONYMOUS: Final = "User:ANONYMOUS"


class Disconnect(Exception):
    """Raised by a handler whose client can only be told by closing its connection.

    Example: Produce with acks=0 that failed. The message goes into the one log line.
    """


class RequestFailed(Exception):
    """A defect: a handler ended with an exception that its API has no error code for.

    The message names the API; the cause is the exception.
    """


class Request:
    """One request frame; valid for handlers of every API.

    ``body`` is a writable view of the frame after its header. It lies in a receive buffer that
    is used again as soon as ``handle()`` returns: who needs the bytes longer copies them, unless
    ``connection.keep_frame()`` leaves the whole frame to the handler. Decoded messages are copies
    already, but for record data.
    """

    __slots__ = (
        "body",
        "client_id",
        "connection",
        "correlation_id",
        "key",
        "message",
        "size",
        "started",
        "throttle",
        "version",
    )

    # Set only while there are quotas; see ``quotas.Quotas.arrived``.
    size: int  # bytes of the frame
    started: float  # when its handler began, 0 if nobody wants to know
    throttle: float  # seconds for which its client has to wait, as far as known

    def __init__(
        self,
        key: int,
        version: int,
        correlation_id: int,
        client_id: str,
        body: memoryview,
        connection: "Connection",
    ) -> None:
        self.key = key
        self.version = version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.body = body
        self.connection = connection
        self.message: Message | None = None  # the decoded body, unless the handler decodes itself

    @property
    def client_host(self) -> str:
        """The peer's address as Kafka prints it: ``/1.2.3.4``."""
        return self.connection.client_host

    @property
    def listener(self) -> str:
        """Name of the listener the request came in by."""
        return self.connection.endpoint.name

    @property
    def principal(self) -> str:
        """Who asks, as ``User:name``."""
        return self.connection.principal


class Raw:
    """A response body whose bytes are ready, without size prefix and response header.

    ``parts`` are buffers and slices of log segments; slices are sent by the kernel from the
    segment's file and never touch the process's memory.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: "Sequence[Part]") -> None:
        self.parts = parts


class Awaiter(Protocol):
    """Who is told that a parked answer is ready: the connection."""

    def answer_ready(self, pending: "Pending") -> None:
        """``pending`` has its response or its error now."""


class Pending:
    """A parked answer: the handler returns it now and completes it later, exactly once.

    ``exclusive``: the connection handles no further request until the answer is ready. For
    work that leaves the event loop and whose effect must come before that of the next request.
    """

    __slots__ = (
        "_awaiter",
        "_on_disconnect",
        "cancelled",
        "done",
        "error",
        "exclusive",
        "request",
        "response",
        "when_done",
    )

    def __init__(self, *, exclusive: bool = False) -> None:
        self.exclusive = exclusive
        self.done = False
        self.cancelled = False  # the client went away before the answer was ready
        self.response: Response = None
        self.error: BaseException | None = None
        self.request: Request | None = None
        self.when_done: Callable[[], None] | None = None  # or given up
        self._awaiter: Awaiter | None = None
        self._on_disconnect: Callable[[], None] | None = None

    def complete(self, response: "Response") -> None:
        """Give the answer; None when the protocol has no response. No effect once cancelled."""
        assert not self.done, "a parked request is answered once"
        self.done = True
        self._on_disconnect = None
        self.response = response
        self._let_go()
        if self._awaiter is not None:
            self._awaiter.answer_ready(self)

    def fail(self, error: BaseException) -> None:
        """End with ``error`` as if ``handle()`` had raised it."""
        self.error = error
        self.complete(None)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once if the client goes away before the answer is ready."""
        assert self._on_disconnect is None, "one owner waits for the disconnect"
        if self.cancelled:
            callback()
            self._let_go()
        elif not self.done:
            self._on_disconnect = callback

    # -- for dispatch and the connection --------------------------------------------------

    def await_with(self, awaiter: Awaiter) -> None:
        """Tell ``awaiter`` when the answer is ready."""
        self._awaiter = awaiter

    def cancel(self) -> None:
        """The client went away; a later :meth:`complete` has no effect."""
        self.cancelled = True
        self._awaiter = None
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None:
            callback()
            self._let_go()  # without one the handler goes on, and completes

    def _let_go(self) -> None:
        when_done, self.when_done = self.when_done, None
        if when_done is not None:
            when_done()
