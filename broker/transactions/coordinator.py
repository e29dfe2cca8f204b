"""The transaction coordinator: runs the transactional ids whose partition of
``__transaction_state`` is led here.

Every operation goes the same way: the transaction computes its next image without I/O, the image
is appended, and what it says counts, and is answered, when it is replicated. Becoming leader
reads the same records, and takes up again what they say is decided but not done.

Owned by the event loop; nothing here blocks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.coordination.journal import Journal
from kavka.broker.coordination.ownership import Offload, Ownership, partition_for
from kavka.broker.coordination.state_log import ReplicaStateLog, StateLog
from kavka.broker.coordination.timers import CallLater
from kavka.broker.coordination.workers import call_later_on, offload_from
from kavka.broker.transactions import records
from kavka.broker.transactions.housekeeping import Housekeeping
from kavka.broker.transactions.loading import Replay
from kavka.broker.transactions.marker_writer import MarkerWriter, TxnMarker
from kavka.broker.transactions.markers import (
    RETRY_SECONDS,
    KnownPartitions,
    LocalMarkerChannel,
    MarkerChannel,
    MarkerSender,
)
from kavka.broker.transactions.messages import (
    Answer,
    Effect,
    ProducerIdentity,
    Result,
    Store,
    TransactionImage,
    WriteMarkers,
)
from kavka.broker.transactions.partition import TransactionPartition
from kavka.broker.transactions.settings import TransactionSettings
from kavka.broker.transactions.state import BY_LABEL
from kavka.broker.transactions.transaction import Transaction, is_running
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TRANSACTION_STATE_TOPIC, TopicPartition
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.broker.context import Broker

log = logging.getLogger("kavka.transactions")

_UNCOMPRESSED: Final = 0  # Kafka's loader relies on it
_STATE_ERRORS: Final = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
}


def state_error(code: ErrorCode) -> ErrorCode:
    """What a producer is told when its state could not be written."""
    return _STATE_ERRORS.get(code, code)


class Listing(NamedTuple):
    """What ListTransactions finds."""

    error: ErrorCode
    unknown_states: list[str]
    transactions: list[Transaction]


class TransactionCoordinator:
    """All transactional ids coordinated by this broker.

    ``channel`` brings markers to the leaders; ``new_producer_id`` hands out ids that nobody has
    had; ``partition_count`` gives the number of partitions of ``__transaction_state``; ``offload``
    runs work in a thread.
    """

    def __init__(
        self,
        settings: TransactionSettings,
        state_log: StateLog,
        channel: MarkerChannel,
        metadata: KnownPartitions,
        new_producer_id: Callable[[], Awaitable[int]],
        clock: Clock,
        call_later: CallLater,
        offload: Offload,
        partition_count: Callable[[], int],
        marker_writer: MarkerWriter | None = None,
    ) -> None:
        self.settings = settings
        self.marker_writer = marker_writer  # of this broker as leader; None without partitions
        self._new_producer_id = new_producer_id
        self._clock = clock
        self._call_later = call_later
        self._partition_count = partition_count
        self._active = False
        self._journal = Journal(state_log, clock, _UNCOMPRESSED)
        self._sender = MarkerSender(channel, metadata, clock, call_later)
        self._owned = Ownership(
            *(state_log, clock, offload, TransactionPartition, Replay, self._on_loaded),
            what="Transactional ids",
            logger=log,
        )
        self._ending: set[asyncio.Task[None]] = set()
        self._housekeeping = Housekeeping(self, self._journal, clock, call_later)

    @classmethod
    def create(cls, broker: "Broker") -> "TransactionCoordinator":
        """The coordinator of a broker whose metadata and replicas are there; not started."""
        settings = TransactionSettings.from_config(broker.config)

        def partition_count() -> int:
            topic = broker.metadata.topics.get(TRANSACTION_STATE_TOPIC)
            return settings.state_partitions if topic is None else len(topic.partitions)

        writer = MarkerWriter(
            broker.replicas,
            broker.clock,
            broker.groups.offsets.end_transaction,
            settings.request_timeout_ms,
        )
        return cls(
            settings,
            ReplicaStateLog(broker.replicas, TRANSACTION_STATE_TOPIC),
            _marker_channel(broker, writer),
            broker.metadata,
            broker.producer_ids.next,
            broker.clock,
            call_later_on(broker.loop),
            offload_from(broker.loop),
            partition_count,
            writer,
        )

    def start(self) -> None:
        """Serve.

        To be called when metadata is known: a partition that it lacks counts as deleted soon
        after.
        """
        self._active = True
        self._housekeeping.start()

    def stop(self) -> None:
        """Serve no more; markers that are still to be written are left to the next start."""
        self._active = False
        self._housekeeping.stop()
        for owned in self._owned:
            self.on_resigned(owned.index)

    async def loaded(self) -> None:
        """Wait until no partition is being read."""
        idle = asyncio.Event()
        self._owned.when_idle(idle.set)
        await idle.wait()

    # -- leadership ---------------------------------------------------------------------------

    def on_elected(self, partition: int, leader_epoch: int) -> None:
        """This broker leads the partition: load its transactional ids."""
        self._owned.elected(partition, leader_epoch)

    def on_resigned(self, partition: int) -> None:
        """The partition is led elsewhere. Who waits for a record there is told as soon as the
        wait for its replication ends, which leadership does too."""
        self._owned.resigned(partition)

    def _on_loaded(self, owned: TransactionPartition, replay: Replay) -> int:
        for transactional_id, image in replay.images.items():
            owned.transactions[transactional_id] = Transaction(transactional_id, image)
        if replay.unknown_records:
            log.warning(
                "Records of no known kind were passed over partition=%d records=%d",
                *(owned.index, replay.unknown_records),
            )
        decided = [t for t in owned.transactions.values() if t.current.state.is_prepared]
        if decided:
            log.info(
                "Transactions that were decided but not done are taken up partition=%d "
                "transactions=%d",
                *(owned.index, len(decided)),
            )
        for transaction in decided:
            self.run(owned, transaction, transaction.resume())
        return len(owned.transactions)

    # -- finding ------------------------------------------------------------------------------

    def partition_of(self, transactional_id: str) -> int:
        """The partition of ``__transaction_state`` that keeps this id."""
        return partition_for(transactional_id, self._partition_count())

    def status(self, transactional_id: str) -> ErrorCode:
        """Whether this broker can answer for the id now."""
        if not 0 < len(transactional_id) <= limits.TRANSACTIONAL_ID_CHARACTERS_MAX:
            return ErrorCode.INVALID_REQUEST
        if not self._active:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        owned = self._owned.get(self.partition_of(transactional_id))
        if owned is None:
            return ErrorCode.NOT_COORDINATOR
        if owned.loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return ErrorCode.COORDINATOR_NOT_AVAILABLE if owned.failed else ErrorCode.NONE

    def owned_partitions(self) -> Iterator[TransactionPartition]:
        """The partitions led here, loaded or not."""
        return iter(self._owned)

    def owns(self, owned: TransactionPartition) -> bool:
        """Whether the partition is led here, without a break since this object was made."""
        return self._owned.get(owned.index) is owned

    def _owner_of(self, transactional_id: str) -> TransactionPartition:
        owned = self._owned.get(self.partition_of(transactional_id))
        assert owned is not None, "see status()"
        return owned

    def _find(
        self, transactional_id: str
    ) -> tuple[ErrorCode, TransactionPartition | None, Transaction | None]:
        error = self.status(transactional_id)
        if error is not ErrorCode.NONE:
            return error, None, None
        owned = self._owner_of(transactional_id)
        return error, owned, owned.transactions.get(transactional_id)

    # -- requests -----------------------------------------------------------------------------

    async def init_producer_id(
        self, transactional_id: str, timeout_ms: int, claim: ProducerIdentity | None
    ) -> Result:
        """InitProducerId; see :meth:`Transaction.init_producer`."""
        error, owned, transaction = self._find(transactional_id)
        if error is ErrorCode.INVALID_REQUEST:
            return Result(error)
        if not 0 < timeout_ms <= self.settings.max_timeout_ms:
            return Result(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        fresh_id: int | None = None
        while owned is not None and fresh_id is None:
            if transaction is not None and not transaction.needs_producer_id(claim):
                break
            try:
                fresh_id = await self._new_producer_id()
            except KafkaError as failure:
                return Result(failure.code)
            # Much may have happened meanwhile.
            error, owned, transaction = self._find(transactional_id)
        if owned is None:
            return Result(error)
        now_ms = self._clock.wall_ms()
        if transaction is None:
            assert fresh_id is not None
            transaction = Transaction.new(transactional_id, fresh_id, timeout_ms, now_ms)
            owned.transactions[transactional_id] = transaction
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def settle(result: Result) -> None:
            if not answer.done():  # cancelled: the broker stops
                answer.set_result(result)

        self.run(
            owned,
            transaction,
            transaction.init_producer(timeout_ms, claim, fresh_id, settle, now_ms),
        )
        return await answer

    def add_partitions(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Iterable[TopicPartition],
        done: Callable[[ErrorCode], None],
        *,
        bumping: bool = False,
    ) -> None:
        """AddPartitionsToTxn; ``done`` is called now or when it is stored.

        ``bumping``: see :meth:`Transaction.add_partitions`.
        """
        error, owned, transaction = self._find(transactional_id)
        if owned is None or transaction is None:
            done(error or ErrorCode.INVALID_PRODUCER_ID_MAPPING)
            return
        now_ms = self._clock.wall_ms()
        self.run(
            owned,
            transaction,
            transaction.add_partitions(
                identity, partitions, _error_only(done), now_ms, bumping=bumping
            ),
        )

    def end(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        committed: bool,
        done: Callable[[Result], None],
        *,
        bumping: bool = False,
    ) -> None:
        """EndTxn; ``done`` is called now or when the decision is stored.

        ``bumping`` by the second protocol; see :meth:`Transaction.end_and_bump`.
        """
        error, owned, transaction = self._find(transactional_id)
        if owned is None or transaction is None:
            done(Result(error or ErrorCode.INVALID_PRODUCER_ID_MAPPING))
            return
        now_ms = self._clock.wall_ms()
        if not bumping:
            effects = transaction.end(identity, committed, done, now_ms)
        elif not transaction.needs_producer_id_to_end(identity):
            effects = transaction.end_and_bump(identity, committed, None, done, now_ms)
        else:
            ending = self._end_with_fresh_id(transactional_id, identity, committed, done)
            task = asyncio.get_running_loop().create_task(ending)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            return
        self.run(owned, transaction, effects)

    async def _end_with_fresh_id(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        committed: bool,
        done: Callable[[Result], None],
    ) -> None:
        try:
            fresh_id = await self._new_producer_id()
        except KafkaError as failure:
            done(Result(failure.code))
            return
        # Much may have happened meanwhile.
        error, owned, transaction = self._find(transactional_id)
        if owned is None or transaction is None:
            done(Result(error or ErrorCode.INVALID_PRODUCER_ID_MAPPING))
            return
        now_ms = self._clock.wall_ms()
        self.run(
            owned,
            transaction,
            transaction.end_and_bump(identity, committed, fresh_id, done, now_ms),
        )

    def verify(
        self,
        transactional_id: str,
        identity: ProducerIdentity,
        partitions: Collection[TopicPartition],
    ) -> dict[TopicPartition, ErrorCode]:
        """For each partition whether it is in the open transaction of this producer (KIP-890):
        NONE, or TRANSACTION_ABORTABLE when it is not, or why nothing can be said."""
        error, _, transaction = self._find(transactional_id)
        if transaction is None:
            error = error or ErrorCode.INVALID_PRODUCER_ID_MAPPING
            return dict.fromkeys(partitions, error)
        outcome = transaction.verify(identity, partitions)
        if isinstance(outcome, ErrorCode):
            return dict.fromkeys(partitions, outcome)
        return {
            partition: ErrorCode.NONE if partition in outcome else ErrorCode.TRANSACTION_ABORTABLE
            for partition in partitions
        }

    def describe(self, transactional_id: str) -> tuple[ErrorCode, Transaction | None]:
        """DescribeTransactions: the transaction, to be looked at only, or an error."""
        error, _, transaction = self._find(transactional_id)
        if transaction is None or transaction.is_dying:
            return error or ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, None
        return ErrorCode.NONE, transaction

    def list_transactions(
        self, states: Collection[str], producer_ids: Collection[int], longer_than_ms: int
    ) -> Listing:
        """ListTransactions: filters that are empty (negative) let everything through."""
        if not self._active:
            return Listing(ErrorCode.COORDINATOR_NOT_AVAILABLE, [], [])
        if self._owned.loading:
            return Listing(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, [], [])
        wanted = {BY_LABEL[state] for state in states if state in BY_LABEL}
        ids = frozenset(producer_ids)
        now_ms = self._clock.wall_ms()

        def is_wanted(transaction: Transaction) -> bool:
            image = transaction.current
            return (
                not transaction.is_dying
                and (not states or image.state in wanted)
                and (not ids or image.producer_id in ids)
                and (
                    longer_than_ms < 0
                    or (is_running(image) and now_ms - image.start_ms > longer_than_ms)
                )
            )

        return Listing(
            ErrorCode.NONE,
            [state for state in states if state not in BY_LABEL],
            [
                transaction
                for owned in self._owned
                for transaction in owned.transactions.values()
                if is_wanted(transaction)
            ],
        )

    # -- running transactions -----------------------------------------------------------------

    def run(
        self, owned: TransactionPartition, transaction: Transaction, effects: list[Effect]
    ) -> None:
        """Carry out what a transaction wants done."""
        for effect in effects:
            if isinstance(effect, Answer):
                effect.waiter(effect.result)
            elif isinstance(effect, Store):
                self._store(owned, transaction, effect.image)
            elif isinstance(effect, WriteMarkers):
                self._send_markers(owned, transaction, effect)
            else:
                self._complete_later(owned, transaction)

    def _store(
        self, owned: TransactionPartition, transaction: Transaction, image: TransactionImage
    ) -> None:
        def done(code: ErrorCode) -> None:
            self._stored(owned, transaction, image, code)

        transactional_id = transaction.transactional_id
        record = (records.transaction_key(transactional_id), records.transaction_value(image))
        try:
            position = self._journal.append(owned.index, [record])
        except KafkaError as error:
            done(error.code)
            return
        # Kafka waits as long as the transaction may take, which can be a millisecond.
        self._journal.when_replicated(
            owned.index, position + 1, self.settings.request_timeout_ms, done
        )

    def _stored(
        self,
        owned: TransactionPartition,
        transaction: Transaction,
        image: TransactionImage,
        code: ErrorCode,
    ) -> None:
        if code is not ErrorCode.NONE:
            log.warning(
                "A transaction could not be stored id=%.128s state=%s error=%s",
                *(transaction.transactional_id, image.state.label, code.name),
            )
        effects = transaction.stored(state_error(code))
        if not self.owns(owned):
            # Whoever leads the partition now goes on from what the log says.
            effects = [effect for effect in effects if isinstance(effect, Answer)]
        elif transaction.is_new:
            del owned.transactions[transaction.transactional_id]
        self.run(owned, transaction, effects)

    def _send_markers(
        self, owned: TransactionPartition, transaction: Transaction, effect: WriteMarkers
    ) -> None:
        def marked(partitions: Collection[TopicPartition]) -> None:
            self.run(owned, transaction, transaction.marked(partitions, self._clock.wall_ms()))

        self._sender.send(
            transaction.transactional_id,
            TxnMarker(*effect.identity, effect.committed, owned.leader_epoch),
            effect.partitions,
            marked,
            lambda: self.owns(owned),
        )

    def _complete_later(self, owned: TransactionPartition, transaction: Transaction) -> None:
        def complete() -> None:
            if self.owns(owned):
                self.run(owned, transaction, transaction.complete(self._clock.wall_ms()))

        self._call_later(RETRY_SECONDS, complete)


def _marker_channel(broker: "Broker", writer: MarkerWriter) -> MarkerChannel:
    if broker.peers is None:
        return LocalMarkerChannel(broker.node_id, writer)
    from kavka.broker.cluster.markers import NetworkMarkerChannel

    channel = NetworkMarkerChannel(broker.node_id, writer, broker.peers, broker.metadata)
    broker.peers.when_closed(channel.close)
    return channel


def _error_only(done: Callable[[ErrorCode], None]) -> Callable[[Result], None]:
    return lambda result: done(result.error)
