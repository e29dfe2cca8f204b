"""A reader that finds nothing and asks the same again is answered as one that is new."""

from collections.abc import Iterator
from typing import Final

import pytest

from kavka.broker.embed import EmbeddedBroker
from kavka.broker.handlers.k01_fetch import FetchWaiter
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k01_fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
)
from kavka.protocol.messages.k02_list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.messages.k20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from kavka.protocol.messages.k21_delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.wire import WireClient

WAIT_MS: Final = 10
SESSIONLESS: Final = (4, 6, 7, 11, 12)
WITH_SESSIONS: Final = (7, 11, 12)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[FetchWaiter]:
    """The polls that waited again without being read."""
    seen: list[FetchWaiter] = []
    wait_again = FetchWaiter.wait_again

    def counted(self: FetchWaiter) -> Pending:
        seen.append(self)
        return wait_again(self)

    monkeypatch.setattr(FetchWaiter, "wait_again", counted)
    return seen


def connect(broker: EmbeddedBroker) -> WireClient:
    return WireClient(int(broker.bootstrap.rpartition(":")[2]))


@pytest.fixture
def topic(broker: EmbeddedBroker, request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    with connect(broker) as client:
        asked = CreatableTopic(name=name, num_partitions=2, replication_factor=1)
        made = CreateTopicsRequest(topics=[asked], timeout_ms=10_000)
        assert not client.ask(made, CreateTopicsResponse, 2).topics[0].error_code
        while client.produce(name, batch()).responses[0].partition_responses[0].error_code:
            pass
    return name


def batch() -> bytes:
    return build_batch([Record(0, 0, None, b"v", ())], base_offset=0)


def poll(topic: str, offset: int = 1, session: int = 0, epoch: int = -1) -> FetchRequest:
    """What a consumer of both partitions asks; in a session only at its beginning."""
    return FetchRequest(
        max_wait_ms=WAIT_MS,
        min_bytes=1,
        max_bytes=1 << 20,
        session_id=session,
        session_epoch=epoch,
        topics=[]
        if epoch > 0
        else [
            FetchTopic(
                topic=topic,
                partitions=[
                    FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20),
                    FetchPartition(partition=1, fetch_offset=0, partition_max_bytes=1 << 20),
                ],
            )
        ],
    )


@pytest.mark.parametrize("version", SESSIONLESS)
def test_the_same_question_gets_the_same_answer(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter], version: int
) -> None:
    with connect(broker) as client:
        first, *others = (client.ask(poll(topic), FetchResponse, version) for _ in range(5))
        assert [part.high_watermark for part in first.responses[0].partitions] == [1, 0]
        assert not any(part.error_code for part in first.responses[0].partitions)
        assert others == [first] * 4
    assert len(again) == 4


@pytest.mark.parametrize("version", SESSIONLESS)
def test_records_that_come_while_it_waits_again(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter], version: int
) -> None:
    with connect(broker) as client, connect(broker) as producer:
        for _ in range(2):
            client.ask(poll(topic), FetchResponse, version)
        client.ask(poll(topic), FetchResponse, version)
        client.send(poll(topic), version)
        producer.produce(topic, batch(), partition=1)
        answer = client.receive(FetchResponse, version)
        if not answer.responses[0].partitions[1].records:  # its time was over before
            answer = client.ask(poll(topic), FetchResponse, version)
        assert answer.responses[0].partitions[1].records
    assert again


@pytest.mark.parametrize("version", SESSIONLESS)
def test_records_that_came_before_it_asks_again(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter], version: int
) -> None:
    with connect(broker) as client:
        client.ask(poll(topic), FetchResponse, version)
        client.produce(topic, batch())
        answer = client.ask(poll(topic), FetchResponse, version)
        assert answer.responses[0].partitions[0].records
        assert answer.responses[0].partitions[0].high_watermark == 2
    assert not again


def test_another_question_is_read(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter]
) -> None:
    with connect(broker) as client:
        for _ in range(2):
            client.ask(poll(topic), FetchResponse, 11)
        answer = client.ask(poll(topic, offset=0), FetchResponse, 11)
        assert answer.responses[0].partitions[0].records
        answer = client.ask(poll(topic, offset=7), FetchResponse, 11)
        assert answer.responses[0].partitions[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert len(again) == 1


def test_a_log_that_begins_later_is_told(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter]
) -> None:
    with connect(broker) as client:
        client.ask(poll(topic), FetchResponse, 11)
        request = DeleteRecordsRequest(
            topics=[
                DeleteRecordsTopic(
                    name=topic,
                    partitions=[DeleteRecordsPartition(partition_index=0, offset=1)],
                )
            ],
            timeout_ms=10_000,
        )
        client.ask(request, DeleteRecordsResponse, 1)
        answer = client.ask(poll(topic), FetchResponse, 11)
        assert answer.responses[0].partitions[0].log_start_offset == 1
    assert not again


def test_a_topic_that_goes_is_told(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter]
) -> None:
    with connect(broker) as client:
        for _ in range(2):
            client.ask(poll(topic), FetchResponse, 11)
        gone = DeleteTopicsRequest(topic_names=[topic], timeout_ms=10_000)
        assert not client.ask(gone, DeleteTopicsResponse, 1).responses[0].error_code
        answer = client.ask(poll(topic), FetchResponse, 11)
        assert {part.error_code for part in answer.responses[0].partitions} <= {
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode.NOT_LEADER_OR_FOLLOWER,
        }
    assert len(again) == 1


@pytest.mark.parametrize("version", WITH_SESSIONS)
def test_a_session_goes_on(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter], version: int
) -> None:
    with connect(broker) as client:
        begun = client.ask(poll(topic, epoch=0), FetchResponse, version)
        session = begun.session_id
        assert session
        for epoch in range(1, 5):
            answer = client.ask(poll(topic, 1, session, epoch), FetchResponse, version)
            assert answer == FetchResponse(session_id=session)
        assert len(again) == 3
        client.produce(topic, batch())
        answer = client.ask(poll(topic, 1, session, 5), FetchResponse, version)
        assert answer.responses[0].partitions[0].records
        answer = client.ask(poll(topic, 1, session, 5), FetchResponse, version)
        assert answer.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH


def test_a_session_whose_request_was_lost(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter]
) -> None:
    with connect(broker) as client:
        session = client.ask(poll(topic, epoch=0), FetchResponse, 11).session_id
        for epoch in (1, 2):
            client.ask(poll(topic, 1, session, epoch), FetchResponse, 11)
        answer = client.ask(poll(topic, 1, session, 4), FetchResponse, 11)
        assert answer.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert len(again) == 1


def test_other_requests_between_change_nothing(
    broker: EmbeddedBroker, topic: str, again: list[FetchWaiter]
) -> None:
    ends = ListOffsetsRequest(
        topics=[
            ListOffsetsTopic(
                name=topic, partitions=[ListOffsetsPartition(partition_index=0, timestamp=-1)]
            )
        ]
    )
    with connect(broker) as client:
        expected = client.ask(poll(topic), FetchResponse, 11)
        for _ in range(2):
            answer = client.ask(ends, ListOffsetsResponse, 1)
            assert answer.topics[0].partitions[0].offset == 1
            assert client.ask(poll(topic), FetchResponse, 11) == expected
    assert len(again) == 2
