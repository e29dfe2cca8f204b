"""The transactional APIs as a client meets them, over a broker in this process."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from kavka.broker.embed import EmbeddedBroker
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k11_join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from kavka.protocol.messages.k24_add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kavka.protocol.messages.k26_end_txn import EndTxnResponse
from kavka.protocol.messages.k27_write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from kavka.protocol.messages.k28_txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
)
from kavka.protocol.messages.k65_describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TransactionState,
)
from kavka.protocol.messages.k66_list_transactions import (
    ListTransactionsRequest,
    ListTransactionsResponse,
)
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC
from tests.broker_process import wait_for
from tests.unit.broker.transactions.speaker import (
    READ_COMMITTED,
    Speaker,
    TransactionalProducer,
    batches,
    end_offset,
    fetch_committed,
    group_offset,
)

NONE = ErrorCode.NONE
FENCED = ErrorCode.PRODUCER_FENCED
OLD_EPOCH = ErrorCode.INVALID_PRODUCER_EPOCH

SETTINGS = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with EmbeddedBroker(SETTINGS) as broker:
        port = int(broker.bootstrap.rpartition(":")[2])
        with Speaker(port) as speaker:
            speaker.find_coordinators()
        yield port


@pytest.fixture
def speaker(port: int) -> Iterator[Speaker]:
    with Speaker(port) as client:
        yield client


NUMBERS = count()


@pytest.fixture
def name() -> str:
    """Nobody else's transactional id."""
    return f"x{next(NUMBERS)}"


@pytest.fixture
def new_topic(speaker: Speaker) -> Callable[[], str]:
    def create() -> str:
        topic = f"t{next(NUMBERS)}"
        speaker.create_topic(topic)
        return topic

    return create


@pytest.fixture
def topic(new_topic: Callable[[], str]) -> str:
    return new_topic()


@pytest.fixture
def producer(speaker: Speaker, name: str) -> TransactionalProducer:
    return TransactionalProducer(speaker, name).init()


# -- InitProducerId -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(6))
def test_without_a_transactional_id_everybody_is_new(speaker: Speaker, version: int) -> None:
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=-1)
    answers = [speaker.ask(request, InitProducerIdResponse, version) for _ in range(2)]
    assert [(a.error_code, a.producer_epoch) for a in answers] == [(NONE, 0)] * 2
    assert answers[0].producer_id != answers[1].producer_id


@pytest.mark.parametrize("version", range(6))
def test_each_comer_gets_the_next_epoch(speaker: Speaker, name: str, version: int) -> None:
    producer = TransactionalProducer(speaker, name)
    answers = [producer.ask_identity(version) for _ in range(3)]
    assert [a.error_code for a in answers] == [NONE] * 3
    assert [a.producer_epoch for a in answers] == [0, 1, 2]
    assert len({a.producer_id for a in answers}) == 1


def test_identities_that_are_refused(speaker: Speaker, name: str) -> None:
    for asked, error in (
        (
            InitProducerIdRequest(transactional_id="", transaction_timeout_ms=1),
            ErrorCode.INVALID_REQUEST,
        ),
        (
            InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=900_001),
            ErrorCode.INVALID_TRANSACTION_TIMEOUT,
        ),
        (
            InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=1, producer_id=5),
            ErrorCode.INVALID_REQUEST,
        ),
        (
            InitProducerIdRequest(
                transactional_id=None, transaction_timeout_ms=1, producer_epoch=5
            ),
            ErrorCode.INVALID_REQUEST,
        ),
    ):
        answer = speaker.ask(asked, InitProducerIdResponse, 4)
        assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (error, -1, -1)


def test_a_claim_is_checked_and_its_error_named_by_version(producer) -> None:
    before = producer.epoch
    assert producer.ask_identity(version=3, claim=True).producer_epoch == before + 1
    assert producer.ask_identity(version=3, claim=True).producer_epoch == before + 1
    producer.ask_identity()
    assert producer.ask_identity(version=3, claim=True).error_code == OLD_EPOCH
    assert producer.ask_identity(version=4, claim=True).error_code == FENCED


