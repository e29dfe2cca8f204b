"""Request and response headers, whole frames, the exceptions to the rules."""

import struct
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol import codec, headers
from kavka.protocol.errors import MalformedFrame
from kavka.protocol.headers import RequestHeader, encode_request, encode_response
from kavka.protocol.messages.k07_controlled_shutdown import ControlledShutdownRequest
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse
from kavka.protocol.messages.k18_api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
)
from kavka.protocol.messages.k47_offset_delete import OffsetDeleteRequest
from tests.unit.protocol.kio_oracle import kio_encode

API_VERSIONS_V3 = "0000001700120003000000070003636c6900046c696204312e3000"


def test_api_versions_request() -> None:
    request = ApiVersionsRequest(client_software_name="lib", client_software_version="1.0")
    frame = encode_request(18, 3, 7, "cli", request)
    assert frame.hex() == API_VERSIONS_V3
    header, body = headers.parse_request_header(frame, 4)
    assert header == RequestHeader(18, 3, 7, "cli")
    assert codec.decode(ApiVersionsRequest, frame, 3, body) == request


def test_api_versions_answers_keep_the_old_header() -> None:
    refusal = ApiVersionsResponse(
        error_code=35, api_keys=[ApiVersion(api_key=18, min_version=0, max_version=2)]
    )
    assert encode_response(7, refusal, 0).hex() == "0000001000000007002300000001001200000002"
    offer = ApiVersionsResponse(
        api_keys=[
            ApiVersion(api_key=0, min_version=0, max_version=7),
            ApiVersion(api_key=18, min_version=0, max_version=3),
        ]
    )
    frame = "0000001a0000000700000300000000000700001200000003000000000000"
    assert encode_response(7, offer, 3).hex() == frame


@pytest.mark.parametrize("version", [5, 99])
def test_api_versions_of_the_future_is_read_up_to_the_client_id(version: int) -> None:
    frame = struct.pack(">hhih", 18, version, 7, 3) + b"cli" + b"\xff\xff\xff"
    header, _ = headers.parse_request_header(frame)
    assert header == RequestHeader(18, version, 7, "cli")


@pytest.mark.parametrize(("version", "body"), [(3, 11), (4, 12)])
def test_the_header_follows_the_version(version: int, body: int) -> None:
    frame = encode_request(12, version, 9, "c", HeartbeatRequest(group_id="g"))
    assert struct.unpack_from(">i", frame) == (len(frame) - 4,)
    assert headers.parse_request_header(frame, 4) == (RequestHeader(12, version, 9, "c"), 4 + body)


def test_a_response_header_is_flexible_with_its_body() -> None:
    assert encode_response(5, HeartbeatResponse(), 3).hex() == "0000000a" + "00000005" + "00" * 6
    assert encode_response(5, HeartbeatResponse(), 4).hex() == "0000000c" + "00000005" + "00" * 8
    for version in (3, 4):
        frame = encode_response(5, HeartbeatResponse(error_code=27), version)
        correlation_id, body = headers.parse_response_header(12, version, frame, 4)
        assert correlation_id == 5
        assert codec.decode(HeartbeatResponse, frame, version, body).error_code == 27


def test_a_key_that_is_never_flexible() -> None:
    frame = encode_request(47, 0, 1, "c", OffsetDeleteRequest(group_id="g"))
    assert headers.parse_request_header(frame, 4)[1] == 4 + 11


def test_controlled_shutdown_v0_has_no_client_id() -> None:
    request = ControlledShutdownRequest(broker_id=3)
    frame = encode_request(7, 0, 9, "ignored", request)
    assert frame.hex() == "0000000c" + "00070000" + "00000009" + "00000003"
    assert headers.parse_request_header(frame, 4) == (RequestHeader(7, 0, 9, ""), 12)


@pytest.mark.parametrize("client_id", [None, ""])
def test_no_client_id_reads_as_empty(client_id: str | None) -> None:
    frame = encode_request(12, 0, 9, client_id, HeartbeatRequest())
    header, body = headers.parse_request_header(frame, 4)
    assert header.client_id == ""
    assert codec.decode(HeartbeatRequest, frame, 0, body) == HeartbeatRequest()


def test_tagged_fields_of_a_header_are_skipped() -> None:
    head = struct.pack(">hhih", 12, 4, 9, 1) + b"c" + b"\x01\x05\x02xy"
    assert headers.parse_request_header(head + b"body") == (RequestHeader(12, 4, 9, "c"), len(head))
    answer = struct.pack(">i", 9) + b"\x01\x05\x02xy"
    assert headers.parse_response_header(12, 4, answer + b"body") == (9, len(answer))


def test_unknown_keys_are_read_with_the_plain_header() -> None:
    frame = struct.pack(">hhih", 9999, 3, 7, 1) + b"c"
    assert headers.parse_request_header(frame)[0] == RequestHeader(9999, 3, 7, "c")


@pytest.mark.parametrize("version", [3, 4])
def test_every_cut_header_is_malformed(version: int) -> None:
    frame = struct.pack(">hhih", 12, version, 9, 6) + b"client" + b"\x01\x05\x02xy"
    end = headers.parse_request_header(frame)[1]
    for size in range(end):
        with pytest.raises(MalformedFrame):
            headers.parse_request_header(frame[:size])


def test_a_cut_response_header_is_malformed() -> None:
    frame = encode_response(5, HeartbeatResponse(), 4)[4:]
    for size in range(5):
        with pytest.raises(MalformedFrame):
            headers.parse_response_header(12, 4, frame[:size])


@settings(max_examples=50, deadline=None, database=None)
@given(
    correlation_id=st.integers(-(1 << 31), (1 << 31) - 1),
    client_id=st.none() | st.text(max_size=10),
    version=st.sampled_from([3, 4]),
)
def test_request_headers_are_kios(correlation_id: int, client_id: str | None, version: int) -> None:
    module = import_module(f"kio.schema.request_header.v{version - 2}.header")
    theirs = module.RequestHeader(
        request_api_key=12,
        request_api_version=version,
        correlation_id=correlation_id,
        client_id=client_id,
    )
    request = HeartbeatRequest(group_id="g")
    frame = encode_request(12, version, correlation_id, client_id, request)
    assert frame[4:] == kio_encode(theirs) + codec.encode(request, version)
