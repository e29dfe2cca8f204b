"""Logs agree after a comparison by epochs: the scenarios of KIP-101 and KIP-279, and any other."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.replication.fetching.truncation import truncation
from kavka.storage.epochs import EpochEndOffset, LeaderEpochCache

# A record is told by its leader epoch and the number under which that leader wrote it.
Record = tuple[int, int]


@dataclass
class Replica:
    """A log as far as truncation sees it, with the real epoch cache."""

    records: list[Record] = field(default_factory=list)
    epochs: LeaderEpochCache = field(default_factory=lambda: LeaderEpochCache("epochs"))
    high_watermark: int = 0

    @property
    def end(self) -> int:
        return len(self.records)

    def lead(self, epoch: int) -> None:
        self.epochs.assign(epoch, self.end)

    def write(self, epoch: int, count: int) -> None:
        for _ in range(count):
            self.epochs.assign(epoch, self.end)
            self.records.append((epoch, self.end))

    def copy(self, leader: "Replica", count: int) -> None:
        for record in leader.records[self.end : self.end + count]:
            self.epochs.assign(record[0], self.end)
            self.records.append(record)

    def cut(self, offset: int) -> None:
        del self.records[offset:]
        self.epochs.truncate_from_end(self.end)
        self.high_watermark = min(self.high_watermark, self.end)


def compare(follower: Replica, leader: Replica) -> int:
    """Bring a follower into line, as a fetcher does; how many questions that took."""
    for asked in range(1, 100):
        epoch = follower.epochs.latest_epoch
        if epoch < 0:
            follower.cut(min(follower.high_watermark, follower.end))
            return asked
        answer = leader.epochs.end_offset_for(epoch, leader.end)
        found = truncation(answer, follower.epochs, follower.end, follower.high_watermark)
        assert found.offset <= follower.end
        follower.cut(found.offset)
        if found.done:
            return asked
    raise AssertionError("the comparison does not come to an end")


def replica(*epochs: int) -> Replica:
    """A log whose records were written in these epochs, one number a record."""
    made = Replica()
    for epoch in epochs:
        made.write(epoch, 1)
    return made


def test_kip_101_high_watermark_truncation_followed_by_immediate_leader_election() -> None:
    """B has what A acknowledged but not the high watermark; restarted, it must not cut it."""
    a, b = replica(0, 0), replica(0, 0)
    b.high_watermark = 1
    a.lead(0)
    compare(b, a)
    assert b.records == [(0, 0), (0, 1)]
    b.lead(1)  # A has failed: nothing is lost
    compare(a, b)
    assert a.records == [(0, 0), (0, 1)]


def test_kip_101_replica_divergence_on_restart_after_multiple_hard_failures() -> None:
    """A lost its second record and wrote another one there; B still has the lost one."""
    b = replica(0, 0)
    a = replica(0)
    b.high_watermark = 2
    a.lead(1)
    a.write(1, 1)
    compare(b, a)
    assert b.records == [(0, 0)]
    b.copy(a, 1)
    assert b.records == a.records == [(0, 0), (1, 1)]


def test_kip_279_fast_leader_failover() -> None:
    """The epoch of the leader in between is unknown to the follower: one question is not
    enough."""
    follower = replica(0, 0, 1, 1, 1)
    leader = replica(0, 0)
    leader.lead(2)
    leader.write(2, 4)
    compare(follower, leader)
    assert follower.records == [(0, 0), (0, 1)]


def test_kip_279_follower_has_epochs_that_the_leader_never_saw() -> None:
    """Two unclean elections, each with records of its own (figure 3 of the KIP)."""
    follower = replica(0, 1, 1, 4, 4)
    leader = replica(0, 1, 2, 2, 3, 3)
    leader.lead(5)
    asked = compare(follower, leader)
    assert follower.records == [(0, 0), (1, 1)]
    assert asked == 2


def test_an_epoch_without_records_does_not_keep_the_question_going() -> None:
    """A leader of a moment, that wrote nothing, follows: its last epoch is of no use."""
    follower, leader = replica(0, 0), replica(0, 0)
    follower.lead(3)
    leader.lead(4)
    leader.write(4, 2)
    compare(follower, leader)
    assert follower.records == [(0, 0), (0, 1)]


def test_without_epochs_the_high_watermark_decides() -> None:
    follower, leader = replica(0, 0, 0), replica(1)
    follower.epochs.clear()
    follower.high_watermark = 2
    compare(follower, leader)
    assert follower.end == 2


def test_a_leader_that_knows_no_such_epoch_leaves_the_high_watermark() -> None:
    follower = replica(5, 5, 5)
    follower.high_watermark = 1
    found = truncation(EpochEndOffset(-1, -1), follower.epochs, 3, 1)
    assert found == (1, True)


def test_a_leader_of_an_old_release_names_no_epoch() -> None:
    epochs = replica(5, 5, 5).epochs
    assert truncation(EpochEndOffset(-1, 2), epochs, 3, 1) == (2, True)
    assert truncation(EpochEndOffset(-1, 9), epochs, 3, 1) == (3, True)


# A history: who is elected next, how much he writes, how much each of the others copies (-1: he
# does not even hear of the election).
moves = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.tuples(*(st.integers(-1, 6) for _ in range(4))),
    ),
    max_size=12,
)


def common(one: Replica, other: Replica) -> int:
    length = 0
    for ours, theirs in zip(one.records, other.records, strict=False):
        if ours != theirs:
            break
        length += 1
    return length


@settings(deadline=None, max_examples=300)
@given(moves)
def test_after_any_elections_exactly_what_differs_goes(
    history: list[tuple[int, int, tuple[int, int, int, int]]],
) -> None:
    """Whoever was elected, cleanly or not: a follower keeps all that it has in common with its
    leader, and nothing else; and logs that agree on one record agree on all before it."""
    replicas = [Replica() for _ in range(4)]
    for epoch, (elected, count, copies) in enumerate(history):
        leader = replicas[elected]
        leader.lead(epoch)
        leader.write(epoch, count)
        for number, copied in enumerate(copies):
            follower = replicas[number]
            if follower is leader or copied < 0:
                continue
            shared = common(follower, leader)
            compare(follower, leader)
            assert follower.end == shared
            follower.copy(leader, copied)
        for one in replicas:
            for other in replicas:
                shared = common(one, other)
                rest = zip(one.records[shared:], other.records[shared:], strict=False)
                assert all(ours != theirs for ours, theirs in rest)
