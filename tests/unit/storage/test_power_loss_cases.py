"""Single moments at which a log could go wrong, which long schedules meet once in thousands."""

import random
from collections.abc import Iterator

import pytest

from tests.unit.storage.log_support import Place, append, read_values
from tests.unit.storage.power_loss_fs import Killed, PowerLossFileSystem


@pytest.fixture
def here() -> Place:
    return Place("/orders-0", PowerLossFileSystem())


def after_power_losses(here: Place) -> Iterator[Place]:
    """The same place, as it may be found after a power loss now."""
    assert isinstance(here.fs, PowerLossFileSystem)
    for seed in range(60):
        yield Place(here.directory, here.fs.crash(random.Random(seed)))


def die_at(here: Place, calls: int) -> None:
    """Have the process end so many calls of the file system from now."""
    assert isinstance(here.fs, PowerLossFileSystem)
    here.fs.kill_at = here.fs.calls + calls


def restart(here: Place) -> None:
    assert isinstance(here.fs, PowerLossFileSystem)
    here.fs.restart()


@pytest.mark.parametrize("starts", [1, 2])
def test_what_is_found_empty_after_a_crash_stays_empty(here: Place, starts: int) -> None:
    """A truncation of everything that died half-way has no effect of its own on disk yet."""
    log = here.open()
    append(log, "old")
    here.fs.fdatasync(log.segments.last.file())  # the kernel wrote it all, nobody asked it to
    here.fs.sync_dir(here.directory)
    here.fs.sync_dir("/")
    die_at(here, 2)
    with pytest.raises(Killed):
        log.truncate_fully_and_start_at(0)
    restart(here)
    if starts == 2:  # the first one dies as soon as it has removed the old segment
        while here.files(".log.deleted"):
            die_at(here, 5)
            with pytest.raises(Killed):
                here.open(clean=False)
            restart(here)
    log = here.open(clean=False)
    assert log.log_end_offset == 0
    append(log, "new")
    for after in after_power_losses(here):
        assert "old" not in read_values(after.open(clean=False)).values()
