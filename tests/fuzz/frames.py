"""Frames as bytes: real requests of every offered API and version, and what can be done to them."""

import random
import struct
from collections.abc import Callable
from typing import Final

from kavka.broker.dispatch import HANDLERS
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import MalformedFrame
from kavka.protocol.primitives import uvarint
from tests.fuzz.values import ADMINISTRATION, INTERNAL, TOPICS, Values

CLIENT_ID: Final = "fuzz"
HEADER_BYTES: Final = 4 + 8  # size, key, version, correlation id

OFFERED: Final = [
    (entry.key, version)
    for entry in HANDLERS.values()
    for version in range(entry.min_version, entry.max_version + 1)
]
"""Every API key and version that a broker offers."""
_OFFERED: Final = frozenset(OFFERED)

_SIZES: Final = (0, 1, 7, 8, 9, -1, -(2**31), 2**31 - 1, 104857600, 104857601, 65536, 0x47455420)
_NOT_UTF8: Final = bytes(0xFF if 0x20 < byte < 0x80 else byte for byte in range(256))
_FOREIGN: Final = (
    b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    bytes.fromhex("16030100c8010000c40303") + bytes(190),  # a TLS handshake
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\0" * 64,
    b"\xff" * 64,
)


class Frames:
    """Draws frames, size prefix included."""

    def __init__(self, rng: random.Random, values: Values) -> None:
        self._rng = rng
        self._values = values
        self._mutations: tuple[Callable[[bytearray], bytearray], ...] = (
            self._flip_bits,
            self._flip_bits,
            self._overwrite_number,
            self._overwrite_number,
            self._absurd_varint,
            self._cut,
            self._insert,
            self._remove,
            self._repeat,
            self._other_version,
            self._other_key,
            self._spoil_client_id,
            self._spoil_text,
        )

    def sound(self, api: tuple[int, int] | None = None) -> bytes:
        """A request as a client could send it, of one key and version or of any."""
        key, version = api or self._rng.choice(OFFERED)
        request = self._values.request(keys.message_classes(key)[0], version)
        client_id = self._rng.choice((CLIENT_ID, CLIENT_ID, None, "__admin_client", "x" * 1000))
        correlation_id = self._rng.getrandbits(31)
        return headers.encode_request(key, version, correlation_id, client_id, request)

    def mutated(self) -> bytes:
        """A request with some damage, in a frame whose size is right: decoders must bear it."""
        return self.damaged(self.sound())

    def damaged(self, sound: bytes) -> bytes:
        """A frame with some damage to its contents."""
        frame = bytearray(sound)
        for _ in range(self._rng.choice((1, 1, 1, 2, 4))):
            frame = self._rng.choice(self._mutations)(frame) or bytearray(4)
        frame[:4] = struct.pack(">i", len(frame) - 4)
        return bytes(frame)

    def lying(self) -> bytes:
        """A frame whose size is not that of its bytes."""
        frame = bytearray(self.sound())
        size = len(frame) - 4
        lie = self._rng.choice((*_SIZES, size - 1, size + 1, size * 2, size // 2))
        frame[:4] = struct.pack(">i", lie)
        return bytes(frame)

    def garbage(self) -> bytes:
        """No frame at all."""
        if self._rng.random() < 0.5:
            return self._rng.choice(_FOREIGN)
        return self._rng.randbytes(self._rng.choice((1, 3, 4, 11, 100, 2000)))

    def any(self) -> bytes:
        """One of all these, mostly such as are decoded."""
        frame = self._any()
        while is_sabotage(frame):
            frame = self._any()
        return frame

    def _any(self) -> bytes:
        draw = self._rng.random()
        if draw < 0.35:
            return self.sound()
        if draw < 0.9:
            return self.mutated()
        return self.lying() if draw < 0.96 else self.garbage()

    # -- mutations, on a frame with its size prefix ----------------------------------------

    def _place(self, frame: bytearray) -> int:
        """A position in the frame, seldom in the header that every mutation would wreck."""
        start = HEADER_BYTES if len(frame) > HEADER_BYTES and self._rng.random() < 0.95 else 0
        return self._rng.randrange(start, len(frame)) if len(frame) > start else 0

    def _flip_bits(self, frame: bytearray) -> bytearray:
        for _ in range(self._rng.choice((1, 1, 2, 8))):
            frame[self._place(frame)] ^= 1 << self._rng.randrange(8)
        return frame

    def _overwrite_number(self, frame: bytearray) -> bytearray:
        """What was there may have been a length, a count, a tag: it becomes a limit."""
        width = self._rng.choice((1, 2, 4, 4, 8))
        sign = 1 << (8 * width - 1)
        number = self._rng.choice(
            (0, 1, sign - 1, sign, 2 * sign - 1, 2 * sign - 2, 100_000 % sign)
        )
        at = self._place(frame)
        frame[at : at + width] = number.to_bytes(width)
        return frame

    def _absurd_varint(self, frame: bytearray) -> bytearray:
        at = self._place(frame)
        number = self._rng.choice((0x80, 0x4000, 2**28, 2**31, 2**32 - 1))
        frame[at : at + 1] = uvarint(number) if self._rng.random() < 0.8 else b"\xff" * 6
        return frame

    def _cut(self, frame: bytearray) -> bytearray:
        return frame[: max(self._place(frame), HEADER_BYTES)]

    def _insert(self, frame: bytearray) -> bytearray:
        at = self._place(frame)
        frame[at:at] = self._rng.randbytes(self._rng.choice((1, 2, 4, 60)))
        return frame

    def _remove(self, frame: bytearray) -> bytearray:
        at = self._place(frame)
        del frame[at : at + self._rng.choice((1, 2, 4, 20))]
        return frame

    def _repeat(self, frame: bytearray) -> bytearray:
        at = self._place(frame)
        piece = frame[at : at + self._rng.choice((4, 16, 64))]
        frame[at:at] = piece * self._rng.choice((1, 3, 50))
        return frame

    def _other_version(self, frame: bytearray) -> bytearray:
        frame[6:8] = struct.pack(">h", self._rng.choice((0, 1, 3, 9, 12, 17, -1, 2**15 - 1)))
        return frame

    def _other_key(self, frame: bytearray) -> bytearray:
        frame[4:6] = struct.pack(">h", self._rng.choice((*HANDLERS, -1, 93, 2**15 - 1)))
        return frame

    def _spoil_client_id(self, frame: bytearray) -> bytearray:
        length = self._rng.choice((-1, -2, -(2**15), 2**15 - 1, len(frame)))
        frame[12:14] = struct.pack(">h", max(min(length, 2**15 - 1), -(2**15)))
        return frame

    def _spoil_text(self, frame: bytearray) -> bytearray:
        """What follows is not UTF-8, and becomes longer where it is mended carelessly."""
        at = self._place(frame)
        length = self._rng.choice((1, 3, 300))
        return frame[:at] + frame[at : at + length].translate(_NOT_UTF8) + frame[at + length :]


def is_sabotage(frame: bytes) -> bool:
    """Whether the frame asks, in due form, for what breaks a promise to other clients.

    Without an authorizer everybody may delete the offsets of all groups, or demand replicas that
    there are not; the attack may not.
    """
    key = int.from_bytes(frame[4:6])
    if key not in ADMINISTRATION:
        return False
    if any(name.encode() in frame for name in INTERNAL):
        return True
    return b"min.insync.replicas" in frame and not any(name.encode() in frame for name in TOPICS)


def decodes(frame: bytes) -> bool:
    """Whether a broker can read the frame, so that it goes on to the one behind it."""
    if len(frame) < HEADER_BYTES + 2 or struct.unpack_from(">i", frame)[0] != len(frame) - 4:
        return False
    try:
        header, body = headers.parse_request_header(frame, 4)
        if (header.api_key, header.api_version) not in _OFFERED:
            return False
        codec.decode(keys.message_classes(header.api_key)[0], frame, header.api_version, body)
    except MalformedFrame:
        return False
    return True


def describe(frame: bytes) -> str:
    """A frame for a report: what it claims to be, what it says, and its bytes."""
    text = f"{len(frame)} bytes"
    if len(frame) >= HEADER_BYTES:
        _, key, version, correlation_id = struct.unpack_from(">ihhi", frame)
        text += f" {keys.api_name(key)} v{version} correlation_id={correlation_id}"
        if decodes(frame):
            _, body = headers.parse_request_header(frame, 4)
            message = codec.decode(keys.message_classes(key)[0], frame, version, body)
            text += f" {message!r:.3000}"
    return f"{text} {frame[:4000].hex()}"
