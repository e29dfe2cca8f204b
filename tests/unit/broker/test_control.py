import asyncio
from collections.abc import Callable

from kavka.broker.control import ConfiguredChannel
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicState,
)
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)
from kavka.replication.controller.channels import ControlRequest, ControlResponse
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
        is_update = isinstance(request, UpdateMetadataRequest)
        on_response(UpdateMetadataResponse() if is_update else LeaderAndIsrResponse())

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
