"""Who may lead: the rules, and what no choice may ever break."""

from hypothesis import given
from hypothesis import strategies as st

from kavka.replication.controller.elections import (
    NO_LEADER,
    Choice,
    elect_first,
    elect_for_reassignment,
    elect_for_shutdown,
    elect_offline,
    elect_preferred,
    without_replica,
)

REPLICAS = st.lists(st.integers(1, 6), min_size=1, max_size=5, unique=True)
BROKERS = st.sets(st.integers(1, 6))


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[int], list[int], set[int]]:
    """Replicas, an ISR among them in any order, live brokers."""
    replicas = draw(REPLICAS)
    isr = draw(st.lists(st.sampled_from(replicas), unique=True))
    return replicas, isr, draw(BROKERS)


def test_first_leader() -> None:
    assert elect_first([3, 1, 2], {1, 2}) == Choice(1, (1, 2))
    assert elect_first([3, 1, 2], {4}) is None


def test_offline_leader() -> None:
    assert elect_offline([1, 2, 3], [3, 2], {2, 3}, unclean=False) == Choice(2, (3, 2))
    assert elect_offline([1, 2, 3], [1], {2, 3}, unclean=False) is None
    assert elect_offline([1, 2, 3], [1], {2, 3}, unclean=True) == Choice(2, (2,))
    assert elect_offline([1, 2, 3], [1], set(), unclean=True) is None


def test_preferred_leader() -> None:
    assert elect_preferred([1, 2], [2, 1], {1, 2}) == Choice(1, (2, 1))
    assert elect_preferred([1, 2], [2], {1, 2}) is None
    assert elect_preferred([1, 2], [2, 1], {2}) is None
    assert elect_preferred([], [], {2}) is None


def test_leader_for_a_reassignment() -> None:
    assert elect_for_reassignment([4, 5], [1, 5, 4], {4, 5}) == Choice(4, (1, 5, 4))
    assert elect_for_reassignment([4, 5], [1, 5, 4], {5}) == Choice(5, (1, 5, 4))
    assert elect_for_reassignment([4, 5], [1], {4, 5}) is None


def test_leader_for_a_shutdown() -> None:
    assert elect_for_shutdown([1, 2, 3], [1, 2, 3], {2, 3}, {1}) == Choice(2, (2, 3))
    assert elect_for_shutdown([1, 2], [1], {2}, {1}) is None


def test_a_replica_that_leaves() -> None:
    assert without_replica(1, (1, 2), 1) == Choice(NO_LEADER, (2,))
    assert without_replica(1, (1, 2), 2) == Choice(1, (1,))
    assert without_replica(1, (1,), 1) == Choice(NO_LEADER, (1,))


@given(partitions())
def test_a_clean_election_loses_nothing(case: tuple[list[int], list[int], set[int]]) -> None:
    replicas, isr, live = case
    choice = elect_offline(replicas, isr, live, unclean=False)
    alive_in_sync = [replica for replica in isr if replica in live]
    if not alive_in_sync:
        assert choice is None
        return
    assert choice is not None
    assert choice.leader in alive_in_sync
    assert list(choice.isr) == alive_in_sync
    # Of those who may, it is the first of the assignment.
    assert choice.leader == min(alive_in_sync, key=replicas.index)


@given(partitions())
def test_an_unclean_election_only_where_no_clean_one_is_possible(
    case: tuple[list[int], list[int], set[int]],
) -> None:
    replicas, isr, live = case
    clean = elect_offline(replicas, isr, live, unclean=False)
    choice = elect_offline(replicas, isr, live, unclean=True)
    if clean is not None:
        assert choice == clean
    elif choice is not None:
        assert choice.leader in live
        assert choice.leader in replicas
        assert choice.isr == (choice.leader,)
    else:
        assert not live & set(replicas)


@given(partitions(), BROKERS)
def test_every_choice_is_a_live_replica_in_its_own_isr(
    case: tuple[list[int], list[int], set[int]], stopping: set[int]
) -> None:
    replicas, isr, live = case
    for choice in (
        elect_first(replicas, live),
        elect_preferred(replicas, isr, live),
        elect_for_reassignment(replicas, isr, live),
        elect_for_shutdown(replicas, isr, live - stopping, stopping),
    ):
        if choice is not None:
            assert choice.leader in live
            assert choice.leader in replicas
            assert choice.leader in choice.isr
            assert set(choice.isr) <= set(replicas)
    handed_over = elect_for_shutdown(replicas, isr, live - stopping, stopping)
    assert handed_over is None or not stopping & set(handed_over.isr)


@given(partitions(), st.integers(1, 6))
def test_the_last_in_sync_replica_is_never_forgotten(
    case: tuple[list[int], list[int], set[int]], gone: int
) -> None:
    _, isr, _ = case
    if not isr:
        return
    choice = without_replica(isr[0], isr, gone)
    assert choice.isr
    assert set(choice.isr) <= set(isr)
    assert choice.leader == (NO_LEADER if gone == isr[0] else isr[0])
