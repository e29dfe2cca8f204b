"""What repeats from one Produce request of a connection to the next, worked out once.

A producer that is busy sends one request behind the other that differ in correlation id and
records alone: its id, acks, time-out, topic and partition are the same bytes again. The first
such request takes the general way and leaves here what was found; those that follow are known by
their *head*, everything before the records, and all that one readiness event brings for one
partition is appended by one write.

Nothing is decided here: what is not quite ordinary, or refused, goes to the dispatcher as it came.
"""

from collections.abc import Sequence
from functools import partial
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.authorization import Operation, Resource, connection_may
from kavka.broker.parking import park
from kavka.broker.produce import single
from kavka.broker.produce.waiters import SingleWaiter
from kavka.broker.request import Pending, Request
from kavka.config.limits import PRODUCE_HEADS_MAX, PRODUCE_REQUESTS_TOGETHER_MAX
from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import NO_TIMESTAMP, TRANSACTIONAL_MASK, BatchHeader
from kavka.replication.partition import Partition
from kavka.storage.append import AppendInfo

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.context import Broker

KEY: Final = 0
NO_ACKS: Final = 0
FIRST_VERSION: Final = 5  # the first one whose answer has a log start offset

_START: Final = Struct(">hhi")  # API key, version, correlation id
_LENGTH: Final = Struct(">h")
_NOBODY: Final = memoryview(b"")  # of a request that has been read already


class Head:
    """Where the requests with the same head go, and what their answers have in common."""

    __slots__ = ("_back", "_front", "_pack", "_size", "name", "partition", "timeout_ms", "topic")

    def __init__(self, version: int, topic: bytes, partition: Partition, timeout_ms: int) -> None:
        self.topic = topic
        self.name = topic.decode()
        self.partition = partition
        self.timeout_ms = timeout_ms
        front, self._back = single.around_offsets(version, topic, partition.index)
        if version >= single.FIRST_FLEXIBLE_VERSION:
            front = b"\0" + front  # no tagged fields in the response's header
        self._front = front
        frame = Struct(f">ii{len(front)}sqqq{len(self._back)}s")
        self._size = frame.size - 4
        self._pack = frame.pack

    def answer(self, correlation_id: int, base_offset: int, log_start_offset: int) -> bytes:
        """The whole frame that says where a request's records are."""
        return self._pack(
            self._size,
            correlation_id,
            self._front,
            base_offset,
            NO_TIMESTAMP,
            log_start_offset,
            self._back,
        )


class _Taken(NamedTuple):
    """A request that waits to be appended with those that came with it."""

    correlation_id: int
    head: Head
    header: BatchHeader
    records: memoryview
    frame: memoryview


_new_taken = partial(tuple.__new__, _Taken)  # three times as fast as the class


