"""The judge is judged: each anomaly has a history it must catch, and a near one it must pass."""

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from tests.histories.check import Kind, check
from tests.histories.cycles import cycles
from tests.histories.history import History, Op, Outcome, Partition, Poll, Send, Step, Value
from tests.histories.record import Recorder

P: Partition = ("t", 0)
Q: Partition = ("t", 1)
OK, FAIL, INFO = Outcome.OK, Outcome.FAIL, Outcome.INFO


class Script:
    """Operations one after another, each wholly after the one before."""

    def __init__(self) -> None:
        self._moments = count(1)
        self.ops: list[Op] = []

    def add(
        self,
        client: int,
        *steps: Step,
        outcome: Outcome = OK,
        txn: bool = False,
        moved: Sequence[Partition] = (),
    ) -> None:
        began = next(self._moments)
        timed = [s._replace(at=next(self._moments)) if isinstance(s, Poll) else s for s in steps]
        ending = next(self._moments) if txn else None
        ended = next(self._moments)
        self.ops.append(
            Op(client, outcome, tuple(timed), began, ended, txn, frozenset(moved), ending)
        )


def send(value: Value, offset: int | None = None, partition: Partition = P) -> Send:
    return Send(partition, value, offset)


def poll(*records: tuple[int, Value], partition: Partition = P) -> Poll:
    return Poll({partition: records})


def kinds(script: Script, read_to_the_end: Sequence[Partition] = ()) -> set[Kind]:
    history = History(script.ops, frozenset(read_to_the_end))
    return {anomaly.kind for anomaly in check(history)}