# -- AddPartitionsToTxn ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added_all_or_none(producer, new_topic, version: int) -> None:
    one, other = new_topic(), new_topic()
    missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    not_tried = ErrorCode.OPERATION_NOT_ATTEMPTED
    assert producer.add(one, "nowhere", version=version) == [not_tried, missing]
    assert producer.add(one, version=version, partition=7) == [missing]
    assert producer.add(one, GROUP_METADATA_TOPIC, version=version) == [
        not_tried,
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ]
    assert described(producer).transaction_state == "Empty"
    assert producer.add(one, other, version=version) == [NONE, NONE]
    assert {topic.topic for topic in described(producer).topics} == {one, other}


@pytest.mark.parametrize(("version", "told"), [(0, OLD_EPOCH), (1, OLD_EPOCH), (2, FENCED)])
def test_a_fenced_producer_is_told_in_words_it_knows(producer, topic, version, told) -> None:
    producer.add(topic)
    producer.epoch -= 1
    assert producer.add(topic, version=version) == [told]
    assert producer.end(True, version=version) is told
    assert producer.add_offsets("g", version=version) is told
    producer.producer_id += 1
    mapping = ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producer.add(topic, version=version) == [mapping]
    assert producer.end(True, version=version) is mapping


def batched(
    speaker: Speaker, version: int, *asked: tuple[TransactionalProducer, bool, str]
) -> list[ErrorCode]:
    request = AddPartitionsToTxnRequest(
        transactions=[
            AddPartitionsToTxnTransaction(
                transactional_id=producer.name,
                producer_id=producer.producer_id,
                producer_epoch=producer.epoch,
                verify_only=verify_only,
                topics=[AddPartitionsToTxnTopic(name=topic, partitions=[0])],
            )
            for producer, verify_only, topic in asked
        ]
    )
    answer = speaker.ask(request, AddPartitionsToTxnResponse, version)
    assert answer.error_code == NONE
    found = [result.transactional_id for result in answer.results_by_transaction]
    assert found == [producer.name for producer, _, _ in asked]
    return [
        ErrorCode(result.topic_results[0].results_by_partition[0].partition_error_code)
        for result in answer.results_by_transaction
    ]


@pytest.mark.parametrize(
    ("version", "absent"),
    [(4, ErrorCode.INVALID_TXN_STATE), (5, ErrorCode.TRANSACTION_ABORTABLE)],
)
def test_several_transactions_and_verification(
    speaker: Speaker, name: str, topic: str, version: int, absent: ErrorCode
) -> None:
    one = TransactionalProducer(speaker, name + "-one").init()
    other = TransactionalProducer(speaker, name + "-other").init()
    assert batched(speaker, version, (one, True, topic), (other, False, topic)) == [absent, NONE]
    assert batched(speaker, version, (other, True, topic), (one, False, "nowhere")) == [
        NONE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    other.epoch -= 1
    assert batched(speaker, version, (other, True, topic), (one, True, topic)) == [FENCED, absent]
    # Brokers may ask about the coordinators' own topics.
    assert batched(speaker, version, (one, False, GROUP_METADATA_TOPIC)) == [NONE]
    assert batched(speaker, version) == []


# -- what consumers see ---------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_nothing_of_an_open_transaction_is_shown(
    speaker: Speaker, producer, topic: str, committed: bool
) -> None:
    producer.add(topic)
    assert producer.produce(topic, b"a", b"b") is NONE
    shown = fetch_committed(speaker, topic)
    assert (batches(shown), shown.last_stable_offset, shown.high_watermark) == ([], 0, 2)
    assert shown.aborted_transactions == []
    assert batches(speaker.fetch(topic, 0).responses[0].partitions[0]) == [(0, False)]
    assert end_offset(speaker, topic, READ_COMMITTED) == 0
    assert end_offset(speaker, topic, 0) == 2

    assert producer.end(committed) is NONE
    shown = fetch_committed(speaker, topic)
    assert (batches(shown), shown.last_stable_offset) == ([(0, False), (2, True)], 3)
    aborted = [(a.producer_id, a.first_offset) for a in shown.aborted_transactions or ()]
    assert aborted == ([] if committed else [(producer.producer_id, 0)])
    assert end_offset(speaker, topic, READ_COMMITTED) == 3


