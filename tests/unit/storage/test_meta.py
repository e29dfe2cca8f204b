import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kavka.storage.fs import FileSystem
from kavka.storage.meta import (
    DirectoryLock,
    LogDirectoryError,
    Meta,
    agree_on_broker_id,
    boot_id,
    check_cluster_id,
    clear_clean_shutdown,
    mark_clean_shutdown,
    note_boot_id,
    noted_boot_id,
    read_meta,
    was_clean_shutdown,
    write_meta,
)
from tests.unit.storage.power_loss_fs import PowerLossFileSystem

FS = FileSystem()
NOW = 1_500_000_000_000


def test_meta_properties_as_kafka_writes_them(tmp_path: Path) -> None:
    assert read_meta(FS, str(tmp_path)) is None
    write_meta(FS, str(tmp_path), Meta(7), NOW)
    text = (tmp_path / "meta.properties").read_text()
    assert text == "#\n#Fri Jul 14 02:40:00 UTC 2017\nversion=0\nbroker.id=7\n"
    assert read_meta(FS, str(tmp_path)) == Meta(7, None)
    assert [path.name for path in tmp_path.iterdir()] == ["meta.properties"]


def test_cluster_id_comes_back(tmp_path: Path) -> None:
    write_meta(FS, str(tmp_path), Meta(7, "Zs-8_=q"), NOW)
    assert read_meta(FS, str(tmp_path)) == Meta(7, "Zs-8_=q")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("broker.id=1\n", "version None"),
        ("version=1\nnode.id=1\n", "KRaft"),
        ("version=0\n", "no valid broker.id"),
        ("version=0\nbroker.id=-1\n", "no valid broker.id"),
        ("version=0\nbroker.id=one\n", "no valid broker.id"),
        ("version=0\nbroker.id=\\u12\n", "line 2"),
    ],
)
def test_bad_meta_properties(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "meta.properties"
    path.write_text(text)
    with pytest.raises(LogDirectoryError, match=reason) as caught:
        read_meta(FS, str(tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "configured", "agreed"),
    [
        ([None, None], -1, None),
        ([None, None], 3, 3),
        ([3, None], -1, 3),
        ([3, 3], 3, 3),
        ([0, None], 0, 0),
    ],
)
def test_agreed_broker_id(stored: list[int | None], configured: int, agreed: int | None) -> None:
    found = {f"/d{i}": None if owner is None else Meta(owner) for i, owner in enumerate(stored)}
    assert agree_on_broker_id(found, configured) == agreed


def test_disagreement_about_the_broker_id() -> None:
    with pytest.raises(LogDirectoryError, match=r"/a to 1, /b to 2"):
        agree_on_broker_id({"/a": Meta(1), "/b": Meta(2), "/c": None}, 1)
    with pytest.raises(LogDirectoryError, match=r"broker\.id=5 .* broker\.id=1 .* /b"):
        agree_on_broker_id({"/a": None, "/b": Meta(1)}, 5)


def test_directories_of_another_cluster() -> None:
    check_cluster_id({"/a": None, "/b": Meta(1), "/c": Meta(1, "x")}, "x")
    with pytest.raises(LogDirectoryError, match="/c belongs to cluster y"):
        check_cluster_id({"/b": Meta(1, "x"), "/c": Meta(1, "y")}, "x")


def test_clean_shutdown_mark(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert not was_clean_shutdown(FS, directory)
    clear_clean_shutdown(FS, directory)
    mark_clean_shutdown(FS, directory)
    assert was_clean_shutdown(FS, directory)
    assert [path.name for path in tmp_path.iterdir()] == [".kafka_cleanshutdown"]
    assert (tmp_path / ".kafka_cleanshutdown").read_bytes() == b""
    clear_clean_shutdown(FS, directory)
    assert not was_clean_shutdown(FS, directory)


def test_the_lock_is_exclusive_and_names_its_holder(tmp_path: Path) -> None:
    lock = DirectoryLock(FS, str(tmp_path))
    with pytest.raises(LogDirectoryError, match=rf"process {os.getpid()}\) .* {tmp_path}"):
        DirectoryLock(FS, str(tmp_path))
    lock.release()
    lock.release()
    again = DirectoryLock(FS, str(tmp_path))
    (tmp_path / ".lock").write_bytes(b"")  # as Kafka leaves it
    with pytest.raises(LogDirectoryError, match="another broker is using"):
        DirectoryLock(FS, str(tmp_path))
    again.release()
    assert (tmp_path / ".lock").exists()


def test_the_lock_is_given_back_on_a_disk_that_fails() -> None:
    fs = PowerLossFileSystem()
    lock = DirectoryLock(fs, "/")
    fs.failures[fs.calls + 1] = errno.EIO
    lock.release()
    assert not fs.failures
    DirectoryLock(fs, "/").release()


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        held = DirectoryLock(FS, str(tmp_path))
        os._exit(0 if held else 1)  # never released
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / ".lock").read_text() == f"{child}\n"
    DirectoryLock(FS, str(tmp_path)).release()


def test_a_lock_that_a_jvm_would_take_is_respected(tmp_path: Path) -> None:
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(LogDirectoryError, match="another broker"):
            DirectoryLock(FS, str(tmp_path))
        holder.communicate()
    DirectoryLock(FS, str(tmp_path)).release()


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@pytest.mark.skipif(not BOOT_ID.exists(), reason="only Linux tells its runs apart")
def test_the_run_of_the_machine_is_known(tmp_path: Path) -> None:
    assert noted_boot_id(FS, str(tmp_path)) == b""
    note_boot_id(FS, str(tmp_path), boot_id(FS))
    assert noted_boot_id(FS, str(tmp_path)).decode() == BOOT_ID.read_text().strip()