def lost(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(1, send("b", 1))
    s.add(2, poll((1, "b")))


def not_lost_but_not_read_yet(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(1, send("b", 1))
    s.add(2, poll((0, "a")))


def lost_without_a_known_offset(s: Script) -> None:
    s.add(1, send("a"))
    s.add(2, poll(partition=Q))


def unknown_and_never_seen(s: Script) -> None:
    s.add(1, send("a"), outcome=INFO)
    s.add(1, send("b", 0))
    s.add(2, poll((0, "b")))


def twice(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(2, poll((0, "a"), (1, "a")))


def the_same_in_two_partitions(s: Script) -> None:
    s.add(1, send("a", 0), send("a", 0, Q))
    s.add(2, poll((0, "a")))


def two_in_one_place(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(2, poll((0, "a")))
    s.add(3, send("b"))
    s.add(4, poll((0, "b")))


def read_by_two(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(2, poll((0, "a")))
    s.add(3, poll((0, "a")))


def aborted_and_read(s: Script) -> None:
    s.add(1, send("a", 0), outcome=FAIL, txn=True)
    s.add(2, poll((0, "a")))


def perhaps_committed_and_read(s: Script) -> None:
    s.add(1, send("a", 0), outcome=INFO, txn=True)
    s.add(2, poll((0, "a")))


def read_before_its_commit(s: Script) -> None:
    writer = Op(1, OK, (send("a", 0),), 1, 10, True, frozenset(), 8)
    s.ops += [writer, Op(2, OK, (Poll({P: [(0, "a")]}, 5),), 4, 6)]


def read_while_it_commits(s: Script) -> None:
    writer = Op(1, OK, (send("a", 0),), 1, 10, True, frozenset(), 4)
    s.ops += [writer, Op(2, OK, (Poll({P: [(0, "a")]}, 5),), 3, 6)]


def its_own_writes(s: Script) -> None:
    s.add(1, send("a", 0), poll((0, "a")), txn=True)


def its_writes_of_before(s: Script) -> None:
    s.add(1, send("a", 0), txn=True)
    s.add(1, poll((0, "a")), txn=True)


def from_nowhere(s: Script) -> None:
    s.add(2, poll((0, "a")))


def back(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(1, send("b", 1))
    s.add(2, poll((0, "a"), (1, "b")))
    s.add(2, poll((0, "a")))


def back_within_a_poll(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(1, send("b", 1))
    s.add(2, poll((1, "b"), (0, "a")))


def back_after_a_rebalance(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(1, send("b", 1))
    s.add(2, poll((0, "a"), (1, "b")))
    s.add(2, poll((0, "a")), moved=[P])


def back_after_a_transaction_in_vain(s: Script) -> None:
    s.add(1, send("a", 0))
    s.add(2, poll((0, "a")), outcome=FAIL, txn=True)
    s.add(2, poll((0, "a")), txn=True)


def past_a_record(s: Script) -> None:
    for offset, value in enumerate("abc"):
        s.add(1, send(value, offset))
    s.add(2, poll((0, "a")))
    s.add(2, poll((2, "c")))
    s.add(3, poll((0, "a"), (1, "b"), (2, "c")))


def past_a_marker_and_an_aborted_one(s: Script) -> None:
    s.add(1, send("a", 0), txn=True)  # its marker lies at 1
    s.add(1, send("b", 2), outcome=FAIL, txn=True)  # and at 3
    s.add(1, send("c", 4), txn=True)
    s.add(2, poll((0, "a")))
    s.add(2, poll((4, "c")))


def stored_in_another_order(s: Script) -> None:
    s.add(1, send("a", 1), send("b", 0))


def stored_in_another_order_by_two(s: Script) -> None:
    s.add(1, send("a", 1))
    s.add(2, send("b", 0))


def in_a_circle(s: Script) -> None:
    first = Op(1, OK, (send("a", 0), Poll({Q: [(0, "b")]}, 9)), 1, 10, True, frozenset(), 2)
    second = Op(2, OK, (send("b", 0, Q), Poll({P: [(0, "a")]}, 9)), 1, 10, True, frozenset(), 2)
    s.ops += [first, second]


def one_way(s: Script) -> None:
    s.add(1, send("a", 0), txn=True)
    s.add(2, poll((0, "a")), send("b", 0, Q), txn=True)
    s.add(3, poll((0, "b"), partition=Q), poll((0, "a")), txn=True)


CAUGHT: list[tuple[Kind, Callable[[Script], None], Callable[[Script], None]]] = [
    (Kind.LOST_WRITE, lost, not_lost_but_not_read_yet),
    (Kind.LOST_WRITE, lost, unknown_and_never_seen),
    (Kind.DUPLICATE, twice, the_same_in_two_partitions),
    (Kind.INCONSISTENT_OFFSETS, two_in_one_place, read_by_two),
    (Kind.ABORTED_READ, aborted_and_read, perhaps_committed_and_read),
    (Kind.PRECOMMITTED_READ, read_before_its_commit, read_while_it_commits),
    (Kind.PRECOMMITTED_READ, its_own_writes, its_writes_of_before),
    (Kind.UNWRITTEN_READ, from_nowhere, read_by_two),
    (Kind.NONMONOTONIC_POLL, back, back_after_a_rebalance),
    (Kind.NONMONOTONIC_POLL, back_within_a_poll, back_after_a_transaction_in_vain),
    (Kind.POLL_SKIP, past_a_record, past_a_marker_and_an_aborted_one),
    (Kind.NONMONOTONIC_SEND, stored_in_another_order, stored_in_another_order_by_two),
    (Kind.WRITE_READ_CYCLE, in_a_circle, one_way),
]


@pytest.mark.parametrize(("kind", "bad", "good"), CAUGHT)
def test_anomalies(
    kind: Kind, bad: Callable[[Script], None], good: Callable[[Script], None]
) -> None:
    guilty, innocent = Script(), Script()
    bad(guilty)
    good(innocent)
    assert kinds(guilty) == {kind}
    assert kinds(innocent) == set()


def test_every_kind_is_shown() -> None:
    assert {kind for kind, _, _ in CAUGHT} == set(Kind)


def test_the_last_record_is_missed_only_by_who_read_to_the_end() -> None:
    script = Script()
    lost_without_a_known_offset(script)
    assert kinds(script) == set()
    assert kinds(script, [P]) == {Kind.LOST_WRITE}


def test_a_value_may_be_sent_once_only() -> None:
    script = Script()
    script.add(1, send("a", 0))
    script.add(1, send("a", 1))
    with pytest.raises(ValueError, match="sent twice"):
        kinds(script)


def test_cycles() -> None:
    assert cycles({1: {2}, 2: {3}, 3: {1, 4}, 4: {5}, 5: set(), 6: {7}, 7: {6}}) == [
        {1, 2, 3},
        {6, 7},
    ]
    assert cycles({n: {n + 1} for n in range(5_000)}) == []


def test_the_recorder_notes_what_was_not_finished_as_unknown() -> None:
    recorder = Recorder()
    client = recorder.new_client()
    with pytest.raises(RuntimeError), recorder.op(client, transactional=True) as entry:
        entry.send(P, "a")
        entry.acknowledged(P, "a", 7)
        entry.committing()
        raise RuntimeError("the client died")
    with recorder.op(recorder.new_client()) as entry:
        entry.polled([(P, 7, "a")])
        entry.ok()
    first, second = recorder.history().ops
    assert (first.outcome, first.sends, first.transactional) == (INFO, [send("a", 7)], True)
    assert first.ending is not None
    assert second.polls[0].at is not None
    assert first.began < first.ending < first.ended < second.began < second.polls[0].at
    assert check(recorder.history([P])) == []