def test_two_transactions_side_by_side(speaker: Speaker, name: str, topic: str) -> None:
    slow = TransactionalProducer(speaker, name + "-slow").init()
    fast = TransactionalProducer(speaker, name + "-fast").init()
    slow.add(topic)
    fast.add(topic)
    slow.produce(topic, b"slow")
    fast.produce(topic, b"fast")
    fast.end(True)
    assert fetch_committed(speaker, topic).last_stable_offset == 0
    slow.end(False)
    shown = fetch_committed(speaker, topic)
    assert shown.last_stable_offset == 4
    assert [a.producer_id for a in shown.aborted_transactions or ()] == [slow.producer_id]


def test_the_next_producer_aborts_what_the_last_one_left_open(
    speaker: Speaker, producer, topic: str
) -> None:
    producer.add(topic)
    producer.produce(topic, b"left behind")
    zombie_epoch = producer.epoch
    assert producer.ask_identity().error_code == ErrorCode.CONCURRENT_TRANSACTIONS
    assert fetch_committed(speaker, topic).last_stable_offset == 2
    producer.init()
    assert producer.epoch == zombie_epoch + 2
    producer.add(topic)
    producer.produce(topic, b"new")
    new_epoch, producer.epoch = producer.epoch, zombie_epoch
    assert producer.produce(topic, b"zombie") is OLD_EPOCH
    assert producer.end(True) is FENCED
    producer.epoch = new_epoch
    assert producer.end(True) is NONE


# -- verification before appends (KIP-890) --------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        (3, ErrorCode.INVALID_TXN_STATE),
        (10, ErrorCode.INVALID_TXN_STATE),
        (11, ErrorCode.TRANSACTION_ABORTABLE),
    ],
)
def test_nothing_is_appended_outside_of_a_transaction(
    producer, topic: str, new_topic, version: int, refused: ErrorCode
) -> None:
    assert producer.produce(topic, b"too early", version=version) is refused
    producer.add(new_topic())
    assert producer.produce(topic, b"elsewhere", version=version) is refused
    producer.add(topic)
    assert producer.produce(topic, b"in time", version=version) is NONE
    assert producer.produce(topic, b"again", version=version) is NONE
    producer.end(True)
    assert producer.produce(topic, b"too late", version=version) is refused


def test_who_may_not_append(producer, topic: str) -> None:
    producer.add(topic)
    denied = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert producer.produce(topic, b"-", transactional_id=None) is denied
    mapping = ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producer.produce(topic, b"-", transactional_id="nobody") is mapping
    producer.ask_identity()  # aborts
    assert producer.produce(topic, b"-") is OLD_EPOCH


# -- offsets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("version", range(5))
def test_offsets_count_when_the_transaction_commits(
    speaker: Speaker, producer, topic: str, committed: bool, version: int
) -> None:
    group = f"group-of-{topic}"
    assert producer.add_offsets(group, version=min(version, 4)) is NONE
    assert producer.commit_offset(group, topic, 5, version=version) is NONE
    assert group_offset(speaker, group, topic) == -1
    unstable = ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert group_offset(speaker, group, topic, require_stable=True) is unstable
    assert producer.end(committed) is NONE
    expected = 5 if committed else -1
    assert group_offset(speaker, group, topic, require_stable=True) == expected
    # The next transaction of the same producer.
    assert producer.add_offsets(group) is NONE
    assert producer.commit_offset(group, topic, 9, version=version) is NONE
    assert group_offset(speaker, group, topic) == expected
    assert producer.end(True) is NONE
    assert group_offset(speaker, group, topic) == 9


