from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.protocol.topics import TopicPartition
from kavka.storage.checkpoints import (
    CorruptCheckpoint,
    EpochEntry,
    decode_epochs,
    decode_offsets,
    encode_epochs,
    encode_offsets,
    read_epochs,
    read_offsets,
    write_offsets,
)
from kavka.storage.fs import FileSystem


def test_offsets_as_kafka_writes_them() -> None:
    offsets = {TopicPartition("b", 10): 7, TopicPartition("a-1", 2): 2**40}
    assert encode_offsets(offsets) == b"0\n2\na-1 2 1099511627776\nb 10 7\n"
    assert decode_offsets(b"0\n2\na-1 2 1099511627776\nb   10\t7\n") == offsets


def test_epochs_as_kafka_writes_them() -> None:
    entries = [EpochEntry(0, 0), EpochEntry(3, 1000)]
    assert encode_epochs(entries) == b"0\n2\n0 0\n3 1000\n"
    assert decode_epochs(b"0\n2\n0 0\n3 1000") == entries


names = st.text("abcXYZ019._-", min_size=1)


@given(st.dictionaries(st.builds(TopicPartition, names, st.integers(0)), st.integers(-1)))
def test_offsets_come_back(offsets: dict[TopicPartition, int]) -> None:
    assert decode_offsets(encode_offsets(offsets)) == offsets


def test_no_file_and_an_empty_one_have_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "recovery-point-offset-checkpoint"
    assert read_offsets(FileSystem(), str(path)) == {}
    path.write_bytes(b"")
    assert read_offsets(FileSystem(), str(path)) == {}
    assert read_epochs(FileSystem(), str(path)) == []


def test_writing_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "replication-offset-checkpoint"
    for offset in (5, 6):
        write_offsets(FileSystem(), str(path), {TopicPartition("t", 0): offset})
    assert read_offsets(FileSystem(), str(path)) == {TopicPartition("t", 0): 6}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1\n0\n", "version '1' in line 1"),
        (b"0\n", "line 2"),
        (b"0\nmany\n", "line 2"),
        (b"0\n2\nt 0 1\n", "1 entries, but line 2 says 2"),
        (b"0\n0\nt 0 1\n", "1 entries, but line 2 says 0"),
        (b"0\n1\nt 0\n", "malformed line 3"),
        (b"0\n2\nt 0 1\nt 1 1 1\n", "malformed line 4"),
        (b"0\n1\nt zero 1\n", "malformed line 3"),
        (b"0\n1\nt 0 1_0\n", "malformed line 3"),
        (b"0\n2\nt 0 1\n\n", "malformed line 4"),
        (b"0\n1\n\xff 0 1\n", "utf-8"),
    ],
)
def test_malformed_offset_checkpoints(content: bytes, reason: str) -> None:
    with pytest.raises(CorruptCheckpoint, match=reason) as caught:
        decode_offsets(content, "/data/x-checkpoint")
    assert "/data/x-checkpoint" in str(caught.value)


def test_malformed_epoch_checkpoint() -> None:
    with pytest.raises(CorruptCheckpoint, match="malformed line 3"):
        decode_epochs(b"0\n1\nt 0 1\n")
