"""Appended requests that wait for replicas, for the disk, or for both."""

from collections.abc import Hashable

from kavka.broker.produce import single
from kavka.broker.produce.append import Append, fail
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k00_produce import ProduceResponse, TopicProduceResponse
from kavka.replication.partition import ACKS_ALL, Partition
from kavka.replication.waiting import Waiter
from kavka.storage.append import AppendInfo


class SingleWaiter(Waiter):
    """The ordinary request, of one partition: its answer is made when it is known to be good."""

    __slots__ = ("_acks", "_end_offset", "_info", "_partition", "_pending", "_topic", "_version")

    def __init__(
        self,
        topic: bytes,
        acks: int,
        version: int,
        partition: Partition,
        info: AppendInfo,
        pending: Pending,
    ) -> None:
        super().__init__()
        self._topic = topic
        self._acks = acks
        self._version = version
        self._partition = partition
        self._info = info
        self._end_offset = info.last_offset + 1
        self._pending = pending

    def try_complete(self, key: Hashable) -> bool:
        partition, acks = self._partition, self._acks
        try:
            partition.require_leader()
            if not partition.acknowledged(acks, self._end_offset):
                partition.require_online()  # else it never will be
                return False
            if acks == ACKS_ALL:
                partition.require_enough_in_sync_after_append()
        except KafkaError as error:
            self._fail(error)
            return True
        info = self._info
        self._pending.complete(
            single.answer(
                self._version,
                self._topic,
                partition.index,
                info.first_offset,
                info.log_append_time,
                partition.log.log_start_offset,
            )
        )
        return True

    def expire(self) -> None:
        self._fail(KafkaError(ErrorCode.REQUEST_TIMED_OUT))

    def _fail(self, error: KafkaError) -> None:
        append = Append.of(self._partition)
        append.result.log_append_time_ms = self._info.log_append_time
        append.result.log_start_offset = self._partition.log.log_start_offset
        fail(append, error, self._version)
        self._pending.complete(
            ProduceResponse(
                responses=[
                    TopicProduceResponse(name=append.topic, partition_responses=[append.result])
                ]
            )
        )


class ProduceWaiter(Waiter):
    """An appended request that waits for replicas, for the disk, or for both."""

    __slots__ = ("_acks", "_pending", "_response", "_version", "_waiting")

    def __init__(
        self,
        acks: int,
        version: int,
        response: ProduceResponse,
        waiting: list[Append],
        pending: Pending,
    ) -> None:
        super().__init__()
        self._acks = acks
        self._version = version
        self._response = response
        self._waiting = waiting
        self._pending = pending

    def try_complete(self, key: Hashable) -> bool:
        still = []
        for append in self._waiting:
            partition = append.partition
            assert partition is not None
            try:
                partition.require_leader()
                if not partition.acknowledged(self._acks, append.end_offset):
                    partition.require_online()  # else it never will be
                    still.append(append)
                elif self._acks == ACKS_ALL:
                    partition.require_enough_in_sync_after_append()
            except KafkaError as error:
                fail(append, error, self._version)
        self._waiting = still
        if still:
            return False
        self._pending.complete(self._response)
        return True

    def expire(self) -> None:
        for append in self._waiting:
            fail(append, KafkaError(ErrorCode.REQUEST_TIMED_OUT), self._version)
        self._pending.complete(self._response)
