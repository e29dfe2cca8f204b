"""What no history of ours may show, each by the name under which the literature knows it.

The kinds follow Jepsen's analyses of Kafka-like logs, which rest on Adya's phenomena: a reader
of committed data must never see aborted (G1a) or unfinished work, information must not flow in
circles (G1c), and a log must keep what it acknowledged, once, at one place, in order.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from tests.histories.cycles import cycles
from tests.histories.history import History, Op, Outcome, Partition, Value
from tests.histories.log import Observed


class Kind(Enum):
    """One anomaly each."""

    LOST_WRITE = "an acknowledged record was passed over by readers"
    DUPLICATE = "a record lies at more than one offset"
    INCONSISTENT_OFFSETS = "an offset holds more than one record"
    ABORTED_READ = "a reader was shown a record of a transaction that was aborted"
    PRECOMMITTED_READ = "a reader was shown a record before its transaction asked to commit"
    UNWRITTEN_READ = "a reader was shown a record that nobody sent"
    NONMONOTONIC_POLL = "a client's polls went back"
    POLL_SKIP = "a client's polls passed over a record"
    NONMONOTONIC_SEND = "a client's records were stored in another order than sent"
    WRITE_READ_CYCLE = "operations saw each other's writes in a circle"


class Anomaly(NamedTuple):
    """One finding; ``what`` says it for a person."""

    kind: Kind
    what: str


def check(history: History) -> list[Anomaly]:
    """Every anomaly of a history, none if it is one that Kafka's guarantees allow."""
    observed = Observed(history)
    return [anomaly for each in _CHECKS for anomaly in each(observed)]


def _at(partition: Partition, offset: int | None, value: Value) -> str:
    return f"{value!r} at {partition[0]}-{partition[1]}@{'?' if offset is None else offset}"


# -- records and their places ---------------------------------------------------------------------


def _lost_writes(observed: Observed) -> Iterator[Anomaly]:
    """Somebody read beyond the record, or to the end, and nobody ever saw it."""
    last_read: dict[Partition, int] = {}
    for op, send in observed.acknowledged():
        partition = send.partition
        if (partition, send.value) in observed.readers:
            continue
        if partition not in last_read:
            last_read[partition] = observed.last_read(partition)
        passed = send.offset is not None and send.offset < last_read[partition]
        if passed or partition in observed.history.read_to_the_end:
            what = f"{_at(partition, send.offset, send.value)} of client {op.client} was never read"
            yield Anomaly(Kind.LOST_WRITE, what)


def _duplicates(observed: Observed) -> Iterator[Anomaly]:
    for partition, by_value in observed.offsets.items():
        for value, offsets in by_value.items():
            if len(offsets) > 1:
                what = f"{value!r} is in {partition[0]}-{partition[1]} at {sorted(offsets)}"
                yield Anomaly(Kind.DUPLICATE, what)


def _inconsistent_offsets(observed: Observed) -> Iterator[Anomaly]:
    for partition, by_offset in observed.values.items():
        for offset, values in by_offset.items():
            if len(values) > 1:
                what = f"{partition[0]}-{partition[1]}@{offset} is {sorted(map(repr, values))}"
                yield Anomaly(Kind.INCONSISTENT_OFFSETS, what)


# -- transactions ---------------------------------------------------------------------------------


def _wrong_reads(observed: Observed) -> Iterator[Anomaly]:
    """What read_committed must not show. Readers in a history are such readers."""
    for op in observed.history.ops:
        for poll in op.polls:
            for partition, records in poll.records.items():
                for offset, value in records:
                    kind = _wrong(observed, op, poll.at or op.ended, partition, value)
                    if kind is not None:
                        what = f"client {op.client} was shown {_at(partition, offset, value)}"
                        yield Anomaly(kind, what)


def _wrong(
    observed: Observed, reader: Op, read_at: int, partition: Partition, value: Value
) -> Kind | None:
    if (partition, value) not in observed.writers:
        return Kind.UNWRITTEN_READ
    writer, _ = observed.writers[partition, value]
    if not writer.transactional:
        # A record of a refused send is none of the log's promises, but it must not be there.
        return Kind.ABORTED_READ if writer.outcome is Outcome.FAIL else None
    if writer.outcome is Outcome.FAIL:
        return Kind.ABORTED_READ
    # A transaction reads its own writes no earlier than anybody else.
    if writer is reader or (writer.ending is not None and read_at < writer.ending):
        return Kind.PRECOMMITTED_READ
    return None


def _write_read_cycles(observed: Observed) -> Iterator[Anomaly]:
    """Adya's G1c: A saw what B wrote, and B, directly or through others, what A wrote."""
    edges: dict[int, set[int]] = defaultdict(set)
    index = {id(op): number for number, op in enumerate(observed.history.ops)}
    for key, (writer, _) in observed.writers.items():
        for reader in observed.readers.get(key, ()):
            if reader is not writer:
                edges[index[id(writer)]].add(index[id(reader)])
    for cycle in cycles(edges):
        clients = [observed.history.ops[number].client for number in sorted(cycle)]
        yield Anomaly(Kind.WRITE_READ_CYCLE, f"operations {sorted(cycle)} of clients {clients}")


# -- the order that one client sees ---------------------------------------------------------------


def _poll_order(observed: Observed) -> Iterator[Anomaly]:
    """Within one life of a client, polls of a partition go on where the one before ended."""
    positions: dict[tuple[int, Partition], int] = {}
    visible: dict[Partition, list[int]] = {}
    for op in sorted(observed.history.ops, key=lambda op: op.began):
        for partition in op.moved:
            positions.pop((op.client, partition), None)
        for poll in op.polls:
            for partition, records in poll.records.items():
                if partition not in visible:
                    visible[partition] = observed.committed_offsets(partition)
                for offset, _ in records:
                    before = positions.get((op.client, partition))
                    positions[op.client, partition] = offset
                    if before is None:
                        continue
                    step = f"client {op.client} went from {before} to {offset} of {partition}"
                    if offset <= before:
                        yield Anomaly(Kind.NONMONOTONIC_POLL, step)
                    else:
                        between = _between(visible[partition], before, offset)
                        if between:
                            yield Anomaly(Kind.POLL_SKIP, f"{step}, past {between}")
        if op.outcome is not Outcome.OK:
            # Where a client stands after a transaction that came to nothing is its own affair:
            # it goes back to the offsets committed last.
            for partition in {p for poll in op.polls for p in poll.records}:
                positions.pop((op.client, partition), None)


def _between(offsets: list[int], low: int, high: int) -> list[int]:
    return offsets[bisect_right(offsets, low) : bisect_left(offsets, high)]


def _send_order(observed: Observed) -> Iterator[Anomaly]:
    """Within one life of a client, records of a partition are stored in the order of sending."""
    last: dict[tuple[int, Partition], int] = {}
    for op in sorted(observed.history.ops, key=lambda op: op.began):
        for send in op.sends:
            if send.offset is None:
                continue
            before = last.get((op.client, send.partition), -1)
            if send.offset <= before:
                what = f"client {op.client}: {_at(send.partition, send.offset, send.value)}"
                yield Anomaly(Kind.NONMONOTONIC_SEND, f"{what} comes after {before}")
            last[op.client, send.partition] = max(before, send.offset)


_CHECKS: tuple[Callable[[Observed], Iterator[Anomaly]], ...] = (
    _lost_writes,
    _duplicates,
    _inconsistent_offsets,
    _wrong_reads,
    _write_read_cycles,
    _poll_order,
    _send_order,
)
