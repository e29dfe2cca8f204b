"""Single moments at which a log could go wrong, which long schedules meet once in thousands."""

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from kavka.protocol.errors import KafkaError
from kavka.storage.fs import File
from kavka.storage.log import Log
from tests.unit.storage.log_support import Place, append, read_values
from tests.unit.storage.power_loss_fs import Killed, PowerLossFileSystem


class Scene(Place):
    """A log's directory on a disk that forgets."""

    fs: PowerLossFileSystem

    def __init__(self, fs: PowerLossFileSystem | None = None) -> None:
        super().__init__("/orders-0", fs or PowerLossFileSystem())

    def after_power_losses(self, recovery_point: int = 0) -> Iterator[Log]:
        """The log, as it may be found after a power loss now, with the checkpoint as it was."""
        for seed in range(60):
            after = Scene(self.fs.crash(random.Random(seed)))
            yield after.open(clean=False, recovery_point=recovery_point)

    def die_at(self, call: int) -> None:
        """Have the process end at this call of the file system, counted from now."""
        self.fs.kill_at = self.fs.calls + call

    @contextmanager
    def no_new_segments(self, *, name_stays: bool) -> Iterator[None]:
        """The disk is full when a ``.log`` file is made, before or after it has its name."""

        def full(path: str, **how: bool) -> File:
            is_new = path.endswith(".log") and how.get("create", False)
            if is_new and not name_stays:
                raise OSError(errno.ENOSPC, path)
            file = PowerLossFileSystem.open(self.fs, path, **how)
            if is_new:
                raise OSError(errno.ENOSPC, path)
            return file

        with mock.patch.object(self.fs, "open", full):
            yield


@pytest.fixture
def here() -> Scene:
    return Scene()


@pytest.mark.parametrize("starts", [1, 2])
def test_what_is_found_empty_after_a_crash_stays_empty(here: Scene, starts: int) -> None:
    """A truncation of everything that died half-way has done nothing on disk yet."""
    log = here.open()
    append(log, "old")
    here.fs.fdatasync(log.segments.last.file())  # the kernel wrote it all, nobody asked it to
    here.fs.sync_dir(here.directory)
    here.fs.sync_dir("/")
    here.die_at(2)
    with pytest.raises(Killed):
        log.truncate_fully_and_start_at(0)
    here.fs.restart()
    if starts == 2:  # the first one dies as soon as it has removed the old segment
        here.die_at(4)
        with pytest.raises(Killed):
            here.open(clean=False)
        here.fs.restart()
        assert not here.files(".log.deleted")
    log = here.open(clean=False)
    assert log.log_end_offset == 0
    append(log, "new")
    for after in here.after_power_losses():
        assert "old" not in read_values(after).values()


def test_the_first_segment_has_its_name_on_disk_however_late_it_comes(here: Scene) -> None:
    log = here.open(clean=False)
    append(log, "a", epoch=-1)  # an epoch would have the directory synced anyway
    log.flush()
    assert all(read_values(after) == {0: "a"} for after in here.after_power_losses())
    with here.no_new_segments(name_stays=False):
        log.truncate_fully_and_start_at(0)
    log.flush()
    append(log, "b", epoch=-1)
    log.flush()
    assert all(read_values(after) == {0: "b"} for after in here.after_power_losses())


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("what", ["truncation", "retention"])
def test_a_rename_for_which_there_is_no_space_leaves_the_log_as_it_was(
    here: Scene, what: str, call: int
) -> None:
    log = here.open()
    for value in "abc":
        append(log, value)
        log.roll()
    log.flush()
    log.advance_high_watermark(3)

    def shorten() -> bool:
        if what == "truncation":
            return log.truncate_to(1)
        return bool(log.delete_oldest(3, "for a test", 0))

    here.fs.failures[here.fs.calls + call] = errno.ENOSPC
    with pytest.raises(KafkaError):
        shorten()
    assert log.offline is None
    for segment in log.segments:
        segment.let_go()
    assert read_values(log) == dict(enumerate("abc"))
    assert shorten()
    assert read_values(log) == ({0: "a"} if what == "truncation" else {})


def test_a_segment_that_could_not_be_begun_does_not_come_back(here: Scene) -> None:
    log = here.open()
    append(log, "a")
    log.flush()
    with here.no_new_segments(name_stays=True), pytest.raises(KafkaError):
        log.roll()
    append(log, "b")
    here.fs.fdatasync(log.segments.last.file())
    for after in here.after_power_losses():
        assert after.log_end_offset == 2


def test_a_segment_begun_after_a_truncation_is_not_all_that_is_found_of_it(here: Scene) -> None:
    log = here.open()
    for value in "abcd":
        append(log, value)
    log.flush()
    log.truncate_to(2)
    log.roll()
    here.fs.sync_dir(here.directory)  # as the kernel may do on its own
    for after in here.after_power_losses(recovery_point=4):
        assert after.log_end_offset == 2
        assert sum(1 for each in after.segments for _ in each.batches()) == 2


def test_a_file_that_was_made_by_halves_is_not_left_behind(here: Scene) -> None:
    log = here.open()
    with here.no_new_segments(name_stays=True), pytest.raises(KafkaError):
        append(log, "a")
    log.truncate_fully_and_start_at(50)
    append(log, "b")
    log.flush()
    assert read_values(here.open(clean=False)) == {50: "b"}
