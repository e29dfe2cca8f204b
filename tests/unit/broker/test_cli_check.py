"""``kavka check``: streams and exit codes."""

import os
from pathlib import Path

import pytest

from kavka.broker.cli.main import execute
from kavka.storage import meta
from tests.unit.storage.inspect_support import FS, write_directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    write_directory(str(directory))
    return directory


@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_a_sound_directory(
    data: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["check", *options, str(data)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    size = sum(path.stat().st_size for path in data.glob("orders-0/*.log"))
    assert err == f"1 partitions, 2 segments, 66 batches, {size} bytes: no problem\n"


def test_problems_and_notes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "orders-0" / f"{0:020}.index").unlink()
    (data / "orders-0" / "partition.metadata").write_text("nonsense\n")
    (data / "stray").mkdir()
    assert execute(["check", str(data)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "orders-0/partition.metadata: there is no topic id that can be read",
        f"orders-0/{0:020}.index: the index is missing",
    ]
    note, summary = err.splitlines()
    assert note == "note: stray: a directory whose name is not that of a partition"
    assert summary.endswith(": 2 problems")


def test_nothing_of_the_directory_changes(data: Path) -> None:
    def contents() -> dict[str, tuple[bytes, int]]:
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in data.rglob("*")
            if path.is_file() and path.name != meta.LOCK
        }

    before = contents()
    os.truncate(data / "orders-0" / f"{38:020}.log", 1000)
    damaged = contents()
    assert execute(["check", "--deep", str(data)]) == 1
    assert contents() == damaged != before


def test_what_cannot_be_checked_ends_with_2(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["check", str(data / "nothing")]) == 2
    assert capsys.readouterr() == ("", f"kavka: {data}/nothing is not a directory\n")
    lock = meta.DirectoryLock(FS, str(data))
    assert execute(["check", str(data)]) == 2
    assert capsys.readouterr() == ("", f"kavka: {data} is used by a broker: stop it first\n")
    lock.release()
    assert execute(["check"]) == 2
    assert "Missing argument 'DIRECTORY'" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_ends_with_2(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = data / "orders-0" / f"{38:020}.log"
    log.unlink()
    log.mkdir()
    assert execute(["check", str(data)]) == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err
