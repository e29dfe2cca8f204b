from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.storage.fs import File, FileSystem
from kavka.storage.index import CorruptIndex
from kavka.storage.producers import CompletedTxn
from kavka.storage.txn_index import AbortedTxn, TransactionIndex

FS = FileSystem()
VECTOR = "000000000000000003e80000000000000065000000000000006e000000000000006f"  # test-vectors.md


def index(directory: Path, base: int = 100) -> TransactionIndex:
    return TransactionIndex(FS, str(directory / f"{base:020}.txnindex"), base)


def aborted(producer_id: int, first: int, last: int, stable: int) -> CompletedTxn:
    return CompletedTxn(producer_id, first, last, True, stable)


def test_entry_is_kafkas(tmp_path: Path) -> None:
    transactions = index(tmp_path)
    transactions.append(aborted(1000, 101, 110, 111))
    transactions.close()
    assert Path(transactions.path).read_bytes().hex() == VECTOR
    assert list(index(tmp_path).entries()) == [AbortedTxn(1000, 101, 110, 111)]


def test_no_file_without_entries(tmp_path: Path) -> None:
    transactions = index(tmp_path)
    transactions.sanity_check()
    assert transactions.collect(0, 1000) == ([], False)
    transactions.reset()
    transactions.write_out()
    transactions.sync()
    assert list(tmp_path.iterdir()) == []
    transactions.append(aborted(1, 100, 105, 106))
    transactions.write_out()
    transactions.sync()
    transactions.truncate_to(105)
    transactions.write_out()
    assert list(tmp_path.iterdir()) == []


def test_collect(tmp_path: Path) -> None:
    transactions = index(tmp_path, 0)
    transactions.append(aborted(1, 0, 10, 5))
    transactions.append(aborted(2, 5, 12, 13))
    transactions.append(aborted(3, 32, 50, 25))
    everything = list(transactions.entries())
    assert transactions.collect(0, 100) == (everything, False)
    assert transactions.collect(0, 32) == (everything[:2], False)
    assert transactions.collect(0, 35) == (everything, False)
    assert transactions.collect(10, 35) == (everything, False)
    assert transactions.collect(11, 35) == (everything[1:], False)
    assert transactions.collect(13, 35) == (everything[2:], False)
    assert transactions.collect(0, 25) == (everything[:2], True)
    assert transactions.collect(0, 11) == (everything[:2], True)
    assert transactions.collect(0, 5) == (everything[:1], True)
    assert transactions.collect(11, 5) == ([], True)
    assert transactions.collect(51, 60) == ([], False)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_nothing_aborted_is_missed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Over a random history of transactions, split over two segments' indexes."""
    directory = tmp_path_factory.mktemp("txn")
    split = data.draw(st.integers(1, 40))
    indexes = [index(directory, 0), index(directory, split)]
    open_since: dict[int, int] = {}
    history: list[AbortedTxn] = []
    end = data.draw(st.integers(10, 60))
    for offset in range(end):
        producer = data.draw(st.integers(0, 3))
        first = open_since.get(producer)
        if first is None:
            open_since[producer] = offset
        elif data.draw(st.booleans()):
            del open_since[producer]
            stable = min(open_since.values(), default=offset + 1)
            if data.draw(st.booleans()):
                history.append(AbortedTxn(producer, first, offset, stable))
                indexes[offset >= split].append(aborted(*history[-1]))
    for part in indexes:
        part.close()
    start = data.draw(st.integers(0, end))
    bound = data.draw(st.integers(start, end))
    found: list[AbortedTxn] = []
    for part in indexes[start >= split :]:
        result = part.collect(start, bound)
        found += result.aborted
        if result.complete:
            break
    assert found == [
        txn for txn in history if txn.last_offset >= start and txn.first_offset < bound
    ]


def test_truncate_and_grow_again(tmp_path: Path) -> None:
    transactions = index(tmp_path)
    for number in range(5):
        transactions.append(aborted(number, 100, 110 + number, 120))
    transactions.write_out()
    transactions.truncate_to(112)
    transactions.append(aborted(9, 100, 130, 131))
    transactions.release()
    assert [entry.last_offset for entry in transactions.entries()] == [110, 111, 130]
    assert Path(transactions.path).stat().st_size == 3 * 34
    transactions.append(aborted(9, 131, 140, 141))
    transactions.write_out()
    assert Path(transactions.path).stat().st_size == 4 * 34
    assert [entry.last_offset for entry in index(tmp_path).entries()] == [110, 111, 130, 140]


def test_markers_come_in_order(tmp_path: Path) -> None:
    transactions = index(tmp_path)
    transactions.append(aborted(1, 101, 110, 111))
    with pytest.raises(AssertionError):
        transactions.append(aborted(2, 102, 110, 111))
    with pytest.raises(AssertionError):
        transactions.append(CompletedTxn(2, 102, 120, False, 121))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (VECTOR[:-2], "33 bytes"),
        (VECTOR + VECTOR, "impossible"),
        ("0001" + VECTOR[4:], "version 1"),
        ("0000" + "00" * 32, "impossible"),
    ],
    ids=["partial", "not ascending", "version", "before the segment"],
)
def test_corrupt_files(tmp_path: Path, content: str, reason: str) -> None:
    transactions = index(tmp_path)
    Path(transactions.path).write_bytes(bytes.fromhex(content))
    with pytest.raises(CorruptIndex, match=reason):
        transactions.sanity_check()
    transactions.reset()
    transactions.append(aborted(1000, 101, 110, 111))
    transactions.write_out()
    assert Path(transactions.path).read_bytes().hex() == VECTOR


def test_rename(tmp_path: Path) -> None:
    transactions = index(tmp_path)
    transactions.rename(transactions.path + ".deleted")
    transactions.append(aborted(1000, 101, 110, 111))
    transactions.write_out()
    transactions.rename(transactions.path.removesuffix(".deleted"))
    assert [path.name for path in tmp_path.iterdir()] == [f"{100:020}.txnindex"]


class FullDisk(FileSystem):
    full = False

    def pwrite(self, file: File, data: bytes | bytearray | memoryview, offset: int) -> None:
        if self.full:
            super().pwrite(file, data[: len(data) // 2], offset)
            raise OSError(28, "No space left on device")
        super().pwrite(file, data, offset)


def test_a_failed_write_out_is_made_good_by_the_next(tmp_path: Path) -> None:
    fs = FullDisk()
    transactions = TransactionIndex(fs, str(tmp_path / f"{100:020}.txnindex"), 100)
    transactions.append(aborted(1, 101, 110, 111))
    transactions.write_out()
    transactions.append(aborted(1, 111, 120, 121))
    fs.full = True
    with pytest.raises(OSError, match="No space"):
        transactions.write_out()
    fs.full = False
    transactions.write_out()
    assert list(index(tmp_path).entries()) == list(transactions.entries())
