"""The dialogues a classic group has, line by line; ``playbook`` explains the notation."""

from kavka.broker.groups.settings import GroupSettings
from tests.unit.broker.groups.playbook import play

AT_ONCE = GroupSettings(initial_rebalance_delay_ms=0)

STABLE_PAIR = """
    > join A v=3 protocols=range meta=a
    A: joined 1 range leader A-1 members A-1
    > join B v=3 protocols=range meta=b
    > join A as A-1 protocols=range meta=a
    A: joined 2 range leader A-1 members A-1 B-2
    B: joined 2 range leader A-1
    > sync B-2 gen 2
    > sync A-1 gen 2 A-1=0,1 B-2=2,3
    store 2 range leader A-1: A-1=0,1 B-2=2,3
    > stored
    A-1: assigned 0,1
    B-2: assigned 2,3
"""

STATIC_PAIR = """
    > join A static a v=5 meta=a
    A: joined 1 range leader a-1 members a-1
    > join B static b v=5 meta=b
    > join A as a-1 static a v=5 meta=a
    A: joined 2 range leader a-1 members a-1 b-2
    B: joined 2 range leader a-1
    > sync a-1 static a gen 2 a-1=0 b-2=1
    store 2 range leader a-1: a-1=0 b-2=1
    > stored
    a-1: assigned 0
    > sync b-2 static b gen 2
    b-2: assigned 1
"""


def test_two_members_from_nothing_to_work() -> None:
    play(
        """
        > join A
        A: MEMBER_ID_REQUIRED A-1
        > join A as A-1
        > join B
        B: MEMBER_ID_REQUIRED B-2
        > join B as B-2
        > at 2.9
        > at 3                                      # the first delay; B came during it
        > at 6
        A: joined 1 range leader A-1 members A-1 B-2
        B: joined 1 range leader A-1
        > beat A-1 gen 1                            # while the leader assigns
        NONE
        > sync B-2 gen 1
        > sync A-1 gen 1 A-1=0,1 B-2=2
        store 1 range leader A-1: A-1=0,1 B-2=2
        > stored
        A-1: assigned 0,1
        B-2: assigned 2
        > beat B-2 gen 1
        NONE
        > sync B-2 gen 1                            # again, the answer was lost
        B-2: assigned 2
        > commit B-2 gen 1
        NONE
        """
    )


def test_initial_delay_grows_with_newcomers_up_to_the_rebalance_timeout() -> None:
    play(
        """
        > join A v=3 rebalance=5
        > at 2
        > join B v=3 rebalance=5
        > at 4                                      # 3 s were over, B extends by 2 s to 5 s
        > join C v=3 rebalance=5
        > at 4.9
        > at 5
        A: joined 1 range leader A-1 members A-1 B-2 C-3
        B: joined 1 range leader A-1
        C: joined 1 range leader A-1
        """
    )


def test_initial_delay_is_not_extended_when_nobody_else_comes() -> None:
    play(
        """
        > join A v=3
        > at 3
        A: joined 1 range leader A-1 members A-1
        """
    )


def test_no_delay_completes_at_once() -> None:
    play(STABLE_PAIR, AT_ONCE)


def test_a_third_member_makes_everybody_rejoin() -> None:
    play(
        STABLE_PAIR
        + """
    > join C v=3 meta=c
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > sync A-1 gen 2
    A-1: REBALANCE_IN_PROGRESS
    > commit B-2 gen 2                              # what was done before still counts
    NONE
    > join A as A-1 meta=a
    > join B as B-2 meta=b
    A: joined 3 range leader A-1 members A-1 B-2 C-3
    B: joined 3 range leader A-1
    C: joined 3 range leader A-1
    > commit A-1 gen 2
    ILLEGAL_GENERATION
    > commit A-1 gen 3                              # nobody knows yet what is whose
    REBALANCE_IN_PROGRESS
    > history
    0 a member joined (A)
    1 a member joined (B)
    2 a member joined (C)
    """,
        AT_ONCE,
    )


