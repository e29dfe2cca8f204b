"""The Fetch response, written by hand: record data stays where it is.

The compiled codec would copy the records into the response. Here everything around them is
packed into small buffers and the slices of the log go between them, for the kernel to send.
A property test keeps this equal to the declared schema for every version.
"""

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final

from kavka.broker.fetch.reader import PartitionRead

if TYPE_CHECKING:
    from kavka.broker.request import Part

_INT16: Final = Struct(">h")
_INT32: Final = Struct(">i")
_TOP_V1: Final = Struct(">i")  # throttle time
_TOP_V7: Final = Struct(">ihi")  # throttle time, error, session id
_PARTITION_V0: Final = Struct(">ihq")  # index, error, high watermark
_PARTITION_V4: Final = Struct(">ihqq")  # + last stable offset
_PARTITION_V5: Final = Struct(">ihqqq")  # + log start offset
_ABORTED: Final = Struct(">qq")
_DIVERGING: Final = Struct(">iqB")


def runs_of_topics(reads: Sequence[PartitionRead]) -> list[list[PartitionRead]]:
    """Neighbours of the same topic together, as the response nests them."""
    runs: list[list[PartitionRead]] = []
    last: tuple[str, bytes] | None = None
    for read in reads:
        topic = (read.entry.topic, read.entry.topic_id)
        if topic == last:
            runs[-1].append(read)
        else:
            runs.append([read])
            last = topic
    return runs


def write_response(
    version: int, error: int, session_id: int, topics: Sequence[Sequence[PartitionRead]]
) -> "list[Part]":
    """The body of a Fetch response of ``version``; ``topics`` are runs of one topic each."""
    if version >= 12:
        return _write_flexible(version, error, session_id, topics)
    return _write_classic(version, error, session_id, topics)


def _write_classic(
    version: int, error: int, session_id: int, topics: Sequence[Sequence[PartitionRead]]
) -> "list[Part]":
    parts: list[Part] = []
    out = bytearray()
    if version >= 7:
        out += _TOP_V7.pack(0, error, session_id)
    elif version >= 1:
        out += _TOP_V1.pack(0)
    out += _INT32.pack(len(topics))
    for reads in topics:
        name = reads[0].entry.topic.encode()
        out += _INT16.pack(len(name))
        out += name
        out += _INT32.pack(len(reads))
        for read in reads:
            index, code, high = read.entry.index, read.error, read.high_watermark
            if version >= 5:
                out += _PARTITION_V5.pack(
                    index, code, high, read.last_stable_offset, read.log_start_offset
                )
            elif version >= 4:
                out += _PARTITION_V4.pack(index, code, high, read.last_stable_offset)
            else:
                out += _PARTITION_V0.pack(index, code, high)
            if version >= 4:
                aborted = read.aborted
                out += _INT32.pack(-1 if aborted is None else len(aborted))
                for transaction in aborted or ():
                    out += _ABORTED.pack(transaction.producer_id, transaction.first_offset)
            if version >= 11:
                out += _INT32.pack(read.preferred_replica)
            out += _INT32.pack(read.size)
            if read.size:
                parts.append(out)
                parts.append(read.records)
                out = bytearray()
    if out:
        parts.append(out)
    return parts


def _write_flexible(
    version: int, error: int, session_id: int, topics: Sequence[Sequence[PartitionRead]]
) -> "list[Part]":
    parts: list[Part] = []
    out = bytearray(_TOP_V7.pack(0, error, session_id))
    out += _uvarint(len(topics) + 1)
    for reads in topics:
        entry = reads[0].entry
        if version >= 13:
            out += entry.topic_id
        else:
            name = entry.topic.encode()
            out += _uvarint(len(name) + 1)
            out += name
        out += _uvarint(len(reads) + 1)
        for read in reads:
            out += _PARTITION_V5.pack(
                read.entry.index,
                read.error,
                read.high_watermark,
                read.last_stable_offset,
                read.log_start_offset,
            )
            aborted = read.aborted
            out += _uvarint(0 if aborted is None else len(aborted) + 1)
            for transaction in aborted or ():
                out += _ABORTED.pack(transaction.producer_id, transaction.first_offset)
                out += b"\0"
            out += _INT32.pack(read.preferred_replica)
            out += _uvarint(read.size + 1)
            if read.size:
                parts.append(out)
                parts.append(read.records)
                out = bytearray()
            if read.diverging_epoch is None:
                out += b"\0"
            else:
                out += b"\1\0\x0d"  # one tagged field: tag 0, 13 bytes
                out += _DIVERGING.pack(*read.diverging_epoch, 0)
        out += b"\0"
    out += b"\0"
    parts.append(out)
    return parts


def _uvarint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
