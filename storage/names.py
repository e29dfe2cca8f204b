"""Names on disk: partition directories and the files in them (log-storage.md §1)."""

import re
from typing import Final, NamedTuple

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition

LOG_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
TIME_INDEX_SUFFIX: Final = ".timeindex"
TXN_INDEX_SUFFIX: Final = ".txnindex"
SNAPSHOT_SUFFIX: Final = ".snapshot"
INDEX_SUFFIXES: Final = (INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX)

DELETED_SUFFIX: Final = ".deleted"  # waits for file.delete.delay.ms
CLEANED_SUFFIX: Final = ".cleaned"  # compaction's output, being written
SWAP_SUFFIX: Final = ".swap"  # a complete replacement, being swapped in

_MAX_NAME: Final = 255
_UNIQUE: Final = re.compile(r"(.+)\.[0-9a-f]{32}-(delete|future)")
_SEGMENT_FILE: Final = re.compile(r"(\d{20})(\.log|\.index|\.timeindex|\.txnindex|\.snapshot)")


class DirectoryName(NamedTuple):
    """What the name of a partition's directory says."""

    topic_partition: TopicPartition
    kind: str  # "" for a live one, "delete" or "future"


def segment_file(base_offset: int, suffix: str) -> str:
    """``00000000000000000042.log`` for offset 42."""
    return f"{base_offset:020d}{suffix}"


def parse_segment_file(name: str) -> tuple[int, str] | None:
    """Base offset and suffix of a segment's file; None for any other name."""
    found = _SEGMENT_FILE.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def split_suffix(name: str) -> tuple[str, str]:
    """``("…42.log", ".deleted")`` for ``…42.log.deleted``."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if dot else (name, "")


def deletion_directory(topic_partition: TopicPartition, unique: str) -> str:
    """``<topic>-<partition>.<32 hex>-delete``, the topic cut so that the name fits a directory.

    ``unique`` is 32 hex digits.
    """
    assert len(unique) == 32
    suffix = f"-{topic_partition.partition}.{unique}-delete"
    return topic_partition.topic[: _MAX_NAME - len(suffix)] + suffix


def future_directory(topic_partition: TopicPartition, unique: str) -> str:
    """``<topic>-<partition>.<32 hex>-future``: where a copy is made for another log directory.

    Raises KafkaError INVALID_TOPIC_EXCEPTION when that is no name for a directory.
    """
    name = f"{topic_partition}.{unique}-future"
    if len(name) > _MAX_NAME:
        raise KafkaError(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"{topic_partition} cannot be moved: its name is too long for that of a copy",
        )
    return name


def parse_directory(name: str) -> DirectoryName | None:
    """Whose directory this is; None when the name is not one that a broker gives.

    The topic is what comes before the last ``-``: partition 2 of ``a-1`` lives in ``a-1-2``.
    """
    kind = ""
    unique = _UNIQUE.fullmatch(name)
    if unique:
        name, kind = unique[1], unique[2]
    topic, dash, partition = name.rpartition("-")
    if not dash or not topic or not (partition.isascii() and partition.isdigit()):
        return None
    return DirectoryName(TopicPartition(topic, int(partition)), kind)
