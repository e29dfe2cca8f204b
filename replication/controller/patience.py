"""How long clients are let wait for the metadata store, and what they are told when it fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.store.base import StoreError

STORE_PATIENCE_S: Final = 20.0  # for a store that is out of reach, where nobody says how long


@contextlib.asynccontextmanager
async def in_time(timeout_ms: int = 0) -> AsyncIterator[None]:
    """Do something at the metadata store, which may be out of reach; not for ever.

    Raises KafkaError REQUEST_TIMED_OUT after ``timeout_ms``, or after a while if it is not
    positive. What was not sent to the store when the time was up is not sent any more.
    """
    try:
        async with asyncio.timeout(timeout_ms / 1000 if timeout_ms > 0 else STORE_PATIENCE_S):
            yield
    except TimeoutError:
        raise KafkaError(
            ErrorCode.REQUEST_TIMED_OUT, "The metadata store could not be reached in time."
        ) from None


def store_failure(error: StoreError) -> KafkaError:
    """What a client is told when the metadata store fails."""
    return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"The metadata store failed: {error}")