@pytest.mark.parametrize(
    ("version", "refused"),
    [(3, ErrorCode.INVALID_TXN_STATE), (4, ErrorCode.TRANSACTION_ABORTABLE)],
)
def test_offsets_need_a_transaction_with_the_group(
    speaker: Speaker, producer, topic: str, version: int, refused: ErrorCode
) -> None:
    assert producer.commit_offset("g", topic, 1, version=version) is refused
    producer.add_offsets("g")
    producer.end(False)
    assert producer.commit_offset("g", topic, 1, version=version) is refused
    producer.add_offsets("g")
    producer.epoch -= 1
    assert producer.commit_offset("g", topic, 1, version=version) is OLD_EPOCH
    producer.epoch += 1
    assert producer.commit_offset("g", topic, 1, version=version) is NONE
    producer.epoch -= 1
    assert producer.commit_offset("g", topic, 1, version=version) is OLD_EPOCH


def test_offsets_that_are_refused(speaker: Speaker, producer, topic: str) -> None:
    producer.add_offsets("g")
    assert producer.commit_offset("g", "nowhere", 1) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    too_long = ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert producer.commit_offset("g", topic, 1, metadata="m" * 4097) is too_long
    assert producer.commit_offset("", topic, 1) is ErrorCode.INVALID_GROUP_ID
    answer = speaker.ask(
        TxnOffsetCommitRequest(transactional_id="x", group_id="g"), TxnOffsetCommitResponse, 3
    )
    assert answer.topics == []


def test_members_of_another_generation_are_fenced(speaker: Speaker, producer, topic: str) -> None:
    group = f"group-of-{topic}"
    producer.add_offsets(group)
    unknown = ErrorCode.UNKNOWN_MEMBER_ID
    assert producer.commit_offset(group, topic, 1, member_id="m", generation=1) is unknown
    joined = speaker.ask(
        JoinGroupRequest(
            group_id=group,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
        ),
        JoinGroupResponse,
        3,
    )
    member = {"member_id": joined.member_id}
    generation = joined.generation_id
    late = ErrorCode.ILLEGAL_GENERATION
    assert producer.commit_offset(group, topic, 1, generation=generation - 1, **member) is late
    assert producer.commit_offset(group, topic, 2, generation=generation, **member) is NONE
    # Producers of before KIP-447 name no member.
    assert producer.commit_offset(group, topic, 3, version=2) is NONE
    producer.end(True)
    assert group_offset(speaker, group, topic) == 3


# -- WriteTxnMarkers ------------------------------------------------------------------------------


def write_marker(
    producer: TransactionalProducer,
    topic: str,
    *,
    committed: bool = False,
    coordinator_epoch: int = 0,
    version: int = 1,
) -> ErrorCode:
    marker = WritableTxnMarker(
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        transaction_result=committed,
        coordinator_epoch=coordinator_epoch,
        topics=[WritableTxnMarkerTopic(name=topic, partition_indexes=[0])],
    )
    answer = producer.speaker.ask(
        WriteTxnMarkersRequest(markers=[marker]), WriteTxnMarkersResponse, version
    )
    assert answer.markers[0].producer_id == producer.producer_id
    return ErrorCode(answer.markers[0].topics[0].partitions[0].error_code)


@pytest.mark.parametrize("version", [0, 1])
def test_a_transaction_can_be_ended_by_hand(
    speaker: Speaker, producer, topic: str, version: int
) -> None:
    producer.add(topic)
    producer.produce(topic, b"hanging")
    assert write_marker(producer, topic, version=version) is NONE
    shown = fetch_committed(speaker, topic)
    assert shown.last_stable_offset == 2
    assert len(shown.aborted_transactions or ()) == 1
    assert producer.end(False) is NONE


def test_markers_that_are_refused(speaker: Speaker, producer, topic: str) -> None:
    producer.init()
    producer.add(topic)
    producer.produce(topic, b"-")
    assert write_marker(producer, "nowhere") is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    producer.epoch -= 1
    assert write_marker(producer, topic) is OLD_EPOCH
    producer.epoch += 1
    assert write_marker(producer, topic, coordinator_epoch=10) is NONE
    fenced = ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert write_marker(producer, topic, coordinator_epoch=9) is fenced
    assert fetch_committed(speaker, topic).last_stable_offset == 2
    producer.producer_id = -1
    assert write_marker(producer, topic) is ErrorCode.INVALID_REQUEST
    answer = speaker.ask(WriteTxnMarkersRequest(markers=[]), WriteTxnMarkersResponse, 1)
    assert answer.markers == []


