"""The Java program that copies a topic in transactions: its process, and what it tells."""

import itertools
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.cluster.kafka_cluster import Cluster
from tests.histories.history import History, Op, Outcome, Partition, Poll, Send
from tests.java import own_command

INPUT, OUTPUT, GROUP = "input", "output", "copiers"
PARTITIONS = 3
COMMITTED, EVERYTHING = "read_committed", "read_uncommitted"
_OUTCOMES = {"committed": Outcome.OK, "aborted": Outcome.FAIL}


class Line(NamedTuple):
    """One step. ``at`` is by the clock of the machine: those of several processes compare."""

    at: int
    who: str
    what: str
    partition: int
    offset: int
    value: str


def original(copy: str) -> int:
    """What is copied: 17 by ``17/copiers-0.1.4711.3``."""
    return int(copy.partition("/")[0])


class Copier:
    """A process that copies until it is told that there is no more; may be killed in between."""

    def __init__(self, cluster: Cluster, where: Path, copiers: int, *settings: str) -> None:
        self.told: list[Line] = []
        self.seen: set[int] = set()
        """The records of the input of which a reader of committed records was shown a copy."""
        self._understood = 0  # bytes of the report
        self._report, self._log = where / "copier.report", where / "copier.log"
        self._line = own_command(
            "Copier", cluster.bootstrap, INPUT, OUTPUT, GROUP, str(copiers), *settings
        )
        self.start()

    def start(self) -> None:
        with self._report.open("a") as report, self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._line, stdin=subprocess.PIPE, stdout=report, stderr=log
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.listen()
        os.truncate(self._report, self._understood)  # half a line was left

    def finish(self) -> None:
        """Have it stop copying, and read all that there is."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0, self._log.read_text()
        self.listen()

    def listen(self) -> None:
        """Learn what it has told since."""
        with self._report.open("rb") as report:
            report.seek(self._understood)
            for text in report:
                if not text.endswith(b"\n"):
                    break
                self._understood += len(text)
                at, who, what, partition, offset, value = text.decode().rstrip("\n").split("\t")
                line = Line(int(at), who, what, int(partition), int(offset), value)
                self.told.append(line)
                if what == "read" and who.startswith(COMMITTED):
                    self.seen.add(original(value))

    def has_copied(self, count: int) -> bool:
        self.listen()
        return len(self.seen) >= count

    def shown(self, isolation: str) -> list[Line]:
        """What its reader was shown; if that had several lives, in the last of them."""
        by_life: dict[str, list[Line]] = {}
        for line in self.told:
            if line.what == "read" and line.who.startswith(isolation):
                by_life.setdefault(line.who, []).append(line)
        return [*by_life.values()][-1]


@contextmanager
def copying(cluster: Cluster, where: Path, copiers: int, *settings: str) -> Iterator[Copier]:
    copier = Copier(cluster, where, copiers, *settings)
    try:
        yield copier
    finally:
        copier.kill()


def history(told: Iterable[Line], sent: Iterable[Send]) -> History:
    """The transactions of the copiers, and the polls of who reads committed records; before them
    all, somebody has sent the input."""
    clients: dict[str, int] = defaultdict(itertools.count(1).__next__)
    ops = [Op(0, Outcome.OK, tuple(sent), 0, 0)]
    under_way: dict[str, Transaction] = {}
    moved: dict[str, set[Partition]] = defaultdict(set)
    last = 0
    for line in told:
        client, last = clients[line.who], max(last, line.at)
        if line.what == "read" and line.who.startswith(COMMITTED):
            poll = Poll({(OUTPUT, line.partition): [(line.offset, line.value)]}, line.at)
            ops.append(Op(client, Outcome.OK, (poll,), line.at, line.at))
        elif line.what == "moved":
            moved[line.who].add((INPUT, line.partition))
        elif line.what == "begin":
            under_way[line.who] = Transaction(client, line.at, frozenset(moved.pop(line.who, ())))
        elif line.who in under_way:
            under_way[line.who].note(line)
            if line.what in _OUTCOMES:
                ops.append(under_way.pop(line.who).op(_OUTCOMES[line.what], line.at))
    ops += [each.op(Outcome.INFO, last) for each in under_way.values()]
    return History(ops, frozenset((t, p) for t in (INPUT, OUTPUT) for p in range(PARTITIONS)))


class Transaction:
    """One under way."""

    def __init__(self, client: int, began: int, moved: frozenset[Partition]) -> None:
        self._client = client
        self._began = began
        self._moved = moved
        self._ending: int | None = None
        self._polled: dict[Partition, list[tuple[int, str]]] = defaultdict(list)
        self._sent: dict[str, Send] = {}

    def note(self, line: Line) -> None:
        if line.what == "polled":
            self._polled[INPUT, line.partition].append((line.offset, line.value))
        elif line.what == "send":
            self._sent[line.value] = Send((OUTPUT, line.partition), line.value)
        elif line.what == "sent":
            self._sent[line.value] = self._sent[line.value]._replace(offset=line.offset)
        elif line.what == "committing":
            self._ending = line.at

    def op(self, outcome: Outcome, ended: int) -> Op:
        return Op(
            self._client,
            outcome,
            (Poll(self._polled), *self._sent.values()),
            self._began,
            ended,
            transactional=True,
            moved=self._moved,
            ending=self._ending,
        )
