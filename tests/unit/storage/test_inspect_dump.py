"""``kavka dump-log``: line for line what Kafka's own tool says."""

import re
from pathlib import Path

import pytest

from kavka.protocol import codec
from kavka.protocol.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    TopicPartitions,
)
from kavka.protocol.records import internal_topics, legacy
from kavka.protocol.records.batch import Record, build_batch
from kavka.protocol.records.internal_topics import (
    GroupMetadataValue,
    MemberMetadata,
    OffsetCommitValue,
    TransactionLogValue,
    TransactionPartitions,
)
from kavka.storage.inspect.decoders import (
    Decoded,
    decode_offsets_record,
    decode_transaction_record,
)
from kavka.storage.inspect.dump import Options
from kavka.storage.inspect.dump_log import LogOptions
from kavka.storage.producer_entry import BatchMetadata, ProducerEntry
from kavka.storage.snapshots import encode_snapshot
from tests.dump_tools import assert_kafka_says_the_same, dump
from tests.unit.storage.inspect_support import FS, NOW, write_directory

ZERO = f"{0:020}"


def deep(**fields: object) -> Options:
    return Options(LogOptions(deep=True, data=True, **fields))  # type: ignore[arg-type]


def write(directory: Path, name: str, *parts: bytes) -> Path:
    path = directory / name
    path.write_bytes(b"".join(parts))
    return path


def offset_commit(key_version: int = 1) -> Record:
    key = key_version.to_bytes(2, "big") + internal_topics.encode_offset_key("g", "t", 3)[2:]
    value = OffsetCommitValue(offset=7, leader_epoch=2, metadata="m\n", commit_timestamp=9)
    return Record(4, NOW, key, internal_topics.encode_offset_value(value))


def group_metadata(protocol_type: str = "consumer") -> Record:
    subscription = ConsumerProtocolSubscription(
        topics=["t"],
        user_data=b"\x00\xff",
        owned_partitions=[TopicPartitions(topic="t", partitions=[1])],
    )
    assignment = ConsumerProtocolAssignment(
        assigned_partitions=[TopicPartitions(topic="t", partitions=[0, 1])]
    )
    member = MemberMetadata(
        member_id="m-1",
        client_id="c",
        client_host="/127.0.0.1",
        rebalance_timeout=5,
        session_timeout=6,
        subscription=b"\x00\x01" + codec.encode(subscription, 1),
        assignment=b"\x00\x00" + codec.encode(assignment, 0),
    )
    value = GroupMetadataValue(
        protocol_type=protocol_type, generation=3, protocol="range", leader="m-1",
        current_state_timestamp=8, members=[member],
    )  # fmt: skip
    return Record(
        5, NOW, internal_topics.encode_group_key("g"), internal_topics.encode_group_value(value)
    )


def transaction(version: int = 0) -> Record:
    value = TransactionLogValue(
        producer_id=4,
        previous_producer_id=3,
        producer_epoch=1,
        transaction_timeout_ms=60_000,
        transaction_status=1,
        transaction_partitions=[TransactionPartitions(topic="t", partition_ids=[0, 2])],
        transaction_last_update_timestamp_ms=NOW,
        transaction_start_timestamp_ms=NOW - 1,
    )
    return Record(
        6,
        NOW,
        internal_topics.encode_transaction_key("tx"),
        version.to_bytes(2, "big") + codec.encode(value, version),
    )


