"""How far a follower's log agrees with its leader's (KIP-101, KIP-279).

Before it fetches, a follower asks the leader where the last epoch that it has records of ends
there. What it has beyond that was written by a leader that has been deposed, was never
acknowledged (or lost in an unclean election), and goes. If the leader does not know the epoch, it
answers with the largest one below: both logs are then compared at that one, step by step, until
they meet.
"""

from typing import Final, NamedTuple, Protocol

from kavka.storage.epochs import EpochEndOffset

UNDEFINED_EPOCH: Final = -1
UNDEFINED_OFFSET: Final = -1


class EpochHistory(Protocol):
    """A log's leader epochs."""

    def end_offset_for(self, epoch: int, log_end_offset: int) -> EpochEndOffset:
        """The largest known epoch up to ``epoch``, and where it ends."""


class Truncation(NamedTuple):
    """Remove all from ``offset`` on; ``done`` when the logs then agree, else ask again."""

    offset: int
    done: bool


def truncation(
    answer: EpochEndOffset, epochs: EpochHistory, log_end_offset: int, high_watermark: int
) -> Truncation:
    """What to do with the leader's answer to the question where our latest epoch ends.

    ``answer.epoch`` is undefined when the leader is of a release that does not name it. The offset
    never lies above our log's end.
    """
    if answer.end_offset == UNDEFINED_OFFSET:
        # The leader has no epochs as early as ours: only the high watermark is left to go by.
        return Truncation(min(high_watermark, log_end_offset), True)
    if answer.epoch == UNDEFINED_EPOCH:
        return Truncation(min(answer.end_offset, log_end_offset), True)
    ours = epochs.end_offset_for(answer.epoch, log_end_offset)
    if ours.end_offset == UNDEFINED_OFFSET:
        # Its epoch is later than all of ours, which Kafka's leaders never answer.
        return Truncation(min(answer.end_offset, log_end_offset), True)
    if ours.epoch != answer.epoch:
        # We have no record of the leader's epoch: go back to before it, and compare there.
        return Truncation(min(ours.end_offset, log_end_offset), False)
    return Truncation(min(ours.end_offset, answer.end_offset, log_end_offset), True)
