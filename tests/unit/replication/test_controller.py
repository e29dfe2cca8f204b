"""The controller over a real store: topics come, change and go; brokers fail and return."""

import asyncio
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.operations import (
    ElectionType,
    NewPartitions,
    NewTopic,
)
from kavka.replication.store.base import SetData, StoreUnavailable
from tests.unit.replication.harness import NODE, TIMEOUT_MS, Harness, run

T0 = TopicPartition("t", 0)


async def create(
    harness: Harness, name: str = "t", *replicas: list[int], timeout_ms: int = TIMEOUT_MS
) -> None:
    topic = NewTopic(name, assignment=dict(enumerate(replicas or ([NODE],))))
    (created,) = await harness.controller.create_topics([topic], timeout_ms=timeout_ms)
    assert created.error is None


def code(error: KafkaError | None) -> ErrorCode:
    return ErrorCode.NONE if error is None else error.code


def test_the_only_broker_is_controller(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        assert harness.controller.active
        assert harness.controller.epoch == 1
        assert (await harness.store.get(znodes.CONTROLLER_EPOCH))[0] == b"1"
        assert znodes.decode_controller((await harness.store.get(znodes.CONTROLLER))[0]) == NODE
        assert harness.metadata.controller_id == NODE
        endpoint = harness.metadata.brokers[NODE].endpoint("PLAINTEXT")
        assert endpoint is not None
        assert (endpoint.host, endpoint.port) == ("host1", 9092)

    run(harness, scenario)


def test_a_topic_is_created(tmp_path: Path) -> None:
    harness = Harness(tmp_path, {"num.partitions": "4"})

    async def scenario() -> None:
        topic = NewTopic("t", configs={"retention.ms": "1000"})
        (created,) = await harness.controller.create_topics([topic], timeout_ms=TIMEOUT_MS)
        assert created.error is None
        assert (created.partitions, created.replication_factor) == (4, 1)
        assert created.configs == {"retention.ms": "1000"}
        assert created.topic_id != ZERO_UUID
        cached = harness.metadata.topics["t"]
        assert cached.topic_id == created.topic_id
        assert harness.metadata.topic_name(created.topic_id) == "t"
        assert sorted(cached.partitions) == [0, 1, 2, 3]
        assert all(p.leader == NODE and p.isr == (NODE,) for p in cached.partitions.values())
        assert harness.replicas[NODE].leaders[T0] == (NODE, 0)
        assert T0 in harness.replicas[NODE].new
        assert await harness.configs.read("topics", "t") == {"retention.ms": "1000"}
        data, _ = await harness.store.get("/brokers/topics/t")
        assert b'"version":3' in data
        data, _ = await harness.store.get("/brokers/topics/t/partitions/3/state")
        assert data == (b'{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}')
        # Replicas hear of it before it can be found: nobody is sent to a leader that is none.
        assert harness.channels[NODE].kinds()[-2:] == ["LeaderAndIsr", "UpdateMetadata"]

    run(harness, scenario)


def test_creation_is_refused_for_every_reason_kafka_has(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    cases = [
        (NewTopic("t"), ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 't' already exists."),
        (NewTopic("a", configs={"no.such": "1"}), ErrorCode.INVALID_CONFIG, "no.such"),
        (NewTopic("a", configs={"retention.ms": None}), ErrorCode.INVALID_CONFIG, "retention.ms"),
        (NewTopic("a", configs={"retention.ms": "x"}), ErrorCode.INVALID_CONFIG, "retention.ms"),
        (
            NewTopic("a", partitions=1, assignment={0: [1]}),
            ErrorCode.INVALID_REQUEST,
            "Both cannot be used at the same time.",
        ),
        (NewTopic("a", partitions=0), ErrorCode.INVALID_PARTITIONS, "larger than 0"),
        (
            NewTopic("a", replication_factor=2),
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor: 2 larger than available brokers: 1.",
        ),
        (NewTopic("a", replication_factor=0), ErrorCode.INVALID_REPLICATION_FACTOR, "than 0"),
        (NewTopic("a b"), ErrorCode.INVALID_TOPIC_EXCEPTION, "Topic name is invalid"),
        (NewTopic(""), ErrorCode.INVALID_TOPIC_EXCEPTION, "Topic name is invalid"),
        (
            NewTopic("with_dots"),
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic 'with_dots' collides with existing topics: with.dots",
        ),
        (
            NewTopic("a", assignment={0: [1], 2: [1]}),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "consecutive 0-based",
        ),
        (
            NewTopic("a", assignment={0: [1], 1: [1, 2]}),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "same number of replicas",
        ),
        (NewTopic("a", assignment={0: [1, 1]}), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "Duplic"),
        (NewTopic("a", assignment={0: []}), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "cannot have"),
        (NewTopic("a", assignment={}), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "consecutive"),
    ]

    async def scenario() -> None:
        await create(harness, "t")
        await create(harness, "with.dots")
        for topic, expected, message in cases:
            (refused,) = await harness.controller.create_topics([topic], timeout_ms=TIMEOUT_MS)
            assert code(refused.error) is expected, topic
            assert message in str(refused.error)
        assert sorted(harness.metadata.topics) == ["t", "with.dots"]

    run(harness, scenario)


def test_validation_writes_nothing(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        (checked,) = await harness.controller.create_topics(
            [NewTopic("t", 2)], timeout_ms=TIMEOUT_MS, validate_only=True
        )
        assert checked.error is None
        assert (checked.partitions, checked.replication_factor) == (2, 1)
        await harness.settle()
        assert await harness.store.children(znodes.TOPICS) == []
        assert harness.metadata.topics == {}

    run(harness, scenario)


def test_without_time_to_wait_the_answer_is_a_time_out_and_the_topic_comes(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        (late,) = await harness.controller.create_topics([NewTopic("t")], timeout_ms=0)
        assert code(late.error) is ErrorCode.REQUEST_TIMED_OUT
        await harness.settle()
        assert harness.metadata.has_leaders("t", [0, 1, 2])

    run(harness, scenario)


def test_a_topic_on_unknown_brokers_only_has_no_leader(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        topic = NewTopic("t", assignment={0: [7]})
        (late,) = await harness.controller.create_topics([topic], timeout_ms=1)
        assert code(late.error) is ErrorCode.REQUEST_TIMED_OUT
        assert "t" not in harness.metadata.topics
        await harness.broker_comes(7)
        await harness.settle()
        assert harness.replicas[7].leaders == {T0: (7, 0)}
        assert harness.metadata.has_leaders("t", [0])

    run(harness, scenario)


def test_two_at_once_one_creates(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        answers = await asyncio.gather(
            *(
                harness.controller.create_topics([NewTopic("t")], timeout_ms=TIMEOUT_MS)
                for _ in range(3)
            )
        )
        codes = sorted(code(created.error) for (created,) in answers)
        assert codes == [ErrorCode.NONE, *[ErrorCode.TOPIC_ALREADY_EXISTS] * 2]

    run(harness, scenario)


def test_a_configuration_left_behind_is_replaced(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.create("/config/topics/t", znodes.encode_config({"old": "1"}))
        await create(harness)
        assert await harness.configs.read("topics", "t") == {}

    run(harness, scenario)


def test_a_topic_made_by_an_old_tool_gets_an_id(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.create("/config/topics/t", b'{"version":1,"config":{}}')
        await harness.store.create(
            "/brokers/topics/t", b'{"version":1,"partitions":{"0":[1],"1":[1]}}'
        )
        await harness.settle()
        assert harness.metadata.has_leaders("t", [0, 1])
        data, _ = await harness.store.get("/brokers/topics/t")
        node = znodes.decode_topic("/brokers/topics/t", data)
        assert node.topic_id == harness.metadata.topics["t"].topic_id != ZERO_UUID
        assert node.partitions == {0: (1,), 1: (1,)}

    run(harness, scenario)


def test_a_topic_keeps_its_id_though_an_old_tool_or_broker_writes_its_node(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    path = "/brokers/topics/t"
    without_id = b'{"version":1,"partitions":{"0":[1],"1":[1]}}'
    ids: list[bytes] = []

    async def first() -> None:
        await create(harness)
        ids.append(harness.metadata.topics["t"].topic_id)
        deleted: list[TopicPartition] = []
        harness.metadata.on_partitions_deleted(deleted.extend)
        await harness.store.set(path, without_id)
        await harness.settle()
        assert harness.metadata.has_leaders("t", [0, 1])
        node = znodes.decode_topic(path, (await harness.store.get(path))[0])
        assert node == znodes.TopicNode(ids[0], {0: (1,), 1: (1,)})
        # And while none of us is the controller.
        await harness.store.set(znodes.CONTROLLER, b"{}")
        await harness.store.delete(znodes.CONTROLLER)
        await harness.store.create(znodes.CONTROLLER, znodes.encode_controller(2, 0))
        await harness.settle()
        assert not harness.controller.active
        await harness.store.set(path, without_id)
        await harness.store.delete(znodes.CONTROLLER)
        await harness.settle()
        assert harness.controller.active
        node = znodes.decode_topic(path, (await harness.store.get(path))[0])
        assert node.topic_id == harness.metadata.topics["t"].topic_id == ids[0]
        assert deleted == []
        await harness.store.set(path, without_id)

    async def second() -> None:  # only the disk remembers
        assert harness.metadata.topics["t"].topic_id == ids[0]

    run(harness, first)
    harness.on_disk["t"] = ids[0]
    run(harness, second)


def test_a_broken_topic_node_harms_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.create("/brokers/topics/broken", b"{")
        await create(harness)
        assert harness.metadata.has_leaders("t", [0])

    run(harness, scenario)
    assert "A topic is ignored topic=broken" in caplog.text


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    before: dict[str, object] = {}

    async def first() -> None:
        await create(harness, "t", [NODE], [NODE])
        await harness.controller.alter_configs("topics", "t", {"segment.bytes": "2048"})
        before.update(cluster=harness.metadata.cluster_id, topic=harness.metadata.topics["t"])
        before["id"] = await harness.producer_ids.next()

    async def second() -> None:
        assert harness.controller.epoch == 2
        assert harness.metadata.cluster_id == before["cluster"]
        assert harness.metadata.topics["t"] == before["topic"]
        assert harness.configs.topic_overrides("t") == {"segment.bytes": "2048"}
        # The same leader leads on in the same epoch: nobody else can have written.
        assert harness.replicas[NODE].leaders[T0] == (NODE, 0)
        assert harness.replicas[NODE].new == set()
        assert await harness.producer_ids.next() == 1000

    run(harness, first)
    run(harness, second)


def test_a_topic_is_deleted(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [NODE], [NODE])
        deleted: list[TopicPartition] = []
        harness.metadata.on_partitions_deleted(deleted.extend)
        outcomes = await harness.controller.delete_topics(["t"], timeout_ms=TIMEOUT_MS)
        assert outcomes == {"t": None}
        assert harness.metadata.topics == {}
        assert sorted(deleted) == [T0, ("t", 1)]
        assert sorted(harness.replicas[NODE].deleted) == [T0, ("t", 1)]
        assert await harness.store.children(znodes.TOPICS) == []
        assert await harness.store.children("/config/topics") == []
        assert await harness.store.children(znodes.DELETE_TOPICS) == []
        await create(harness)  # at once, under the same name

    run(harness, scenario)


def test_deletion_of_what_is_not_there(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        outcomes = await harness.controller.delete_topics(["t"], timeout_ms=TIMEOUT_MS)
        assert code(outcomes["t"]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await harness.store.create("/admin/delete_topics/t")  # as a tool may
        await harness.settle()
        assert await harness.store.children(znodes.DELETE_TOPICS) == []

    run(harness, scenario)


def test_a_deletion_goes_on_after_a_restart(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def first() -> None:
        await create(harness, "t")
        harness.replicas[NODE].undeletable.add(T0)
        outcomes = await harness.controller.delete_topics(["t"], timeout_ms=1)
        assert code(outcomes["t"]) is ErrorCode.REQUEST_TIMED_OUT
        await harness.metadata.wait_until(lambda: "t" not in harness.metadata.topics, 10)
        assert "t" not in harness.metadata.topics

    async def second() -> None:
        await harness.settle()
        assert harness.replicas[NODE].deleted == [T0]
        assert harness.replicas[NODE].leaders == {}
        assert await harness.store.children(znodes.TOPICS) == []

    run(harness, first)
    run(harness, second)


def test_a_disabled_deletion_is_unmarked(tmp_path: Path) -> None:
    harness = Harness(tmp_path, {"delete.topic.enable": "false"})

    async def scenario() -> None:
        await create(harness)
        await harness.store.create("/admin/delete_topics/t")
        await harness.settle()
        assert await harness.store.children(znodes.DELETE_TOPICS) == []
        assert harness.metadata.has_leaders("t", [0])

    run(harness, scenario)


def test_deletion_with_a_dead_replica_waits_for_its_broker(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [1, 2])
        await harness.broker_goes(2)
        await harness.settle()
        outcomes = await harness.controller.delete_topics(["t"], timeout_ms=TIMEOUT_MS)
        assert outcomes == {"t": None}  # it is gone for everybody who can be asked
        assert harness.replicas[1].deleted == [T0]
        assert await harness.store.children(znodes.TOPICS) == ["t"]
        await harness.broker_comes(2)
        await harness.settle()
        assert harness.replicas[2].deleted == [T0]
        assert await harness.store.children(znodes.TOPICS) == []

    run(harness, scenario, 2)


def test_deletion_asks_again_a_broker_that_died_before_it_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2])
        monkeypatch.setattr(harness.channels[2], "send", lambda request, on_response: None)
        outcomes = await harness.controller.delete_topics(["t"], timeout_ms=1)
        assert code(outcomes["t"]) is ErrorCode.REQUEST_TIMED_OUT
        await harness.broker_goes(2)
        await harness.broker_comes(2)
        await harness.settle()
        assert harness.replicas[2].deleted == [T0]
        assert await harness.store.children(znodes.TOPICS) == []

    run(harness, scenario, 2)


def test_partitions_are_added(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t")
        topic_id = harness.metadata.topics["t"].topic_id
        outcomes = await harness.controller.create_partitions(
            [NewPartitions("t", 3)], timeout_ms=TIMEOUT_MS
        )
        assert outcomes == {"t": None}
        assert harness.metadata.has_leaders("t", [0, 1, 2])
        assert harness.metadata.topics["t"].topic_id == topic_id
        assert harness.replicas[NODE].leaders[TopicPartition("t", 2)] == (NODE, 0)

    run(harness, scenario)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (NewPartitions("t", 2), ErrorCode.INVALID_PARTITIONS),
        (NewPartitions("t", 1), ErrorCode.INVALID_PARTITIONS),
        (NewPartitions("t", -1), ErrorCode.INVALID_PARTITIONS),
        (NewPartitions("nope", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (NewPartitions("no/pe", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (NewPartitions("t", 3, [[1], [1]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (NewPartitions("t", 3, [[9]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (NewPartitions("t", 3, [[]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (NewPartitions("doomed", 3), ErrorCode.INVALID_TOPIC_EXCEPTION),
    ],
)
def test_partitions_that_cannot_be_added(
    tmp_path: Path, wanted: NewPartitions, expected: ErrorCode
) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [1], [1])
        await create(harness, "doomed")
        harness.controller._enqueue = lambda event: None  # type: ignore[method-assign]
        await harness.store.create("/admin/delete_topics/doomed")
        outcomes = await harness.controller.create_partitions([wanted], timeout_ms=TIMEOUT_MS)
        assert code(outcomes[wanted.topic]) is expected
        assert len(harness.metadata.topics["t"].partitions) == 2

    run(harness, scenario)


def test_what_one_request_may_ask_for_is_counted_over_its_topics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kavka.replication.controller.controller.PARTITIONS_PER_TOPIC_MAX", 5)
    monkeypatch.setattr("kavka.replication.controller.admin.PARTITIONS_PER_TOPIC_MAX", 5)
    harness = Harness(tmp_path)

    async def scenario() -> None:
        created = await harness.controller.create_topics(
            [NewTopic("a", 3, 1), NewTopic("b", 3, 1), NewTopic("c", 1, 1)], timeout_ms=TIMEOUT_MS
        )
        assert [code(topic.error) for topic in created] == [
            ErrorCode.NONE,
            ErrorCode.INVALID_PARTITIONS,
            ErrorCode.INVALID_PARTITIONS,
        ]
        await create(harness, "d")
        added = await harness.controller.create_partitions(
            [NewPartitions("a", 8), NewPartitions("d", 2)], timeout_ms=TIMEOUT_MS
        )
        assert code(added["a"]) is ErrorCode.NONE
        assert code(added["d"]) is ErrorCode.INVALID_PARTITIONS
        assert len(harness.metadata.topics["a"].partitions) == 8

    run(harness, scenario)


def test_checked_partitions_are_not_added(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness)
        outcomes = await harness.controller.create_partitions(
            [NewPartitions("t", 3)], timeout_ms=TIMEOUT_MS, validate_only=True
        )
        assert outcomes == {"t": None}
        await harness.settle()
        assert len(harness.metadata.topics["t"].partitions) == 1

    run(harness, scenario)


def test_a_dead_leader_is_replaced_and_comes_back_as_follower(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1])
        assert harness.metadata.topics["t"].partitions[0].leader == 2
        assert harness.replicas[2].leaders[T0] == (2, 0)
        await harness.broker_goes(2)
        await harness.settle()
        state = await harness.state("t")
        assert (state.leader, state.leader_epoch, state.isr) == (1, 1, (1,))
        assert harness.replicas[1].leaders[T0] == (1, 1)
        assert 2 not in harness.metadata.brokers
        assert harness.metadata.topics["t"].partitions[0].offline_replicas == (2,)
        await harness.broker_comes(2)
        await harness.settle()
        assert harness.replicas[2].leaders[T0] == (1, 1)
        assert harness.caches[2].topics["t"].partitions[0].leader == 1
        assert harness.metadata.topics["t"].partitions[0].offline_replicas == ()

    run(harness, scenario, 2)


def test_the_last_in_sync_replica_is_waited_for(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1])
        await harness.shrink("t", 0, (2,))
        await harness.settle()
        assert harness.metadata.topics["t"].partitions[0].isr == (2,)
        assert await harness.store.children(znodes.ISR_CHANGES) == []
        await harness.broker_goes(2)
        await harness.settle()
        state = await harness.state("t")
        assert (state.leader, state.isr) == (-1, (2,))
        assert harness.metadata.topics["t"].partitions[0].leader == -1
        await harness.broker_comes(2)
        await harness.settle()
        state = await harness.state("t")
        assert (state.leader, state.isr) == (2, (2,))

    run(harness, scenario, 2)


def test_an_unclean_election_only_where_it_is_allowed(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1])
        await create(harness, "keep", [2, 1])
        await harness.controller.alter_configs(
            "topics", "t", {"unclean.leader.election.enable": "true"}
        )
        await harness.shrink("t", 0, (2,))
        await harness.shrink("keep", 0, (2,))
        await harness.settle()
        await harness.broker_goes(2)
        await harness.settle()
        assert (await harness.state("t"))[:3] == (1, 1, (1,))
        assert (await harness.state("keep"))[0] == -1

    run(harness, scenario, 2)


def test_a_broker_that_bounced_is_dead_and_new(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1])
        old = harness.channels[2]
        gone = harness.broker_goes(2)
        back = harness.broker_comes(2)
        await asyncio.gather(gone, back)
        await harness.settle()
        assert old.closed
        assert harness.channels[2] is not old
        assert (await harness.state("t")).leader == 1
        assert harness.replicas[2].leaders[T0] == (1, 1)

    run(harness, scenario, 2)


def test_a_new_address_is_told_to_all(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        body = znodes.encode_registration(
            znodes.Registration((znodes.Endpoint("PLAINTEXT", "PLAINTEXT", "elsewhere", 1),)), 0
        )
        await harness.store.set(znodes.broker_path(2), body)
        await harness.settle()
        endpoint = harness.metadata.brokers[2].endpoint("PLAINTEXT")
        assert endpoint is not None
        assert endpoint.host == "elsewhere"

    run(harness, scenario, 2)


def test_a_disk_that_fails_costs_the_leadership(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        harness.replicas[2].broken.add(T0)
        await create(harness, "t", [2, 1])
        await harness.settle()
        state = await harness.state("t")
        assert (state.leader, state.isr) == (1, (1,))
        assert harness.metadata.topics["t"].partitions[0].offline_replicas == (2,)

    run(harness, scenario, 2)


def test_writes_of_somebody_else_are_seen_before_deciding(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1, 3])
        state = await harness.state("t")
        # The leader shrinks the ISR and dies before the controller has heard of it.
        path = znodes.state_path("t", 0)
        await harness.store.set(path, znodes.encode_state(state._replace(isr=(2, 3))))
        await harness.broker_goes(2)
        await harness.settle()
        state = await harness.state("t")
        assert (state.leader, state.isr) == (3, (3,))

    run(harness, scenario, 2, 3)


def test_a_replaced_controller_cannot_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.set(znodes.CONTROLLER_EPOCH, b"7")  # as a new controller would
        await harness.store.create("/brokers/topics/t", b'{"version":1,"partitions":{"0":[1]}}')
        await harness.settle()
        # It stood again; /controller was still its own.
        assert harness.controller.epoch == 7
        assert harness.metadata.has_leaders("t", [0])

    run(harness, scenario)
    assert "not the controller any more" in caplog.text


def test_a_controller_whose_node_is_deleted_stands_again(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness)
        await harness.store.delete(znodes.CONTROLLER)
        await harness.settle()
        assert harness.controller.active
        assert harness.controller.epoch == 2
        assert harness.replicas[NODE].leaders[T0] == (NODE, 0)

    run(harness, scenario)


def test_another_controller_is_respected(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await harness.store.multi(
            [
                SetData(znodes.CONTROLLER, b"{}"),
            ]
        )
        await harness.store.delete(znodes.CONTROLLER)
        await harness.store.create(znodes.CONTROLLER, znodes.encode_controller(2, 0))
        await harness.settle()
        assert not harness.controller.active
        with pytest.raises(KafkaError) as caught:
            await harness.controller.list_reassignments(None)
        assert caught.value.code is ErrorCode.NOT_CONTROLLER
        await harness.store.delete(znodes.CONTROLLER)
        await harness.settle()
        assert harness.controller.active

    run(harness, scenario)


def test_elections_on_request(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    elect = harness

    async def scenario() -> None:
        await create(harness, "t", [2, 1], [1, 2], [2, 1])
        await create(harness, "dead", [3])
        await harness.broker_goes(2)
        await harness.broker_goes(3)
        await harness.settle()
        await harness.broker_comes(2)
        await harness.settle()
        await harness.shrink("t", 0, (1, 2))  # broker 2 has caught up on one partition
        await harness.settle()
        partitions = [
            T0,
            TopicPartition("t", 1),
            TopicPartition("t", 2),
            TopicPartition("t", 9),
            TopicPartition("dead", 0),
        ]
        outcomes = await elect.controller.elect_leaders(
            ElectionType.PREFERRED, partitions, timeout_ms=TIMEOUT_MS
        )
        assert {tp: code(error) for tp, error in outcomes.items()} == {
            partitions[0]: ErrorCode.NONE,
            partitions[1]: ErrorCode.ELECTION_NOT_NEEDED,
            partitions[2]: ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
            partitions[3]: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            partitions[4]: ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
        }
        assert (await harness.state("t")).leader == 2
        outcomes = await elect.controller.elect_leaders(
            ElectionType.UNCLEAN, None, timeout_ms=TIMEOUT_MS
        )
        assert {tp: code(error) for tp, error in outcomes.items()} == {
            partitions[0]: ErrorCode.ELECTION_NOT_NEEDED,
            partitions[1]: ErrorCode.ELECTION_NOT_NEEDED,
            partitions[2]: ErrorCode.ELECTION_NOT_NEEDED,
            partitions[4]: ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE,
        }

    run(harness, scenario, 2, 3)


def test_an_election_through_the_store(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1])
        await harness.broker_goes(2)
        await harness.settle()
        await harness.broker_comes(2)
        await harness.settle()
        await harness.shrink("t", 0, (1, 2))
        await harness.settle()
        await harness.store.create(znodes.PREFERRED_ELECTION, znodes.encode_partitions([T0]))
        await harness.settle()
        assert (await harness.state("t")).leader == 2
        assert await harness.store.exists(znodes.PREFERRED_ELECTION) is None

    run(harness, scenario, 2)


def test_controlled_shutdown_hands_over(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        await create(harness, "t", [2, 1], [1, 2])
        await create(harness, "single", [2])
        await create(harness, "alone", [2, 1])
        await harness.shrink("alone", 0, (2,))
        await harness.settle()
        remaining = await harness.controller.controlled_shutdown(2, -1)
        assert remaining == [TopicPartition("alone", 0)]  # nobody else is in sync
        assert (await harness.state("t", 0))[:3] == (1, 1, (1,))
        assert (await harness.state("t", 1)).isr == (1,)
        assert (await harness.state("single")).leader == 2  # its only replica
        assert sorted(harness.replicas[2].stopped) == [T0, ("t", 1)]
        assert await harness.controller.controlled_shutdown(2, -1) == remaining

    run(harness, scenario, 2)


def test_controlled_shutdown_of_strangers(tmp_path: Path) -> None:
    harness = Harness(tmp_path)

    async def scenario() -> None:
        with pytest.raises(KafkaError) as caught:
            await harness.controller.controlled_shutdown(9, -1)
        assert caught.value.code is ErrorCode.BROKER_NOT_AVAILABLE
        with pytest.raises(KafkaError) as caught:
            await harness.controller.controlled_shutdown(NODE, harness.epoch - 1)
        assert caught.value.code is ErrorCode.STALE_BROKER_EPOCH
        assert await harness.controller.controlled_shutdown(NODE, harness.epoch) == []

    run(harness, scenario)


def test_a_failing_store_makes_the_controller_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path)
    monkeypatch.setattr("kavka.replication.controller.controller.RETRY_S", 0)

    async def scenario() -> None:
        multi = harness.store.multi
        failures = iter([True])

        def failing(operations: object) -> "asyncio.Future[object]":
            if next(failures, False):
                future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                future.set_exception(StoreUnavailable("disk full"))
                return future
            return multi(operations)  # type: ignore[arg-type, return-value]

        await harness.store.create("/brokers/topics/t", b'{"version":1,"partitions":{"0":[1]}}')
        monkeypatch.setattr(harness.store, "multi", failing)
        await harness.metadata.wait_until(lambda: harness.metadata.has_leaders("t", [0]), 10)
        assert harness.metadata.has_leaders("t", [0])
        assert next(failures, None) is None

    run(harness, scenario)