def test_a_log_batch_by_batch_and_record_by_record(tmp_path: Path) -> None:
    records = [
        Record(3, NOW, b"k", "wert ä".encode(), (("h", b"x"), ("i", None))),
        Record(5, NOW - 2, None, b"\xff\x1b[2J\nend"),
    ]
    path = write(
        tmp_path,
        f"{3:020}.log",
        build_batch(records, base_offset=3, codec=1, producer_id=9, producer_epoch=2,
                    base_sequence=2**31 - 1, leader_epoch=4),
        build_batch([], base_offset=6, last_offset=8, delete_horizon=77),
        b"torn",
    )  # fmt: skip
    shallow, complaints, failed = dump(path)
    size = int(re.search(r" size: (\d+)", shallow[2])[1])  # type: ignore[index]
    crcs = [int(found) for found in re.findall(r" crc: (\d+)", "\n".join(shallow))]
    assert shallow == [
        f"Dumping {path}",
        "Log starting offset: 3",
        "baseOffset: 3 lastOffset: 5 count: 2 baseSequence: 2147483647 lastSequence: 1 "
        "producerId: 9 producerEpoch: 2 partitionLeaderEpoch: 4 isTransactional: false "
        "isControl: false deleteHorizonMs: OptionalLong.empty position: 0 "
        f"CreateTime: {NOW} size: {size} magic: 2 compresscodec: gzip crc: {crcs[0]} "
        "isvalid: true",
        "baseOffset: 6 lastOffset: 8 count: 0 baseSequence: -1 lastSequence: -1 producerId: -1 "
        "producerEpoch: -1 partitionLeaderEpoch: -1 isTransactional: false isControl: false "
        f"deleteHorizonMs: OptionalLong[77] position: {size} CreateTime: -1 size: 61 magic: 2 "
        f"compresscodec: none crc: {crcs[1]} isvalid: true",
        f"Found 4 invalid bytes at the end of {3:020}.log",
    ]
    assert (complaints, failed) == ([], False)
    full, complaints, _ = dump(path, options=deep())
    assert full[3:5] == [
        f"| offset: 3 CreateTime: {NOW} keySize: 1 valueSize: 7 sequence: 2147483647 "
        "headerKeys: [h,i] key: k payload: wert ä",
        f"| offset: 5 CreateTime: {NOW - 2} keySize: -1 valueSize: 9 sequence: 1 "
        "headerKeys: [] payload: �\\x1b[2J\\nend",
    ]
    assert complaints == [f"Non-consecutive offsets in {path}", "  3 is followed by 5"]
    only_data, _, _ = dump(path, options=deep(metadata=False))
    assert only_data[3:5] == ["| key: k payload: wert ä", "| payload: �\\x1b[2J\\nend"]
    cut, _, _ = dump(path, options=Options(LogOptions(max_bytes=size)))
    assert cut == shallow[:3]


def test_damage_is_told_and_the_rest_shown(tmp_path: Path) -> None:
    good = build_batch([Record(0, NOW, None, b"v")], base_offset=0)
    wrong_crc = bytearray(build_batch([Record(1, NOW, None, b"w")], base_offset=1))
    wrong_crc[-2] ^= 1  # a byte of the value
    unreadable = bytearray(build_batch([Record(2, NOW, None, b"x")], base_offset=2))
    unreadable[61] = 99  # the record's length
    log = write(tmp_path, f"{ZERO}.log", good, wrong_crc, unreadable, good[:0], bytes(100))
    shown, complaints, failed = dump(log, tmp_path / f"{9:020}.log", options=deep())
    assert [line.rpartition(" ")[2] for line in shown if line.startswith("base")] == [
        "true",
        "false",
        "false",
    ]
    assert f"Found 100 invalid bytes at the end of {ZERO}.log" in shown
    assert complaints == [
        f"The records of the batch at position {2 * len(good)} of {log} cannot be read: "
        "a record does not fit into its batch",
        f"{tmp_path}/{9:020}.log cannot be read: No such file or directory",
    ]
    assert failed


