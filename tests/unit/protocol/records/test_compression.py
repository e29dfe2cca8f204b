"""Codecs: round trips, the formats other clients write, bombs that stop, bytes that lie."""

import gzip
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import compression as c
from kavka.protocol.records.compression import GZIP, LZ4, NONE, SNAPPY, ZSTD, compress, decompress

LIMIT = 1 << 24
CODECS = [GZIP, SNAPPY, LZ4, ZSTD]
COMPRESSIBLE = b"0123456789abcdef" * 10_000


def error_of(codec: int, data: bytes, limit: int = LIMIT, magic: int = 2) -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        decompress(codec, data, limit, magic)
    return caught.value.code


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([NONE, *CODECS]), st.binary(max_size=2000), st.integers(1, 60))
def test_round_trip(codec: int, seed: bytes, times: int) -> None:
    data = seed * times
    packed = compress(codec, data)
    assert decompress(codec, packed, len(data)) == data
    assert decompress(codec, memoryview(packed), len(data)) == data
    if data:
        assert error_of(codec, packed, len(data) - 1) is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize(
    ("codec", "level"),
    [(GZIP, 1), (GZIP, 9), (LZ4, 1), (LZ4, 9), (LZ4, 17), (ZSTD, -5), (ZSTD, 19), (SNAPPY, 3)],
)
def test_levels(codec: int, level: int) -> None:
    assert decompress(codec, compress(codec, COMPRESSIBLE, level), LIMIT) == COMPRESSIBLE


def test_lz4_level_9_means_the_fast_compressor() -> None:
    data = os.urandom(100) * 50 + COMPRESSIBLE
    assert compress(LZ4, data, 9) == compress(LZ4, data)


def test_setting_names() -> None:
    assert c.codec_of_setting("producer") is None
    names = ["uncompressed", "gzip", "snappy", "lz4", "zstd"]
    assert [c.codec_of_setting(name) for name in names] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("codec", CODECS)
