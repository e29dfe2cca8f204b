"""Producer ids: handed out once in the life of a cluster."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication import znodes
from kavka.replication.store.base import BadVersion, MetadataStore, NoNode, StoreError

logger = logging.getLogger("kavka.producers")

BLOCK_SIZE: Final = 1000
PATIENCE_S: Final = 20.0  # for a store that is out of reach
_MAX_ID: Final = 2**63 - 1
_MAX_BELIEVED_ID: Final = 2**62  # a client may have written any id, and must not use them all up


class ProducerIds:
    """Gives out ids from blocks of 1000 that it reserves in ``/latest_producer_id_block``.

    What is left of a block when the broker stops is never used. ``highest_known`` tells the
    largest id that the logs here remember (-1 for none): logs that were brought from another
    cluster know ids that this one's store has not given out, and a new producer that got one of
    them would have its first batches taken for duplicates.
    """

    def __init__(
        self, store: MetadataStore, node_id: int, highest_known: Callable[[], int] = lambda: -1
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._highest_known: Callable[[], int] | None = highest_known
        self._next = 0
        self._end = 0  # of the block: the first id that is not this broker's
        self._reserving = asyncio.Lock()

    async def next(self) -> int:
        """An id that no producer has had. Raises KafkaError when the store cannot be written."""
        if self._next == self._end:
            async with self._reserving:
                if self._next == self._end:  # nobody has reserved while this one waited
                    try:
                        async with asyncio.timeout(PATIENCE_S):
                            await self._reserve()
                    except TimeoutError:
                        raise KafkaError(
                            ErrorCode.COORDINATOR_NOT_AVAILABLE,
                            "The metadata store could not be reached in time.",
                        ) from None
        producer_id = self._next
        self._next += 1
        return producer_id

    async def _reserve(self) -> None:
        lowest = 0
        if self._highest_known is not None:  # once: what comes later has its id from the store
            known = self._highest_known()
            self._highest_known = None
            lowest = known + 1 if known < _MAX_BELIEVED_ID else 0
        while True:
            try:
                try:
                    data, stat = await self._store.get(znodes.PRODUCER_ID_BLOCK)
                except NoNode:
                    await self._store.create(znodes.PRODUCER_ID_BLOCK)
                    continue
                first = znodes.decode_producer_id_block(data) + 1 if data else 0
                first = max(first, lowest)
                last = first + BLOCK_SIZE - 1
                if last > _MAX_ID:
                    raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "All producer ids are used.")
                body = znodes.encode_producer_id_block(self._node_id, first, last)
                await self._store.set(znodes.PRODUCER_ID_BLOCK, body, stat.version)
            except BadVersion:
                continue  # another broker took that block
            except StoreError as error:
                logger.error("No producer ids could be reserved error=%s", error)
                raise KafkaError(
                    ErrorCode.COORDINATOR_NOT_AVAILABLE, "No producer ids could be reserved."
                ) from error
            self._next, self._end = first, last + 1
            return
