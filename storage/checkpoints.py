"""Checkpoint files: small text files that say how far something got.

Format (Kafka's ``CheckpointFile``, log-storage.md §1): line 1 the version, ``0``; line 2 the number
of entries; then one entry a line, its fields separated by white space. An empty file has no
entries. They are replaced atomically: ``<file>.tmp``, sync, rename.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

from kavka.protocol.topics import TopicPartition
from kavka.storage.fs import FileSystem

RECOVERY_POINTS: Final = "recovery-point-offset-checkpoint"
LOG_START_OFFSETS: Final = "log-start-offset-checkpoint"
HIGH_WATERMARKS: Final = "replication-offset-checkpoint"
CLEANER_OFFSETS: Final = "cleaner-offset-checkpoint"
LEADER_EPOCHS: Final = "leader-epoch-checkpoint"  # in each partition's directory

_VERSION: Final = "0"
_T = TypeVar("_T")


class CorruptCheckpoint(Exception):
    """A checkpoint file that does not follow the format; the message names file and line."""


class EpochEntry(NamedTuple):
    """A leader epoch, and the offset of the first record that was written in it."""

    epoch: int
    start_offset: int


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """The content of an offset checkpoint (recovery points, high watermarks, …)."""
    return _encode(
        f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items())
    )


def decode_offsets(data: bytes, path: str = "offset checkpoint") -> dict[TopicPartition, int]:
    """Read an offset checkpoint. Raises CorruptCheckpoint; ``path`` is for its message."""
    return dict(_decode(data, path, _offset_line))


def encode_epochs(entries: Iterable[EpochEntry]) -> bytes:
    """The content of a ``leader-epoch-checkpoint``."""
    return _encode(f"{epoch} {start}" for epoch, start in entries)


def decode_epochs(data: bytes, path: str = LEADER_EPOCHS) -> list[EpochEntry]:
    """Read a ``leader-epoch-checkpoint``. Raises CorruptCheckpoint."""
    return _decode(data, path, _epoch_line)


def read_offsets(fs: FileSystem, path: str) -> dict[TopicPartition, int]:
    """Read an offset checkpoint file; none is as good as an empty one.

    Raises CorruptCheckpoint and OSError. For recovery points and log start offsets at start
    the caller warns and goes on without; otherwise the log directory goes offline.
    """
    return decode_offsets(_read(fs, path), path)


def write_offsets(fs: FileSystem, path: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Replace an offset checkpoint file, synced. *May block long.* Raises OSError."""
    fs.atomic_write(path, encode_offsets(offsets))


def read_epochs(fs: FileSystem, path: str) -> list[EpochEntry]:
    """Read a ``leader-epoch-checkpoint`` file; none is as good as an empty one."""
    return decode_epochs(_read(fs, path), path)


def _read(fs: FileSystem, path: str) -> bytes:
    try:
        return fs.read_bytes(path)
    except FileNotFoundError:
        return b""


def _encode(lines: Iterable[str]) -> bytes:
    entries = list(lines)
    return "\n".join([_VERSION, str(len(entries)), *entries, ""]).encode()


def _decode(data: bytes, path: str, parse: Callable[[list[str]], _T]) -> list[_T]:
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint(f"{path}: {error}") from None
    if lines[-1] == "":
        lines.pop()
    if not lines:
        return []
    if lines[0].strip() != _VERSION:
        raise CorruptCheckpoint(f"{path}: unknown version {lines[0]!r} in line 1")
    if len(lines) < 2 or not _is_number(lines[1].strip()):
        raise CorruptCheckpoint(f"{path}: line 2 is not the number of entries")
    entries: list[_T] = []
    for number, line in enumerate(lines[2:], 3):
        try:
            entries.append(parse(line.split()))
        except ValueError:
            raise CorruptCheckpoint(f"{path}: malformed line {number}: {line!r}") from None
    if len(entries) != int(lines[1]):
        raise CorruptCheckpoint(f"{path}: {len(entries)} entries, but line 2 says {lines[1]}")
    return entries


def _offset_line(fields: list[str]) -> tuple[TopicPartition, int]:
    topic, partition, offset = fields
    return TopicPartition(topic, _number(partition)), _number(offset)


def _epoch_line(fields: list[str]) -> EpochEntry:
    epoch, start = fields
    return EpochEntry(_number(epoch), _number(start))


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _number(text: str) -> int:
    if not _is_number(text):  # int() alone also takes "1_000" and digits of other scripts
        raise ValueError
    return int(text)
