"""``partition.metadata``: which topic a partition's directory belongs to (KIP-516, Kafka 2.8).

2.3 does not know the file and leaves it alone. It tells a topic from an earlier one of its name.
"""

import base64
import logging
import os
from typing import Final

from kavka.storage.fs import FileSystem

log = logging.getLogger("kavka.storage.topic_id")

PARTITION_METADATA: Final = "partition.metadata"
ZERO_TOPIC_ID: Final = bytes(16)  # none


def read_topic_id(fs: FileSystem, directory: str) -> bytes:
    """The topic id of a partition's directory; zero, with a warning, when it is not readable."""
    path = os.path.join(directory, PARTITION_METADATA)
    for line in fs.read_bytes(path).decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "topic_id":
            try:
                found = base64.urlsafe_b64decode(value.strip() + "==")
            except ValueError:
                break
            if len(found) == len(ZERO_TOPIC_ID):
                return found
    log.warning("A topic id is not readable and will be written anew file=%s", path)
    return ZERO_TOPIC_ID


def write_topic_id(fs: FileSystem, directory: str, topic_id: bytes) -> None:
    """Write a topic id down, unless it is zero. Raises OSError.

    Not synced: a file lost with the power is written again when the topic is met.
    """
    if topic_id != ZERO_TOPIC_ID:
        text = base64.urlsafe_b64encode(topic_id).rstrip(b"=").decode()
        fs.atomic_write(
            os.path.join(directory, PARTITION_METADATA),
            f"version: 0\ntopic_id: {text}\n".encode(),
            sync=False,
        )