def test_message_formats_0_and_1(tmp_path: Path) -> None:
    def records(first: int) -> list[Record]:
        return [Record(first + n, NOW + n, b"k", b"v%d" % n) for n in range(2)]

    path = write(
        tmp_path,
        f"{ZERO}.log",
        legacy.build_message_set(records(0)[:1], 0),
        legacy.build_message_set(records(1), 1, codec=1),
        legacy.build_message_set([Record(3, NOW, None, b"v")], 1, timestamp_type=1),
    )
    shown, _, failed = dump(path, options=deep())
    assert not failed
    assert [re.sub(r" size: \d+| crc: \d+| position: \d+", "", line) for line in shown[2:]] == [
        "offset: 0 NoTimestampType: -1 magic: 0 compresscodec: none isvalid: true",
        "| offset: 0 NoTimestampType: -1 keySize: 1 valueSize: 2 key: k payload: v0",
        f"offset: 2 CreateTime: {NOW + 1} magic: 1 compresscodec: gzip isvalid: true",
        f"| offset: 1 CreateTime: {NOW} keySize: 1 valueSize: 2 key: k payload: v0",
        f"| offset: 2 CreateTime: {NOW + 1} keySize: 1 valueSize: 2 key: k payload: v1",
        f"offset: 3 LogAppendTime: {NOW} magic: 1 compresscodec: none isvalid: true",
        f"| offset: 3 LogAppendTime: {NOW} keySize: -1 valueSize: 1 payload: v",
    ]


def test_indexes_are_compared_with_the_log(tmp_path: Path) -> None:
    first = build_batch([Record(0, NOW, None, b"v")], base_offset=0)
    second = build_batch([Record(1, NOW + 5, None, b"v")], base_offset=1)
    write(tmp_path, f"{ZERO}.log", first, second)
    at = len(first)
    index = write(
        tmp_path, f"{ZERO}.index",
        *(number.to_bytes(4, "big") for number in (1, at, 2, at + 1)), bytes(16),
    )  # fmt: skip
    times = write(
        tmp_path, f"{ZERO}.timeindex",
        *(
            time.to_bytes(8, "big") + offset.to_bytes(4, "big")
            for time, offset in ((NOW, 0), (NOW - 1, 1), (NOW + 7, 3))
        ),
    )  # fmt: skip
    shown, complaints, failed = dump(index, times)
    assert shown == [
        f"Dumping {index}",
        f"offset: 1 position: {at}",
        f"offset: 2 position: {at + 1}",
        f"Dumping {times}",
        f"timestamp: {NOW} offset: 0",
        f"timestamp: {NOW - 1} offset: 1",
        f"timestamp: {NOW + 7} offset: 3",
    ]
    assert complaints == [
        f"Mismatches in :{index}",
        "  Index offset: 2, log offset: -1",
        f"Found timestamp mismatch in :{times}",
        f"  Index timestamp: {NOW - 1}, log timestamp: {NOW + 5}",
        f"Found out of order timestamp in :{times}",
        f"  Index timestamp: {NOW - 1}, Previously indexed timestamp: {NOW}",
        "The following indexed offsets are not found in the log.",
        "Indexed offset: 3, found log offset: -1",
    ]
    assert not failed
    quiet, same, _ = dump(index, times, options=Options(verify_index_only=True))
    assert (quiet, same) == ([f"Dumping {index}", f"Dumping {times}"], complaints)


def test_index_sanity(tmp_path: Path) -> None:
    good = write(tmp_path, f"{ZERO}.index", b"\0\0\0\1\0\0\0\x50")
    empty = write(tmp_path, f"{1:020}.index")
    torn = write(tmp_path, f"{2:020}.timeindex", bytes(13))
    fine = write(tmp_path, f"{3:020}.timeindex")
    shown, complaints, failed = dump(
        good, empty, torn, fine, options=Options(index_sanity_only=True)
    )
    assert shown == [
        f"Dumping {good}",
        f"{good} passed sanity check.",
        f"Dumping {empty}",
        f"{empty} is empty.",
        f"Dumping {torn}",
        f"Dumping {fine}",
        f"{fine} passed sanity check.",
    ]
    assert complaints == [f"index {torn} has 13 bytes, which is not a multiple of 12"]
    assert failed


