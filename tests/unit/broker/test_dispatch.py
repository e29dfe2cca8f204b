import asyncio
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.broker import dispatch
from kavka.broker.context import Broker
from kavka.broker.dispatch import HANDLERS, NOT_SUPPORTED, Dispatcher, offered_versions
from kavka.broker.request import Disconnect, Pending, Raw, RequestFailed
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse

HEARTBEAT = 12


class FakeConnection:
    """As much of a connection as dispatch touches."""

    def __init__(self) -> None:
        self.client_id = ""
        self.client_id_bytes = b""
        self.client_software = ""

    def set_client_id(self, raw: bytes) -> None:
        self.client_id_bytes = raw
        self.client_id = raw.decode("utf-8", "replace")

    def keep_frame(self) -> bool:
        return False


def make_dispatcher(compatibility: str = "latest") -> Dispatcher:
    broker = Broker(config=None, clock=None)
    broker.offered_versions = offered_versions(compatibility)
    return Dispatcher(broker, compatibility)


def request_frame(key: int, version: int, message: Any, client_id: str | None = "me") -> bytearray:
    return bytearray(headers.encode_request(key, version, 77, client_id, message)[4:])


def serve(dispatcher: Dispatcher, frame: bytearray) -> Any:
    return dispatcher.serve(FakeConnection(), memoryview(frame))


def body_of(key: int, version: int, frame: bytes) -> bytes:
    assert struct.unpack(">i", frame[:4])[0] == len(frame) - 4
    correlation_id, at = headers.parse_response_header(key, version, frame, 4)
    assert correlation_id == 77
    return frame[at:]


@pytest.fixture
def heartbeat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dispatcher]:
    """A dispatcher whose Heartbeat handler is what the test gives."""

    def make(**functions: Any) -> Dispatcher:
        monkeypatch.setattr(dispatch, "import_module", lambda name: SimpleNamespace(**functions))
        return make_dispatcher()

    return make


# -- the tables --------------------------------------------------------------------------


def test_every_api_is_either_handled_or_has_a_reason() -> None:
    assert HANDLERS.keys() | NOT_SUPPORTED.keys() == keys.APIS.keys()
    assert not HANDLERS.keys() & NOT_SUPPORTED.keys()


def test_the_table_is_the_3_9_column() -> None:
    for key, entry in HANDLERS.items():
        assert (entry.min_version, entry.max_version) == keys.LATEST[key]
        assert entry.module == keys.module_name(key)


@pytest.mark.parametrize(
    ("compatibility", "column"), [("2.3.0", keys.RANGES_2_3), ("1.1.0", keys.RANGES_1_1)]
)
def test_compatibility_offers_the_column_of_that_release(compatibility, column) -> None:
    offered = offered_versions(compatibility)
    assert offered == dict(column)


# -- ApiVersions -------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
def test_api_versions_offers_what_is_handled(version: int) -> None:
    message = ApiVersionsRequest(client_software_name="tester", client_software_version="1.0-a")
    answer = serve(make_dispatcher(), request_frame(18, version, message))
    response = codec.decode(ApiVersionsResponse, body_of(18, version, answer), version)
    assert response.error_code == ErrorCode.NONE
    offered = {k.api_key: (k.min_version, k.max_version) for k in response.api_keys}
    assert offered == offered_versions("latest")
    assert list(offered) == sorted(offered)


@pytest.mark.parametrize(
    ("compatibility", "version", "newest"), [("latest", 5, 4), ("latest", 99, 4), ("2.3.0", 3, 2)]
)
def test_an_unknown_version_of_api_versions_is_answered_in_v0(compatibility, version, newest):
    frame = bytearray(struct.pack(">hhih", 18, version, 77, 2) + b"me" + b"\xff\xfe nonsense")
    answer = serve(make_dispatcher(compatibility), frame)
    response = codec.decode(ApiVersionsResponse, body_of(18, 0, answer), 0)
    assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert [(k.api_key, k.min_version, k.max_version) for k in response.api_keys] == [
        (18, 0, newest)
    ]


@pytest.mark.parametrize("name", ["", "-x", "x-", "a b", "x\n", "ä"])
def test_a_nameless_client_is_refused(name: str) -> None:
    message = ApiVersionsRequest(client_software_name=name, client_software_version="1")
    answer = serve(make_dispatcher(), request_frame(18, 3, message))
    response = codec.decode(ApiVersionsResponse, body_of(18, 3, answer), 3)
    assert response.error_code == ErrorCode.INVALID_REQUEST
    assert response.api_keys == []


@pytest.mark.parametrize("key", [17, 36])
def test_sasl_is_out_of_place_on_a_plain_listener(key: int) -> None:
    request_class, response_class = keys.message_classes(key)
    answer = serve(make_dispatcher(), request_frame(key, 1, request_class()))
    response = codec.decode(response_class, body_of(key, 1, answer), 1)
    assert response.error_code == ErrorCode.ILLEGAL_SASL_STATE


