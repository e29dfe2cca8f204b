"""One transactional id: who may write under it, and how far its transaction has come.

A pure state machine: requests and outcomes in, effects out, no I/O and no clock. Whatever
changes is first written: a method computes the next image and gives it out as :class:`Store`;
it becomes :attr:`Transaction.current`, and is answered, by :meth:`Transaction.stored`. Until
then every other request is told to come again (CONCURRENT_TRANSACTIONS), so that at most one
change is under way. A write that failed leaves everything as it was; if the record stands in the
log nevertheless, the next one overrules it, or else a reload finds a decision that nobody was
told the opposite of.

The way of a transaction: AddPartitions makes it ONGOING. EndTxn, its time-out or another
producer's InitProducerId decides it by the one record PREPARE_COMMIT or PREPARE_ABORT; only then
markers go out to its partitions, and however often that is begun again after a crash, they say
what the record says. When all are marked the record COMPLETE_COMMIT or COMPLETE_ABORT ends it.

Clients of the second transaction protocol (KIP-890) get a new epoch with every end, and the
markers carry it: what is still under way of the old transaction is fenced on every partition.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from kavka.broker.transactions.messages import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    NOBODY,
    NOT_STARTED,
    Answer,
    CompleteLater,
    Effect,
    ProducerIdentity,
    Result,
    Store,
    TransactionImage,
    Waiter,
    WriteMarkers,
)
from kavka.broker.transactions.state import ALLOWED_FROM, TransactionState
from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition

MAX_EPOCH: Final = 2**15 - 1
LAST_EPOCH_FOR_PRODUCERS: Final = MAX_EPOCH - 1
"""The largest is kept back, so that a producer that has this one can still be fenced."""

_BUMPING: Final = 2
"""The transaction protocol in which every end brings a new epoch (``transaction.version``)."""

_ONGOING: Final = TransactionState.ONGOING

_COMPLETED: Final = {
    TransactionState.PREPARE_COMMIT: TransactionState.COMPLETE_COMMIT,
    TransactionState.PREPARE_ABORT: TransactionState.COMPLETE_ABORT,
}


class _Pending(NamedTuple):
    """The change that is being written."""

    image: TransactionImage | None  # None: the tombstone
    waiter: Waiter | None
    success: Result
    last: ProducerIdentity


class Transaction:
    """The machine of one transactional id."""

    __slots__ = ("_last", "_pending", "_unmarked", "current", "transactional_id")

    def __init__(self, transactional_id: str, current: TransactionImage) -> None:
        """Begin with what is stored; see :meth:`resume`."""
        self.transactional_id = transactional_id
        self.current = current
        # The identity before the present one, if its owner itself asked for the change (KIP-360):
        # it may come again with it, when the answer was lost. Not stored, as before Kafka 4.0.
        self._last = NOBODY
        self._pending: _Pending | None = None
        self._unmarked: set[TopicPartition] = set()

    @classmethod
    def new(
        cls, transactional_id: str, producer_id: int, timeout_ms: int, now_ms: int
    ) -> "Transaction":
        """An id seen for the first time; :meth:`init_producer` gives it its first epoch, 0."""
        image = TransactionImage(
            producer_id, NO_EPOCH, timeout_ms, TransactionState.EMPTY, frozenset(), now_ms
        )
        return cls(transactional_id, image)

    # -- looking ------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a change is being written or partitions are being marked."""
        return self._pending is not None or self.current.state.is_prepared

    @property
    def is_new(self) -> bool:
        """Whether nothing of it has been written, nor is being written."""
        return self.current.producer_epoch == NO_EPOCH and self._pending is None

    @property
    def is_dying(self) -> bool:
        """Whether its tombstone is being written."""
        return self._pending is not None and self._pending.image is None

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """The partitions of the transaction; once it is decided, those not marked yet."""
        return (
            frozenset(self._unmarked) if self.current.state.is_prepared else self.current.partitions
        )

    def verify(
        self, identity: ProducerIdentity, partitions: Iterable[TopicPartition]
    ) -> ErrorCode | frozenset[TopicPartition]:
        """Which of ``partitions`` are in the open transaction of this producer (KIP-890).

        An error when there can be none: INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, or
        CONCURRENT_TRANSACTIONS while one is being ended.
        """
        error = self._check_identity(identity)
        if error is not ErrorCode.NONE:
            return error
        pending = self._pending.image if self._pending is not None else None
        if self.current.state.is_prepared or (pending is not None and pending.state.is_prepared):
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if self.current.state is not TransactionState.ONGOING:
            return frozenset()
        return self.current.partitions.intersection(partitions)

    def _check_identity(self, identity: ProducerIdentity) -> ErrorCode:
        if identity.producer_id != self.current.producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if identity.epoch != self.current.producer_epoch:
            return ErrorCode.PRODUCER_FENCED
        return ErrorCode.NONE

    # -- who may write ------------------------------------------------------------------------

    def needs_producer_id(self, claim: ProducerIdentity | None) -> bool:
        """Whether :meth:`init_producer` must be given a fresh producer id: the epochs of the
        present one are used up."""
        return (
            not self.busy
            and self.current.state is not TransactionState.ONGOING
            and self.current.producer_epoch >= LAST_EPOCH_FOR_PRODUCERS
            and (claim is None or (claim != self._last and self._accepts(claim)))
        )

    def init_producer(
        self,
        timeout_ms: int,
        claim: ProducerIdentity | None,
        fresh_id: int | None,
        waiter: Waiter,
        now_ms: int,
    ) -> list[Effect]:
        """InitProducerId: whoever comes gets a larger epoch, and everybody before is fenced.

        ``claim`` is what a producer that goes on after an error was so far (KIP-360): it is
        itself fenced if another one has come meanwhile. A transaction that is open is aborted
        first; the producer comes again after CONCURRENT_TRANSACTIONS.
        """
        if self.busy:
            return [Answer(waiter, Result(ErrorCode.CONCURRENT_TRANSACTIONS))]
        if claim is not None and not self._accepts(claim):
            return [Answer(waiter, Result(ErrorCode.PRODUCER_FENCED))]
        current = self.current
        if current.state is TransactionState.ONGOING:
            return self._fence(waiter, now_ms)
        last = NOBODY if claim is None or current.producer_epoch == NO_EPOCH else claim
        if claim is not None and claim == self._last:
            identity = current.identity  # the answer to the first such request was lost
        elif current.producer_epoch >= LAST_EPOCH_FOR_PRODUCERS:
            assert fresh_id is not None, "see needs_producer_id()"
            identity = ProducerIdentity(fresh_id, 0)
        else:
            identity = ProducerIdentity(current.producer_id, current.producer_epoch + 1)
        image = TransactionImage(
            identity.producer_id,
            identity.epoch,
            timeout_ms,
            TransactionState.EMPTY,
            frozenset(),
            now_ms,
        )
        return self._begin(image, waiter, Result(ErrorCode.NONE, identity), last)

    def _accepts(self, claim: ProducerIdentity) -> bool:
        current = self.current
        if current.producer_epoch == NO_EPOCH or claim == current.identity:
            return True
        # Kafka looks at the epoch only after it has aborted an open transaction; so a fenced
        # producer could end the transaction of the one that fenced it.
        return claim == self._last and current.state is not TransactionState.ONGOING

    def _fence(self, waiter: Waiter | None, now_ms: int) -> list[Effect]:
        """Abort the open transaction by markers of an epoch that no producer has."""
        current = self.current
        assert current.producer_epoch < MAX_EPOCH
        image = current._replace(
            producer_epoch=current.producer_epoch + 1,
            state=TransactionState.PREPARE_ABORT,
            updated_ms=now_ms,
        )
        return self._begin(image, waiter, Result(ErrorCode.CONCURRENT_TRANSACTIONS), NOBODY)

    # -- the transaction ----------------------------------------------------------------------

    def add_partitions(
        self,
        identity: ProducerIdentity,
        partitions: Iterable[TopicPartition],
        waiter: Waiter,
        now_ms: int,
        *,
        bumping: bool = False,
    ) -> list[Effect]:
        """AddPartitionsToTxn, AddOffsetsToTxn: the producer is about to write to these.

        ``bumping`` if its leader asks for a producer of the second protocol (KIP-890).
        """
        error = self._check_identity(identity)
        if error is ErrorCode.NONE and self.busy:
            error = ErrorCode.CONCURRENT_TRANSACTIONS
        if error is not ErrorCode.NONE:
            return [Answer(waiter, Result(error))]
        current = self.current
        added = frozenset(partitions)
        if current.state is TransactionState.ONGOING:
            if added <= current.partitions:
                return [Answer(waiter, Result(ErrorCode.NONE))]
            image = current._replace(partitions=current.partitions | added, updated_ms=now_ms)
        else:
            image = current._replace(
                state=TransactionState.ONGOING,
                partitions=added,
                start_ms=now_ms,
                updated_ms=now_ms,
                client_version=_BUMPING if bumping else 0,
            )
        return self._begin(image, waiter, Result(ErrorCode.NONE), self._last)

    def end(
        self, identity: ProducerIdentity, committed: bool, waiter: Waiter, now_ms: int
    ) -> list[Effect]:
        """EndTxn: decide. It is answered once the decision is kept; the markers come after."""
        error = self._check_identity(identity)
        if error is ErrorCode.NONE and self.busy:
            error = ErrorCode.CONCURRENT_TRANSACTIONS
        current = self.current
        if error is ErrorCode.NONE and current.state is not TransactionState.ONGOING:
            ended = (
                TransactionState.COMPLETE_COMMIT if committed else TransactionState.COMPLETE_ABORT
            )
            if current.state is ended:  # asked again
                return [Answer(waiter, Result(ErrorCode.NONE))]
            error = ErrorCode.INVALID_TXN_STATE
        if error is not ErrorCode.NONE:
            return [Answer(waiter, Result(error))]
        state = TransactionState.PREPARE_COMMIT if committed else TransactionState.PREPARE_ABORT
        image = current._replace(state=state, updated_ms=now_ms, client_version=0)
        return self._begin(image, waiter, Result(ErrorCode.NONE), self._last)

    def needs_producer_id_to_end(self, identity: ProducerIdentity) -> bool:
        """Whether :meth:`end_and_bump` must be given a fresh producer id: the epochs of the
        present one are used up."""
        return (
            not self.busy
            and identity == self.current.identity
            and identity.epoch >= LAST_EPOCH_FOR_PRODUCERS
        )

    def end_and_bump(
        self,
        identity: ProducerIdentity,
        committed: bool,
        fresh_id: int | None,
        waiter: Waiter,
        now_ms: int,
    ) -> list[Effect]:
        """EndTxn of the second protocol (KIP-890): the answer has the identity to go on with.

        A producer of this protocol does not know whether its sends have reached the transaction,
        so it may abort one that is not there. Who lost the answer asks again with the identity
        of before.
        """
        current = self.current
        again = not self.busy and self._was_ended_by(identity)
        error = ErrorCode.NONE if again else self._check_identity(identity)
        if self.busy and (error is ErrorCode.NONE or self._is_being_ended_by(identity)):
            error = ErrorCode.CONCURRENT_TRANSACTIONS
        if error is ErrorCode.NONE and again:
            ended = (
                TransactionState.COMPLETE_COMMIT if committed else TransactionState.COMPLETE_ABORT
            )
            if current.state is ended:
                return [Answer(waiter, Result(ErrorCode.NONE, current.identity))]
            error = ErrorCode.PRODUCER_FENCED  # somebody else has ended it, otherwise
        elif error is ErrorCode.NONE and committed and current.state is not _ONGOING:
            error = ErrorCode.INVALID_TXN_STATE
        if error is not ErrorCode.NONE:
            return [Answer(waiter, Result(error))]
        next_id = NO_PRODUCER_ID
        if current.producer_epoch >= LAST_EPOCH_FOR_PRODUCERS:
            assert fresh_id is not None, "see needs_producer_id_to_end()"
            next_id = fresh_id
        image = current._replace(
            producer_epoch=current.producer_epoch + 1,
            state=TransactionState.PREPARE_COMMIT if committed else TransactionState.PREPARE_ABORT,
            partitions=current.partitions if current.state is _ONGOING else frozenset(),
            updated_ms=now_ms,
            next_id=next_id,
            client_version=_BUMPING,
        )
        return self._begin(image, waiter, Result(ErrorCode.NONE, _successor(image)), NOBODY)

    def _was_ended_by(self, identity: ProducerIdentity) -> bool:
        """Whether the present identity is what ``identity`` became by the end of its transaction.

        Also by one that it did not ask for, its time-out: it may go on, as by asking for an
        abort it shows that it knows. Not with the epoch that is kept back.
        """
        current = self.current
        if current.client_version < _BUMPING:
            return False
        if current.producer_epoch == MAX_EPOCH and not current.state.is_prepared:
            return False
        if current.producer_epoch == 0 and current.previous_id != NO_PRODUCER_ID:
            return identity == (current.previous_id, LAST_EPOCH_FOR_PRODUCERS)
        return identity == (current.producer_id, current.producer_epoch - 1)

    def _is_being_ended_by(self, identity: ProducerIdentity) -> bool:
        return self.current.state.is_prepared and self._was_ended_by(identity)

    def has_timed_out(self, now_ms: int) -> bool:
        """Whether it is open longer than its producer asked for."""
        current = self.current
        return (
            current.state is TransactionState.ONGOING
            and not self.busy
            and current.start_ms + current.timeout_ms < now_ms
        )

    def time_out(self, now_ms: int) -> list[Effect]:
        """Abort a transaction that :meth:`has_timed_out`, and fence its producer."""
        assert self.has_timed_out(now_ms)
        return self._fence(None, now_ms)

    def is_expired(self, now_ms: int, expiration_ms: int) -> bool:
        """Whether nobody has used the id for so long that it may be forgotten."""
        current = self.current
        return (
            not self.busy
            and current.state is not TransactionState.ONGOING
            and current.updated_ms <= now_ms - expiration_ms
        )

    def expire(self) -> None:
        """A tombstone is being written for this id; :meth:`stored` says what became of it."""
        assert not self.busy
        assert self.current.state in ALLOWED_FROM[TransactionState.DEAD]
        self._pending = _Pending(None, None, Result(ErrorCode.NONE), NOBODY)

    # -- what became of it --------------------------------------------------------------------

    def _begin(
        self,
        image: TransactionImage,
        waiter: Waiter | None,
        success: Result,
        last: ProducerIdentity,
    ) -> list[Effect]:
        assert self._pending is None
        assert self.current.state in ALLOWED_FROM[image.state], (
            f"{self.transactional_id}: {self.current.state.name} to {image.state.name}"
        )
        self._pending = _Pending(image, waiter, success, last)
        return [Store(image)]

    def stored(self, error: ErrorCode) -> list[Effect]:
        """What became of a :class:`Store` or of the tombstone; ``error`` is for the client."""
        pending, self._pending = self._pending, None
        assert pending is not None
        image, waiter = pending.image, pending.waiter
        if error is not ErrorCode.NONE:
            effects: list[Effect] = [] if waiter is None else [Answer(waiter, Result(error))]
            if self.current.state.is_prepared:
                effects.append(CompleteLater())
            return effects
        if image is None:
            return []
        self.current = image
        self._last = pending.last
        effects = [] if waiter is None else [Answer(waiter, pending.success)]
        if image.state.is_prepared:
            effects += self._write_markers()
        return effects

    def resume(self) -> list[Effect]:
        """Go on after a load: the partitions of a decided transaction are marked (again)."""
        return self._write_markers() if self.current.state.is_prepared else []

    def _write_markers(self) -> list[Effect]:
        current = self.current
        self._unmarked = set(current.partitions)
        if not self._unmarked:
            return self.complete(current.updated_ms)
        committed = current.state is TransactionState.PREPARE_COMMIT
        return [WriteMarkers(current.identity, committed, current.partitions)]

    def marked(self, partitions: Iterable[TopicPartition], now_ms: int) -> list[Effect]:
        """These partitions have their marker, or exist no more."""
        assert self.current.state.is_prepared
        assert self._unmarked
        self._unmarked.difference_update(partitions)
        return [] if self._unmarked else self.complete(now_ms)

    def complete(self, now_ms: int) -> list[Effect]:
        """Write that all partitions are marked."""
        assert not self._unmarked
        current = self.current
        image = current._replace(
            state=_COMPLETED[current.state], partitions=frozenset(), updated_ms=now_ms
        )
        if current.next_id != NO_PRODUCER_ID:
            identity = _successor(current)
            image = image._replace(
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                previous_id=current.producer_id,
                next_id=NO_PRODUCER_ID,
            )
        return self._begin(image, None, Result(ErrorCode.NONE), self._last)


def _successor(image: TransactionImage) -> ProducerIdentity:
    """Who goes on when the transaction of ``image`` is over."""
    return image.identity if image.next_id == NO_PRODUCER_ID else ProducerIdentity(image.next_id, 0)


def is_running(image: TransactionImage) -> bool:
    """Whether a transaction has begun and is not over, so that its duration means something."""
    return image.start_ms != NOT_STARTED and (
        image.state is TransactionState.ONGOING or image.state.is_prepared
    )
