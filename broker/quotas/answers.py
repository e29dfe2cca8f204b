"""Put a throttle time into an answer, whatever form the handler gave it."""

from struct import Struct
from typing import TYPE_CHECKING, Final, cast

from kavka.broker.request import Raw
from kavka.protocol import codec, keys

if TYPE_CHECKING:
    from kavka.broker.request import Response
    from kavka.protocol.schema import Message

FIELD: Final = "throttle_time_ms"
MS_MAX: Final = 2**31 - 1
_INT32: Final = Struct(">i")


def with_throttle(key: int, version: int, response: "Response", ms: int) -> "Response":
    """``response`` with a throttle time of at least ``ms`` where its version has a place for it."""
    if response is None:
        return None
    if isinstance(response, Raw):
        if not _comes_first(key, version):
            return response
        head, *rest = response.parts
        assert isinstance(head, bytes | bytearray), "the throttle time is in the first part"
        return Raw([_patched(head, ms), *rest])
    if isinstance(response, bytes):
        if _comes_first(key, version):
            return _patched(response, ms)
        message = codec.decode(keys.message_classes(key)[1], memoryview(response), version)
        return codec.encode(_set(message, ms), version)
    return _set(response, ms)


def _comes_first(key: int, version: int) -> bool:
    """Whether responses of this version begin with the throttle time, as most do."""
    fields = keys.message_classes(key)[1].FIELDS
    first = next((each for each in fields if each.present(version) and each.tag is None), None)
    return first is not None and first.name == FIELD


def _patched(body: bytes | bytearray, ms: int) -> bytes:
    told = _INT32.unpack_from(body)[0]
    return _INT32.pack(max(told, ms)) + body[_INT32.size :]


def _set(message: "Message", ms: int) -> "Message":
    told = cast("int | None", getattr(message, FIELD, None))
    if told is not None:
        setattr(message, FIELD, max(told, ms))
    return message
