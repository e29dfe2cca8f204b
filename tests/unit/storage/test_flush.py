"""Group commit, the threads it runs in, and the bound on open files."""

import threading
from collections.abc import Callable
from pathlib import Path

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.flush import Flusher, FlushJob
from kavka.storage.fs import File, FileSystem
from kavka.storage.open_files import OpenFiles
from kavka.storage.workers import Workers
from tests.unit.storage.log_support import FaultyFileSystem, Place, append, read_values


class ManualLoop:
    """Runs callbacks when told to."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.ready.append(lambda: callback(*args))

    call_soon_threadsafe = call_soon

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()


class ManualWorkers(Workers):
    """Runs jobs when told to, in the calling thread."""

    def __init__(self) -> None:
        super().__init__("test", 0)
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def work(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()


class Counted:
    """A log that counts its records and its syncs."""

    def __init__(self) -> None:
        self.end = 0
        self.flushed = 0
        self.begun = 0
        self.offline = False

    def begin_flush(self) -> FlushJob:
        if self.offline:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        self.begun += 1
        return FlushJob(FileSystem(), self.end, 0)

    def finish_flush(self, job: FlushJob) -> None:
        if self.offline:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        self.flushed = job.offset


def test_one_sync_serves_all_that_came_before_it() -> None:
    loop, workers, log = ManualLoop(), ManualWorkers(), Counted()
    flusher = Flusher(loop, workers)
    told: list[tuple[str, int]] = []

    def produce(name: str) -> None:
        log.end += 1
        flusher.request(log, lambda: told.append((name, log.flushed)))

    produce("a")
    produce("b")
    assert not workers.jobs, "the rest of the loop turn may bring more"
    loop.turn()
    assert (log.begun, len(workers.jobs)) == (1, 1)
    produce("c")
    produce("d")
    loop.turn()
    assert log.begun == 1, "one at a time"
    workers.work()
    assert not told
    loop.turn()
    assert told == [("a", 2), ("b", 2)]
    assert log.begun == 2, "what came meanwhile is next"
    workers.work()
    loop.turn()
    assert told[2:] == [("c", 4), ("d", 4)]
    loop.turn()
    assert not workers.jobs and not loop.ready


def test_logs_do_not_wait_for_each_other() -> None:
    loop, workers = ManualLoop(), ManualWorkers()
    flusher = Flusher(loop, workers)
    flusher.request(Counted())
    flusher.request(Counted())
    loop.turn()
    assert len(workers.jobs) == 2


def test_those_who_wait_for_a_log_that_fails_are_told_too() -> None:
    loop, workers, log = ManualLoop(), ManualWorkers(), Counted()
    flusher = Flusher(loop, workers)
    told: list[str] = []
    flusher.request(log, lambda: told.append("first"))
    loop.turn()
    flusher.request(log, lambda: told.append("second"))
    log.offline = True
    workers.work()
    loop.turn()
    assert told == ["first", "second"]


def test_the_end_waits_for_what_is_under_way() -> None:
    loop, workers, log = ManualLoop(), ManualWorkers(), Counted()
    flusher = Flusher(loop, workers)
    idle: list[int] = []
    flusher.when_idle(lambda: idle.append(1))
    assert idle == [1]
    flusher.request(log)
    flusher.when_idle(lambda: idle.append(2))
    loop.turn()
    flusher.request(log)
    workers.work()
    loop.turn()
    assert idle == [1]
    workers.work()
    loop.turn()
    assert idle == [1, 2]


def test_a_flush_syncs_segments_indexes_epochs_and_names(tmp_path: Path) -> None:
    class Recording(FileSystem):
        def __init__(self) -> None:
            self.synced: list[str] = []

        def fdatasync(self, file: File) -> None:
            self.synced.append(Path(file.path).name)

        def sync_dir(self, path: str) -> None:
            self.synced.append(Path(path).name)

    fs = Recording()
    log = Place(str(tmp_path / "orders-0"), fs).open()
    append(log, "a")
    log.roll()
    append(log, "b")
    fs.synced.clear()
    log.flush()
    assert fs.synced == [
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "00000000000000000001.log",
        "leader-epoch-checkpoint.tmp",
        "orders-0",
        tmp_path.name,
    ]
    assert log.recovery_point == 2
    fs.synced.clear()
    log.flush()
    assert fs.synced == []
    append(log, "c")
    log.flush()
    assert fs.synced == ["00000000000000000001.log"]


# -- workers --------------------------------------------------------------------------------


def test_one_worker_keeps_the_order() -> None:
    workers = Workers("test", 1)
    done: list[int] = []
    for number in range(100):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    workers.stop()
    assert done == [*range(100)]


def test_workers_run_beside_each_other() -> None:
    workers = Workers("test", 2)
    first, second = threading.Event(), threading.Event()
    met: list[bool] = []

    def one() -> None:
        first.set()
        met.append(second.wait(10))

    def other() -> None:
        second.set()
        met.append(first.wait(10))

    workers.submit(one)
    workers.submit(other)
    workers.stop()
    assert met == [True, True]


def test_a_job_that_fails_does_not_end_its_worker(caplog) -> None:  # type: ignore[no-untyped-def]
    workers = Workers("test", 1)
    done: list[int] = []
    workers.submit(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    workers.submit(lambda: done.append(1))
    workers.stop()
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text


# -- open files -----------------------------------------------------------------------------


def test_open_files_are_bounded_and_reopened(tmp_path: Path) -> None:
    here = Place(str(tmp_path / "orders-0"), segment_bytes=300)
    here.open_files = OpenFiles(3)
    log = here.open()
    for number in range(20):
        append(log, f"{number}".ljust(200, "."))
    for _ in range(2):
        assert len(read_values(log)) == 20
        assert sum(segment.is_open for segment in log.segments) <= 3
    for number in range(20, 400):
        append(log, f"{number}")
        if number % 7 == 0:
            log.segments.last.let_go()
    assert len(read_values(log)) == 400


def test_files_in_use_stay_open_rather_than_others() -> None:
    class Entry:
        def __init__(self) -> None:
            self.in_use = False
            self.is_open = True

        def let_go(self) -> None:
            self.is_open = False

    files = OpenFiles(3)
    busy, idle, other = Entry(), Entry(), Entry()
    for entry in (busy, idle, other):
        files.opened(entry)
    for _ in range(20):
        busy.in_use = True
        files.opened(Entry())
        assert busy.is_open
        assert len(files) == 3
    assert not idle.is_open and not other.is_open
    files.closed(busy)
    assert len(files) == 2


def test_a_file_that_is_let_go_on_a_full_disk_is_still_right(tmp_path: Path) -> None:
    fs = FaultyFileSystem()
    log = Place(str(tmp_path / "orders-0"), fs).open()
    for number in range(100):
        append(log, f"{number}")
    fs.full = True
    log.segments.last.let_go()
    append(log, "100")
    assert len(read_values(log)) == 101


def test_a_flush_of_a_deleted_log_leaves_the_next_of_that_name_alone(tmp_path: Path) -> None:
    directory = tmp_path / "orders-0"
    place = Place(str(directory))
    log = place.open()
    append(log, "old", epoch=5)
    job = log.begin_flush()
    directory.rename(tmp_path / "orders-0.0123-delete")
    log.abandon()
    new = place.open()
    append(new, "new", epoch=2)
    new.flush()
    job.run()
    assert job.error is None
    assert (directory / "leader-epoch-checkpoint").read_text() == "0\n1\n2 0\n"
