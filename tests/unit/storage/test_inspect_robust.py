"""The inspecting commands on files that are anything, and on files that are large."""

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from kavka.protocol.records import legacy
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.records.crc import crc32c
from kavka.storage.inspect.batches import LogReader
from kavka.storage.inspect.check import check_directory
from kavka.storage.inspect.decoders import decode_offsets_record, decode_transaction_record
from kavka.storage.inspect.dump import Dumper, Options
from kavka.storage.inspect.dump_log import LogOptions
from tests.unit.storage.inspect_support import FS, NOW, write_directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "data"
    write_directory(str(directory))
    old = directory / "old-0"
    old.mkdir()
    records = [Record(n, NOW + n, b"\0\1\0\1g\0\1t\0\0\0\0", b"\0\3" + bytes(40)) for n in range(8)]
    (old / f"{0:020}.log").write_bytes(
        legacy.build_message_set(records[:2], 0)
        + legacy.build_message_set(records[2:4], 1, codec=1)
        + legacy.build_message_set(records[4:6], 1, codec=3)
        + build_batch(records[6:], base_offset=6)
    )
    return directory


def scribble(content: bytes, rng: random.Random) -> bytes:
    """Damage of many kinds."""
    data = bytearray(content)
    kind = rng.randrange(6)
    if kind == 0 or not data:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 2:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(rng.randrange(40))
        return bytes(data)
    for _ in range(rng.choice((1, 1, 4))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def mend_checksum(data: bytes) -> bytes:
    """Make the first batch pass for good, so that what is in it is looked at."""
    size = int.from_bytes(data[8:12], "big") + 12
    if len(data) > 61 and data[16] == 2 and 61 <= size <= len(data):
        return data[:17] + crc32c(data[21:size]).to_bytes(4, "big") + data[21:]
    return data


@pytest.mark.parametrize("seed", range(3))
def test_nothing_in_a_file_ends_with_a_stack_trace(data: Path, seed: int) -> None:
    rng = random.Random(seed)
    told: list[str] = []
    paths = sorted(path for path in data.rglob("*") if path.is_file())
    for _ in range(40):
        path = rng.choice(paths)
        whole = path.read_bytes()
        damaged = scribble(whole, rng)
        path.write_bytes(mend_checksum(damaged) if path.suffix == ".log" else damaged)
        told.clear()
        check_directory(FS, str(data), lambda finding: told.append(str(finding)), deep=True)
        for decoder in (None, decode_offsets_record, decode_transaction_record):
            log = LogOptions(deep=True, data=True, decoder=decoder)
            dumper = Dumper(FS, Options(log), told.append, told.append)
            dumper.dump(str(path))
            dumper.finish()
        for line in told:
            assert line.encode() and "\n" not in line
        path.write_bytes(whole)


def large_batch(offset: int, size: int) -> bytes:
    return build_batch([Record(offset, NOW, None, b"x" * size)], base_offset=offset)


@pytest.mark.parametrize("size", [262_000, 262_144 - 61, 262_144, 900_000])
def test_batches_larger_than_what_is_read_at_a_time(tmp_path: Path, size: int) -> None:
    content = b"".join(large_batch(n, size) for n in range(3)) + large_batch(3, 10)
    path = tmp_path / f"{0:020}.log"
    path.write_bytes(content)
    with LogReader(FS, str(path)) as reader:
        found = [(one.base_offset, reader.checksum_ok(one)) for one in reader.batches()]
        assert found == [(0, True), (1, True), (2, True), (3, True)]
        assert (reader.end, reader.reason) == (len(content), "")
        values = [
            len(record.value or b"")
            for batch in [*reader.batches()]
            for record in reader.records(batch)
        ]
        assert values == [size, size, size, 10]
    damaged = bytearray(content)
    damaged[size * 2] ^= 1
    path.write_bytes(damaged)
    with LogReader(FS, str(path)) as reader:
        assert [reader.checksum_ok(one) for one in reader.batches()] == [True, False, True, True]


def memory_of(work: Callable[[], object]) -> int:
    """Most bytes that Python holds at a time while it works."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    partition = tmp_path / "t-0"
    partition.mkdir()
    path = partition / f"{0:020}.log"
    with path.open("wb") as file:
        for offset in range(100):
            file.write(large_batch(offset, 200_000))
    report = check_directory(FS, str(tmp_path), lambda _: None)  # imports are done, too
    assert (report.batches, report.problems) == (100, 0)
    assert memory_of(lambda: check_directory(FS, str(tmp_path), lambda _: None)) < 3_000_000
    dumper = Dumper(FS, Options(), lambda _: None, lambda _: None)
    assert memory_of(lambda: dumper.dump(str(path))) < 3_000_000