def test_a_member_that_does_not_rejoin_is_out_after_the_rebalance_timeout() -> None:
    play(
        STABLE_PAIR
        + """
    > join C v=3
    > join B as B-2 meta=b
    > at 9
    > beat A-1 gen 2                                # alive, but too slow to rejoin
    REBALANCE_IN_PROGRESS
    > at 18
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > at 27
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > at 36
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > at 45
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > at 54
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > at 60
    B: joined 3 range leader B-2 members B-2 C-3
    C: joined 3 range leader B-2
    > beat A-1 gen 2
    UNKNOWN_MEMBER_ID
    """,
        AT_ONCE,
    )


def test_a_silent_member_is_out_after_its_session_timeout() -> None:
    play(
        STABLE_PAIR
        + """
    > at 9
    > beat A-1 gen 2
    NONE
    > at 10                                         # B was last heard of at 0
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > join A as A-1 meta=a
    A: joined 3 range leader A-1 members A-1
    > sync B-2 gen 3
    B-2: UNKNOWN_MEMBER_ID
    > history
    0 a member joined (A)
    1 a member joined (B)
    2 a member's session ended (B)
    """,
        AT_ONCE,
    )


def test_commits_keep_a_session_alive() -> None:
    play(
        STABLE_PAIR
        + """
    > at 9
    > commit A-1 gen 2
    NONE
    > commit B-2 gen 2
    NONE
    > at 18
    > beat A-1 gen 2
    NONE
    """,
        AT_ONCE,
    )


def test_the_last_member_leaves() -> None:
    play(
        STABLE_PAIR
        + """
    > leave B-2
    NONE
    > leave A-1
    NONE
    store 3 None leader None
    > stored
    > describe
    Empty consumer
    > beat A-1 gen 3
    UNKNOWN_MEMBER_ID
    > commit nobody                                 # simple consumers and tools
    NONE
    > leave A-1
    UNKNOWN_MEMBER_ID
    """,
        AT_ONCE,
    )


def test_leaving_while_others_wait_lets_them_go_on() -> None:
    play(
        STABLE_PAIR
        + """
    > join C v=3
    > join A as A-1
    > leave B-2
    NONE
    A: joined 3 range leader A-1 members A-1 C-3
    C: joined 3 range leader A-1
    > leave A-1                                     # the leader, before it assigns
    NONE
    > join C as C-3
    C: joined 4 range leader C-3 members C-3
    """,
        AT_ONCE,
    )


def test_leaving_answers_what_the_member_waits_for() -> None:
    play(
        STABLE_PAIR
        + """
    > join C v=3
    > join B as B-2
    > leave B-2
    NONE
    B: UNKNOWN_MEMBER_ID
    > join A as A-1
    A: joined 3 range leader A-1 members A-1 C-3
    C: joined 3 range leader A-1
    > sync C-3 gen 3
    > leave C-3
    NONE
    C-3: UNKNOWN_MEMBER_ID
    """,
        AT_ONCE,
    )


def test_the_leader_rejoins_to_have_metadata_looked_at_again() -> None:
    play(
        STABLE_PAIR
        + """
    > join B as B-2 meta=b                          # a follower without news: no rebalance
    B: joined 2 range leader A-1
    > join A as A-1 meta=a
    > beat B-2 gen 2
    REBALANCE_IN_PROGRESS
    > join B as B-2 meta=b
    A: joined 3 range leader A-1 members A-1 B-2
    B: joined 3 range leader A-1
    > history
    0 a member joined (A)
    1 a member joined (B)
    2 the leader rejoined (A)
    """,
        AT_ONCE,
    )


def test_a_follower_with_new_metadata_makes_a_rebalance() -> None:
    play(
        STABLE_PAIR
        + """
    > join B as B-2 meta=news reason=topics
    > beat A-1 gen 2
    REBALANCE_IN_PROGRESS
    > history
    0 a member joined (A)
    1 a member joined (B)
    2 a member changed its metadata: topics (B)
    """,
        AT_ONCE,
    )


