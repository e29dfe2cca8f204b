"""A data directory with everything in it that the inspecting commands look at."""

import os

from kavka.protocol.records.batch import Record, build_batch, read_header
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import TopicPartition
from kavka.storage import checkpoints, meta
from kavka.storage.append import AppendOrigin
from kavka.storage.fs import FileSystem
from kavka.storage.log import Log
from tests.unit.storage.log_support import TP, Place, append

FS = FileSystem()
NOW = 1_700_000_000_000


def append_records(log: Log, *records: Record, codec: int = 0, epoch: int = 7) -> None:
    """Append one batch with keys and headers."""
    data = bytearray(build_batch(records, base_offset=0, codec=codec))
    log.append_as_leader([(read_header(data), memoryview(data))], epoch, NOW)


def end_transaction(log: Log, kind: ControlType, producer_id: int, epoch: int = 8) -> None:
    """Append the marker that ends the open transaction of a producer."""
    marker = bytearray(
        build_end_txn_marker(
            EndTxnMarker(kind, 3), producer_id=producer_id, producer_epoch=1, timestamp=NOW
        )
    )
    log.append_as_leader(
        [(read_header(marker), memoryview(marker))], epoch, NOW, AppendOrigin.COORDINATOR
    )


def fill(log: Log) -> None:
    """Several segments, all codecs, keys and headers, null and empty values, transactions."""
    for number in range(60):
        append(log, f"{number}" * 40, epoch=7, timestamp=NOW + number, codec=number % 5)
    append_records(
        log,
        Record(0, NOW, b"key", b"value", (("h", b"v"), ("null", None))),
        Record(1, NOW + 5, None, b""),
        Record(2, NOW - 5, b"", None),
        codec=4,
    )
    for producer_id, kind in ((9, ControlType.ABORT), (10, ControlType.COMMIT)):
        append(
            log, "one", "two", epoch=8, timestamp=NOW, producer_id=producer_id, producer_epoch=1,
            base_sequence=0, transactional=True,
        )  # fmt: skip
        end_transaction(log, kind, producer_id)
    append(log, "open", "still", epoch=8, timestamp=NOW, producer_id=11, producer_epoch=0,
           base_sequence=0, transactional=True)  # fmt: skip


def write_directory(path: str, *, clean: bool = True) -> str:
    """A log directory with partition 0 of ``orders``, closed in good order; the path of that."""
    FS.mkdir(path)
    here = Place(os.path.join(path, str(TP)), segment_bytes=4_000, index_interval_bytes=500)
    log = here.open()
    fill(log)
    end = log.log_end_offset
    log.close()
    for name in (checkpoints.RECOVERY_POINTS, checkpoints.HIGH_WATERMARKS):
        checkpoints.write_offsets(FS, os.path.join(path, name), {TopicPartition("orders", 0): end})
    meta.write_meta(FS, path, meta.Meta(1, "cluster"), NOW)
    if clean:
        meta.mark_clean_shutdown(FS, path)
    return here.directory
