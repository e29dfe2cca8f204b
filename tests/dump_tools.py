"""Our dump-log beside Kafka's."""

import re
from collections.abc import Sequence
from pathlib import Path

from kavka.storage.fs import FileSystem
from kavka.storage.inspect.dump import Dumper, Options
from tests import java


def dump(*paths: str | Path, options: Options | None = None) -> tuple[list[str], list[str], bool]:
    """Lines shown, complaints, and whether a file could not be read."""
    shown: list[str] = []
    complaints: list[str] = []
    dumper = Dumper(FileSystem(), options or Options(), shown.append, complaints.append)
    for path in paths:
        dumper.dump(str(path))
    dumper.finish()
    return shown, complaints, dumper.failed


def assert_kafka_says_the_same(paths: Sequence[str | Path], option: str, options: Options) -> None:
    """Kafka's tool with ``option`` prints what ours does with ``options``."""
    expected = java.run_tool(
        *("4.3", "org.apache.kafka.tools.DumpLogSegments", option),
        *("--files", ",".join(map(str, paths))),
    )
    shown, complaints, failed = dump(*paths, options=options)
    assert not failed
    # Kafka's shows what it thinks of each old record; ours is documented not to.
    assert shown == [
        re.sub(r" isValid: \w+ crc: \d+", "", line) for line in expected.stdout.split("\n")[:-1]
    ]
    # Details only, for files come in any order; and Kafka's takes the first offset of every log but
    # the first for a jump, and the timestamp of a batch that compaction has emptied for wrong.
    assert sorted(line for line in complaints if line[0] == " ") == sorted(
        line
        for line in expected.stderr.splitlines()
        if line[0] == " " and not re.search("  -1 is followed|, log timestamp: -1$", line)
    )
