"""Down-conversion for readers that do not know message format 2 (Fetch up to v3).

Decoding records is slow work, so it is done in a thread; what is read next is decided on the
event loop, which owns the log.
"""

from typing import TYPE_CHECKING

from kavka.broker.fetch.reader import FetchOptions, PartitionRead, read_partitions
from kavka.broker.fetch.sessions import FetchPartition
from kavka.config.limits import DECOMPRESSED_BATCH_BYTES_MAX
from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import iter_batches, read_header
from kavka.protocol.records.convert import down_convert
from kavka.storage.fetch_slice import FetchSlice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavka.broker.context import Broker


def needs_conversion(reads: "Sequence[PartitionRead]", options: FetchOptions) -> bool:
    """Whether the client cannot read the records as they are stored."""
    return options.magic < 2 and any(read.size for read in reads)


async def convert_reads(
    broker: "Broker", reads: list[PartitionRead], options: FetchOptions
) -> list[PartitionRead]:
    """Replace the records of every read by what the client's message format can hold.

    A stretch that holds nothing for such a client (transaction markers) is read past: clients of
    that age ask for the same offset for ever when they get nothing while there is more.
    """
    converted: list[PartitionRead] = []
    for read in reads:
        current = read
        while current.size:
            assert isinstance(current.records, FetchSlice)
            offset = current.entry.fetch_offset
            try:
                async with broker.converting:
                    data, next_offset = await broker.loop.run_in_executor(
                        None, _convert, current.records, options.magic, offset
                    )
            except KafkaError as error:
                current = PartitionRead(read.entry, read.partition)
                current.error = error.code
                break
            if data or next_offset <= offset:
                if options.version < 3:
                    data = data[: read.entry.max_bytes]
                current.records = data
                current.size = len(data)
                break
            current = read_partitions(broker, [_at(read.entry, next_offset)], options)[0]
        current.entry = read.entry
        converted.append(current)
    return converted


def _convert(records: FetchSlice, magic: int, offset: int) -> tuple[bytes, int]:
    """Converted records from ``offset`` on, and the offset behind the last batch looked at."""
    view = records.view()
    next_offset = offset
    for pos, _, batch_magic in iter_batches(view):
        if batch_magic == 2:
            next_offset = read_header(view, pos).next_offset
    return down_convert(view, magic, offset, DECOMPRESSED_BATCH_BYTES_MAX), next_offset


def _at(entry: FetchPartition, offset: int) -> FetchPartition:
    moved = FetchPartition(entry.topic, entry.topic_id, entry.index)
    moved.fetch_offset = offset
    moved.max_bytes = entry.max_bytes
    moved.current_leader_epoch = entry.current_leader_epoch
    return moved
