"""Fetch sessions (KIP-227): the table of ids and epochs, and what is kept between requests."""

import random

import pytest

from kavka.broker.fetch.sessions import EVICTION_SECONDS, FetchSessions
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k01_fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
)
from kavka.storage.clock import ManualClock

VERSION = 11


def fetch(
    session_id: int = 0,
    epoch: int = -1,
    wanted: dict[str, dict[int, int]] | None = None,
    forgotten: dict[str, list[int]] | None = None,
) -> FetchRequest:
    """A request; ``wanted`` maps topic → partition → offset."""
    return FetchRequest(
        session_id=session_id,
        session_epoch=epoch,
        topics=[
            FetchTopic(
                topic=topic,
                partitions=[
                    FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=100)
                    for index, offset in partitions.items()
                ],
            )
            for topic, partitions in (wanted or {}).items()
        ],
        forgotten_topics_data=[
            ForgottenTopic(topic=topic, partitions=partitions)
            for topic, partitions in (forgotten or {}).items()
        ],
    )


def sessions(slots: int = 10) -> tuple[FetchSessions, ManualClock]:
    clock = ManualClock()
    return FetchSessions(slots, clock, random.Random(1)), clock


def test_without_a_session_nothing_is_kept() -> None:
    cache, _ = sessions()
    context = cache.open(fetch(0, -1, {"t": {0: 5}}), VERSION, follower=False)
    assert context.session is None and context.session_id == 0
    assert [(p.topic, p.index, p.fetch_offset) for p in context.partitions] == [("t", 0, 5)]
    assert len(cache) == 0


def test_a_session_remembers_adds_changes_and_forgets() -> None:
    cache, _ = sessions()
    first = cache.open(fetch(0, 0, {"t": {0: 1, 1: 2}}), VERSION, follower=False)
    assert first.session is not None and not first.incremental
    sid = first.session_id
    second = cache.open(fetch(sid, 1), VERSION, follower=False)
    assert second.incremental
    assert [(p.index, p.fetch_offset) for p in second.partitions] == [(0, 1), (1, 2)]
    third = cache.open(fetch(sid, 2, {"t": {1: 9, 2: 0}}, {"t": [0]}), VERSION, follower=False)
    assert [(p.index, p.fetch_offset) for p in third.partitions] == [(1, 9), (2, 0)]
    empty = cache.open(fetch(sid, 3, {}, {"t": [1, 2]}), VERSION, follower=False)
    assert empty.partitions == [] and empty.session_id == 0
    assert len(cache) == 0


def test_answered_partitions_go_to_the_end() -> None:
    cache, _ = sessions()
    first = cache.open(fetch(0, 0, {"t": {0: 1, 1: 2, 2: 3}}), VERSION, follower=False)
    assert first.session is not None
    first.session.move_to_end(first.partitions[0])
    second = cache.open(fetch(first.session_id, 1), VERSION, follower=False)
    assert [p.index for p in second.partitions] == [1, 2, 0]


@pytest.mark.parametrize(
    ("session_id", "epoch", "code"),
    [
        (123, 1, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
        (None, 2, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        (None, 17, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
    ],
)
def test_wrong_numbers_are_told(session_id: int | None, epoch: int, code: ErrorCode) -> None:
    cache, _ = sessions()
    first = cache.open(fetch(0, 0, {"t": {0: 1}}), VERSION, follower=False)
    wanted = first.session_id if session_id is None else session_id
    with pytest.raises(KafkaError) as caught:
        cache.open(fetch(wanted, epoch), VERSION, follower=False)
    assert caught.value.code == code


def test_names_and_ids_do_not_mix_in_a_session() -> None:
    cache, _ = sessions()
    first = cache.open(fetch(0, 0, {"t": {0: 1}}), VERSION, follower=False)
    with pytest.raises(KafkaError) as caught:
        cache.open(fetch(first.session_id, 1), 13, follower=False)
    assert caught.value.code == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR


@pytest.mark.parametrize("epoch", [0, -1])
def test_starting_over_closes_the_old_session(epoch: int) -> None:
    cache, _ = sessions()
    first = cache.open(fetch(0, 0, {"t": {0: 1}}), VERSION, follower=False)
    again = cache.open(fetch(first.session_id, epoch, {"t": {0: 1}}), VERSION, follower=False)
    assert len(cache) == (1 if epoch == 0 else 0)
    assert again.session_id != first.session_id or epoch == 0


def test_the_cache_is_bounded_and_prefers_what_is_used_and_large() -> None:
    cache, clock = sessions(slots=2)
    small = cache.open(fetch(0, 0, {"t": {0: 0}}), VERSION, follower=False)
    large = cache.open(fetch(0, 0, {"t": {0: 0, 1: 0, 2: 0}}), VERSION, follower=False)
    refused = cache.open(fetch(0, 0, {"t": {0: 0, 1: 0}}), VERSION, follower=False)
    assert refused.session_id == 0, "a full cache of young sessions gives no room"
    clock.advance(EVICTION_SECONDS - 1)
    for context in (small, large):
        cache.open(fetch(context.session_id, 1), VERSION, follower=False)
    clock.advance(2)
    taken = cache.open(fetch(0, 0, {"t": {0: 0, 1: 0}}), VERSION, follower=False)
    assert taken.session_id, "a larger one takes the place of a settled smaller one"
    assert {s.id for s in cache} == {large.session_id, taken.session_id}
    clock.advance(EVICTION_SECONDS + 1)
    cache.open(fetch(taken.session_id, 1), VERSION, follower=False)
    clock.advance(1)
    late = cache.open(fetch(0, 0, {"t": {0: 0}}), VERSION, follower=False)
    assert {s.id for s in cache} == {taken.session_id, late.session_id}, "unused ones go first"


def test_all_sessions_together_remember_a_bounded_number_of_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kavka.broker.fetch.sessions.FETCH_SESSION_PARTITIONS_MAX", 5)
    cache, _ = sessions()
    first = cache.open(fetch(0, 0, {"t": {0: 0, 1: 0, 2: 0}}), VERSION, follower=False)
    assert cache.partitions == 3
    refused = cache.open(fetch(0, 0, {"t": {0: 0, 1: 0, 2: 0}}), VERSION, follower=False)
    assert refused.session is None
    assert len(refused.partitions) == 3  # it is served all the same
    other = cache.open(fetch(0, 0, {"t": {0: 0, 1: 0}}), VERSION, follower=False)
    assert other.session is not None
    cache.open(fetch(first.session_id, 1, {"t": {7: 0}}, {"t": [0, 1]}), VERSION, follower=False)
    assert cache.partitions == 4
    with pytest.raises(KafkaError) as caught:
        cache.open(fetch(other.session_id, 1, {"u": {0: 0, 1: 0}}), VERSION, follower=False)
    assert caught.value.code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert {s.id for s in cache} == {first.session_id}
    assert cache.partitions == 2
    cache.open(fetch(first.session_id, -1), VERSION, follower=False)
    assert (len(cache), cache.partitions) == (0, 0)