def test_the_answer_to_a_join_can_be_heard_again() -> None:
    play(
        """
        > join A v=3 meta=a
        A: joined 1 range leader A-1 members A-1
        > join A as A-1 meta=a
        A: joined 1 range leader A-1 members A-1
        > sync A-1 gen 1 A-1=x
        store 1 range leader A-1: A-1=x
        > sync A-1 gen 1 A-1=y                      # asked again before the store was done
        A-1: REBALANCE_IN_PROGRESS
        > stored
        A-1: assigned x
        """,
        AT_ONCE,
    )


def test_asking_again_while_waiting_ends_the_first_request() -> None:
    play(
        STABLE_PAIR
        + """
    > join B as B-2 meta=news
    > join B as B-2 meta=news
    B: REBALANCE_IN_PROGRESS B-2
    > join A as A-1
    A: joined 3 range leader A-1 members A-1 B-2
    B: joined 3 range leader A-1
    """,
        AT_ONCE,
    )


def test_metadata_changes_while_the_leader_assigns() -> None:
    play(
        """
        > join A v=3 meta=a
        A: joined 1 range leader A-1 members A-1
        > join B v=3 meta=b
        > join A as A-1 meta=a
        A: joined 2 range leader A-1 members A-1 B-2
        B: joined 2 range leader A-1
        > sync B-2 gen 2
        > join A as A-1 meta=news
        B-2: REBALANCE_IN_PROGRESS
        > join B as B-2 meta=b
        A: joined 3 range leader A-1 members A-1 B-2
        B: joined 3 range leader A-1
        """,
        AT_ONCE,
    )


def test_protocol_by_votes_and_the_leader_decides_a_tie() -> None:
    play(
        """
        > join A v=3 protocols=range,sticky,rr
        > join B v=3 protocols=sticky,range
        > join C v=3 protocols=sticky,rr,range
        > at 6
        A: joined 1 sticky leader A-1 members A-1 B-2 C-3
        B: joined 1 sticky leader A-1
        C: joined 1 sticky leader A-1
        > leave C-3
        NONE
        > join A as A-1 protocols=range,sticky
        > join B as B-2 protocols=sticky,range
        A: joined 2 range leader A-1 members A-1 B-2
        B: joined 2 range leader A-1
        """
    )


def test_members_must_have_a_protocol_in_common() -> None:
    play(
        """
        > join A v=3 protocols=
        A: INCONSISTENT_GROUP_PROTOCOL
        > join A v=3 type=
        A: INCONSISTENT_GROUP_PROTOCOL
        > join A v=3 protocols=range
        A: joined 1 range leader A-1 members A-1
        > join B v=3 protocols=rr
        B: INCONSISTENT_GROUP_PROTOCOL
        > join B v=3 protocols=range type=connect
        B: INCONSISTENT_GROUP_PROTOCOL
        > join A as A-1 protocols=rr                # it would have to leave first
        A: INCONSISTENT_GROUP_PROTOCOL A-1
        """,
        AT_ONCE,
    )


def test_sync_checks_protocol_type_and_name() -> None:
    play(
        """
        > join A v=3
        A: joined 1 range leader A-1 members A-1
        > sync A-1 gen 1 type=connect proto=range
        A-1: INCONSISTENT_GROUP_PROTOCOL
        > sync A-1 gen 1 type=consumer proto=rr
        A-1: INCONSISTENT_GROUP_PROTOCOL
        > sync A-1 gen 1 type=consumer proto=range A-1=x
        store 1 range leader A-1: A-1=x
        """,
        AT_ONCE,
    )


def test_generations_and_strangers_are_fenced() -> None:
    play(
        STABLE_PAIR
        + """
    > beat A-1 gen 1
    ILLEGAL_GENERATION
    > beat A-1 gen 3
    ILLEGAL_GENERATION
    > beat X gen 2
    UNKNOWN_MEMBER_ID
    > sync A-1 gen 1
    A-1: ILLEGAL_GENERATION
    > sync X gen 2
    X: UNKNOWN_MEMBER_ID
    > commit A-1 gen 1
    ILLEGAL_GENERATION
    > commit nobody                                 # a simple commit into a group with members
    UNKNOWN_MEMBER_ID
    > commit X gen 2
    UNKNOWN_MEMBER_ID
    > join X as X-9
    X: UNKNOWN_MEMBER_ID X-9
    > leave X-9
    UNKNOWN_MEMBER_ID
    """,
        AT_ONCE,
    )


