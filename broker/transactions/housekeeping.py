"""What happens to transactions by time alone: they are aborted, and forgotten."""

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from kavka.broker.coordination.journal import Journal
from kavka.broker.coordination.timers import CallLater, TimerHandle
from kavka.broker.transactions import records
from kavka.broker.transactions.partition import TransactionPartition
from kavka.broker.transactions.transaction import Transaction
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.broker.transactions.coordinator import TransactionCoordinator

log = logging.getLogger("kavka.transactions")

TOMBSTONES_PER_BATCH: Final = 1_000


class Housekeeping:
    """Looks over the transactional ids that ``coordinator`` runs, from time to time."""

    def __init__(
        self,
        coordinator: "TransactionCoordinator",
        journal: Journal,
        clock: Clock,
        call_later: CallLater,
    ) -> None:
        self._coordinator = coordinator
        self._journal = journal
        self._clock = clock
        self._call_later = call_later
        self._timers: list[TimerHandle | None] = [None, None]

    def start(self) -> None:
        self._schedule_time_outs()
        self._schedule_expiry()

    def stop(self) -> None:
        for timer in self._timers:
            if timer is not None:
                timer.cancel()
        self._timers = [None, None]

    # -- transactions that take too long ------------------------------------------------------

    def _schedule_time_outs(self) -> None:
        interval = self._coordinator.settings.timeout_check_interval_ms / 1000
        self._timers[0] = self._call_later(interval, self._check_time_outs)

    def _check_time_outs(self) -> None:
        try:
            self.abort_timed_out()
        finally:
            self._schedule_time_outs()

    def abort_timed_out(self) -> None:
        """Abort transactions that are open longer than their producers asked for (a producer that
        died, most often); a producer that is still there is fenced."""
        now_ms = self._clock.wall_ms()
        for owned in self._coordinator.owned_partitions():
            for transaction in list(owned.transactions.values()):
                if transaction.has_timed_out(now_ms):
                    image = transaction.current
                    log.info(
                        "Transaction timed out and is aborted id=%.128s producer=%d epoch=%d "
                        "partitions=%d open_ms=%d",
                        *(transaction.transactional_id, image.producer_id, image.producer_epoch),
                        *(len(image.partitions), now_ms - image.start_ms),
                    )
                    self._coordinator.run(owned, transaction, transaction.time_out(now_ms))

    # -- ids that nobody uses -----------------------------------------------------------------

    def _schedule_expiry(self) -> None:
        interval = self._coordinator.settings.expiry_check_interval_ms / 1000
        self._timers[1] = self._call_later(interval, self._check_expiry)

    def _check_expiry(self) -> None:
        try:
            self.expire()
        finally:
            self._schedule_expiry()

    def expire(self) -> None:
        """Write tombstones for ids that nobody has used for ``transactional.id.expiration.ms``."""
        now_ms = self._clock.wall_ms()
        expiration_ms = self._coordinator.settings.id_expiration_ms
        for owned in self._coordinator.owned_partitions():
            expired = [
                transaction
                for transaction in owned.transactions.values()
                if transaction.is_expired(now_ms, expiration_ms)
            ]
            for start in range(0, len(expired), TOMBSTONES_PER_BATCH):
                self._bury(owned, expired[start : start + TOMBSTONES_PER_BATCH])

    def _bury(self, owned: TransactionPartition, expired: list[Transaction]) -> None:
        for transaction in expired:
            transaction.expire()
        tombstones = [
            (records.transaction_key(transaction.transactional_id), None) for transaction in expired
        ]
        buried = partial(self._buried, owned, expired)
        try:
            position = self._journal.append(owned.index, tombstones)
        except KafkaError as error:
            buried(error.code)
            return
        self._journal.when_replicated(
            owned.index,
            position + len(tombstones),
            self._coordinator.settings.request_timeout_ms,
            buried,
        )

    def _buried(
        self, owned: TransactionPartition, expired: list[Transaction], code: ErrorCode
    ) -> None:
        for transaction in expired:
            effects = transaction.stored(code)
            assert not effects, "nobody waits for a tombstone"
            if code is ErrorCode.NONE:
                del owned.transactions[transaction.transactional_id]
        if code is ErrorCode.NONE:
            log.info("Transactional ids expired partition=%d ids=%d", owned.index, len(expired))
        else:
            log.warning(
                "Transactional ids could not be expired partition=%d ids=%d error=%s",
                *(owned.index, len(expired), code.name),
            )
