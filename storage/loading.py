"""Loading all logs of a broker at its start, in threads."""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kavka.config.topic import TopicConfig
from kavka.protocol.topics import TopicPartition
from kavka.storage.logdir import LogDirectory
from kavka.storage.meta import LogDirectoryError
from kavka.storage.recovery import Loaded


class Found(NamedTuple):
    """A partition's directory to be loaded."""

    directory: LogDirectory
    topic_partition: TopicPartition
    config: TopicConfig


class Result(NamedTuple):
    """What became of it."""

    found: Found
    loaded: Loaded | OSError


def refuse_twins(found: Iterable[Found]) -> None:
    """Raise LogDirectoryError when a partition is in two directories."""
    seen: dict[TopicPartition, LogDirectory] = {}
    for directory, topic_partition, _ in found:
        other = seen.setdefault(topic_partition, directory)
        if other is not directory:
            raise LogDirectoryError(
                f"partition {topic_partition} is in two log directories, {other.path} and "
                f"{directory.path}: move one of them away"
            )


async def load_all(
    found: Iterable[Found], load: Callable[[Found], Loaded], threads_per_directory: int
) -> list[Result]:
    """Call ``load`` for each in threads; what it touches must be the log's own or have locks.

    An OSError of one log is returned for it, and the rest of its share is left out: the
    directory is lost.
    """
    shares: dict[tuple[LogDirectory, int], list[Found]] = {}
    for number, one in enumerate(found):
        shares.setdefault((one.directory, number % threads_per_directory), []).append(one)

    def load_share(share: list[Found]) -> list[Result]:
        results: list[Result] = []
        for one in share:
            try:
                results.append(Result(one, load(one)))
            except OSError as error:
                results.append(Result(one, error))
                break
        return results

    loop = asyncio.get_running_loop()
    parts = await asyncio.gather(
        *(loop.run_in_executor(None, load_share, share) for share in shares.values())
    )
    return [result for part in parts for result in part]