# -- what is no request ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (struct.pack(">hhih", 999, 0, 1, -1), "unknown API key 999"),
        (struct.pack(">hhih", 55, 0, 1, -1), "KRaft"),
        (struct.pack(">hhih", 55, 0, 1, -1), "KRaft only"),
        (struct.pack(">hhih", 12, 5, 1, -1), "Heartbeat version 5 is not supported, 0 to 4 are"),
        (struct.pack(">hhih", 12, -1, 1, -1), "Heartbeat version -1"),
        (struct.pack(">hhi", 12, 0, 1), "no whole header"),
        (struct.pack(">hhih", 12, 0, 1, 400), "longer than the request"),
        (struct.pack(">hhih", 12, 0, 1, -7), "client id of -7 bytes"),
        (struct.pack(">hhih", 12, 4, 1, -1), "ends too early"),
        (struct.pack(">hhih", 12, 0, 1, -1) + b"\x7f", "Heartbeat v0"),
        (struct.pack(">hhih", 12, 0, 1, -1) + bytes(1 << 24), "a Heartbeat request of 16777226 b"),
    ],
)
def test_what_is_no_request_is_refused_with_its_reason(heartbeat, frame, reason) -> None:
    dispatcher = heartbeat(handle=lambda *_: HeartbeatResponse())
    with pytest.raises(MalformedFrame, match=reason):
        serve(dispatcher, bytearray(frame))


@given(
    key=st.sampled_from([0, 1, 3, 7, 12, 17, 18]),
    version=st.integers(0, 1),
    flexible=st.booleans(),
    client_id=st.none() | st.text(max_size=20),
    tags=st.dictionaries(st.integers(0, 9), st.binary(max_size=5), max_size=2),
)
def test_headers_are_read_as_the_codec_reads_them(key, version, flexible, client_id, tags) -> None:
    if flexible and key in keys.FLEXIBLE_SINCE:
        version = keys.FLEXIBLE_SINCE[key]
    name = None if client_id is None else client_id.encode()
    frame = struct.pack(">hhi", key, version, 5)
    if (key, version) != (7, 0):
        frame += struct.pack(">h", -1 if name is None else len(name)) + (name or b"")
    if version >= keys.FLEXIBLE_SINCE.get(key, 1 << 15):
        frame += bytes([len(tags)])
        frame += b"".join(bytes([t, len(v)]) + v for t, v in sorted(tags.items()))
    body = b"the body"
    seen = []
    dispatcher = make_dispatcher()
    route = dispatcher._routes[key]
    route.loaded = True
    route.handle_raw = lambda broker, request: seen.append(request)
    assert dispatcher.serve(FakeConnection(), memoryview(bytearray(frame + body))) is None
    (request,) = seen
    header, at = headers.parse_request_header(frame + body)
    assert bytes(request.body) == (frame + body)[at:] == body
    assert (request.key, request.version) == (header.api_key, header.api_version)
    assert (request.correlation_id, request.client_id) == header[2:]


# -- handlers ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 4])
def test_a_message_is_encoded_for_the_version_of_its_request(heartbeat, version: int) -> None:
    def handle(broker, request, body):
        assert (body.group_id, request.client_id, request.version) == ("g", "me", version)
        return HeartbeatResponse(error_code=27)

    answer = serve(
        heartbeat(handle=handle), request_frame(12, version, HeartbeatRequest(group_id="g"))
    )
    body = body_of(12, version, answer)
    assert codec.decode(HeartbeatResponse, body, version).error_code == 27


@pytest.mark.parametrize("version", [0, 4])
def test_bytes_and_raw_parts_get_their_header(heartbeat, version: int) -> None:
    body = codec.encode(HeartbeatResponse(error_code=27), version)
    frame = request_frame(12, version, HeartbeatRequest())
    want = headers.encode_response(77, HeartbeatResponse(error_code=27), version)
    assert serve(heartbeat(handle_raw=lambda *_: body), frame) == want
    part = SimpleNamespace(size=5)
    head, *parts = serve(heartbeat(handle_raw=lambda *_: Raw([body, part])), frame)
    assert head == headers.response_prefix(12, version, 77, len(body) + 5)
    assert parts == [body, part]


def test_no_response_is_no_answer(heartbeat) -> None:
    assert (
        serve(heartbeat(handle=lambda *_: None), request_frame(12, 0, HeartbeatRequest())) is None
    )