def test_a_promised_id_holds_up_the_rebalance_until_used_left_or_expired() -> None:
    play(
        STABLE_PAIR
        + """
    > join C
    C: MEMBER_ID_REQUIRED C-3
    > join A as A-1 meta=a
    > join B as B-2 meta=b                          # all members are back, C is waited for
    > at 5
    > join C as C-3
    A: joined 3 range leader A-1 members A-1 B-2 C-3
    B: joined 3 range leader A-1
    C: joined 3 range leader A-1
    > join D session=6
    D: MEMBER_ID_REQUIRED D-4
    > join E
    E: MEMBER_ID_REQUIRED E-5
    > join A as A-1 meta=news
    > join B as B-2 meta=b
    > join C as C-3
    > leave E-5
    NONE
    > at 11                                         # D's promise ends
    A: joined 4 range leader A-1 members A-1 B-2 C-3
    B: joined 4 range leader A-1
    C: joined 4 range leader A-1
    > join D as D-4
    D: UNKNOWN_MEMBER_ID D-4
    """,
        AT_ONCE,
    )


def test_a_new_member_waits_five_minutes_at_most() -> None:
    play(
        """
        > join A v=3 session=600 rebalance=600
        A: joined 1 range leader A-1 members A-1
        > join B v=3 session=600 rebalance=600      # A does not rejoin
        > at 299
        > at 300
        B: UNKNOWN_MEMBER_ID
        > join A as A-1 session=600 rebalance=600
        A: joined 2 range leader A-1 members A-1
        """,
        AT_ONCE,
    )


def test_who_never_syncs_is_out_after_the_rebalance_timeout() -> None:
    play(
        """
        > join A v=3 rebalance=8
        A: joined 1 range leader A-1 members A-1
        > join B v=3 rebalance=8
        > join A as A-1 rebalance=8
        A: joined 2 range leader A-1 members A-1 B-2
        B: joined 2 range leader A-1
        > sync B-2 gen 2
        > at 6
        > beat A-1 gen 2                            # the leader lives but does not assign
        NONE
        > at 8
        B-2: REBALANCE_IN_PROGRESS
        > join B as B-2 rebalance=8
        B: joined 3 range leader B-2 members B-2
        """,
        AT_ONCE,
    )


def test_a_follower_that_never_syncs_is_out_too() -> None:
    play(
        """
        > join A v=3 rebalance=8
        A: joined 1 range leader A-1 members A-1
        > join B v=3 rebalance=8
        > join A as A-1 rebalance=8
        A: joined 2 range leader A-1 members A-1 B-2
        B: joined 2 range leader A-1
        > sync A-1 gen 2 A-1=x B-2=y
        store 2 range leader A-1: A-1=x B-2=y
        > stored
        A-1: assigned x
        > at 6
        > beat B-2 gen 2
        NONE
        > at 8
        > beat B-2 gen 2
        UNKNOWN_MEMBER_ID
        > beat A-1 gen 2
        REBALANCE_IN_PROGRESS
        """,
        AT_ONCE,
    )


def test_a_store_that_fails_is_told_to_all_and_starts_over() -> None:
    play(
        """
        > join A v=3
        A: joined 1 range leader A-1 members A-1
        > sync A-1 gen 1 A-1=x
        store 1 range leader A-1: A-1=x
        > stored NOT_COORDINATOR
        A-1: NOT_COORDINATOR
        > join A as A-1
        A: joined 2 range leader A-1 members A-1
        """,
        AT_ONCE,
    )


