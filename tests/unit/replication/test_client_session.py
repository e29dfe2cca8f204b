"""A follower's fetch session against the leader's, request by request."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.fetch.sessions import FetchSessions
from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k01_fetch import FetchRequest
from kavka.protocol.topics import TopicPartition
from kavka.replication.fetching.session import ClientSession, SessionRequest, Wanted
from kavka.storage.clock import ManualClock

TPS = [TopicPartition(topic, index) for topic in ("a", "b") for index in range(3)]


def on_the_wire(request: SessionRequest) -> FetchRequest:
    message = FetchRequest(
        replica_id=2,
        session_id=request.session_id,
        session_epoch=request.session_epoch,
        topics=request.topics,
        forgotten_topics_data=request.forgotten,
    )
    return codec.decode(FetchRequest, codec.encode(message, 11), 11)


class Pair:
    """Both ends."""

    def __init__(self, slots: int = 10) -> None:
        self.leader = FetchSessions(slots, ManualClock(), random.Random(1))
        self.client = ClientSession(1000)
        self.wanted: dict[TopicPartition, Wanted] = {}
        self.changed: set[TopicPartition] = set()

    def want(self, tp: TopicPartition, offset: int) -> None:
        self.wanted[tp] = Wanted(offset, 0, 7)
        self.changed.add(tp)

    def drop(self, tp: TopicPartition) -> None:
        self.wanted.pop(tp, None)
        self.changed.add(tp)

    def request(self) -> SessionRequest | None:
        named = self.wanted
        if not self.client.begins:
            named = {tp: self.wanted[tp] for tp in self.changed if tp in self.wanted}
        request = self.client.request(named, sorted(self.changed))
        self.changed.clear()
        return request

    def turn(self) -> dict[TopicPartition, int] | None:
        """One request and its answer: what the leader thinks that we want, None for nothing."""
        request = self.request()
        if request is None:
            return None
        return self.deliver(request)

    def deliver(self, request: SessionRequest) -> dict[TopicPartition, int] | None:
        try:
            context = self.leader.open(on_the_wire(request), 11, follower=True)
        except KafkaError as error:
            lost = error.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
            self.client.refused(request.generation, lost=lost)
            return None
        self.client.answered(request.generation, context.session_id)
        return {TopicPartition(e.topic, e.index): e.fetch_offset for e in context.partitions}

    def offsets(self) -> dict[TopicPartition, int]:
        return {tp: want.fetch_offset for tp, want in self.wanted.items()}


def test_only_what_changed_is_named() -> None:
    pair = Pair()
    for tp in TPS:
        pair.want(tp, 1)
    assert pair.turn() == pair.offsets()
    request = pair.request()
    assert request is not None
    assert (request.topics, request.forgotten) == ([], [])
    assert pair.deliver(request) == pair.offsets()
    pair.want(TPS[2], 9)
    pair.drop(TPS[0])
    request = pair.request()
    assert request is not None
    assert [p.fetch_offset for topic in request.topics for p in topic.partitions] == [9]
    assert [topic.partitions for topic in request.forgotten] == [[0]]
    assert pair.deliver(request) == pair.offsets()


def test_a_leader_without_room_is_told_everything_each_time() -> None:
    pair = Pair(slots=0)
    pair.want(TPS[0], 1)
    for offset in range(1, 4):
        pair.want(TPS[0], offset)
        assert pair.turn() == pair.offsets()
        assert not pair.client.is_open
        assert pair.client.begins


def test_two_requests_under_way_that_are_both_refused_begin_one_session() -> None:
    pair = Pair()
    pair.want(TPS[0], 1)
    pair.turn()
    first, second = pair.request(), pair.request()
    assert first is not None
    assert second is not None
    pair.leader = FetchSessions(10, ManualClock(), random.Random(2))  # it has been restarted
    assert pair.deliver(first) is None
    anew = pair.request()
    assert anew is not None
    assert anew.session_epoch == 0
    assert pair.deliver(second) is None
    assert pair.deliver(anew) == pair.offsets()
    assert pair.client.is_open
    assert pair.turn() == pair.offsets()


def test_the_last_partition_goes_and_comes_again() -> None:
    pair = Pair()
    pair.want(TPS[0], 1)
    pair.turn()
    pair.drop(TPS[0])
    assert pair.turn() is None
    pair.want(TPS[1], 5)
    assert pair.turn() == {TPS[1]: 5}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from(TPS), st.integers(0, 9)),
        st.tuples(st.just("drop"), st.sampled_from(TPS), st.just(0)),
        st.tuples(st.sampled_from(["turn", "lose", "restart", "reset"]), st.none(), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(steps)
def test_both_ends_agree_whatever_is_lost(
    script: list[tuple[str, TopicPartition | None, int]],
) -> None:
    pair = Pair()
    for what, tp, offset in script:
        if what == "want":
            assert tp is not None
            pair.want(tp, offset)
        elif what == "drop":
            assert tp is not None
            pair.drop(tp)
        elif what == "turn":
            seen = pair.turn()
            if seen is not None:
                assert seen == pair.offsets()
        elif what == "lose":  # the connection breaks with a request under way
            pair.request()
            pair.client.reset()
        elif what == "restart":
            pair.leader = FetchSessions(10, ManualClock(), random.Random(len(script)))
        else:
            pair.client.reset()
    for _ in range(2):  # at most one refusal before all is well
        seen = pair.turn()
        if seen is not None:
            break
    assert (seen or {}) == pair.offsets()
