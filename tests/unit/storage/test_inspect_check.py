"""``kavka check``: every kind of damage is found, and nothing in a sound directory is."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kavka.protocol.records import legacy
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.records.control import ControlType
from kavka.protocol.topics import TopicPartition
from kavka.storage import checkpoints, meta
from kavka.storage.inspect.check import Unusable, check_directory
from kavka.storage.inspect.findings import Finding
from kavka.storage.producer_entry import BatchMetadata, ProducerEntry
from kavka.storage.snapshots import decode_snapshot, encode_snapshot
from kavka.storage.topic_id import write_topic_id
from tests.unit.storage.inspect_support import FS, NOW, end_transaction, write_directory
from tests.unit.storage.log_support import Place, append

END = 71  # of the log that write_directory writes
SECOND = 38  # base of its second segment


def check(directory: Path, *, deep: bool = False) -> tuple[list[str], list[str]]:
    """Problems and notes."""
    findings: list[Finding] = []
    report = check_directory(FS, str(directory), findings.append, deep=deep)
    problems = [str(finding) for finding in findings if finding.problem]
    assert report.problems == len(problems)
    return problems, [str(finding) for finding in findings if not finding.problem]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    partition = write_directory(str(directory))
    write_topic_id(FS, partition, b"0123456789abcdef")
    return directory


def file(base: int, suffix: str) -> str:
    return f"orders-0/{base:020}{suffix}"


def patch(path: Path, position: int, new: bytes) -> None:
    content = bytearray(path.read_bytes())
    position %= len(content) + 1
    content[position : position + len(new)] = new
    path.write_bytes(content)


def crash(data: Path, recovery_point: int = 0) -> None:
    """As if the broker had died with nothing flushed past the recovery point."""
    (data / meta.CLEAN_SHUTDOWN).unlink()
    checkpoints.write_offsets(
        FS,
        str(data / checkpoints.RECOVERY_POINTS),
        {TopicPartition("orders", 0): recovery_point},
    )


def write_log(directory: Path, base: int, *batches: bytes) -> None:
    """A segment without indexes."""
    directory.mkdir(exist_ok=True)
    (directory / f"{base:020}.log").write_bytes(b"".join(batches))


# -- sound ----------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_directory(data: Path, deep: bool) -> None:
    assert check(data, deep=deep) == ([], [])


def test_everything_is_counted(data: Path) -> None:
    report = check_directory(FS, str(data), lambda _: None)
    assert (report.partitions, report.segments, report.batches) == (1, 2, 66)
    assert report.bytes == sum(path.stat().st_size for path in data.glob("orders-0/*.log"))


def test_a_kraft_directory_has_a_node(data: Path) -> None:
    (data / "meta.properties").write_text("version=1\nnode.id=3\ncluster.id=x\ndirectory.id=y\n")
    assert check(data) == ([], [])


def test_the_log_may_begin_inside_a_segment(data: Path) -> None:
    tp = TopicPartition("orders", 0)
    checkpoints.write_offsets(FS, str(data / checkpoints.LOG_START_OFFSETS), {tp: 20})
    (data / "orders-0" / checkpoints.LEADER_EPOCHS).write_bytes(b"0\n2\n7 20\n8 63\n")
    assert check(data) == ([], [])


def test_a_log_without_records_and_one_without_files(data: Path) -> None:
    place = Place(str(data / "empty-0"))
    place.open().close()
    (data / "none-0").mkdir()
    assert check(data) == ([], [])


def test_a_compacted_log_has_gaps(data: Path) -> None:
    def batch(offset: int, last: int) -> bytes:
        records = [Record(offset, NOW, b"k", b"v")]
        return build_batch(records, base_offset=offset, last_offset=last)

    compacted = data / "compacted-0"
    write_log(compacted, 0, batch(2, 5), batch(9, 9))
    write_log(compacted, 20, batch(21, 21))
    for base in (0, 20):
        (compacted / f"{base:020}.index").write_bytes(b"")
        (compacted / f"{base:020}.timeindex").write_bytes(b"")
    problems, _ = check(data, deep=True)
    assert all("largest timestamp" in problem for problem in problems) and len(problems) == 2


def test_only_the_last_snapshot_of_a_compacted_log_is_compared(tmp_path: Path) -> None:
    def batch(offset: int, sequence: int) -> bytes:
        records = [Record(offset, -1, b"k", b"v")]
        return build_batch(
            records, base_offset=offset, producer_id=5, producer_epoch=0, base_sequence=sequence
        )

    def snapshot(sequence: int, offset: int) -> bytes:
        last = BatchMetadata(sequence, sequence, offset, 0, NOW)
        return encode_snapshot([ProducerEntry(5, 0, batches=[last])])

    data, partition = tmp_path, tmp_path / "t-0"
    meta.mark_clean_shutdown(FS, str(data))
    write_log(partition, 0, batch(0, 0), batch(4, 4))
    for suffix in (".index", ".timeindex"):
        (partition / f"{0:020}{suffix}").write_bytes(b"")
    (partition / f"{3:020}.snapshot").write_bytes(snapshot(2, 2))  # its batch was removed
    (partition / f"{5:020}.snapshot").write_bytes(snapshot(4, 4))
    assert check(data)[0] == []
    (partition / f"{5:020}.snapshot").write_bytes(snapshot(3, 4))
    assert len(check(data)[0]) == 1
    # Without a gap nothing was removed.
    write_log(partition, 0, batch(0, 0), batch(1, 1), batch(2, 3), batch(3, 4), batch(4, 4))
    assert [problem.partition(":")[0] for problem in check(data)[0]] == [
        f"t-0/{5:020}.snapshot",
        f"t-0/{3:020}.snapshot",
    ]


def test_message_formats_0_and_1_are_checked(data: Path) -> None:
    records = [Record(n, NOW + n, b"k", b"v") for n in range(6)]
    entries = [
        legacy.build_message_set(records[:2], 0),
        legacy.build_message_set(records[2:4], 1, codec=1),
        legacy.build_message_set(records[4:], 1),
    ]
    crash(data)
    write_log(data / "old-0", 0, *entries)
    assert check(data, deep=True)[0] == []
    patch(data / f"old-0/{0:020}.log", 24, b"\xff")
    assert check(data)[0] == [
        f"old-0/{0:020}.log offset 0: the checksum of the batch at position 0 does not match"
    ]


def test_directories_that_wait_for_deletion_are_left_out(data: Path) -> None:
    gone = data / f"gone-0.{'a' * 32}-delete"
    write_log(gone, 0, b"nonsense" * 10)
    assert check(data) == ([], [])


# -- damaged --------------------------------------------------------------------------------

DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a byte of a record": (
        lambda data: patch(data / file(SECOND, ".log"), 80, b"\xee"),
        [f"{file(SECOND, '.log')} offset 38: the checksum of the batch at position 0 does not"],
    ),
    "a base offset": (
        lambda data: patch(data / file(SECOND, ".log"), 0, bytes(8)),
        [f"{file(SECOND, '.log')} offset 0: a batch begins at offset 0, but 38 comes next"],
    ),
    "a leader epoch": (
        lambda data: patch(data / file(SECOND, ".log"), 12, b"\0\0\0\x01"),
        [
            f"{file(SECOND, '.log')} offset 38: leader epoch 1 comes after 7",
        ],
    ),
    "a length": (
        lambda data: patch(data / file(SECOND, ".log"), 8, b"\0\0\0\x01"),
        [f"{file(SECOND, '.log')} offset 38: nothing can be read from position 0 on"],
    ),
    "a log cut in the middle of a batch": (
        lambda data: os.truncate(data / file(SECOND, ".log"), 1000),
        [f"{file(SECOND, '.log')} offset 47: nothing can be read from position 954 on, 46 bytes"],
    ),
    "zeros behind a closed segment": (
        lambda data: os.truncate(data / file(0, ".log"), 9000),
        [f"{file(0, '.log')}: 5076 bytes behind the last batch are zero (position 3924)"],
    ),
    "a segment that is gone": (
        lambda data: [
            write_log(data / "other-0", 0, build_batch([Record(0, -1, None, b"v")], base_offset=0)),
            write_log(data / "other-0", 5, build_batch([Record(5, -1, None, b"v")], base_offset=5)),
        ],
        [
            f"other-0/{0:020}.index: the index is missing",
            f"other-0/{0:020}.timeindex: the index is missing",
            f"other-0/{5:020}.index: the index is missing",
            f"other-0/{5:020}.timeindex: the index is missing",
            f"other-0/{5:020}.log offset 1: records 1 to 4 are missing",
        ],
    ),
    "segments that overlap": (
        lambda data: (data / file(SECOND, ".log")).rename(data / file(30, ".log")),
        [f"{file(30, '.log')} offset 30: the segment before it ends at 38"],
    ),
    "a position in the index": (
        lambda data: patch(data / file(0, ".index"), 4, b"\0\0\0\x07"),
        [f"{file(0, '.index')} offset 6: no batch begins at position 7"],
    ),
    "an offset in the index": (
        lambda data: patch(data / file(0, ".index"), 0, b"\0\0\0\x01"),
        [f"{file(0, '.index')} offset 1: the batch at position 579 ends with offset 6"],
    ),
    "an index that points behind the log": (
        lambda data: patch(data / file(0, ".index"), -1, (999).to_bytes(4, "big") * 2),
        [f"{file(0, '.index')} offset 999: no batch begins at position 999"],
    ),
    "half an index entry": (
        lambda data: patch(data / file(0, ".index"), -1, b"\0\0\0"),
        [f"{file(0, '.index')}: index this file has 59 bytes, which is not a multiple of 8"],
    ),
    "a missing index": (
        lambda data: (data / file(0, ".index")).unlink(),
        [f"{file(0, '.index')}: the index is missing"],
    ),
    "a timestamp in the time index": (
        lambda data: patch(data / file(0, ".timeindex"), 7, b"\x99"),
        [f"{file(0, '.timeindex')} offset 6: the largest timestamp up to here is {NOW + 6}, not"],
    ),
    "an offset in the time index": (
        lambda data: patch(data / file(0, ".timeindex"), 11, b"\x05"),
        [f"{file(0, '.timeindex')} offset 5: the largest timestamp up to here is {NOW + 5}, not"],
    ),
    "a time index without its last entry": (
        lambda data: os.truncate(data / file(0, ".timeindex"), 12),
        [f"{file(0, '.timeindex')}: the segment's largest timestamp {NOW + 37} is not in it"],
    ),
    "an aborted transaction that is forgotten": (
        lambda data: (data / file(SECOND, ".txnindex")).unlink(),
        [f"{file(SECOND, '.txnindex')} offset 65: the transaction of producer 9 that is aborted"],
    ),
    "a committed transaction called aborted": (
        lambda data: patch(
            data / file(SECOND, ".txnindex"),
            -1,
            b"\0\0" + b"".join(n.to_bytes(8, "big") for n in (10, 66, 68, 69)),
        ),
        [f"{file(SECOND, '.txnindex')} offset 68: no transaction of producer 10 is aborted here"],
    ),
    "an aborted transaction that begins too late": (
        lambda data: patch(data / file(SECOND, ".txnindex"), 17, b"\x40"),
        [f"{file(SECOND, '.txnindex')} offset 65: the aborted transaction of producer 9 begins at"],
    ),
    "an aborted transaction of another producer": (
        lambda data: patch(data / file(SECOND, ".txnindex"), 9, b"\x08"),
        [f"{file(SECOND, '.txnindex')} offset 65: the transaction aborted here is of producer 9"],
    ),
    "a last stable offset that is too large": (
        lambda data: patch(data / file(SECOND, ".txnindex"), 33, b"\x99"),
        [f"{file(SECOND, '.txnindex')} offset 65: the last stable offset then is 66, not 153"],
    ),
    "a byte of a producer snapshot": (
        lambda data: patch(data / file(END, ".snapshot"), 20, b"\x77"),
        [f"{file(END, '.snapshot')}: the checksum does not match"],
    ),
    "a producer snapshot of another offset": (
        lambda data: (data / file(END, ".snapshot")).rename(data / file(500, ".snapshot")),
        [f"{file(500, '.snapshot')}: the log ends before it, at 71"],
    ),
    "an epoch checkpoint with another epoch": (
        lambda data: (data / "orders-0/leader-epoch-checkpoint").write_bytes(b"0\n1\n7 0\n"),
        [
            "orders-0/leader-epoch-checkpoint offset 63: the leader epoch is 8 in the log, but 7",
        ],
    ),
    "an epoch checkpoint that is gone": (
        lambda data: (data / "orders-0/leader-epoch-checkpoint").unlink(),
        [
            "orders-0/leader-epoch-checkpoint offset 0: the leader epoch is 7 in the log, unknown",
            "orders-0/leader-epoch-checkpoint offset 63: the leader epoch is 8 in the log, unknown",
        ],
    ),
    "an epoch checkpoint that cannot be read": (
        lambda data: (data / "orders-0/leader-epoch-checkpoint").write_bytes(b"0\n1\n7\n"),
        ["orders-0/leader-epoch-checkpoint: malformed line 3: '7'"],
    ),
    "an epoch behind the end": (
        lambda data: (data / "orders-0/leader-epoch-checkpoint").write_bytes(
            b"0\n3\n7 0\n8 63\n9 72\n"
        ),
        ["orders-0/leader-epoch-checkpoint: epoch 9 begins at 72, but the log ends at 71"],
    ),
    "a recovery point behind the end": (
        lambda data: (data / checkpoints.RECOVERY_POINTS).write_bytes(b"0\n1\norders 0 99\n"),
        [f"{checkpoints.RECOVERY_POINTS} offset 99: orders-0 should reach up to here, but ends"],
    ),
    "a high watermark behind the end": (
        lambda data: (data / checkpoints.HIGH_WATERMARKS).write_bytes(b"0\n1\norders 0 99\n"),
        [f"{checkpoints.HIGH_WATERMARKS} offset 99: orders-0 should reach up to here, but ends"],
    ),
    "a checkpoint that cannot be read": (
        lambda data: (data / checkpoints.LOG_START_OFFSETS).write_bytes(b"0\n2\norders 0 3\n"),
        [f"{checkpoints.LOG_START_OFFSETS}: 1 entries, but line 2 says 2"],
    ),
    "a negative offset": (
        lambda data: (data / checkpoints.CLEANER_OFFSETS).write_bytes(b"0\n1\norders 0 -3\n"),
        [f"{checkpoints.CLEANER_OFFSETS}: orders-0 has offset -3"],
    ),
    "no broker id": (
        lambda data: (data / "meta.properties").write_text("version=0\nbroker.id=x\n"),
        ["meta.properties: there is no valid broker.id"],
    ),
    "an unknown version": (
        lambda data: (data / "meta.properties").write_text("version=7\n"),
        ["meta.properties: version '7' is unknown"],
    ),
    "a topic id that cannot be read": (
        lambda data: (data / "orders-0/partition.metadata").write_text("version: 0\n"),
        ["orders-0/partition.metadata: there is no topic id that can be read"],
    ),
    "an index without its log": (
        lambda data: (data / file(99, ".index")).write_bytes(b""),
        [f"{file(99, '.index')}: there is no log beside it"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(data: Path, name: str) -> None:
    damage, expected = DAMAGE[name]
    damage(data)
    problems, _ = check(data)
    for beginning in expected:  # others may follow from it
        assert any(problem.startswith(beginning) for problem in problems), problems


def test_one_problem_is_one_line(data: Path) -> None:
    for name in ("a byte of a record", "a timestamp in the time index", "a high watermark behind "):
        damage = next(value for key, value in DAMAGE.items() if key.startswith(name))[0]
        damage(data)
    problems, _ = check(data)
    assert len(problems) == 3


def test_a_snapshot_that_says_otherwise(data: Path) -> None:
    path = data / file(END, ".snapshot")
    entries = decode_snapshot(path.read_bytes())
    assert [entry.producer_id for entry in entries] == [9, 10, 11]
    entries[0].epoch = 5
    open_one = entries.pop()
    path.write_bytes(encode_snapshot([*entries, ProducerEntry(77, 0)]))
    problems, _ = check(data)
    assert len(problems) == 2
    assert problems[0].startswith(f"{file(END, '.snapshot')}: producer 9 is said to have epoch 5")
    assert problems[1] == (
        f"{file(END, '.snapshot')}: producer 11, which has an open transaction, is missing"
    )
    entries[0].epoch = 1
    path.write_bytes(encode_snapshot([open_one]))  # the others have expired
    assert check(data) == ([], [])


def test_topic_ids_of_one_topic_agree(data: Path) -> None:
    place = Place(str(data / "orders-1"))
    place.open().close()
    write_topic_id(FS, place.directory, b"another id......")
    assert check(data)[0] == [
        "orders-1/partition.metadata: the topic id is not the one in orders-0/partition.metadata"
    ]


def test_records_are_decoded_when_asked(data: Path) -> None:
    records = [Record(0, NOW + 9, None, b"v"), Record(1, NOW, None, b"v")]
    late = build_batch(records, base_offset=0, max_timestamp=NOW)
    short = bytearray(build_batch([Record(2, NOW, None, b"v")], base_offset=2))
    crash(data)
    write_log(data / "t-0", 0, late, short)
    assert check(data)[0] == []
    assert check(data, deep=True)[0] == [
        f"t-0/{0:020}.log offset 0: a record is wrong: its timestamp {NOW + 9} is larger than its "
        "batch's"
    ]


@pytest.mark.parametrize("suffix", [".log", ".index", ".timeindex", ".snapshot"])
def test_any_changed_byte_is_found(data: Path, suffix: str) -> None:
    """But for the unused bits: a key's attributes byte and the like are all under a checksum."""
    rng = random.Random(suffix)
    for path in sorted((data / "orders-0").glob(f"*{suffix}")):
        whole = path.read_bytes()
        for _ in range(20):
            at = rng.randrange(len(whole))
            patch(path, at, bytes([whole[at] ^ (1 << rng.randrange(8))]))
            assert check(data)[0], f"byte {at} of {path.name}"
            path.write_bytes(whole)
    assert check(data) == ([], [])


