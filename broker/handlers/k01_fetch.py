"""Fetch (1): read records, waiting for them if there are none yet.

v0 base · v1 throttle time · v2 message format 1 · v3 max_bytes for the whole response · v4
message format 2, isolation level, last stable offset, aborted transactions · v5 log start offset
· v7 fetch sessions (KIP-227) · v9 current leader epoch (KIP-320) · v10 zstd (KIP-110) · v11 rack
(KIP-392) · v12 flexible, diverging epochs (KIP-595)
· v13 topic ids (KIP-516) · v15 replica state · v16 node endpoints (left out) · v17 directory id.

Clients older than v4 cannot read message format 2; what they get is down-converted, off the
event loop. Records that are not in the page cache are read into it by a thread first, so that one
reader of old data does not stall everybody.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, cast

from kavka.broker.fetch.conversion import convert_reads, needs_conversion
from kavka.broker.fetch.followers import count_sent, lacks_deletion, note_waiting, nudge
from kavka.broker.fetch.near import NearReplicas
from kavka.broker.fetch.polls import Poll, may_be_kept
from kavka.broker.fetch.reader import (
    FetchOptions,
    PartitionRead,
    read_partitions,
)
from kavka.broker.fetch.response import runs_of_topics, write_response
from kavka.broker.fetch.sessions import FetchContext
from kavka.broker.parking import park
from kavka.broker.request import Pending, Raw
from kavka.config.limits import (
    AWAITED_PARTITIONS_MAX,
    CONVERTED_FETCH_BYTES_MAX,
    FETCH_BYTES_MAX,
)
from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k01_fetch import FetchRequest
from kavka.replication.partition import CONSUMER_REPLICA_ID, Partition
from kavka.replication.waiting import Waiter
from kavka.storage.fetch_slice import FetchSlice

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 1

_READS_KEPT: Final = 8  # by a fetch that waits; more are worth reading again


def handle_raw(broker: "Broker", request: "Request") -> Raw | bytes | Pending:
    connection = request.connection
    waiter, connection.polled = connection.polled, None
    if waiter is not None:
        assert waiter.poll is not None
        if waiter.poll.is_repeated(broker, request):
            return waiter.wait_again()
    return handle(broker, request, codec.decode(FetchRequest, request.body, request.version))


def handle(broker: "Broker", request: "Request", body: FetchRequest) -> Raw | bytes | Pending:
    version = request.version
    replica_id = body.replica_id
    if version >= 15:
        replica_id = CONSUMER_REPLICA_ID
        if body.replica_state is not None:
            replica_id = body.replica_state.replica_id
    if replica_id >= 0:
        nudge(broker, request)
    try:
        context = broker.fetch_sessions.open(body, version, follower=replica_id >= 0)
    except KafkaError as error:
        return Raw(write_response(version, error.code, 0, ()))
    options = FetchOptions(
        version,
        replica_id,
        body.isolation_level,
        body.min_bytes,
        _limit(body, version),
    )
    if broker.replicas.rack_aware:
        options.near = NearReplicas.of(broker, version, replica_id, body.rack_id)
    if broker.authorizer is not None:
        options.asker = request
    if broker.quotas is not None:
        broker.quotas.prepare_fetch(request, options)
    if replica_id >= 0 and context.incremental and options.asker is None:
        options.resting = []
    reads = read_partitions(broker, context.partitions, options)
    options.arriving = False
    if (
        body.max_wait_ms > 0
        and context.partitions
        and _must_wait(reads, options.min_bytes)
        and broker.waiting.awaited + len(context.partitions) <= AWAITED_PARTITIONS_MAX
    ):
        return _park(broker, request, context, options, reads, body.max_wait_ms)
    if _needs_a_thread(reads, options):
        pending = Pending(exclusive=options.magic < 2)
        _respond_later(broker, context, options, reads, pending)
        return pending
    return _respond(broker, context, options, reads)


def _limit(body: FetchRequest, version: int) -> int:
    """Most bytes of the answer. Converted records are in memory until they are sent: so there are
    fewer of them, and a connection has only one such answer at a time.
    """
    if version >= 4:
        return min(body.max_bytes, FETCH_BYTES_MAX)
    if version == 3:
        return min(body.max_bytes, CONVERTED_FETCH_BYTES_MAX)
    return CONVERTED_FETCH_BYTES_MAX  # these requests have no limit over all partitions


def _must_wait(reads: list[PartitionRead], min_bytes: int) -> bool:
    size = 0
    for read in reads:
        if read.error != ErrorCode.NONE or read.diverging_epoch is not None or read.urgent:
            return False
        size += read.size
    return size < min_bytes


def _park(
    broker: "Broker",
    request: "Request",
    context: FetchContext,
    options: FetchOptions,
    reads: list[PartitionRead],
    max_wait_ms: int,
) -> Pending:
    pending = Pending(exclusive=options.magic < 2)
    waiter = FetchWaiter(broker, context, options, pending)
    if options.replica_id < 0 and options.asker is None:
        news = [read for read in reads if read.has_news] if context.incremental else reads
        if len(news) <= _READS_KEPT:
            waiter.reads = news
            if (
                len(reads) <= _READS_KEPT
                and not (context.incremental and news)
                and not any(read.size for read in reads)
                and options.near is None
                and may_be_kept(broker, request)
            ):
                waiter.poll = Poll(request, context.session, max_wait_ms, reads)
    keys = [read.partition for read in reads if read.partition is not None]
    if options.resting:
        keys += options.resting
    if options.replica_id >= 0:
        broker.waiting.park(waiter, keys, max_wait_ms / 1000)
        note_waiting(broker, request, waiter, pending)
    else:
        park(broker, waiter, keys, max_wait_ms, pending)
    return pending


class FetchWaiter(Waiter):
    """A Fetch that found too little and waits for more."""

    __slots__ = ("_broker", "_context", "_options", "_pending", "poll", "reads")

    def __init__(
        self, broker: "Broker", context: FetchContext, options: FetchOptions, pending: Pending
    ) -> None:
        super().__init__()
        self.reads: list[PartitionRead] | None = None  # the answer if nothing happens meanwhile
        self.poll: Poll | None = None  # set if the next request may be known by it
        self._broker = broker
        self._context = context
        self._options = options
        self._pending = pending

    def try_complete(self, key: Hashable) -> bool:
        assert isinstance(key, Partition)
        self.reads = self.poll = None
        if self._options.min_bytes <= 1 and not self._has_more(key):
            return False
        reads = read_partitions(self._broker, self._context.partitions, self._options)
        if _must_wait(reads, self._options.min_bytes):
            return False
        self._finish(reads)
        return True

    def wait_again(self) -> Pending:
        """Wait as the last time, for the same answer, if nothing happens."""
        poll = self.poll
        assert poll is not None
        pending = self._pending = Pending()
        park(self._broker, self, poll.partitions, poll.max_wait_ms, pending)
        return pending

    def expire(self) -> None:
        reads, poll = self.reads, self.poll
        if poll is not None:
            request = self._pending.request
            assert reads is not None
            assert request is not None
            if poll.answer is None:
                answer = _respond(self._broker, self._context, self._options, reads)
                if answer.__class__ is bytes:
                    poll.answer = answer
            if poll.answer is not None:
                request.connection.polled = self
                self._pending.complete(poll.answer)
                return
        if reads is None:
            reads = read_partitions(self._broker, self._context.partitions, self._options)
        self._finish(reads)

    def _has_more(self, partition: Partition) -> bool:
        """Whether the partition that was touched has anything for us: a look, not a read."""
        if not partition.is_leader or self._options.near is not None:
            return True  # an error, which is an answer too; or more than offsets counts
        bound = partition.fetch_bound(self._options.replica_id, self._options.isolation_level)
        entry = self._context.find(partition.topic, partition.topic_id, partition.index)
        return entry is not None and (
            entry.fetch_offset < bound
            or entry.fetch_offset < partition.log.log_start_offset
            or lacks_deletion(entry, partition.log, self._options.replica_id)
        )

    def _finish(self, reads: list[PartitionRead]) -> None:
        if _needs_a_thread(reads, self._options):
            _respond_later(self._broker, self._context, self._options, reads, self._pending)
        else:
            self._pending.complete(_respond(self._broker, self._context, self._options, reads))


def _needs_a_thread(reads: list[PartitionRead], options: FetchOptions) -> bool:
    """Whether records must be converted, or come from the disk: both would stall the loop."""
    return needs_conversion(reads, options) or any(map(_is_cold, reads))


def _is_cold(read: PartitionRead) -> bool:
    records = read.records
    return records.__class__ is FetchSlice and not records.is_cached()


def _respond_later(
    broker: "Broker",
    context: FetchContext,
    options: FetchOptions,
    reads: list[PartitionRead],
    pending: Pending,
) -> None:
    async def run() -> None:
        try:
            ready = reads
            if needs_conversion(reads, options):
                ready = await convert_reads(broker, reads, options)
            else:
                for read in filter(_is_cold, reads):
                    assert isinstance(read.records, FetchSlice)
                    await broker.loop.run_in_executor(None, read.records.warm_up)
        except Exception as error:
            pending.fail(error)
        else:
            pending.complete(_respond(broker, context, options, ready))

    broker.loop.create_task(run())


def _respond(
    broker: "Broker", context: FetchContext, options: FetchOptions, reads: list[PartitionRead]
) -> Raw | bytes:
    session = context.session
    if context.incremental:
        reads = [read for read in reads if read.has_news]
    parts = write_response(
        options.version, ErrorCode.NONE, context.session_id, runs_of_topics(reads)
    )
    if options.charge is not None and not options.charge(parts):
        return _throttled(broker, context, options)
    if options.replica_id >= 0:
        count_sent(broker, reads)
    if session is not None:
        for read in reads:
            read.mark_sent()
            if read.size:
                session.move_to_end(read.entry)
    if len(parts) == 1 and broker.quotas is None:
        return bytes(cast("bytearray", parts[0]))  # nothing new: sent together with others
    return Raw(parts)


def _throttled(broker: "Broker", context: FetchContext, options: FetchOptions) -> Raw:
    """The empty answer to a reader that is over its quota: it knows no more than before.

    One that wanted a new session gets none, and will ask for everything again.
    """
    if not context.incremental:
        broker.fetch_sessions.give_up(context)
    return Raw(write_response(options.version, ErrorCode.NONE, context.session_id, ()))
