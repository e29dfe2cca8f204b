"""The checksum, and that loading it leaves the slow package alone."""

import subprocess
import sys
import zlib

from kavka.protocol.records.crc import crc32c


def test_check_values_of_both_polynomials() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert zlib.crc32(b"123456789") == 0xCBF43926


def test_goes_on_from_an_earlier_result() -> None:
    assert crc32c(b"456789", crc32c(b"123")) == 0xE3069283


def test_reads_any_buffer_in_place() -> None:
    framed = bytearray(b"xx123456789yy")
    assert crc32c(memoryview(framed)[2:11]) == crc32c(bytearray(b"123456789")) == 0xE3069283


def test_the_package_is_not_imported_and_still_can_be() -> None:
    script = (
        "import sys; from kavka.protocol.records.crc import crc32c as ours\n"
        "assert 'crc32c' not in sys.modules and 'importlib.metadata' not in sys.modules\n"
        "import crc32c; assert crc32c.crc32c(b'a') == ours(b'a')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
