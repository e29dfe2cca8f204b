"""The one thing the broker reads inside a consumer's metadata: which topics it subscribes to.

Every version of the consumer protocol begins as version 0 does (version INT16, array of topic
STRINGs), so this needs no knowledge of later ones. Used to keep offsets of topics in use
(OffsetDelete, and expiry after unsubscribing).
"""

from struct import Struct, error
from typing import Final

CONSUMER_PROTOCOL: Final = "consumer"

_VERSION_AND_COUNT: Final = Struct(">hi")
_LENGTH: Final = Struct(">h")


def subscribed_topics(metadata: bytes) -> frozenset[str] | None:
    """The topics of a consumer's subscription; None when the bytes are not one."""
    try:
        _, count = _VERSION_AND_COUNT.unpack_from(metadata, 0)
        position = _VERSION_AND_COUNT.size
        if count < 0 or count * _LENGTH.size > len(metadata) - position:
            return None
        topics = set()
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(metadata, position)
            position += _LENGTH.size
            if length < 0 or position + length > len(metadata):
                return None
            topics.add(metadata[position : position + length].decode())
            position += length
    except (error, UnicodeDecodeError):
        return None
    return frozenset(topics)
