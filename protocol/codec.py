"""Messages to bytes and back, by encoders and decoders compiled from the declarations.

    body = codec.encode(HeartbeatResponse(error_code=0), version=4)
    response = codec.decode(HeartbeatResponse, body, version=4)

Compiling costs about a millisecond for each class and version and happens at the first use.
"""

from collections.abc import Callable
from typing import TypeVar

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.schema import Buffer, Message

M = TypeVar("M", bound=Message)


def encode(message: Message, version: int) -> bytes:
    """The body of ``message``, without header. ValueError names a field that does not fit."""
    try:
        encoder = message.ENCODERS[version]
    except KeyError:
        encoder = _add_encoder(type(message), version)
    return encoder(message)


def decode(cls: type[M], buf: Buffer, version: int, offset: int = 0) -> M:
    """Read a body from ``offset`` on; what follows it is ignored.

    Record data comes as memoryviews of ``buf``, everything else is copied. MalformedFrame tells
    of bytes that are cut off or senseless.
    """
    try:
        decoder = cls.DECODERS[version]
    except KeyError:
        decoder = _add_decoder(cls, version)
    message: M = decoder(buf, offset)
    return message


def encoder(cls: type[M], version: int) -> Callable[[M], bytes]:
    """The compiled function behind ``encode``."""
    return cls.ENCODERS.get(version) or _add_encoder(cls, version)


def decoder(cls: type[M], version: int) -> Callable[..., M]:
    """The compiled function behind ``decode``; takes the buffer and, optionally, the offset."""
    return cls.DECODERS.get(version) or _add_decoder(cls, version)


def _add_encoder(cls: type[Message], version: int) -> Callable[..., bytes]:
    _check(cls, version)
    # Imported late: a process that only declares messages needs no compiler.
    from kavka.protocol.encoding import compile_encoder

    made = cls.ENCODERS[version] = compile_encoder(cls, version)
    return made


def _add_decoder(cls: type[M], version: int) -> Callable[..., M]:
    _check(cls, version)
    from kavka.protocol.decoding import compile_decoder

    made = cls.DECODERS[version] = compile_decoder(cls, version)
    return made


def _check(cls: type[Message], version: int) -> None:
    if not cls.MIN_VERSION <= version <= cls.MAX_VERSION:
        raise KafkaError(
            ErrorCode.UNSUPPORTED_VERSION,
            f"{cls.__name__} has versions {cls.MIN_VERSION} to {cls.MAX_VERSION}, not {version}",
        )
