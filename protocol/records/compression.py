"""The four codecs of record batches, as Kafka's Java reader and writer understand them.

Decompression never yields more than ``limit`` bytes: a bomb stops there, and what was allocated
by then stays of the order of the limit. Codec libraries are imported when first met.

* gzip: RFC 1952, several members one after the other allowed.
* snappy: the xerial stream (header, then blocks with an int32 length each) or one bare block;
  Java writes the former, several C and Go clients the latter.
* lz4: the LZ4 frame in 64 KiB independent blocks without checksums or content size. Message
  format 0 carries a famous bug: the header checksum is taken over the frame's magic too. Old
  clients verify the wrong one, so it is written for magic 0, and not verified on reading there.
* zstd: plain frames; only in record batches, from Produce 7 and Fetch 10 on (KIP-110).
"""

from collections.abc import Callable
from importlib import import_module
from struct import Struct
from typing import Any, Final

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.crc import Buffer

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4

NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""Codec names by id, as clients' configurations and reports spell them."""

_BY_SETTING: Final = {
    "uncompressed": NONE,
    "gzip": GZIP,
    "snappy": SNAPPY,
    "lz4": LZ4,
    "zstd": ZSTD,
}


def codec_of_setting(compression_type: str) -> int | None:
    """The codec a topic's ``compression.type`` forces; None for ``producer``, which keeps any."""
    return None if compression_type == "producer" else _BY_SETTING[compression_type]


class _TooLarge(Exception):
    """The stream holds more than the limit; raised inside, told to the caller as KafkaError."""


def _untyped(name: str) -> Any:
    """A codec library that has no usable types."""
    return import_module(name)


# gzip -------------------------------------------------------------------------------------------

_GZIP_WBITS: Final = 31  # zlib's number for "15 bits of window, gzip wrapper"
_GZIP_CHUNK: Final = 64 * 1024  # zlib copies what follows a member: keep that small
_GZIP_MAX_MEMBERS: Final = 1000


def _gzip_compress(data: Buffer, level: int | None, magic: int) -> bytes:
    import zlib

    stream = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, _GZIP_WBITS)
    return stream.compress(data) + stream.flush()


def _gzip_decompress(data: memoryview, limit: int, magic: int) -> bytes:
    import zlib

    parts: list[bytes] = []
    total = 0
    at = 0
    for _ in range(_GZIP_MAX_MEMBERS):
        stream = zlib.decompressobj(_GZIP_WBITS)
        pending: Buffer = b""
        while not stream.eof:
            if not pending:
                if at >= len(data):
                    raise ValueError("the gzip stream ends too early")
                pending = data[at : at + _GZIP_CHUNK]
                at += len(pending)
            part = stream.decompress(pending, limit - total + 1)
            pending = stream.unconsumed_tail
            total += len(part)
            if total > limit:
                raise _TooLarge
            parts.append(part)
        at -= len(stream.unused_data)
        if bytes(data[at : at + 2]) != b"\x1f\x8b":  # Java's reader ignores what is no member
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise ValueError("the gzip stream has too many members")


# snappy -----------------------------------------------------------------------------------------

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"  # version, compatible
_XERIAL_BLOCK: Final = 32 * 1024  # uncompressed bytes of a block, as Java's writer cuts
_SNAPPY_MAX_RATIO: Final = 22  # a three-byte copy element yields at most 64 bytes
_INT32: Final = Struct(">i")


def _snappy_compress(data: Buffer, level: int | None, magic: int) -> bytes:
    snappy = _untyped("snappy")
    view = memoryview(data)
    parts = [_XERIAL_HEADER]
    for at in range(0, len(view), _XERIAL_BLOCK):
        block = snappy.compress(view[at : at + _XERIAL_BLOCK])
        parts.append(_INT32.pack(len(block)))
        parts.append(block)
    return b"".join(parts)


def _snappy_block(block: memoryview, limit: int) -> bytes:
    snappy = _untyped("snappy")
    declared = 0
    for index in range(min(5, len(block))):
        byte = block[index]
        declared |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    else:
        raise ValueError("a snappy block has no length")
    if declared > limit:
        raise _TooLarge
    if declared > len(block) * _SNAPPY_MAX_RATIO:  # before anything of that size is allocated
        raise ValueError("a snappy block declares more than it can hold")
    result: bytes = snappy.decompress(block)
    return result


def _snappy_decompress(data: memoryview, limit: int, magic: int) -> bytes:
    if bytes(data[:8]) != _XERIAL_MAGIC:
        return _snappy_block(data, limit)
    parts: list[bytes] = []
    total = 0
    at = 0
    while at < len(data):
        if bytes(data[at : at + 8]) == _XERIAL_MAGIC:  # at the start, or a stream put behind one
            at += len(_XERIAL_HEADER)
            continue
        if len(data) - at < 4:
            raise ValueError("the snappy stream ends inside a block length")
        (length,) = _INT32.unpack_from(data, at)
        at += 4
        if not 0 < length <= len(data) - at:
            raise ValueError("a snappy block passes the end of its stream")
        part = _snappy_block(data[at : at + length], limit - total)
        total += len(part)
        parts.append(part)
        at += length
    return b"".join(parts)


# lz4 --------------------------------------------------------------------------------------------

_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
_LZ4_BLOCK_64K: Final = 4
_LZ4_DEFAULT_LEVEL: Final = 9  # of `compression.lz4.level`: means the fast compressor (KIP-390)
_LZ4_MAX_LEVEL: Final = 16  # the library's; Kafka's 17 is the same
_XXH_PRIMES: Final = (2654435761, 2246822519, 3266489917, 668265263, 374761393)
_U32: Final = 0xFFFFFFFF


