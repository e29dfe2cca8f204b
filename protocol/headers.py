"""What stands before a message on the wire, and whole frames.

A frame is an int32 size, a header and a body. Request headers: v0 without client id (only
ControlledShutdown v0), v1 with it, v2 with a tagged section behind it (flexible versions; the
client id keeps its int16 length). Response headers: v0 is the correlation id, v1 adds a tagged
section; ApiVersions stays at v0 for good, because a client must be able to read the answer of a
broker that does not know the version it asked with (KIP-511).
"""

from struct import Struct as Packer
from struct import error as UnpackError
from typing import Final, NamedTuple

from kavka.protocol import codec
from kavka.protocol.errors import MalformedFrame
from kavka.protocol.keys import FLEXIBLE_SINCE
from kavka.protocol.primitives import read_uvarint, skip_tagged_fields
from kavka.protocol.schema import NEWEST, Buffer, Message

PRODUCE: Final = 0
CONTROLLED_SHUTDOWN: Final = 7
API_VERSIONS: Final = 18

_REQUEST: Final = Packer(">hhih")
_RESPONSE: Final = Packer(">i")
_SIZED_REQUEST_V0: Final = Packer(">ihhi")
_SIZED_REQUEST_V1: Final = Packer(">ihhih")
_SIZED_RESPONSE_V0: Final = Packer(">ii")
_SIZED_RESPONSE_V1: Final = Packer(">iiB")

# The highest version of ApiVersions whose header we can trust to be laid out as we think.
_NEWEST_API_VERSIONS: Final = 4
_TAGS_MAX: Final = 100  # Kafka has defined none so far
_NEVER: Final = NEWEST + 1


class RequestHeader(NamedTuple):
    """The header of a request; a client id that is null or left out reads as empty."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str


# Skips the generated constructor, which takes longer than the rest of the parsing.
_new_header: Final = tuple.__new__


def parse_request_header(buf: Buffer, offset: int = 0) -> tuple[RequestHeader, int]:
    """Read the request header at ``offset`` (behind the frame's size): it and the body's offset.

    Any key and version is read; whether they are served is for the caller to say. For ApiVersions
    of a version nobody knows yet the body offset lies behind the client id, and the rest of the
    frame has no known meaning. Raises MalformedFrame.
    """
    try:
        # Reads two bytes too many for ControlledShutdown v0, whose body is never that short.
        api_key, api_version, correlation_id, length = _REQUEST.unpack_from(buf, offset)
        pos = offset + 10
        client_id = ""
        if api_key == CONTROLLED_SHUTDOWN and api_version == 0:
            pos = offset + 8
        elif length > 0:
            pos += length
            client_id = str(buf[offset + 10 : pos], "utf-8", "replace")
        if api_version >= FLEXIBLE_SINCE.get(api_key, _NEVER) and not (
            api_key == API_VERSIONS and api_version > _NEWEST_API_VERSIONS
        ):
            pos = _skip_tags(buf, pos)
    except (IndexError, UnpackError) as error:
        raise MalformedFrame("the request header ends too early") from error
    if pos > len(buf):
        raise MalformedFrame("the request header ends too early")
    return _new_header(RequestHeader, (api_key, api_version, correlation_id, client_id)), pos


def _skip_tags(buf: Buffer, pos: int) -> int:
    count, pos = read_uvarint(buf, pos)
    if count > _TAGS_MAX:
        raise MalformedFrame(f"a header has {count} tagged fields")
    return skip_tagged_fields(buf, pos, count)


def encode_response(correlation_id: int, message: Message, version: int) -> bytes:
    """A whole response frame: size, response header of the right version, body."""
    body = codec.encode(message, version)
    assert message.API_KEY is not None
    return response_prefix(message.API_KEY, version, correlation_id, len(body)) + body


def response_prefix(key: int, version: int, correlation_id: int, body_size: int) -> bytes:
    """Size and response header of a frame whose body of ``body_size`` bytes is sent by itself."""
    if version >= FLEXIBLE_SINCE.get(key, _NEVER) and key != API_VERSIONS:
        return _SIZED_RESPONSE_V1.pack(body_size + 5, correlation_id, 0)
    return _SIZED_RESPONSE_V0.pack(body_size + 4, correlation_id)


def encode_request(
    key: int, version: int, correlation_id: int, client_id: str | None, message: Message
) -> bytes:
    """A whole request frame: size, request header of the right version, body."""
    body = codec.encode(message, version)
    if key == CONTROLLED_SHUTDOWN and version == 0:
        return _SIZED_REQUEST_V0.pack(len(body) + 8, key, version, correlation_id) + body
    name = b"" if client_id is None else client_id.encode()
    length = -1 if client_id is None else len(name)
    tags = b"\0" if message.is_flexible(version) else b""
    size = 10 + len(name) + len(tags) + len(body)
    head = _SIZED_REQUEST_V1.pack(size, key, version, correlation_id, length)
    return b"".join((head, name, tags, body))


def parse_response_header(key: int, version: int, buf: Buffer, offset: int = 0) -> tuple[int, int]:
    """Read the header of an answer to a request of our own: correlation id and body offset."""
    try:
        (correlation_id,) = _RESPONSE.unpack_from(buf, offset)
        pos = offset + 4
        if version >= FLEXIBLE_SINCE.get(key, _NEVER) and key != API_VERSIONS:
            pos = _skip_tags(buf, pos)
    except (IndexError, UnpackError) as error:
        raise MalformedFrame("the response header ends too early") from error
    if pos > len(buf):
        raise MalformedFrame("the response header ends too early")
    return correlation_id, pos
