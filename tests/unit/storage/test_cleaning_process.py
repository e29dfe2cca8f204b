"""The helper process that cleans: what it does, and how it ends."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kavka.storage.cleaning_job import (
    CleanedGroup,
    CleanedLog,
    CleaningAborted,
    CleaningFailed,
    CleaningJob,
    WorkerDied,
)
from kavka.storage.cleaning_pass import make_job
from kavka.storage.cleaning_workers import ProcessWorker, ThreadWorker
from kavka.storage.clock import SystemClock
from tests.unit.storage.cleaner_support import Cleaning, put
from tests.unit.storage.log_support import Place

PATIENCE = 30  # seconds, for a process to end
CRAWLING = 1.0  # bytes a second: whoever works at that rate is still at it


@pytest.fixture
def cleaning(tmp_path: Path) -> Cleaning:
    here = Cleaning(
        Place(str(tmp_path / "orders-0"), segment_bytes=2_000, cleanup_policy=("compact",))
    )
    for number in range(200):
        put(here.log, (b"key-%d" % (number % 30), b"%d" % number * 20), codec=number % 5)
    here.log.roll()
    return here


@pytest.fixture
def worker(cleaning: Cleaning) -> Iterator[ProcessWorker]:
    made = ProcessWorker(cleaning.place.fs)
    yield made
    made.rest()


def job_for(cleaning: Cleaning) -> CleaningJob:
    found = cleaning.cleaner.judge(cleaning.log)
    assert found is not None
    return make_job(cleaning.log, found, cleaning.cleaner._config)


def take(place: Place, events: Iterator[object]) -> tuple[list[bytes], list[object]]:
    """What comes of a job, and the files of each group, which are removed."""
    files, seen = [], []
    for event in events:
        seen.append(event)
        for name in place.files(".cleaned"):
            path = Path(place.path(name))
            files.append(name.encode() + path.read_bytes() + b"%d" % path.stat().st_size)
            path.unlink()
    return files, seen


def test_a_process_does_what_a_thread_does(cleaning: Cleaning, worker: ProcessWorker) -> None:
    job, place = job_for(cleaning), cleaning.place
    by_process = take(place, worker.run(job, threading.Event()))
    by_thread = take(place, ThreadWorker(place.fs, SystemClock()).run(job, threading.Event()))
    assert by_process == by_thread
    assert len(by_process[1]) > 3
    assert all(isinstance(event, CleanedGroup) for event in by_process[1][:-1])
    assert isinstance(by_process[1][-1], CleanedLog)
    # The process is kept for the next job.
    process = worker._process
    assert process is not None
    assert take(place, worker.run(job, threading.Event())) == by_thread
    assert worker._process is process
    worker.rest()
    assert process.returncode == 0


def test_it_says_what_went_wrong(cleaning: Cleaning, worker: ProcessWorker) -> None:
    job = job_for(cleaning)
    with open(cleaning.log.segments[2].path, "r+b") as file:
        file.seek(200)
        file.write(b"????")
    with pytest.raises(CleaningFailed, match=r"KafkaError: .* \(rewrite.py:\d+\)") as caught:
        take(cleaning.place, worker.run(job, threading.Event()))
    assert not caught.value.passing
    assert not isinstance(caught.value, WorkerDied)
    assert cleaning.place.files(".cleaned") == []
    Path(cleaning.log.segments[1].path).unlink()
    with pytest.raises(CleaningFailed, match="FileNotFoundError"):
        take(cleaning.place, worker.run(job, threading.Event()))


def test_it_can_be_interrupted(cleaning: Cleaning, worker: ProcessWorker) -> None:
    aborted = threading.Event()
    job = job_for(cleaning)
    events = worker.run(job, aborted)
    next(events)
    assert cleaning.place.files(".cleaned")
    process = worker._process
    assert process is not None
    aborted.set()
    worker.interrupt()
    with pytest.raises(CleaningAborted):
        next(events)
    assert process.wait(PATIENCE) < 0
    assert cleaning.place.files(".cleaned") == []
    with pytest.raises(CleaningAborted):
        next(worker.run(job, aborted))


def test_an_interrupt_ends_work_that_is_held_to_a_rate(
    cleaning: Cleaning, worker: ProcessWorker
) -> None:
    aborted = threading.Event()
    events = worker.run(job_for(cleaning)._replace(bytes_per_second=CRAWLING), aborted)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            next(events)
        except CleaningAborted as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while worker._process is None:
        pass
    aborted.set()
    worker.interrupt()
    thread.join(PATIENCE)
    assert caught


def test_a_process_that_dies_is_noticed(cleaning: Cleaning, worker: ProcessWorker) -> None:
    events = worker.run(job_for(cleaning), threading.Event())
    next(events)
    assert worker._process is not None
    worker._process.kill()
    with pytest.raises(WorkerDied, match="killed by signal 9"):
        next(events)
    assert cleaning.place.files(".cleaned") == []
    assert take(cleaning.place, worker.run(job_for(cleaning), threading.Event()))


def test_giving_up_in_the_middle_leaves_nothing(cleaning: Cleaning, worker: ProcessWorker) -> None:
    events = worker.run(job_for(cleaning), threading.Event())
    next(events)
    events.close()
    assert cleaning.place.files(".cleaned") == []
    assert worker._process is None


def test_it_does_not_outlive_its_broker(cleaning: Cleaning) -> None:
    """The broker's end, however it came, is the end of the input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kavka.storage.cleaning_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    pickle.dump(job_for(cleaning)._replace(bytes_per_second=CRAWLING), process.stdin)
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()


def test_a_process_that_cannot_be_started_is_no_reason_to_give_a_partition_up(
    cleaning: Cleaning, worker: ProcessWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", os.fspath(cleaning.place.path("no-python")))
    with pytest.raises(CleaningFailed, match="cannot be started") as caught:
        next(worker.run(job_for(cleaning), threading.Event()))
    assert caught.value.passing
