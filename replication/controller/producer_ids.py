"""Producer ids: handed out once in the life of a cluster."""

import asyncio
import logging
from typing import Final

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication import znodes
from kavka.replication.store.base import BadVersion, MetadataStore, NoNode, StoreError

logger = logging.getLogger("kavka.producers")

BLOCK_SIZE: Final = 1000
_MAX_ID: Final = 2**63 - 1


class ProducerIds:
    """Gives out ids from blocks of 1000 that it reserves in ``/latest_producer_id_block``.

    What is left of a block when the broker stops is never used.
    """

    def __init__(self, store: MetadataStore, node_id: int) -> None:
        self._store = store
        self._node_id = node_id
        self._next = 0
        self._end = 0  # of the block: the first id that is not this broker's
        self._reserving = asyncio.Lock()

    async def next(self) -> int:
        """An id that no producer has had. Raises KafkaError when the store cannot be written."""
        if self._next == self._end:
            async with self._reserving:
                if self._next == self._end:  # nobody has reserved while this one waited
                    await self._reserve()
        producer_id = self._next
        self._next += 1
        return producer_id

    async def _reserve(self) -> None:
        while True:
            try:
                try:
                    data, stat = await self._store.get(znodes.PRODUCER_ID_BLOCK)
                except NoNode:
                    await self._store.create(znodes.PRODUCER_ID_BLOCK)
                    continue
                first = znodes.decode_producer_id_block(data) + 1 if data else 0
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