def _xxh32_short(data: bytes) -> int:
    """xxHash32 with seed 0 of fewer than 16 bytes, all that an LZ4 header checksum needs."""
    assert len(data) < 16
    p1, p2, p3, p4, p5 = _XXH_PRIMES
    value = p5 + len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        value = (value + int.from_bytes(data[at : at + 4], "little") * p3) & _U32
        value = (value << 17 | value >> 15) & _U32
        value = value * p4 & _U32
    for byte in data[whole:]:
        value = (value + byte * p5) & _U32
        value = (value << 11 | value >> 21) & _U32
        value = value * p1 & _U32
    value ^= value >> 15
    value = value * p2 & _U32
    value ^= value >> 13
    value = value * p3 & _U32
    return value ^ value >> 16


def lz4_header_checksum(descriptor: bytes) -> int:
    """The HC byte for a frame descriptor (FLG, BD, content size)."""
    return _xxh32_short(descriptor) >> 8 & 0xFF


def _lz4_compress(data: Buffer, level: int | None, magic: int) -> bytes:
    frames = _untyped("lz4.frame")
    frame: bytes = frames.compress(
        data,
        compression_level=(
            0 if level is None or level == _LZ4_DEFAULT_LEVEL else min(level, _LZ4_MAX_LEVEL)
        ),
        block_size=_LZ4_BLOCK_64K,
        block_linked=False,
        store_size=False,
    )
    if magic > 0:
        return frame
    return b"".join((frame[:6], bytes([lz4_header_checksum(frame[:6])]), frame[7:]))


def _lz4_decompress(data: memoryview, limit: int, magic: int) -> bytes:
    frames = _untyped("lz4.frame")
    if bytes(data[:4]) != _LZ4_MAGIC or len(data) < 7:
        raise ValueError("no LZ4 frame")
    flags = data[4]
    if flags & 0xE3 != 0x60:
        raise ValueError("the LZ4 frame is not version 1 with independent blocks")
    checksum_at = 14 if flags & 0x08 else 6  # behind the content size, where there is one
    source: Buffer = data
    if magic == 0 and checksum_at < len(data):
        patched = bytearray(data)
        patched[checksum_at] = lz4_header_checksum(bytes(data[4:checksum_at]))
        source = patched
    stream = frames.LZ4FrameDecompressor()
    result: bytes = stream.decompress(source, max_length=limit + 1)
    if len(result) > limit:
        raise _TooLarge
    if not stream.eof:
        raise ValueError("the LZ4 frame ends too early")
    return result


# zstd -------------------------------------------------------------------------------------------

_ZSTD_MAX_WINDOW: Final = 1 << 27  # bytes; what Java's and C's readers accept by default
_ZSTD_CHUNK: Final = 1024  # a four-byte block can hold 128 KiB: one piece yields 32 MiB at most


def _zstd_compress(data: Buffer, level: int | None, magic: int) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3 if level is None else level).compress(data)


def _zstd_decompress(data: memoryview, limit: int, magic: int) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    parts: list[bytes] = []
    total = 0
    at = 0
    while True:
        stream = decompressor.decompressobj()
        while not stream.eof:
            if at >= len(data):
                raise ValueError("the zstd stream ends too early")
            part = stream.decompress(data[at : at + _ZSTD_CHUNK])
            at = min(at + _ZSTD_CHUNK, len(data))
            total += len(part)
            if total > limit:
                raise _TooLarge
            parts.append(part)
        at -= len(stream.unused_data)
        if at >= len(data):
            return b"".join(parts)


# ------------------------------------------------------------------------------------------------

_Compress = Callable[[Buffer, int | None, int], bytes]
_Decompress = Callable[[memoryview, int, int], bytes]

_CODECS: Final[dict[int, tuple[_Compress, _Decompress]]] = {
    GZIP: (_gzip_compress, _gzip_decompress),
    SNAPPY: (_snappy_compress, _snappy_decompress),
    LZ4: (_lz4_compress, _lz4_decompress),
    ZSTD: (_zstd_compress, _zstd_decompress),
}


def compress(codec: int, data: Buffer, level: int | None = None, magic: int = 2) -> bytes:
    """Compress ``data`` for a batch of format ``magic``; ``level`` None is the codec's default.

    A level is on the codec's own scale (gzip -1–9, lz4 1–17, zstd -131072–22; snappy has none).
    """
    if codec == NONE:
        return bytes(data)
    assert codec in _CODECS, codec
    assert codec != ZSTD or magic == 2, "zstd exists only in record batches"
    return _CODECS[codec][0](data, level, magic)


def decompress(codec: int, data: Buffer, limit: int, magic: int = 2) -> bytes:
    """Decompress a batch's records; the result is at most ``limit`` bytes.

    Raises KafkaError: CORRUPT_MESSAGE for a stream that is broken, cut short or larger than
    ``limit``; UNSUPPORTED_COMPRESSION_TYPE for a codec that does not exist in format ``magic``.
    """
    assert limit >= 0, limit  # zlib takes a bound below 1 for none at all
    if codec == NONE:
        if len(data) > limit:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"the records exceed {limit} bytes")
        return bytes(data)
    if codec not in _CODECS or (codec == ZSTD and magic < 2):
        raise KafkaError(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
            f"codec {codec} does not exist in message format {magic}",
        )
    try:
        return _CODECS[codec][1](memoryview(data), limit, magic)
    except _TooLarge:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE,
            f"the {NAMES[codec]} records exceed {limit} bytes when decompressed",
        ) from None
    except Exception as error:  # every codec library has its own exception classes
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"the {NAMES[codec]} records cannot be decompressed: {error}"
        ) from error