def test_a_store_that_comes_too_late_changes_nothing() -> None:
    play(
        """
        > join A v=3
        A: joined 1 range leader A-1 members A-1
        > sync A-1 gen 1 A-1=x
        store 1 range leader A-1: A-1=x
        > join B v=3
        A-1: REBALANCE_IN_PROGRESS
        > stored
        > join A as A-1
        A: joined 2 range leader A-1 members A-1 B-2
        B: joined 2 range leader A-1
        > sync A-1 gen 2 A-1=y B-2=z
        store 2 range leader A-1: A-1=y B-2=z
        > stored
        A-1: assigned y
        """,
        AT_ONCE,
    )


def test_members_without_assignment_get_nothing() -> None:
    play(
        """
        > join A v=3
        > join B v=3
        > at 6
        A: joined 1 range leader A-1 members A-1 B-2
        B: joined 1 range leader A-1
        > sync B-2 gen 1
        > sync A-1 gen 1 A-1=all stranger=x
        store 1 range leader A-1: A-1=all B-2=
        > stored
        A-1: assigned all
        B-2: assigned nothing
        """
    )


def test_only_stable_groups_are_described_in_full() -> None:
    play(
        STABLE_PAIR
        + """
    > describe
    Stable consumer range A-1[a]=0,1 B-2[b]=2,3
    > join C v=3 meta=c
    > describe
    PreparingRebalance consumer  A-1[]= B-2[]= C-3[]=
    """,
        AT_ONCE,
    )


def test_the_coordinator_moves_away() -> None:
    play(
        STABLE_PAIR
        + """
    > join A as A-1
    > unload
    A: NOT_COORDINATOR A-1
    > join A as A-1
    A: COORDINATOR_NOT_AVAILABLE A-1
    > sync A-1 gen 2
    A-1: COORDINATOR_NOT_AVAILABLE
    > beat A-1 gen 2
    COORDINATOR_NOT_AVAILABLE
    > commit A-1 gen 2
    COORDINATOR_NOT_AVAILABLE
    > leave A-1
    COORDINATOR_NOT_AVAILABLE
    """,
        AT_ONCE,
    )


def test_the_coordinator_moves_away_while_members_wait_for_their_assignment() -> None:
    play(
        """
        > join A v=3
        A: joined 1 range leader A-1 members A-1
        > sync A-1 gen 1 A-1=x
        store 1 range leader A-1: A-1=x
        > unload
        A-1: NOT_COORDINATOR
        > stored
        """,
        AT_ONCE,
    )


def test_a_restarted_coordinator_knows_its_members() -> None:
    play(
        STABLE_PAIR
        + """
    > restart
    > describe
    Stable consumer range A-1[a]=0,1 B-2[b]=2,3
    > beat B-2 gen 2
    NONE
    > sync A-1 gen 2
    A-1: assigned 0,1
    > at 9
    > beat B-2 gen 2
    NONE
    > at 10                                         # sessions began with the restart
    > beat A-1 gen 2
    UNKNOWN_MEMBER_ID
    > at 19
    store 3 None leader None
    """,
        AT_ONCE,
    )


# -- group.max.size ---------------------------------------------------------------------------

TWO_AT_MOST = GroupSettings(initial_rebalance_delay_ms=0, max_size=2)


def test_a_full_group_takes_nobody_in() -> None:
    play(
        STABLE_PAIR
        + """
    > join C v=3
    C: GROUP_MAX_SIZE_REACHED
    > join C
    C: GROUP_MAX_SIZE_REACHED
    > join B as B-2 meta=news
    > join A as A-1
    A: joined 3 range leader A-1 members A-1 B-2
    B: joined 3 range leader A-1
    """,
        TWO_AT_MOST,
    )


def test_a_group_that_became_too_large_loses_those_who_rejoin_last() -> None:
    player = play(STABLE_PAIR, AT_ONCE)
    assert player.image is not None
    player.settings = GroupSettings(initial_rebalance_delay_ms=0, max_size=1)
    player.output.clear()
    for command in ("restart", "beat A-1 gen 2", "join B as B-2", "join A as A-1"):
        player.say(command)
    assert player.output == [
        "REBALANCE_IN_PROGRESS",
        "A: GROUP_MAX_SIZE_REACHED",
        "B: joined 3 range leader B-2 members B-2",
    ]