def test_producer_snapshots(tmp_path: Path) -> None:
    data = encode_snapshot(
        [
            ProducerEntry(
                4, 1, batches=[BatchMetadata(2**31 - 2, 1, 20, 3, 77)], last_timestamp=77,
                txn_first_offset=17,
            ),
            ProducerEntry(5, 2, batches=[BatchMetadata(-1, -1, 20, 0, 78)], last_timestamp=78),
            ProducerEntry(6, 2, coordinator_epoch=3, last_timestamp=9),
        ]
    )  # fmt: skip
    path = write(tmp_path, f"{21:020}.snapshot", data)
    assert dump(path)[0][1:] == [
        "producerId: 4 producerEpoch: 1 coordinatorEpoch: -1 "
        "currentTxnFirstOffset: OptionalLong[17] lastTimestamp: 77 firstSequence: 2147483646 "
        "lastSequence: 1 lastOffset: 20 offsetDelta: 3 timestamp: 77",
        "producerId: 5 producerEpoch: 2 coordinatorEpoch: -1 "
        "currentTxnFirstOffset: OptionalLong.empty lastTimestamp: 78 firstSequence: 2147483647 "
        "lastSequence: -1 lastOffset: 20 offsetDelta: 0 timestamp: 78",
        "producerId: 6 producerEpoch: 2 coordinatorEpoch: 3 "
        "currentTxnFirstOffset: OptionalLong.empty lastTimestamp: 9 ",
    ]
    path.write_bytes(data[:-1])
    assert dump(path) == (
        [f"Dumping {path}"],
        [f"{path}: the checksum does not match"],
        True,
    )


def test_checkpoints_and_other_files(tmp_path: Path) -> None:
    offsets = write(tmp_path, "replication-offset-checkpoint", b"0\n1\na-b 2 33\n")
    epochs = write(tmp_path, "leader-epoch-checkpoint", b"0\n2\n0 0\n4 17\n")
    broken = write(tmp_path, "cleaner-offset-checkpoint", b"0\n1\n")
    other = write(tmp_path, "notes.txt", b"hello")
    missing = tmp_path / f"{0:020}.txnindex"
    shown, complaints, failed = dump(offsets, epochs, broken, other, missing)
    assert shown == [
        f"Dumping {offsets}",
        "topic: a-b partition: 2 offset: 33",
        f"Dumping {epochs}",
        "leaderEpoch: 0 startOffset: 0",
        "leaderEpoch: 4 startOffset: 17",
        f"Dumping {broken}",
        f"Dumping {other}",
        f"Dumping {missing}",
    ]
    assert complaints == [
        f"{broken}: 0 entries, but line 2 says 1",
        f"Ignoring unknown file {other}",
        f"{missing} cannot be read: No such file or directory",
    ]
    assert failed


def test_offsets_and_groups_as_json() -> None:
    assert decode_offsets_record(offset_commit()) == Decoded(
        '{"type":"1","data":{"group":"g","topic":"t","partition":3}}',
        '{"version":"3","data":{"offset":7,"leaderEpoch":2,"metadata":"m\\n","commitTimestamp":9}}',
    )
    assert decode_offsets_record(group_metadata()) == Decoded(
        '{"type":"2","data":{"group":"g"}}',
        '{"version":"3","data":{"protocolType":"consumer","generation":3,"protocol":"range",'
        '"leader":"m-1","currentStateTimestamp":8,"members":[{"memberId":"m-1",'
        '"groupInstanceId":null,"clientId":"c","clientHost":"/127.0.0.1","rebalanceTimeout":5,'
        '"sessionTimeout":6,"subscription":{"topics":["t"],"userData":"AP8=",'
        '"ownedPartitions":[{"topic":"t","partitions":[1]}]},"assignment":{"assignedPartitions":'
        '[{"topic":"t","partitions":[0,1]}],"userData":null}}]}}',
    )
    opaque = decode_offsets_record(group_metadata("connect")).payload
    assert opaque is not None and '"assignment":"AAAAAAABAAF0AAAAAgAAAAAAAAAB/////w=="' in opaque


def test_the_topic_id_of_a_newer_commit_is_shown() -> None:
    value = bytes.fromhex("0004 0000000000000007 00000002 01 0000000000000009 01 00 10") + bytes(
        range(16)
    )
    record = offset_commit()._replace(value=value)
    assert decode_offsets_record(record).payload == (
        '{"version":"4","data":{"offset":7,"leaderEpoch":2,"metadata":"","commitTimestamp":9,'
        '"topicId":"AAECAwQFBgcICQoLDA0ODw"}}'
    )