def test_cut_off_streams(codec: int) -> None:
    packed = compress(codec, os.urandom(300) + COMPRESSIBLE)
    for end in {0, 1, 5, 17, len(packed) // 2, len(packed) - 5, len(packed) - 1}:
        assert error_of(codec, packed[:end]) is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_codecs_that_do_not_exist(codec: int) -> None:
    assert error_of(codec, b"abc") is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


def test_zstd_does_not_exist_in_old_formats() -> None:
    packed = compress(ZSTD, b"abc")
    for magic in (0, 1):
        assert error_of(ZSTD, packed, magic=magic) is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


def test_codec_libraries_are_imported_when_met() -> None:
    script = (
        "import sys, kavka.protocol.records.compression as c\n"
        "assert not {'lz4', 'snappy', 'zstandard', 'zlib'} & set(sys.modules)\n"
        "c.compress(3, b'abc')\n"
        "assert 'lz4' in sys.modules and not {'snappy', 'zstandard'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# -- what others write ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
def test_client_libraries_and_we_read_each_other(name: str) -> None:
    import aiokafka.codec
    import kafka.codec

    codec = c.NAMES.index(name)
    for library in (kafka.codec, aiokafka.codec):
        theirs: Any = library
        for data in (b"", b"a", COMPRESSIBLE, os.urandom(70_000)):
            packed = bytes(getattr(theirs, f"{name}_encode")(data))
            assert decompress(codec, packed, LIMIT) == data
            if data:
                unpacked = getattr(theirs, f"{name}_decode")(compress(codec, data))
                assert bytes(unpacked) == data


def test_gzip_members_follow_each_other() -> None:
    packed = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(COMPRESSIBLE)
    assert decompress(GZIP, packed, LIMIT) == b"one" + COMPRESSIBLE
    assert decompress(GZIP, gzip.compress(b"one") + b"rubbish", LIMIT) == b"one"


def test_gzip_members_are_counted() -> None:
    assert error_of(GZIP, gzip.compress(b"") * 2000) is ErrorCode.CORRUPT_MESSAGE


XERIAL = bytes.fromhex("82534e41505059000000000100000001")


def test_xerial_stream() -> None:
    import snappy

    data = os.urandom(50_000)
    packed = compress(SNAPPY, data)
    assert packed[:16] == XERIAL
    first = int.from_bytes(packed[16:20], "big")
    assert snappy.decompress(packed[20 : 20 + first]) == data[: 32 * 1024]
    second = int.from_bytes(packed[20 + first : 24 + first], "big")
    assert snappy.decompress(packed[24 + first :]) == data[32 * 1024 :]
    assert len(packed) == 24 + first + second
    assert decompress(SNAPPY, packed, LIMIT) == data


def test_raw_snappy_and_streams_behind_each_other() -> None:
    import snappy

    assert decompress(SNAPPY, snappy.compress(COMPRESSIBLE), LIMIT) == COMPRESSIBLE
    assert decompress(SNAPPY, snappy.compress(b""), LIMIT) == b""
    assert decompress(SNAPPY, XERIAL, LIMIT) == b""
    twice = compress(SNAPPY, b"one") + compress(SNAPPY, b"two")
    assert decompress(SNAPPY, twice, LIMIT) == b"onetwo"


@pytest.mark.parametrize(
    "packed",
    [
        XERIAL + b"\0\0\0\xff\x01\x00a",  # block past the end
        XERIAL + b"\xff\xff\xff\xff\x01\x00a",
        XERIAL + b"\0\0\0\0",
        XERIAL + b"\0\0",
        XERIAL[:12],
        b"\xff\xff\xff\xff\xff\x01",  # a length of more than five bytes
        b"\x80\x80\x04" + b"\x00a",  # 64 KiB from two bytes
    ],
)
def test_snappy_streams_that_lie(packed: bytes) -> None:
    if packed == XERIAL[:12]:
        assert decompress(SNAPPY, packed, LIMIT) == b""  # a header and no block
        return
    assert error_of(SNAPPY, packed) is ErrorCode.CORRUPT_MESSAGE


TEN_A = bytes.fromhex("04224d186040820a0000806161616161616161616100000000")


def test_lz4_frame_vector() -> None:
    assert compress(LZ4, b"a" * 10) == TEN_A
    assert c.lz4_header_checksum(b"\x60\x40") == 0x82
    assert decompress(LZ4, TEN_A, LIMIT) == b"a" * 10


def test_lz4_of_magic_0_has_the_wrong_checksum() -> None:
    wrong = bytes.fromhex("04224d1860401a") + TEN_A[7:]
    assert compress(LZ4, b"a" * 10, magic=0) == wrong
    assert c.lz4_header_checksum(b"\x04\x22\x4d\x18\x60\x40") == 0x1A
    assert compress(LZ4, b"a" * 10, magic=1) == TEN_A
    for frame in (wrong, TEN_A, bytes.fromhex("04224d18604000") + TEN_A[7:]):
        assert decompress(LZ4, frame, LIMIT, magic=0) == b"a" * 10
    for magic in (1, 2):
        assert error_of(LZ4, wrong, magic=magic) is ErrorCode.CORRUPT_MESSAGE


def test_lz4_content_size_and_checksums_are_read() -> None:
    import lz4.frame

    for magic in (0, 1, 2):
        frame = lz4.frame.compress(
            COMPRESSIBLE,
            block_linked=False,
            store_size=True,
            content_checksum=True,
            block_checksum=True,
        )
        if magic == 0:
            frame = frame[:14] + b"\x00" + frame[15:]
        assert decompress(LZ4, frame, LIMIT, magic=magic) == COMPRESSIBLE


def test_lz4_frames_java_cannot_read_are_refused() -> None:
    import lz4.frame

    linked = lz4.frame.compress(COMPRESSIBLE, block_linked=True)
    version_2 = TEN_A[:4] + b"\xa0" + TEN_A[5:]
    for frame in (linked, version_2, b"\x02\x21\x4c\x18" + TEN_A[4:], TEN_A[:6]):
        assert error_of(LZ4, frame) is ErrorCode.CORRUPT_MESSAGE


def test_zstd_frames_follow_each_other() -> None:
    import zstandard

    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(COMPRESSIBLE)
    packed = compress(ZSTD, b"one") + streamed + compress(ZSTD, b"")
    assert decompress(ZSTD, packed, LIMIT) == b"one" + COMPRESSIBLE
    assert error_of(ZSTD, packed + b"\0") is ErrorCode.CORRUPT_MESSAGE


# -- bombs ------------------------------------------------------------------------------------

BOMB_BYTES = 200 * 1024 * 1024
BOMB_SCRIPT = """
import re, sys
from kavka.protocol.errors import KafkaError
from kavka.protocol.records.compression import compress, decompress

def peak():  # not ru_maxrss, which starts with the parent's
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) * 1024

codec, limit = int(sys.argv[1]), 1024 * 1024
decompress(codec, compress(codec, bytes(100)), limit)  # the library itself takes memory
bomb = sys.stdin.buffer.read()
before = peak()
try:
    decompress(codec, bomb, limit)
except KafkaError as error:
    print(error.code.name, peak() - before)
"""


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_stops_with_bounded_memory(codec: int) -> None:
    bomb = compress(codec, bytes(BOMB_BYTES), 1)
    # In a process of its own: the peak of this one is that of the bomb's making.
    run = subprocess.run(
        [sys.executable, "-c", BOMB_SCRIPT, str(codec)], input=bomb, capture_output=True, check=True
    )
    name, grown = run.stdout.split()
    assert name == b"CORRUPT_MESSAGE"
    assert int(grown) < 64 * 1024 * 1024


def test_a_snappy_block_that_only_claims_to_be_large() -> None:
    import snappy

    block = bytearray(snappy.compress(bytes(100)))
    huge = b"\xff\xff\xff\xff\x0f" + block[1:]  # 4 GiB
    assert error_of(SNAPPY, bytes(huge)) is ErrorCode.CORRUPT_MESSAGE
    assert error_of(SNAPPY, bytes(huge), 1 << 33) is ErrorCode.CORRUPT_MESSAGE


# -- hostile bytes ----------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(CODECS),
    st.binary(min_size=1, max_size=300),
    st.sampled_from([0, 1, 2]),
    st.data(),
)
def test_mutated_streams(codec: int, seed: bytes, magic: int, data: st.DataObject) -> None:
    packed = bytearray(compress(codec, seed * 3, magic=2 if codec == ZSTD else magic))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(decompress(codec, packed, 1 << 16, magic)) <= 1 << 16
    except KafkaError as error:
        assert error.code in (
            ErrorCode.CORRUPT_MESSAGE,
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        )


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CODECS), st.binary(max_size=200))
def test_random_bytes(codec: int, junk: bytes) -> None:
    try:
        decompress(codec, junk, 1 << 16)
    except KafkaError as error:
        assert error.code is ErrorCode.CORRUPT_MESSAGE