class ProduceLane:
    """The requests of one connection that are alike; made by the Produce handler.

    All of the same version, from :data:`FIRST_VERSION` on, and with the same ``acks``.
    """

    __slots__ = (
        "_broker",
        "_connection",
        "_find_records",
        "_head_at_least",
        "_heads",
        "_length_at",
        "_now_ms",
        "_start",
        "acks",
        "taken",
        "version",
    )

    def __init__(self, broker: "Broker", connection: "Connection", version: int, acks: int) -> None:
        self._broker = broker
        self._connection = connection
        self.version = version
        self.acks = acks
        client_id = connection.client_id_bytes
        self._start = _LENGTH.pack(len(client_id)) + client_id
        if version >= single.FIRST_FLEXIBLE_VERSION:
            self._start += b"\0"  # no tagged fields in the request's header
            self._find_records = single.flexible_records
        else:
            self._find_records = single.classic_records
        length_at, rest = single.name_length_at(version)
        # One byte holds the length of a topic's name, in every version.
        self._length_at = _START.size + len(self._start) + length_at
        self._head_at_least = self._length_at + rest
        self._heads: dict[bytes, Head] = {}
        self._now_ms = 0  # when the first of them was taken
        self.taken: list[_Taken] = []  # since the last :meth:`run`

    def learn(self, body: memoryview, asked: single.SingleProduce, partition: Partition) -> None:
        """Know the head of a request, which was allowed and appended, from now on."""
        if len(self._heads) >= PRODUCE_HEADS_MAX:
            self._heads.clear()
        size_at = single.size_at(self.version, asked.topic)
        head = self._start + body[:size_at].tobytes()
        self._heads[head] = Head(self.version, asked.topic, partition, asked.timeout_ms)

    def take(self, frame: memoryview) -> bool:
        """Take a request whose head is known and whose records are in order; else False.

        It is not appended before :meth:`run`, which has to come before ``frame`` is used again
        and before any other request of the connection is served.
        """
        try:
            at = self._head_at_least + frame[self._length_at]
            head = self._heads.get(frame[_START.size : at].tobytes())
            if head is None:
                return False
            key, version, correlation_id = _START.unpack_from(frame)
            records = self._find_records(frame, at)
        except (IndexError, StructError):
            return False  # too short: the dispatcher says what is wrong with it
        broker = self._broker
        if (
            records is None
            or key != KEY
            or version != self.version
            or broker.quotas is not None
            or len(self.taken) >= PRODUCE_REQUESTS_TOGETHER_MAX
        ):
            return False
        if not self.taken:
            self._now_ms = broker.clock.wall_ms()
        header = head.partition.append_rules.ordinary(records, self._now_ms, version)
        if header is None or header.attributes & TRANSACTIONAL_MASK:
            return False
        if broker.authorizer is not None and not connection_may(
            broker.authorizer, self._connection, Operation.WRITE, Resource.TOPIC, head.name
        ):
            return False
        self.taken.append(_new_taken((correlation_id, head, header, records, frame)))
        return True

    def run(self) -> None:
        """Append what was taken, and answer it in its order.

        Raises what serving the requests one by one raises.
        """
        taken, self.taken = self.taken, []
        bases = [-1] * len(taken)  # base offsets of those that are appended
        waiting: set[Partition] = set()  # what is kept there is not yet all that acks asks for
        if len(taken) == 1:
            self._append(taken, bases, (0,), waiting)
        else:
            places: dict[Partition, list[int]] = {}
            for place, one in enumerate(taken):
                partition = one[1].partition
                if partition in places:
                    places[partition].append(place)
                else:
                    places[partition] = [place]
            for together in places.values():
                self._append(taken, bases, together, waiting)
        answers: list[bytes] = []
        enqueue = self._connection.enqueue
        acks = self.acks
        for (correlation_id, head, header, _, frame), base in zip(taken, bases, strict=True):
            if base >= 0 and (not waiting or head.partition not in waiting):
                if acks != NO_ACKS:
                    start = head.partition.log.log_start_offset
                    answers.append(head.answer(correlation_id, base, start))
                continue
            if answers:
                enqueue(b"".join(answers))
                answers.clear()
            if base >= 0:
                enqueue(self._park(correlation_id, head, base, header))
            else:
                enqueue(self._connection.service.serve(self._connection, frame))
        if answers:
            enqueue(b"".join(answers))

    def _append(
        self,
        taken: list[_Taken],
        bases: list[int],
        places: Sequence[int],
        waiting: set[Partition],
    ) -> None:
        """Append those at ``places``, which are of one partition, by one write.

        Nothing is done when that is refused, or when one of them has been appended before, which
        would make the whole a duplicate: each goes the general way then.
        """
        partition = taken[places[0]].head.partition
        batches = [taken[place][2:4] for place in places]
        replicas, acks = self._broker.replicas, self.acks
        try:
            if replicas.partition(partition.topic, partition.index) is not partition:
                return
            partition.require_leader()
            info = replicas.append(partition, batches, acks)
        except KafkaError:
            return
        if info.duplicate:
            return
        base = info.first_offset
        for place, (header, _) in zip(places, batches, strict=True):
            bases[place] = base
            base += header.last_offset_delta + 1
        if acks != NO_ACKS and not partition.acknowledged(acks, base):
            waiting.add(partition)

    def _park(self, correlation_id: int, head: Head, base: int, header: BatchHeader) -> Pending:
        """Let a request that is appended wait for replicas or the disk."""
        partition, connection = head.partition, self._connection
        pending = Pending()
        pending.request = Request(
            KEY, self.version, correlation_id, connection.client_id, _NOBODY, connection
        )
        info = AppendInfo(
            base, base + header.last_offset_delta, NO_TIMESTAMP, partition.log.log_start_offset, 0
        )
        waiter = SingleWaiter(head.topic, self.acks, self.version, partition, info, pending)
        park(self._broker, waiter, (partition,), head.timeout_ms, pending)
        return pending
