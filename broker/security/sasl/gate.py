"""What stands between a SASL listener's connections and the dispatcher until they are known.

A gate turns frames into the steps of an :class:`Exchange` and its outcome into answers. Only
ApiVersions, SaslHandshake and SaslAuthenticate pass, within a small frame. Once authenticated the
connection is the dispatcher's; only where sessions end (``connections.max.reauth.ms``, KIP-368)
does the gate stay in front and mind the time.

Whoever fails is told, and let go, only after ``connection.failed.authentication.delay.ms``. The
delay counts from the arrival of the token, so that it hides how long that was thought about.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.audit import audit_login
from kavka.broker.request import Disconnect, Pending
from kavka.broker.security.sasl.exchange import (
    Exchange,
    OutOfPlace,
    Session,
    State,
    UnsupportedMechanism,
)
from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Mechanism, Reply, Work
from kavka.config.limits import FRAME_BYTES_MIN
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import ErrorCode, MalformedFrame
from kavka.protocol.headers import API_VERSIONS, RequestHeader
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from kavka.protocol.messages.k18_api_versions import ApiVersionsResponse
from kavka.protocol.messages.k36_sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.hub import Service
    from kavka.broker.output import Answer
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.security")

HANDSHAKE: Final = 17
AUTHENTICATE: Final = 36

_SIZE: Final = Struct(">i")
_KEY: Final = Struct(">h")
_VERSIONS_ERROR: Final = slice(8, 10)  # in a framed ApiVersions answer of any version
_REAUTHENTICATION_SECONDS_MIN: Final = 1.0


class Policy(NamedTuple):
    """What a listener asks of its clients."""

    mechanisms: Mapping[str, Callable[[], Mechanism]]
    max_session_ms: Callable[[str], int]
    """By mechanism: the longest session, 0 for no limit."""


class House(NamedTuple):
    """What the gates of one broker share."""

    dispatcher: "Service"
    offered_versions: Mapping[int, tuple[int, int]]
    clock: "Clock"
    loop: asyncio.AbstractEventLoop
    executor: Callable[[], Executor]
    """For computations that are too long for the loop."""
    max_frame: int
    failure_delay: Callable[[], float]
    """Seconds."""


class Gate:
    """The ``hub.Service`` of one connection."""

    __slots__ = ("_exchange", "_expires", "_house", "_policy", "_reauthenticated", "_session")

    def __init__(self, house: House, policy: Policy) -> None:
        self._house = house
        self._policy = policy
        self._exchange = Exchange(policy.mechanisms)
        self._session: Session | None = None
        self._expires: float | None = None  # on the monotonic clock
        self._reauthenticated = float("-inf")  # when that was last begun

    # -- the service --------------------------------------------------------------------------

    def serve(self, connection: "Connection", frame: memoryview) -> "Answer | Pending":
        """Take a frame; see ``hub.Service``."""
        if self._exchange.state is State.COMPLETE:
            return self._serve_authenticated(connection, frame)
        arrived = self._house.clock.monotonic()
        if self._exchange.state is State.RAW:
            return self._on_token(connection, bytes(frame), None, arrived)
        try:
            return self._on_request(connection, frame, arrived)
        except (MalformedFrame, OutOfPlace) as error:
            return self._refuse(connection, None, str(error), arrived)

    def encode(self, pending: Pending) -> "Answer":
        """The answer of a completed :class:`Pending`; see ``hub.Service``."""
        if pending.request is not None:
            return self._house.dispatcher.encode(pending)
        response = pending.response
        assert response is None or isinstance(response, bytes), "gates encode what they answer"
        return response

    # -- after authentication -----------------------------------------------------------------

    def _serve_authenticated(
        self, connection: "Connection", frame: memoryview
    ) -> "Answer | Pending":
        if self._expires is not None:
            now = self._house.clock.monotonic()
            if _KEY.unpack_from(frame)[0] == HANDSHAKE:
                if now - self._reauthenticated >= _REAUTHENTICATION_SECONDS_MIN:
                    self._reauthenticated = now
                    self._exchange = Exchange(self._policy.mechanisms, self._session)
                    return self.serve(connection, frame)
            elif now >= self._expires:
                raise Disconnect(
                    "the session has expired and was not authenticated anew "
                    f"principal={connection.principal}"
                )
        return self._house.dispatcher.serve(connection, frame)

    # -- requests of the exchange ---------------------------------------------------------------

    def _on_request(
        self, connection: "Connection", frame: memoryview, arrived: float
    ) -> "Answer | Pending":
        header, at = headers.parse_request_header(frame)
        exchange = self._exchange
        if header.api_key == API_VERSIONS and exchange.state is not State.FRAMED:
            return self._on_versions(connection, frame)
        if header.api_key == HANDSHAKE and exchange.state is not State.FRAMED:
            self._require_version(header)
            request = codec.decode(SaslHandshakeRequest, frame, header.api_version, at)
            return self._on_handshake(connection, request, header, arrived)
        if exchange.state is not State.FRAMED:
            name = keys.api_name(header.api_key)
            raise OutOfPlace(f"Unexpected Kafka request of type {name} during SASL handshake.")
        if header.api_key == AUTHENTICATE:
            self._require_version(header)
            token = codec.decode(SaslAuthenticateRequest, frame, header.api_version, at).auth_bytes
            return self._on_token(connection, token, header, arrived)
        return self._on_foreign_request(connection, header, arrived)

    def _require_version(self, header: RequestHeader) -> None:
        low, high = self._house.offered_versions.get(header.api_key, (0, -1))
        if not low <= header.api_version <= high:
            name = keys.api_name(header.api_key)
            raise MalformedFrame(f"Version {header.api_version} is not supported for {name}")

    def _on_versions(self, connection: "Connection", frame: memoryview) -> "Answer":
        self._exchange.expect_versions()
        answer = self._house.dispatcher.serve(connection, frame)
        assert isinstance(answer, bytes), "ApiVersions is answered at once"
        if answer[_VERSIONS_ERROR] == b"\0\0":  # else the client may ask in another version
            self._exchange.versions_told()
        return answer

    def _on_handshake(
        self,
        connection: "Connection",
        request: SaslHandshakeRequest,
        header: RequestHeader,
        arrived: float,
    ) -> "Answer | Pending":
        exchange = self._exchange
        response = SaslHandshakeResponse(mechanisms=exchange.enabled)
        try:
            exchange.handshake(request.mechanism, header.api_version)
        except UnsupportedMechanism as error:
            response.error_code = ErrorCode.UNSUPPORTED_SASL_MECHANISM
            answer = headers.encode_response(header.correlation_id, response, header.api_version)
            return self._refuse(connection, answer, str(error), arrived)
        if exchange.state is State.RAW:
            connection.min_frame = 0  # tokens may be smaller than any request
        return headers.encode_response(header.correlation_id, response, header.api_version)

    def _on_foreign_request(
        self, connection: "Connection", header: RequestHeader, arrived: float
    ) -> Pending:
        """Refuse what is no token; only requests that cost nothing to read get an answer."""
        answer = None
        response: SaslHandshakeResponse | ApiVersionsResponse | None = None
        if header.api_key == HANDSHAKE:
            response = SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)
        elif header.api_key == API_VERSIONS:
            response = ApiVersionsResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)
        low, high = self._house.offered_versions.get(header.api_key, (0, -1))
        if response is not None and low <= header.api_version <= high:
            answer = headers.encode_response(header.correlation_id, response, header.api_version)
        name = keys.api_name(header.api_key)
        reason = f"Unexpected Kafka request of type {name} during SASL authentication."
        return self._refuse(connection, answer, reason, arrived)

    # -- tokens ---------------------------------------------------------------------------------

    def _on_token(
        self,
        connection: "Connection",
        token: bytes,
        header: RequestHeader | None,
        arrived: float,
    ) -> "Answer | Pending":
        """``header`` is that of the token's request; None where tokens come raw."""
        try:
            step = self._exchange.token(token)
            if isinstance(step, Reply):
                return self._answer(connection, step, header)
        except AuthenticationFailed as error:
            return self._refuse_token(connection, error, header, arrived)
        pending = Pending(exclusive=True)
        house = self._house
        future = house.loop.run_in_executor(house.executor(), step.compute)
        future.add_done_callback(
            partial(self._work_done, connection, step, header, arrived, pending)
        )
        return pending

    def _work_done(
        self,
        connection: "Connection",
        work: Work,
        header: RequestHeader | None,
        arrived: float,
        pending: Pending,
        future: "asyncio.Future[object]",
    ) -> None:
        if pending.cancelled or future.cancelled():
            return
        try:
            reply = self._exchange.work_done(work, future.result())
            answer = self._answer(connection, reply, header, pending)
        except AuthenticationFailed as error:
            self._refuse_token(connection, error, header, arrived, pending)
        except Exception:
            log.exception("a login could not be judged peer=%s", connection.peer)
            failure = AuthenticationFailed("it could not be judged")
            self._refuse_token(connection, failure, header, arrived, pending)
        else:
            assert answer is pending

    def _answer(
        self,
        connection: "Connection",
        reply: Reply,
        header: RequestHeader | None,
        pending: Pending | None = None,
    ) -> "Answer | Pending":
        session = self._exchange.take(reply)
        lifetime_ms = 0 if session is None else self._lifetime_ms(session)
        if header is None:
            answer = _SIZE.pack(len(reply.token)) + reply.token
        else:
            response = SaslAuthenticateResponse(
                auth_bytes=reply.token, session_lifetime_ms=lifetime_ms
            )
            answer = headers.encode_response(header.correlation_id, response, header.api_version)
        if pending is not None:
            pending.complete(answer)  # before another service is there, which cannot encode it
        if session is not None:
            self._admit(connection, session, lifetime_ms)
        return answer if pending is None else pending

    def _lifetime_ms(self, session: Session) -> int:
        longest = self._policy.max_session_ms(session.mechanism)
        expires_ms = session.identity.expires_ms
        if expires_ms is not None:
            longest = min(longest, expires_ms - self._house.clock.wall_ms())
        return max(0, longest)

    def _admit(self, connection: "Connection", session: Session, lifetime_ms: int) -> None:
        identity = session.identity
        self._session = session
        connection.principal = f"User:{identity.name}"
        connection.by_token = identity.by_token
        connection.max_frame = self._house.max_frame
        connection.min_frame = FRAME_BYTES_MIN
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "authenticated principal=%r mechanism=%s peer=%s listener=%s",
                *(connection.principal, session.mechanism),
                *(connection.peer, connection.endpoint.name),
            )
        if lifetime_ms:
            self._expires = self._house.clock.monotonic() + lifetime_ms / 1000
        else:
            self._expires = None
            if not connection.closed:
                connection.service = self._house.dispatcher

    # -- refusals ---------------------------------------------------------------------------------

    def _refuse_token(
        self,
        connection: "Connection",
        error: AuthenticationFailed,
        header: RequestHeader | None,
        arrived: float,
        pending: Pending | None = None,
    ) -> Pending:
        answer = None
        if header is not None:
            response = SaslAuthenticateResponse(
                error_code=ErrorCode.SASL_AUTHENTICATION_FAILED,
                error_message=error.told or self._exchange.generic_failure,
            )
            answer = headers.encode_response(header.correlation_id, response, header.api_version)
        return self._refuse(connection, answer, str(error), arrived, pending)

    def _refuse(
        self,
        connection: "Connection",
        answer: bytes | None,
        reason: str,
        arrived: float,
        pending: Pending | None = None,
    ) -> Pending:
        """Answer and close, but not at once; nothing else is read meanwhile."""
        self._exchange.fail()
        audit_login(connection, self._exchange.mechanism, f"authentication failed: {reason}")
        if pending is None:
            pending = Pending(exclusive=True)
        house = self._house
        delay = arrived + house.failure_delay() - house.clock.monotonic()
        timer = house.loop.call_later(max(0.0, delay), _dismiss, connection, pending, answer)
        pending.on_disconnect(timer.cancel)
        return pending


def _dismiss(connection: "Connection", pending: Pending, answer: bytes | None) -> None:
    if pending.cancelled:
        return
    pending.complete(answer)
    connection.flush()
    connection.close()