def test_a_marker_in_the_offsets_topic_ends_offsets_too(
    speaker: Speaker, producer, topic: str
) -> None:
    group = f"group-of-{topic}"
    producer.add_offsets(group)
    producer.commit_offset(group, topic, 4)
    (partition,) = described(producer).topics[0].partitions
    marker = WritableTxnMarker(
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        transaction_result=True,
        coordinator_epoch=0,
        topics=[WritableTxnMarkerTopic(name=GROUP_METADATA_TOPIC, partition_indexes=[partition])],
    )
    speaker.ask(WriteTxnMarkersRequest(markers=[marker]), WriteTxnMarkersResponse, 1)
    assert group_offset(speaker, group, topic, require_stable=True) == 4


# -- looking --------------------------------------------------------------------------------------


def described(producer: TransactionalProducer) -> TransactionState:
    request = DescribeTransactionsRequest(transactional_ids=[producer.name])
    (only,) = producer.speaker.ask(request, DescribeTransactionsResponse, 0).transaction_states
    return only


def test_describing(speaker: Speaker, producer, topic: str) -> None:
    state = described(producer)
    assert (state.error_code, state.transactional_id) == (NONE, producer.name)
    assert (state.transaction_state, state.topics) == ("Empty", [])
    assert (state.transaction_timeout_ms, state.transaction_start_time_ms) == (60_000, -1)
    assert (state.producer_id, state.producer_epoch) == (producer.producer_id, 0)
    producer.add(topic)
    state = described(producer)
    assert state.transaction_state == "Ongoing"
    assert state.transaction_start_time_ms > 1_600_000_000_000
    assert [(t.topic, t.partitions) for t in state.topics] == [(topic, [0])]
    producer.end(True)
    assert described(producer).transaction_state == "CompleteCommit"
    request = DescribeTransactionsRequest(transactional_ids=["nobody", ""])
    answer = speaker.ask(request, DescribeTransactionsResponse, 0)
    assert [state.error_code for state in answer.transaction_states] == [
        ErrorCode.TRANSACTIONAL_ID_NOT_FOUND,
        ErrorCode.INVALID_REQUEST,
    ]


@pytest.mark.parametrize("version", [0, 1])
def test_listing(speaker: Speaker, producer, topic: str, version: int) -> None:
    def listed(*states: str, **filters: object) -> ListTransactionsResponse:
        request = ListTransactionsRequest(
            state_filters=list(states),
            producer_id_filters=[producer.producer_id],
            **filters,
        )
        return speaker.ask(request, ListTransactionsResponse, version)

    (only,) = listed().transaction_states
    assert (only.transactional_id, only.producer_id, only.transaction_state) == (
        producer.name,
        producer.producer_id,
        "Empty",
    )
    assert listed("Ongoing").transaction_states == []
    producer.add(topic)
    assert len(listed("Ongoing").transaction_states) == 1
    assert listed("Ongoing", "Odd").unknown_state_filters == ["Odd"]
    if version == 1:
        assert listed(duration_filter=3_600_000).transaction_states == []


# -- restarts -------------------------------------------------------------------------------------


