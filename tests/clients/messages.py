"""The messages that every client library sends and must get back, and how to read stored bytes."""

from typing import NamedTuple

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
T0 = 1_600_000_000_000


class Message(NamedTuple):
    """What a client sees of one record."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


def sample(count: int = 60) -> list[Message]:
    """Keys, values and headers of all kinds: null, empty, repeated, binary, large."""
    messages = []
    for i in range(count):
        key = None if i % 5 == 0 else b"" if i % 5 == 1 else f"key-{i}".encode()
        value = bytes([i % 256]) * (1 + i * 37) if i % 7 else b""
        headers: tuple[tuple[str, bytes | None], ...] = ()
        if i % 3 == 0:
            headers = (("trace", f"{i}".encode()), ("trace", b"again"), ("leer", b""))
        messages.append(Message(key, value, headers, T0 + i))
    return messages


def plain(messages: list[Message]) -> list[Message]:
    """The messages as clients without headers know them."""
    return [message._replace(headers=()) for message in messages]
