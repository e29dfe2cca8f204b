"""Producer snapshot files: ``<offset>.snapshot`` holds the state of records below the offset.

Format (log-storage.md §2), big endian: ``version:int16 = 1, crc:uint32, count:int32`` and entries
of 46 bytes; the CRC-32C covers everything behind itself. Only the last batch of each producer is
kept, so after a restart only that one is recognised when it comes again. The one timestamp of an
entry is of the last batch or marker (2.3: of the batch; then what is known by a marker only would
expire at once).
"""

import logging
import os
from collections.abc import Iterable
from struct import Struct
from typing import Final

from kavka.protocol.records.batch import NO_SEQUENCE
from kavka.protocol.records.crc import crc32c
from kavka.storage.fs import FileSystem
from kavka.storage.names import SNAPSHOT_SUFFIX, parse_segment_file, segment_file
from kavka.storage.producer_entry import BatchMetadata, ProducerEntry

log = logging.getLogger("kavka.storage.producers")

_VERSION: Final = 1
_HEADER: Final = Struct(">hI")
_COUNT: Final = Struct(">i")
# producer id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch,
# first offset of the open transaction
_ENTRY: Final = Struct(">qhiqiqiq")


class CorruptSnapshot(Exception):
    """A snapshot that is not whole or of another version; it is deleted and rebuilt."""


def encode_snapshot(entries: Iterable[ProducerEntry]) -> bytes:
    """The content of a snapshot file."""
    packed = []
    for entry in entries:
        if entry.batches:
            batch = entry.batches[-1]
            last_offset, delta = batch.last_offset, batch.offset_delta
        else:
            last_offset, delta = -1, 0
        packed.append(
            _ENTRY.pack(
                entry.producer_id,
                entry.epoch,
                entry.last_sequence,
                last_offset,
                delta,
                entry.last_timestamp,
                entry.coordinator_epoch,
                entry.txn_first_offset,
            )
        )
    body = b"".join([_COUNT.pack(len(packed)), *packed])
    return _HEADER.pack(_VERSION, crc32c(body)) + body


def decode_snapshot(data: bytes) -> list[ProducerEntry]:
    """Read a snapshot file. Raises CorruptSnapshot."""
    if len(data) < _HEADER.size + _COUNT.size:
        raise CorruptSnapshot(f"{len(data)} bytes are too few")
    version, crc = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise CorruptSnapshot(f"unknown version {version}")
    body = data[_HEADER.size :]
    if crc32c(body) != crc:
        raise CorruptSnapshot("the checksum does not match")
    (count,) = _COUNT.unpack_from(body)
    if count < 0 or len(body) != _COUNT.size + count * _ENTRY.size:
        raise CorruptSnapshot(f"{len(data)} bytes cannot hold {count} entries")
    entries = []
    for fields in _ENTRY.iter_unpack(body[_COUNT.size :]):
        (producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator, txn) = (
            fields
        )
        entries.append(
            ProducerEntry(
                producer_id,
                epoch,
                batches=[_last_batch(last_sequence, last_offset, delta, timestamp)]
                if last_offset >= 0
                else (),
                last_timestamp=timestamp,
                coordinator_epoch=coordinator,
                txn_first_offset=txn,
            )
        )
    return entries


def _last_batch(last_sequence: int, last_offset: int, delta: int, timestamp: int) -> BatchMetadata:
    base_sequence = last_sequence - delta
    if last_sequence == NO_SEQUENCE:
        base_sequence = NO_SEQUENCE
    elif base_sequence < 0:  # the batch crossed the wrap from 2^31 − 1 to 0
        base_sequence += 2**31
    return BatchMetadata(base_sequence, last_sequence, last_offset, delta, timestamp)


class SnapshotFiles:
    """The snapshot files of one partition's directory."""

    __slots__ = ("_fs", "directory")

    def __init__(self, fs: FileSystem, directory: str) -> None:
        self._fs = fs
        self.directory = directory

    def offsets(self) -> list[int]:
        """Offsets of all snapshots, ascending."""
        parsed = map(parse_segment_file, self._fs.listdir(self.directory))
        return sorted(found[0] for found in parsed if found and found[1] == SNAPSHOT_SUFFIX)

    def path(self, offset: int) -> str:
        """Where the snapshot of ``offset`` is, or would be."""
        return os.path.join(self.directory, segment_file(offset, SNAPSHOT_SUFFIX))

    def write(self, offset: int, data: bytes) -> None:
        """Write an encoded snapshot. Raises OSError.

        Not synced, as in Kafka: the checksum tells a torn one, and the log can replace it.
        """
        file = self._fs.open(self.path(offset), write=True, create=True)
        try:
            self._fs.truncate(file, 0)
            self._fs.pwrite(file, data, 0)
        finally:
            file.close()

    def load_newest(self) -> tuple[int, list[ProducerEntry]] | None:
        """Offset and producers of the newest snapshot that is whole; None without one.

        Corrupt ones are deleted, with a line in the log. Raises OSError.
        """
        for offset in reversed(self.offsets()):
            path = self.path(offset)
            try:
                return offset, decode_snapshot(self._fs.read_bytes(path))
            except CorruptSnapshot as error:
                log.warning(
                    "A producer snapshot is corrupt and deleted, an older one or the log itself "
                    "will replace it: %s file=%s",
                    error,
                    path,
                )
                self.delete(offset)
        return None

    def delete(self, offset: int) -> None:
        """Remove a snapshot; one that is not there is fine."""
        self._fs.unlink(self.path(offset), missing_ok=True)