def test_a_static_member_returns_to_a_full_group() -> None:
    play(
        STATIC_PAIR
        + """
    > join B static b v=5 meta=b
    store 2 range leader a-1: a-1=0 b-3=1
    > stored
    B: joined 2 range leader a-1
    """,
        TWO_AT_MOST,
    )


# -- static members (KIP-345) -----------------------------------------------------------------


def test_a_static_member_keeps_its_assignment_over_a_restart() -> None:
    play(
        STATIC_PAIR
        + """
    > at 5
    > join B static b v=5 meta=b
    store 2 range leader a-1: a-1=0 b-3=1
    > stored
    B: joined 2 range leader a-1
    > sync b-3 static b gen 2
    b-3: assigned 1
    > beat a-1 static a gen 2
    NONE
    > beat b-2 static b gen 2                       # its old self, should it still live
    FENCED_INSTANCE_ID
    > beat b-2 gen 2
    UNKNOWN_MEMBER_ID
    > commit b-2 static b gen 2
    FENCED_INSTANCE_ID
    > sync b-2 static b gen 2
    b-2: FENCED_INSTANCE_ID
    > join B as b-2 static b v=5
    B: FENCED_INSTANCE_ID b-2
    > leave b-2 static b
    FENCED_INSTANCE_ID
    > beat x static nobody gen 2
    UNKNOWN_MEMBER_ID
    """,
        AT_ONCE,
    )


def test_a_static_leader_returns_before_v9_and_does_not_know_that_it_leads() -> None:
    play(
        STATIC_PAIR
        + """
    > join A static a v=5 meta=a
    store 2 range leader a-3: a-3=0 b-2=1
    > stored
    A: joined 2 range leader a-1
    > sync a-3 static a gen 2
    a-3: assigned 0
    """,
        AT_ONCE,
    )


def test_a_static_leader_returns_with_v9_and_skips_the_assignment() -> None:
    play(
        STATIC_PAIR
        + """
    > join A static a v=9 meta=a
    store 2 range leader a-3: a-3=0 b-2=1
    > stored
    A: joined 2 range leader a-3 members a-3 b-2 skip-assignment
    > join B static b v=9 meta=b
    store 2 range leader a-3: a-3=0 b-4=1
    > stored
    B: joined 2 range leader a-3
    """,
        AT_ONCE,
    )


def test_a_return_that_cannot_be_stored_is_taken_back() -> None:
    play(
        STATIC_PAIR
        + """
    > join B static b v=5 meta=news
    store 2 range leader a-1: a-1=0 b-3=1
    > stored NOT_COORDINATOR
    B: NOT_COORDINATOR
    > beat b-2 static b gen 2
    NONE
    > describe
    Stable consumer range a-1[a]=0 b-2[b]=1
    """,
        AT_ONCE,
    )


def test_a_return_is_overtaken_by_a_rebalance() -> None:
    play(
        STATIC_PAIR
        + """
    > join B static b v=5 meta=b
    store 2 range leader a-1: a-1=0 b-3=1
    > join C v=3
    > stored
    > join A as a-1 static a v=5
    A: joined 3 range leader a-1 members a-1 b-3 C-4
    B: joined 3 range leader a-1
    C: joined 3 range leader a-1
    """,
        AT_ONCE,
    )


def test_a_static_member_that_returns_twice_fences_itself() -> None:
    play(
        STATIC_PAIR
        + """
    > join B static b v=5 meta=b
    store 2 range leader a-1: a-1=0 b-3=1
    > join B static b v=5 meta=b
    B: FENCED_INSTANCE_ID b-3
    store 2 range leader a-1: a-1=0 b-4=1
    > stored
    > stored
    B: joined 2 range leader a-1
    """,
        AT_ONCE,
    )


