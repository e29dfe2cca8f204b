"""``kavka dump-log``: options, streams and exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from kavka.broker.cli.main import execute
from kavka.protocol.records import internal_topics
from kavka.protocol.records.batch import Record, build_batch


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / f"{0:020}.log"
    key = internal_topics.encode_offset_key("g", "t", 0)
    path.write_bytes(build_batch([Record(0, 5, key, b"value\n")], base_offset=0))
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / f"{0:020}.index"
    path.write_bytes(bytes([0, 0, 0, 9, 0, 0, 0, 0]))
    return path


def test_files_in_kafkas_way_and_ours(
    log: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["dump-log", "--files", f"{log},{index}"]) == 0
    kafkas = capsys.readouterr()
    assert [line for line in kafkas.out.splitlines() if line.startswith("Dumping")] == [
        f"Dumping {log}",
        f"Dumping {index}",
    ]
    assert kafkas.err.splitlines() == [
        f"Mismatches in :{index}",
        "  Index offset: 9, log offset: 0",
    ]
    assert execute(["dump-log", str(log), str(index)]) == 0
    assert capsys.readouterr() == kafkas


def test_what_is_shown_of_records(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def lines(*options: str) -> list[str]:
        assert execute(["dump-log", *options, str(log)]) == 0
        return capsys.readouterr().out.splitlines()

    assert len(lines()) == 3
    assert lines("--max-bytes", "10") == lines()[:2]
    assert lines("--deep-iteration")[3] == (
        "| offset: 0 CreateTime: 5 keySize: 12 valueSize: 6 sequence: -1 headerKeys: []"
    )
    assert lines("--print-data-log")[3].endswith("payload: value\\n")
    assert lines("--print-data-log", "--skip-record-metadata")[3].startswith("| key: \\x00\\x01")
    assert "skipping. Version 30305 is unknown." in lines("--offsets-decoder")[3]
    assert "Unknown record type 1 at" in lines("--transaction-log-decoder")[3]


def test_indexes_only_verified(log: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["dump-log", "--verify-index-only", str(index)]) == 0
    assert "offset: 9" not in capsys.readouterr().out
    assert execute(["dump-log", "--index-sanity-check", str(index)]) == 0
    assert "passed sanity check" in capsys.readouterr().out


def test_a_file_that_cannot_be_read(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["dump-log", str(tmp_path / f"{7:020}.log"), str(log)]) == 1
    out, err = capsys.readouterr()
    assert "baseOffset: 0" in out
    assert err == f"{tmp_path}/{7:020}.log cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name the files to be shown"),
        (["--files", ""], "Name the files to be shown"),
        (["a", "--offsets-decoder", "--transaction-log-decoder"], "Choose one of"),
        (["a", "--max-bytes", "-1"], "--max-bytes"),
    ],
)
def test_misuse(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["dump-log", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_reader_that_stops_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / f"{0:020}.log"
    log.write_bytes(
        b"".join(build_batch([Record(n, 5, None, b"v")], base_offset=n) for n in range(2000))
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "kavka", "dump-log", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b"Dumping")
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0
