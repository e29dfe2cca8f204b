"""What a history tells of the log behind it: which value lies where, and who put it there."""

from collections import defaultdict
from collections.abc import Iterator

from tests.histories.history import History, Op, Outcome, Partition, Send, Value


class Observed:
    """The records of a history, put together from acknowledgements and polls.

    What a failed operation's polls saw was seen all the same, so every poll counts.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.values: dict[Partition, dict[int, set[Value]]] = defaultdict(lambda: defaultdict(set))
        self.offsets: dict[Partition, dict[Value, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.readers: dict[tuple[Partition, Value], list[Op]] = defaultdict(list)
        self.writers: dict[tuple[Partition, Value], tuple[Op, Send]] = {}
        for op in history.ops:
            for send in op.sends:
                key = (send.partition, send.value)
                if key in self.writers:
                    raise ValueError(f"{send.value!r} was sent twice to {send.partition}")
                self.writers[key] = (op, send)
                # The offset of an aborted record is a fact too: the batch is in the log.
                if send.offset is not None:
                    self._note(send.partition, send.offset, send.value)
            for poll in op.polls:
                for partition, records in poll.records.items():
                    for offset, value in records:
                        self._note(partition, offset, value)
                        self.readers[partition, value].append(op)

    def _note(self, partition: Partition, offset: int, value: Value) -> None:
        self.values[partition][offset].add(value)
        self.offsets[partition][value].add(offset)

    def last_read(self, partition: Partition) -> int:
        """The highest offset that anybody was shown; -1 when nobody read."""
        return max(
            (
                offset
                for op in self.history.ops
                for poll in op.polls
                for offset, _ in poll.records.get(partition, ())
            ),
            default=-1,
        )

    def committed_offsets(self, partition: Partition) -> list[int]:
        """Offsets of records that every reader has to be shown when it comes by, in order.

        Those of acknowledged operations. A record of an operation with an unknown outcome counts
        when somebody was shown it.
        """
        found = []
        for offset, values in self.values[partition].items():
            for value in values:
                writer = self.writers.get((partition, value))
                shown = (partition, value) in self.readers
                if writer is None or writer[0].outcome is Outcome.FAIL:
                    continue
                if writer[0].outcome is Outcome.OK or shown:
                    found.append(offset)
        return sorted(found)

    def acknowledged(self) -> Iterator[tuple[Op, Send]]:
        """Every send whose client was told that it is kept."""
        for op, send in self.writers.values():
            if op.outcome is Outcome.OK:
                yield op, send