def test_an_error_goes_into_the_response_where_it_has_a_place(heartbeat) -> None:
    def handle(broker, request, body):
        raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    frame = request_frame(12, 1, HeartbeatRequest(group_id="g"))
    answer = serve(
        heartbeat(
            handle=handle,
            error_response=lambda code, body: HeartbeatResponse(
                error_code=code, throttle_time_ms=len(body.group_id)
            ),
        ),
        frame,
    )
    response = codec.decode(HeartbeatResponse, body_of(12, 1, answer), 1)
    assert (response.error_code, response.throttle_time_ms) == (15, 1)
    with pytest.raises(RequestFailed, match="Heartbeat v1") as raised:
        serve(heartbeat(handle=handle), frame)
    assert isinstance(raised.value.__cause__, KafkaError)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ZeroDivisionError(), RequestFailed),
        (Disconnect("go away"), Disconnect),
        (MalformedFrame("records"), MalformedFrame),
    ],
)
def test_failures_name_the_api(heartbeat, error, outcome) -> None:
    def handle(*_):
        raise error

    with pytest.raises(outcome, match="Heartbeat v0"):
        serve(heartbeat(handle=handle), request_frame(12, 0, HeartbeatRequest()))


def test_a_parked_answer_is_encoded_when_it_is_ready(heartbeat) -> None:
    parked = Pending()
    dispatcher = heartbeat(handle=lambda *_: parked)
    assert serve(dispatcher, request_frame(12, 2, HeartbeatRequest())) is parked
    parked.complete(HeartbeatResponse(error_code=3))
    body = body_of(12, 2, dispatcher.encode(parked))
    assert codec.decode(HeartbeatResponse, body, 2).error_code == 3


def test_a_parked_answer_may_fail(heartbeat) -> None:
    parked = Pending()
    dispatcher = heartbeat(
        handle=lambda *_: parked,
        error_response=lambda code, body: HeartbeatResponse(error_code=code),
    )
    serve(dispatcher, request_frame(12, 2, HeartbeatRequest()))
    parked.fail(KafkaError(ErrorCode.NOT_COORDINATOR))
    body = body_of(12, 2, dispatcher.encode(parked))
    assert codec.decode(HeartbeatResponse, body, 2).error_code == ErrorCode.NOT_COORDINATOR


class Awaiter:
    def __init__(self) -> None:
        self.ready = asyncio.Event()

    def answer_ready(self, pending: Pending) -> None:
        self.ready.set()


def run_coroutine_handler(dispatcher: Dispatcher, frame: bytearray, reuse: bytes = b"") -> Any:
    async def run() -> Any:
        dispatcher._broker.loop = asyncio.get_running_loop()
        pending = serve(dispatcher, frame)
        assert pending.exclusive
        awaiter = Awaiter()
        pending.await_with(awaiter)
        frame[:] = bytes(len(frame))  # the receive buffer is used again
        await awaiter.ready.wait()
        return dispatcher.encode(pending)

    return asyncio.run(run())


def test_a_coroutine_handler_owns_its_message(heartbeat) -> None:
    async def handle(broker, request, body):
        request.body[:] = bytes(len(request.body))  # as the next frame does
        await asyncio.sleep(0)
        assert body.group_id == "g"
        return HeartbeatResponse(error_code=5)

    answer = run_coroutine_handler(
        heartbeat(handle=handle), request_frame(12, 4, HeartbeatRequest(group_id="g"))
    )
    assert codec.decode(HeartbeatResponse, body_of(12, 4, answer), 4).error_code == 5


def test_a_coroutine_handler_may_fail(heartbeat) -> None:
    async def handle(broker, request, body):
        raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)

    frame = request_frame(12, 4, HeartbeatRequest())
    answer = run_coroutine_handler(
        heartbeat(
            handle=handle, error_response=lambda code, body: HeartbeatResponse(error_code=code)
        ),
        frame,
    )
    assert codec.decode(HeartbeatResponse, body_of(12, 4, answer), 4).error_code == 27


def test_a_stopping_broker_gives_coroutine_handlers_a_while(heartbeat) -> None:
    async def handle(broker, request, body):
        await asyncio.get_running_loop().create_future()  # for ever

    async def run() -> None:
        dispatcher = heartbeat(handle=handle)
        dispatcher._broker.loop = asyncio.get_running_loop()
        pending = serve(dispatcher, request_frame(12, 0, HeartbeatRequest()))
        await dispatcher.drain(timeout=0)
        assert pending.done
        assert isinstance(pending.error, Disconnect)

    asyncio.run(run())


def test_metadata_of_every_version_reaches_its_handler(monkeypatch) -> None:
    monkeypatch.setattr(
        dispatch,
        "import_module",
        lambda name: SimpleNamespace(handle=lambda *_: MetadataResponse(controller_id=4)),
    )
    dispatcher = make_dispatcher()
    for version in range(13):
        answer = serve(dispatcher, request_frame(3, version, MetadataRequest(topics=[])))
        response = codec.decode(MetadataResponse, body_of(3, version, answer), version)
        assert response.controller_id == (4 if version else -1)


@pytest.mark.parametrize("key", HANDLERS)
def test_every_entry_has_its_handler(key: int) -> None:
    route = make_dispatcher()._routes[key]
    route.load()
    request_class, response_class = keys.message_classes(key)
    assert route.request_class is request_class
    for version in (route.min_version, route.max_version):
        assert request_class.MIN_VERSION <= version <= request_class.MAX_VERSION
        assert response_class.MIN_VERSION <= version <= response_class.MAX_VERSION