def test_a_static_member_returns_while_others_wait() -> None:
    play(
        STATIC_PAIR
        + """
    > join C v=3
    > join B as b-2 static b v=5
    > join B static b v=5                           # the old one waits: it is fenced
    B: FENCED_INSTANCE_ID b-2
    > join A as a-1 static a v=5
    A: joined 3 range leader a-1 members a-1 b-4 C-3
    B: joined 3 range leader a-1
    C: joined 3 range leader a-1
    > sync b-4 static b gen 3
    > join B static b v=5                           # while the leader assigns: for the old id
    b-4: FENCED_INSTANCE_ID
    > beat a-1 static a gen 3
    REBALANCE_IN_PROGRESS
    """,
        AT_ONCE,
    )


def test_a_static_member_returns_with_other_protocols() -> None:
    play(
        """
        > join A static a v=5 protocols=range,rr
        A: joined 1 range leader a-1 members a-1
        > sync a-1 static a gen 1 a-1=x
        store 1 range leader a-1: a-1=x
        > stored
        a-1: assigned x
        > join A static a v=5 protocols=rr,range
        A: joined 2 rr leader a-2 members a-2
        """,
        AT_ONCE,
    )


def test_an_absent_static_member_keeps_its_place_until_its_session_ends() -> None:
    play(
        STATIC_PAIR
        + """
    > at 1
    > beat b-2 static b gen 2
    NONE
    > join A as a-1 static a v=5 rebalance=4
    > join C v=3 rebalance=4
    > at 9
    > at 11                                         # b's session, before the rebalance time-out
    A: joined 3 range leader a-1 members a-1 C-3
    C: joined 3 range leader a-1
    """,
        AT_ONCE,
    )


def test_an_absent_static_member_is_part_of_the_next_generation() -> None:
    play(
        """
        > join A static a v=5 session=30 rebalance=5
        A: joined 1 range leader a-1 members a-1
        > join B static b v=5 session=30 rebalance=5
        > join A as a-1 static a v=5 session=30 rebalance=5
        A: joined 2 range leader a-1 members a-1 b-2
        B: joined 2 range leader a-1
        > sync b-2 static b gen 2
        > sync a-1 static a gen 2 a-1=0 b-2=1
        store 2 range leader a-1: a-1=0 b-2=1
        > stored
        a-1: assigned 0
        b-2: assigned 1
        > join C v=3 session=30 rebalance=5
        > join B as b-2 static b v=5 session=30 rebalance=5
        > at 5                                      # the leader is absent: another one leads
        B: joined 3 range leader b-2 members a-1 b-2 C-3
        C: joined 3 range leader b-2
        > sync C-3 gen 3
        > sync b-2 static b gen 3 a-1=0 b-2=1 C-3=2
        store 3 range leader b-2: a-1=0 b-2=1 C-3=2
        > stored
        b-2: assigned 1
        C-3: assigned 2
        > at 12                                     # it owes no SyncGroup
        > sync a-1 static a gen 2                   # and its generation is over
        a-1: ILLEGAL_GENERATION
        > join A as a-1 static a v=5 session=30 rebalance=5
        A: joined 3 range leader b-2
        > sync a-1 static a gen 3
        a-1: assigned 0
        """,
        AT_ONCE,
    )


def test_when_only_static_members_are_left_and_absent_the_group_waits_for_them() -> None:
    play(
        """
        > join A static a v=5 session=30 rebalance=5
        A: joined 1 range leader a-1 members a-1
        > sync a-1 static a gen 1 a-1=0
        store 1 range leader a-1: a-1=0
        > stored
        a-1: assigned 0
        > join B v=3 rebalance=5
        > leave B-2
        NONE
        B: UNKNOWN_MEMBER_ID
        > at 20
        > join A static a v=5 session=30 rebalance=5
        A: joined 2 range leader a-3 members a-3
        """,
        AT_ONCE,
    )


def test_an_administrator_removes_a_static_member() -> None:
    play(
        STATIC_PAIR
        + """
    > leave static nobody
    UNKNOWN_MEMBER_ID
    > leave static b
    NONE
    > beat b-2 static b gen 2
    UNKNOWN_MEMBER_ID
    > join A as a-1 static a v=5
    A: joined 3 range leader a-1 members a-1
    """,
        AT_ONCE,
    )