# -- after a crash --------------------------------------------------------------------------


def test_what_a_crash_leaves_behind_is_no_problem(data: Path) -> None:
    crash(data, recovery_point=SECOND + 2)
    log = data / file(SECOND, ".log")
    os.truncate(log, log.stat().st_size + 4096)
    (data / file(SECOND, ".index")).unlink()
    patch(data / file(SECOND, ".timeindex"), 7, b"\x99")
    patch(data / file(END, ".snapshot"), 20, b"\x77")
    problems, notes = check(data)
    assert problems == []
    assert sorted(notes) == [
        ".kafka_cleanshutdown: not there: the broker did not stop in good order, and what it wrote "
        "after the recovery points will be looked through at its next start",
        f"{file(SECOND, '.log')}: 4096 bytes are reserved behind the last batch",
        f"{file(END, '.snapshot')}: the checksum does not match",
    ]
    # What was flushed has to be right all the same.
    patch(data / file(0, ".index"), 4, b"\0\0\0\x07")
    assert len(check(data)[0]) == 1
    patch(data / file(0, ".log"), 80, b"\xee")
    assert len(check(data)[0]) == 1  # that of the index may follow from it


@pytest.mark.parametrize("torn", [b"", b"\xff" * 10, bytes(61)])
def test_a_torn_end_is_cut_off_by_the_next_start(data: Path, torn: bytes) -> None:
    log = data / file(SECOND, ".log")
    if torn:
        log.write_bytes(log.read_bytes() + torn)
    else:
        patch(log, -2, b"\x88")
    assert len(check(data)[0]) == (torn != bytes(61))  # left in good order there is nothing torn
    crash(data, recovery_point=SECOND)
    assert check(data)[0] == []
    crash_point = {TopicPartition("orders", 0): END}
    checkpoints.write_offsets(FS, str(data / checkpoints.RECOVERY_POINTS), crash_point)
    assert len(check(data)[0]) == (not torn)  # what was flushed is torn


