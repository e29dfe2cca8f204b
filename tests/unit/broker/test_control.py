import asyncio
from collections.abc import Callable

import pytest

from kavka.broker.control import ConfiguredChannel, FencedChannel, OwnChannel
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicState,
)
from kavka.protocol.messages.k05_stop_replica import StopReplicaRequest, StopReplicaResponse
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataResponse,
    UpdateMetadataTopicState,
)
from kavka.protocol.schema import ZERO_UUID
from kavka.replication.controller.channels import ControlRequest, ControlResponse
from kavka.replication.metadata import MetadataCache
from kavka.replication.store.base import StoreUnavailable


class Recorder:
    """The store of settings and the channel behind, in one list of what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def load_topics(self, topics: list[str]) -> None:
        await self.gate.wait()
        if self.failing:
            raise StoreUnavailable("no disk")
        self.events.append(f"load {','.join(topics)}")

    def send(self, request: ControlRequest, on_response: Callable[[ControlResponse], None]) -> None:
        self.events.append(type(request).__name__)
        match request:
            case UpdateMetadataRequest():
                on_response(UpdateMetadataResponse())
            case StopReplicaRequest():
                on_response(StopReplicaResponse())
            case _:
                on_response(LeaderAndIsrResponse())

    async def settled(self) -> None:
        """Nothing is ever outstanding."""

    def close(self) -> None:
        self.events.append("close")


def lead(topic: str) -> LeaderAndIsrRequest:
    return LeaderAndIsrRequest(topic_states=[LeaderAndIsrTopicState(topic_name=topic)])


def test_settings_are_read_before_logs_are_opened_and_order_is_kept() -> None:
    async def run() -> None:
        recorder, answers = Recorder(), []
        channel = ConfiguredChannel(recorder, recorder)
        recorder.gate.clear()
        channel.send(UpdateMetadataRequest(), answers.append)
        assert len(answers) == 1  # nothing to wait for
        channel.send(lead("a"), answers.append)
        channel.send(UpdateMetadataRequest(), answers.append)
        channel.send(lead("b"), answers.append)
        await asyncio.sleep(0)
        assert len(answers) == 1
        recorder.gate.set()
        await channel.settled()
        assert recorder.events == [
            *("UpdateMetadataRequest", "load a", "LeaderAndIsrRequest"),
            *("UpdateMetadataRequest", "load b", "LeaderAndIsrRequest"),
        ]
        assert [type(answer) for answer in answers] == [
            *(UpdateMetadataResponse, LeaderAndIsrResponse),
            *(UpdateMetadataResponse, LeaderAndIsrResponse),
        ]
        await channel.settled()

    asyncio.run(run())


def test_a_failing_store_does_not_stop_the_controller() -> None:
    async def run() -> None:
        recorder, answers = Recorder(), []
        recorder.failing = True
        channel = ConfiguredChannel(recorder, recorder)
        channel.send(lead("a"), answers.append)
        await channel.settled()
        assert len(answers) == 1

    asyncio.run(run())


def test_a_closed_channel_sends_nothing_more() -> None:
    async def run() -> None:
        recorder, answers = Recorder(), []
        channel = ConfiguredChannel(recorder, recorder)
        recorder.gate.clear()
        channel.send(lead("a"), answers.append)
        await asyncio.sleep(0)
        channel.close()
        recorder.gate.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (recorder.events, answers) == (["close"], [])

    asyncio.run(run())


class Replicas:
    def __init__(self) -> None:
        self.controller_epoch = 5


@pytest.mark.parametrize(
    ("controller_epoch", "broker_epoch", "code"),
    [
        (5, 100, ErrorCode.NONE),
        (6, -1, ErrorCode.NONE),  # from a Kafka that knows no broker epochs
        (6, 101, ErrorCode.NONE),  # the controller knows of this registration before the broker
        (4, 100, ErrorCode.STALE_CONTROLLER_EPOCH),
        (6, 99, ErrorCode.STALE_BROKER_EPOCH),
    ],
)
@pytest.mark.parametrize("kind", [LeaderAndIsrRequest, UpdateMetadataRequest, StopReplicaRequest])
def test_only_the_present_controller_is_heard_by_the_present_broker(
    kind: "type[ControlRequest]", controller_epoch: int, broker_epoch: int, code: ErrorCode
) -> None:
    recorder, replicas, answers = Recorder(), Replicas(), list[ControlResponse]()
    fence = FencedChannel(recorder, replicas, MetadataCache("cluster"))
    fence.broker_epoch = 100
    request = kind(controller_epoch=controller_epoch, broker_epoch=broker_epoch)
    fence.send(request, answers.append)
    (answer,) = answers
    assert answer.error_code == code
    assert recorder.events == ([kind.__name__] if code is ErrorCode.NONE else [])
    assert replicas.controller_epoch == (controller_epoch if code is ErrorCode.NONE else 5)


def test_until_it_is_registered_a_broker_keeps_what_it_is_told() -> None:
    """It may be meant for who had the id before, whose records this one may have lost."""
    recorder = Recorder()
    fence = FencedChannel(recorder, Replicas(), MetadataCache("cluster"))
    fence.hold()
    answers: list[ControlResponse] = []
    for epoch in (6, 7):
        request = UpdateMetadataRequest(controller_id=1, controller_epoch=6, broker_epoch=epoch)
        fence.send(request, answers.append)
    assert not answers
    fence.broker_epoch = 7
    assert [answer.error_code for answer in answers] == [ErrorCode.STALE_BROKER_EPOCH, 0]
    assert recorder.events == ["UpdateMetadataRequest"]


def test_ids_that_an_old_version_does_not_tell_are_filled_in() -> None:
    metadata = MetadataCache("cluster")
    known = UpdateMetadataTopicState(
        topic_name="t",
        topic_id=b"t" * 16,
        partition_states=[UpdateMetadataPartitionState(leader=1)],
    )
    metadata.update(UpdateMetadataRequest(topic_states=[known]))
    fence = FencedChannel(Recorder(), Replicas(), metadata)
    request = LeaderAndIsrRequest(
        controller_epoch=5,
        topic_states=[
            LeaderAndIsrTopicState(topic_name="t"),
            LeaderAndIsrTopicState(topic_name="u"),
        ],
    )
    fence.send(request, lambda _: None)
    assert [topic.topic_id for topic in request.topic_states] == [b"t" * 16, ZERO_UUID]


def test_a_controller_that_has_resigned_hears_no_answers_and_leaves_the_inbox_open() -> None:
    async def run() -> None:
        recorder, answers, others = Recorder(), [], []
        inbox = ConfiguredChannel(recorder, recorder)
        own = OwnChannel(inbox)
        recorder.gate.clear()
        own.send(lead("a"), answers.append)
        inbox.send(lead("b"), others.append)
        own.close()
        recorder.gate.set()
        await inbox.settled()
        assert (len(answers), len(others)) == (0, 1)
        assert "close" not in recorder.events

    asyncio.run(run())