def test_everything_goes_on_after_a_restart(tmp_path: Path) -> None:
    def port_of(broker: EmbeddedBroker) -> int:
        return int(broker.bootstrap.rpartition(":")[2])

    directory = str(tmp_path / "data")
    with (
        EmbeddedBroker(SETTINGS, data_dir=directory) as broker,
        Speaker(port_of(broker)) as speaker,
    ):
        speaker.find_coordinators()
        speaker.create_topic("t")
        producers = [
            TransactionalProducer(speaker, name).init() for name in ("commits", "aborts", "leaves")
        ]
        for number, producer in enumerate(producers):
            producer.add("t")
            producer.add_offsets(producer.name)
            producer.produce("t", b"before")
            assert producer.commit_offset(producer.name, "t", number) is NONE
    with (
        EmbeddedBroker(SETTINGS, data_dir=directory) as broker,
        Speaker(port_of(broker)) as speaker,
    ):
        for producer in producers:
            producer.speaker = speaker
            assert described(producer).transaction_state == "Ongoing"
        commits, aborts, leaves = producers
        assert fetch_committed(speaker, "t").last_stable_offset == 0
        assert commits.produce("t", b"after") is NONE
        assert commits.end(True) is NONE
        assert aborts.end(False) is NONE
        unstable = ErrorCode.UNSTABLE_OFFSET_COMMIT
        assert group_offset(speaker, "commits", "t", True) == 0
        assert group_offset(speaker, "aborts", "t", True) == -1
        assert group_offset(speaker, "leaves", "t", True) is unstable
        assert leaves.ask_identity().error_code == ErrorCode.CONCURRENT_TRANSACTIONS
        assert group_offset(speaker, "leaves", "t", True) == -1
        shown = fetch_committed(speaker, "t")
        assert shown.last_stable_offset == shown.high_watermark
        aborted = {a.producer_id for a in shown.aborted_transactions or ()}
        assert aborted == {aborts.producer_id, leaves.producer_id}
        request = fetch_committed(speaker, TRANSACTION_STATE_TOPIC)
        assert request.error_code == NONE


# -- the second protocol (KIP-890) ----------------------------------------------------------------


def ended(producer: TransactionalProducer, committed: bool) -> EndTxnResponse:
    """Ask for the end until it is over on all partitions."""
    answers: list[EndTxnResponse] = []

    def over() -> bool:
        answers.append(producer.ask_end(committed))
        assert answers[-1].error_code in (NONE, ErrorCode.CONCURRENT_TRANSACTIONS)
        return len(answers) > 1 and answers[-1].error_code == NONE

    wait_for("the end of the transaction", over)
    assert answers[-1] == answers[0], "an answer that was lost is given again"
    return answers[0]


def test_each_end_brings_the_next_epoch(speaker: Speaker, topic: str) -> None:
    producer = TransactionalProducer(speaker, topic).init()
    offsets = []
    for committed, epoch in ((True, 1), (False, 2), (True, 3)):
        offsets.append(end_offset(speaker, topic, 0))
        assert producer.produce(topic, b"x", version=12) is NONE, "the leader has added it"
        answer = ended(producer, committed)
        assert (answer.producer_id, answer.producer_epoch) == (producer.producer_id, epoch)
        assert producer.produce(topic, b"late", version=12) is OLD_EPOCH, "by the marker"
        producer.epoch = epoch
        producer.sequences.clear()
    data = fetch_committed(speaker, topic)
    assert [aborted.first_offset for aborted in data.aborted_transactions or ()] == [offsets[1]]
    assert end_offset(speaker, topic, READ_COMMITTED) == 6, "nothing hangs"


def test_offsets_are_added_by_the_groups_coordinator(speaker: Speaker, topic: str) -> None:
    producer = TransactionalProducer(speaker, topic).init()
    assert producer.commit_offset(topic, topic, 5, version=5) is NONE
    assert group_offset(speaker, topic, topic) == -1
    ended(producer, True)
    assert group_offset(speaker, topic, topic) == 5


def test_what_was_never_begun_can_be_aborted(speaker: Speaker, topic: str) -> None:
    producer = TransactionalProducer(speaker, topic).init()
    assert producer.ask_end(True).error_code == ErrorCode.INVALID_TXN_STATE
    answer = producer.ask_end(False)
    assert (answer.error_code, answer.producer_epoch) == (NONE, producer.epoch + 1)


@pytest.mark.parametrize(("version", "lowest"), [(3, 1), (4, 0)])
def test_clients_are_told_of_it(speaker: Speaker, version: int, lowest: int) -> None:
    request = ApiVersionsRequest(client_software_name="test", client_software_version="1")
    answer = speaker.ask(request, ApiVersionsResponse, version)
    assert [(f.name, f.min_version, f.max_version) for f in answer.supported_features] == [
        ("transaction.version", lowest, 2)
    ]
    (level,) = answer.finalized_features
    assert (level.name, level.max_version_level) == ("transaction.version", 2)
    assert answer.finalized_features_epoch == 0