def test_damage_before_sound_batches_is_a_problem_also_after_a_crash(data: Path) -> None:
    crash(data)
    patch(data / file(SECOND, ".log"), 80, b"\xee")
    assert len(check(data)[0]) == 1


def test_an_interrupted_compaction_is_ended_by_the_next_start(data: Path) -> None:
    (data / file(0, ".log")).rename(data / (file(0, ".log") + ".swap"))
    problems, notes = check(data)
    assert problems == []
    assert "orders-0: a compaction was interrupted; the next start ends it" in notes


def test_an_open_transaction_from_before_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    place = Place(str(data / "orders-0"), segment_bytes=1_000, index_interval_bytes=100)
    data.mkdir()
    log = place.open()
    txn = {"producer_id": 9, "producer_epoch": 1, "transactional": True, "timestamp": NOW}
    append(log, "x" * 900, epoch=7, base_sequence=0, **txn)
    append(log, "y" * 900, epoch=7, base_sequence=1, **txn)
    end_transaction(log, ControlType.ABORT, 9, epoch=7)
    append(log, "z", epoch=7, base_sequence=2, **txn)
    log.close()
    meta.mark_clean_shutdown(FS, str(data))
    assert check(data)[0] == []
    for path in (data / "orders-0").glob(f"{0:020}.*"):
        path.unlink()
    assert check(data)[0] == []  # as after retention


# -- not checked ----------------------------------------------------------------------------


def test_a_directory_in_use_is_left_alone(data: Path) -> None:
    lock = meta.DirectoryLock(FS, str(data))
    with pytest.raises(Unusable, match="is used by a broker: stop it first"):
        check(data)
    lock.release()
    assert check(data) == ([], [])


def test_what_is_no_log_directory(data: Path) -> None:
    with pytest.raises(Unusable, match="is not a directory"):
        check(data / "nothing")
    with pytest.raises(Unusable, match="is a partition's directory"):
        check(data / "orders-0")


def test_notes(data: Path) -> None:
    (data / "stray").mkdir()
    (data / "meta.properties").unlink()
    tp = TopicPartition("gone", 0)
    checkpoints.write_offsets(FS, str(data / checkpoints.CLEANER_OFFSETS), {tp: 5})
    assert check(data) == (
        [],
        [
            "meta.properties: not there: the directory is taken by the next broker",
            "stray: a directory whose name is not that of a partition",
            f"{checkpoints.CLEANER_OFFSETS}: gone-0 is not in this directory",
        ],
    )
