"""Writing a history down while threads of a workload make it."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count

from tests.histories.history import History, Op, Outcome, Partition, Poll, Send, Step, Value


class Recorder:
    """Collects operations from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moments = count(1)  # next() of it is atomic, and grows in real time
        self._clients = count(1)
        self._ops: list[Op] = []

    def now(self) -> int:
        return next(self._moments)

    def new_client(self) -> int:
        """A number for one life of a client."""
        return next(self._clients)

    @contextmanager
    def op(self, client: int, *, transactional: bool = False) -> "Iterator[Entry]":
        """Note one operation. Its outcome is INFO unless the body says otherwise, also when the
        body is left by an exception."""
        entry = Entry(self)
        try:
            yield entry
        finally:
            noted = Op(
                client,
                entry.outcome,
                tuple(entry.steps()),
                entry.began,
                self.now(),
                transactional,
                frozenset(entry.moved),
                entry.ending,
            )
            with self._lock:
                self._ops.append(noted)

    def history(self, read_to_the_end: Iterable[Partition] = ()) -> History:
        with self._lock:
            return History(tuple(self._ops), frozenset(read_to_the_end))


class Entry:
    """An operation under way. Used by the thread of its client, but for acknowledgements."""

    def __init__(self, recorder: Recorder) -> None:
        self.outcome = Outcome.INFO
        self.began = recorder.now()
        self.ending: int | None = None
        self.moved: set[Partition] = set()
        self._recorder = recorder
        self._steps: list[Step] = []
        self._offsets: dict[tuple[Partition, Value], int] = {}

    def send(self, partition: Partition, value: Value, offset: int | None = None) -> None:
        self._steps.append(Send(partition, value, offset))

    def acknowledged(self, partition: Partition, value: Value, offset: int) -> None:
        """The broker told the offset of a record sent before."""
        self._offsets[partition, value] = offset

    def polled(self, records: Iterable[tuple[Partition, int, Value]]) -> None:
        by_partition: dict[Partition, list[tuple[int, Value]]] = defaultdict(list)
        for partition, offset, value in records:
            by_partition[partition].append((offset, value))
        self._steps.append(Poll(dict(by_partition), self._recorder.now()))

    def committing(self) -> None:
        """From now on others may see what the transaction wrote."""
        self.ending = self._recorder.now()

    def ok(self) -> None:
        self.outcome = Outcome.OK

    def failed(self) -> None:
        self.outcome = Outcome.FAIL

    def steps(self) -> Iterator[Step]:
        for step in self._steps:
            if isinstance(step, Send) and step.offset is None:
                yield step._replace(offset=self._offsets.get((step.partition, step.value)))
            else:
                yield step