def test_transactions_as_json() -> None:
    shown = decode_transaction_record(transaction())
    assert shown.key == '{"type":"0","data":{"transactionalId":"tx"}}'
    fields = (
        '"producerEpoch":1,"transactionTimeoutMs":60000,"transactionStatus":1,'
        '"transactionPartitions":[{"topic":"t","partitionIds":[0,2]}],'
        f'"transactionLastUpdateTimestampMs":{NOW},"transactionStartTimestampMs":{NOW - 1}}}}}'
    )
    assert shown.payload == '{"version":"0","data":{"producerId":4,' + fields
    assert decode_transaction_record(transaction(1)).payload == (
        '{"version":"1","data":{"producerId":4,"previousProducerId":3,' + fields
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Record(7, 0, offset_commit().key, None), "<DELETE>"),
        (Record(7, 0, b"\x00\x05abc", b""), "Unknown record type 5 at offset 7, skipping."),
        (Record(7, 0, None, b"v"), "Error at offset 7, skipping. It has no key."),
        (Record(7, 0, b"\x00", b"v"), "Error at offset 7, skipping. There is no version."),
        (
            Record(7, 0, offset_commit().key, b"\x00\x09"),
            "Error at offset 7, skipping. Version 9 is unknown.",
        ),
        (Record(7, 0, b"\x00\x01\x00\x09a", b"v"), "Error at offset 7, skipping. "),
    ],
)
def test_records_of_internal_topics_that_are_not_known(record: Record, expected: str) -> None:
    decoded = decode_offsets_record(record)
    assert expected in (decoded.payload or decoded.key or "")


# -- beside Kafka's own ---------------------------------------------------------------------


@pytest.mark.java
def test_kafkas_tool_says_the_same_of_everything_in_a_partition(tmp_path: Path) -> None:
    directory = Path(write_directory(str(tmp_path / "data")))
    names = [name for name in FS.listdir(str(directory)) if name[0].isdigit()]
    assert {Path(name).suffix for name in names} == {
        *(".index", ".log", ".snapshot", ".timeindex", ".txnindex")
    }
    paths = [directory / name for name in names]
    assert_kafka_says_the_same(paths, "--print-data-log", deep())
    assert_kafka_says_the_same(
        [path for path in paths if path.suffix in (".index", ".timeindex")],
        "--index-sanity-check",
        Options(index_sanity_only=True),
    )


@pytest.mark.java
def test_kafkas_tool_says_the_same_of_internal_topics_and_old_formats(tmp_path: Path) -> None:
    offsets = [
        offset_commit(),
        group_metadata(),
        group_metadata("connect")._replace(offset=6),
        Record(9, NOW, offset_commit().key, None),
    ]
    path = write(tmp_path, f"{4:020}.log", build_batch(offsets, base_offset=4))
    assert_kafka_says_the_same([path], "--offsets-decoder", deep(decoder=decode_offsets_record))
    states = [
        transaction(),
        transaction(1)._replace(offset=7),
        Record(8, NOW, transaction().key, None),
    ]
    path = write(tmp_path, f"{6:020}.log", build_batch(states, base_offset=6))
    assert_kafka_says_the_same(
        [path], "--transaction-log-decoder", deep(decoder=decode_transaction_record)
    )
    records = [Record(n, NOW + n, b"k" if n % 2 else None, b"v%d" % n) for n in range(12)]
    path = write(
        tmp_path,
        f"{0:020}.log",
        legacy.build_message_set(records[:2], 0),
        legacy.build_message_set(records[2:5], 0, codec=2),
        legacy.build_message_set(records[5:7], 1),
        legacy.build_message_set(records[7:10], 1, codec=3),
        legacy.build_message_set(records[10:11], 1, timestamp_type=1),
        build_batch(records[11:], base_offset=11, timestamp_type=1, codec=4),
    )
    assert_kafka_says_the_same([path], "--print-data-log", deep())
