"""What clients of every era ask of the group coordinator, frame by frame."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kavka.broker.coordination.on_demand import OnDemand
from kavka.broker.dispatch import HANDLERS
from kavka.broker.groups.offsets import CommittedOffset
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages import k08_offset_commit as k08
from kavka.protocol.messages import k09_offset_fetch as k09
from kavka.protocol.messages import k10_find_coordinator as k10
from kavka.protocol.messages import k11_join_group as k11
from kavka.protocol.messages import k12_heartbeat as k12
from kavka.protocol.messages import k13_leave_group as k13
from kavka.protocol.messages import k14_sync_group as k14
from kavka.protocol.messages import k15_describe_groups as k15
from kavka.protocol.messages import k16_list_groups as k16
from kavka.protocol.messages import k19_create_topics as k19
from kavka.protocol.messages import k42_delete_groups as k42
from kavka.protocol.messages import k47_offset_delete as k47
from kavka.protocol.topics import (
    GROUP_METADATA_TOPIC,
    TRANSACTION_STATE_TOPIC,
    TopicPartition,
)
from tests.unit.broker.admin.harness import Admin, run
from tests.unit.broker.groups.harness import AT_ONCE, T0, T1, Harness
from tests.unit.replication.conftest import tmp_path

__all__ = ["tmp_path"]

UNKNOWN = TopicPartition("unknown", 0)


def versions(key: int) -> range:
    entry = HANDLERS[key]
    return range(entry.min_version, entry.max_version + 1)


class Client(Admin):
    """One broker with a coordinator and topic ``t`` of two partitions, and a client."""

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        super().__init__(directory, settings)
        self.coordinator = Harness(AT_ONCE)

    async def start(self, *others: int) -> None:
        await super().start(*others)
        self.broker.store = self.harness.store
        self.broker.groups_on_demand = OnDemand(lambda: self.coordinator.groups)
        topic = k19.CreatableTopic(name="t", num_partitions=2, replication_factor=1)
        created = await self.ask(
            5, k19.CreateTopicsRequest(topics=[topic], timeout_ms=5_000), k19.CreateTopicsResponse
        )
        assert created.topics[0].error_code == 0

    async def join(
        self, version: int, member_id: str = "", group_id: str = "g", **fields: Any
    ) -> k11.JoinGroupResponse:
        fields.setdefault("protocol_type", "consumer")
        request = k11.JoinGroupRequest(
            group_id=group_id,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=60_000,
            member_id=member_id,
            protocols=[k11.JoinGroupRequestProtocol(name="range", metadata=b"sub")],
            **fields,
        )
        return await self.ask(version, request, k11.JoinGroupResponse)


def play(directory: Path, scenario: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    client = Client(directory)
    run(client, lambda: scenario(client))


# -- membership -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(11))
def test_join_sync_heartbeat_leave(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        joined = await client.join(version)
        if version >= 4:
            assert joined.error_code == ErrorCode.MEMBER_ID_REQUIRED
            assert joined.protocol_name == (None if version >= 7 else "")
            assert (joined.generation_id, joined.leader, joined.members) == (-1, "", [])
            joined = await client.join(version, joined.member_id)
        assert joined.error_code == 0
        assert joined.member_id == joined.leader == "me-1"
        assert joined.protocol_name == "range"
        assert joined.protocol_type == ("consumer" if version >= 7 else None)
        assert [(m.member_id, m.metadata) for m in joined.members] == [("me-1", b"sub")]

        sync_version = min(version, 5)
        sync = k14.SyncGroupRequest(
            group_id="g",
            generation_id=1,
            member_id="me-1",
            protocol_type="consumer",
            protocol_name="range",
            assignments=[k14.SyncGroupRequestAssignment(member_id="me-1", assignment=b"all")],
        )
        synced = await client.ask(sync_version, sync, k14.SyncGroupResponse)
        assert (synced.error_code, synced.assignment) == (0, b"all")
        if sync_version >= 5:
            assert (synced.protocol_type, synced.protocol_name) == ("consumer", "range")

        beat = k12.HeartbeatRequest(group_id="g", generation_id=1, member_id="me-1")
        heard = await client.ask(min(version, 4), beat, k12.HeartbeatResponse)
        assert heard.error_code == 0

        (described,) = client.coordinator.groups.describe("g")[1].members
        assert (described.client_id, described.client_host) == ("me", "/127.0.0.1")

        leave_version = min(version, 5)
        leave = k13.LeaveGroupRequest(
            group_id="g",
            member_id="me-1",
            members=[k13.MemberIdentity(member_id="me-1"), k13.MemberIdentity(member_id="x")],
        )
        left = await client.ask(leave_version, leave, k13.LeaveGroupResponse)
        assert left.error_code == 0
        if leave_version >= 3:
            assert [(m.member_id, m.error_code) for m in left.members] == [
                ("me-1", 0),
                ("x", ErrorCode.UNKNOWN_MEMBER_ID),
            ]
        left = await client.ask(0, leave, k13.LeaveGroupResponse)
        assert left.error_code == ErrorCode.UNKNOWN_MEMBER_ID

    play(tmp_path, scenario)


def test_before_v1_the_session_timeout_is_the_rebalance_timeout(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.join(0, group_id="old")
        await client.join(1, group_id="new")
        old, new = client.coordinator.groups.find("old"), client.coordinator.groups.find("new")
        assert old is not None
        assert new is not None
        assert old.members["me-1"].rebalance_timeout_ms == 10_000
        assert new.members["me-2"].rebalance_timeout_ms == 60_000

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", [5, 9])
def test_static_members(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        joined = await client.join(version, group_instance_id="i")
        assert joined.member_id == "i-1"
        assert joined.members[0].group_instance_id == "i"
        sync = k14.SyncGroupRequest(group_id="g", generation_id=1, member_id="i-1")
        sync.group_instance_id = "i"
        await client.ask(3, sync, k14.SyncGroupResponse)
        back = await client.join(version, group_instance_id="i")
        assert (back.error_code, back.generation_id, back.member_id) == (0, 1, "i-2")
        assert back.leader == ("i-2" if version == 9 else "i-1")
        assert back.skip_assignment == (version == 9)
        synced = await client.ask(3, sync, k14.SyncGroupResponse)
        assert synced.error_code == ErrorCode.FENCED_INSTANCE_ID
        beat = k12.HeartbeatRequest(group_id="g", generation_id=1, member_id="i-1")
        beat.group_instance_id = "i"
        heard = await client.ask(3, beat, k12.HeartbeatResponse)
        assert heard.error_code == ErrorCode.FENCED_INSTANCE_ID
        leave = k13.LeaveGroupRequest(
            group_id="g", members=[k13.MemberIdentity(group_instance_id="i", reason="admin")]
        )
        left = await client.ask(5, leave, k13.LeaveGroupResponse)
        assert [(m.group_instance_id, m.error_code) for m in left.members] == [("i", 0)]

    play(tmp_path, scenario)


def test_sync_v5_has_to_name_the_protocol(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.join(3)
        sync = k14.SyncGroupRequest(group_id="g", generation_id=1, member_id="me-1")
        synced = await client.ask(5, sync, k14.SyncGroupResponse)
        assert synced.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        synced = await client.ask(4, sync, k14.SyncGroupResponse)
        assert synced.error_code == 0

    play(tmp_path, scenario)


# -- offsets ----------------------------------------------------------------------------------


def commit_request(offset: int, **fields: Any) -> k08.OffsetCommitRequest:
    return k08.OffsetCommitRequest(
        group_id="g",
        topics=[
            k08.OffsetCommitRequestTopic(
                name=name,
                partitions=[
                    k08.OffsetCommitRequestPartition(
                        partition_index=index,
                        committed_offset=offset + index,
                        committed_leader_epoch=4,
                        commit_timestamp=fields.pop("timestamp", -1),
                        committed_metadata=metadata,
                    )
                    for index, metadata in partitions
                ],
            )
            for name, partitions in (
                ("t", [(0, "note"), (1, None), (2, "")]),
                ("unknown", [(0, "")]),
            )
        ],
        **fields,
    )


@pytest.mark.parametrize("version", versions(8))
def test_commit_and_fetch(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        committed = await client.ask(version, commit_request(40), k08.OffsetCommitResponse)
        codes = {t.name: [p.error_code for p in t.partitions] for t in committed.topics}
        assert codes == {"t": [0, 0, 3], "unknown": [3]}
        keeper = client.coordinator.groups.offsets
        _, found = keeper.fetch("g", [T0, T1])
        if version == 0:
            assert [f.value for f in found] == [None, None]  # they are in the metadata store
            for path, data in (("t/0", b"40"), ("t/1", b"41")):
                stored = await client.broker.store.get(f"/consumers/g/offsets/{path}")
                assert stored[0] == data
            await client.ask(0, commit_request(50), k08.OffsetCommitResponse)
            assert (await client.broker.store.get("/consumers/g/offsets/t/0"))[0] == b"50"
        else:
            epoch = 4 if version >= 6 else -1
            now = client.broker.clock.wall_ms()
            assert [f.value for f in found] == [
                CommittedOffset(40, epoch, "note", now),
                CommittedOffset(41, epoch, "", now),
            ]

    play(tmp_path, scenario)


def test_timestamps_and_retention_of_their_own(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        now = client.broker.clock.wall_ms()
        offsets = client.coordinator.groups.offsets

        def kept() -> CommittedOffset | None:
            return offsets.fetch("g", [T0])[1][0].value

        await client.ask(1, commit_request(1, timestamp=77), k08.OffsetCommitResponse)
        assert kept() == CommittedOffset(1, -1, "note", 77)
        await client.ask(2, commit_request(2, retention_time_ms=500), k08.OffsetCommitResponse)
        assert kept() == CommittedOffset(2, -1, "note", now, now + 500)
        longest = 2**63 - 1
        await client.ask(2, commit_request(3, retention_time_ms=longest), k08.OffsetCommitResponse)
        assert kept() == CommittedOffset(3, -1, "note", now, longest)

    play(tmp_path, scenario)


def test_commits_of_members(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.join(5, group_instance_id="i")
        sync = k14.SyncGroupRequest(group_id="g", generation_id=1, member_id="i-1")
        await client.ask(2, sync, k14.SyncGroupResponse)
        request = commit_request(1, member_id="i-1", generation_id_or_member_epoch=1)
        request.group_instance_id = "i"

        async def code() -> int:
            answer = await client.ask(7, request, k08.OffsetCommitResponse)
            assert answer.topics[1].partitions[0].error_code == 3
            return answer.topics[0].partitions[0].error_code

        assert await code() == 0
        request.generation_id_or_member_epoch = 2
        assert await code() == ErrorCode.ILLEGAL_GENERATION
        request.group_instance_id = "j"
        assert await code() == ErrorCode.UNKNOWN_MEMBER_ID
        await client.join(5, group_instance_id="i")
        request.group_instance_id = "i"
        assert await code() == ErrorCode.FENCED_INSTANCE_ID

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", versions(9))
def test_fetch(tmp_path: Path, version: int) -> None:
    names = [("t", [0, 1]), ("unknown", [0])]

    def request(group_id: str, everything: bool = False) -> k09.OffsetFetchRequest:
        single = [k09.OffsetFetchRequestTopic(name=n, partition_indexes=p) for n, p in names]
        several = [k09.OffsetFetchRequestTopics(name=n, partition_indexes=p) for n, p in names]
        return k09.OffsetFetchRequest(
            group_id=group_id,
            topics=None if everything else single,
            groups=[
                k09.OffsetFetchRequestGroup(
                    group_id=group_id, topics=None if everything else several
                ),
                k09.OffsetFetchRequestGroup(group_id="other", topics=None),
            ],
        )

    async def scenario(client: Client) -> None:
        if version == 0:
            await client.ask(0, commit_request(40), k08.OffsetCommitResponse)
        else:
            value = CommittedOffset(40, 4, "note")
            client.coordinator.start_commit({T0: value, UNKNOWN: value})
            client.coordinator.start_commit({T1: value}, group="other")

        async def ask(group_id: str, everything: bool = False) -> tuple[int, dict[str, Any]]:
            answer = await client.ask(
                version, request(group_id, everything), k09.OffsetFetchResponse
            )
            error = answer.error_code
            topics: Any = answer.topics
            if version >= 8:
                assert [group.group_id for group in answer.groups] == [group_id, "other"]
                error, topics = answer.groups[0].error_code, answer.groups[0].topics
                assert [t.name for t in answer.groups[1].topics] == ["t"]
            return error, {
                f"{t.name}-{p.partition_index}": (
                    p.committed_offset,
                    p.committed_leader_epoch,
                    p.metadata,
                    p.error_code,
                )
                for t in topics
                for p in t.partitions
            }

        epoch = 4 if version >= 5 else -1
        nothing = (-1, -1, "", 0)
        found = (40, epoch, "note", 0)
        if version == 0:
            # Nothing kept and no such partition look the same here, and metadata is not kept.
            assert (await ask("g"))[1] == {
                "t-0": (40, -1, "", 0),
                "t-1": (41, -1, "", 0),
                "unknown-0": (-1, -1, "", 3),
            }
            assert (await ask("nobody"))[1]["t-0"] == (-1, -1, "", 3)
        else:
            assert await ask("g") == (0, {"t-0": found, "t-1": nothing, "unknown-0": found})
            assert set((await ask("nobody"))[1].values()) == {nothing}
        if version >= 2:
            assert await ask("g", everything=True) == (0, {"t-0": found, "unknown-0": found})
            assert await ask("nobody", everything=True) == (0, {})

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", versions(9)[1:])
def test_where_a_fetch_finds_its_error(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        client.coordinator.groups.on_resigned(0)
        topic = k09.OffsetFetchRequestTopic(name="t", partition_indexes=[0])
        topics = k09.OffsetFetchRequestTopics(name="t", partition_indexes=[0])
        answer = await client.ask(
            version,
            k09.OffsetFetchRequest(
                group_id="g",
                topics=[topic],
                groups=[k09.OffsetFetchRequestGroup(group_id="g", topics=[topics])],
            ),
            k09.OffsetFetchResponse,
        )
        code = ErrorCode.NOT_COORDINATOR
        if version < 2:
            assert answer.topics[0].partitions[0].error_code == code
        elif version < 8:
            assert (answer.error_code, answer.topics) == (code, [])
        else:
            assert (answer.groups[0].error_code, answer.groups[0].topics) == (code, [])

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", [7, 9])
def test_stable_offsets(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        client.coordinator.commit(1)
        client.coordinator.log.replicates = False
        client.coordinator.start_commit({T0: CommittedOffset(2)})
        request = k09.OffsetFetchRequest(
            group_id="g", groups=[k09.OffsetFetchRequestGroup(group_id="g", topics=None)]
        )
        request.topics = None
        for stable in (False, True):
            request.require_stable = stable
            answer = await client.ask(version, request, k09.OffsetFetchResponse)
            topics: Any = answer.topics if version < 8 else answer.groups[0].topics
            (partition,) = topics[0].partitions
            assert (partition.committed_offset, partition.error_code) == (
                (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT) if stable else (1, 0)
            )

    play(tmp_path, scenario)


# -- finding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(10))
def test_the_first_search_makes_the_topic(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        request = k10.FindCoordinatorRequest(key="g", coordinator_keys=["g", "h"])
        answer = await client.ask(version, request, k10.FindCoordinatorResponse)
        nodes = (
            [(c.error_code, c.node_id, c.host, c.port) for c in answer.coordinators]
            if version >= 4
            else [(answer.error_code, answer.node_id, answer.host, answer.port)]
        )
        assert nodes == [(0, 1, "host1", 9092)] * (2 if version >= 4 else 1)
        if version >= 4:
            assert [c.key for c in answer.coordinators] == ["g", "h"]
        topic = client.broker.metadata.topics[GROUP_METADATA_TOPIC]
        assert len(topic.partitions) == 50
        configs = await client.harness.configs.read("topics", GROUP_METADATA_TOPIC)
        assert configs == {
            "cleanup.policy": "compact",
            "segment.bytes": "104857600",
            "compression.type": "producer",
        }
        assert (await client.ask(version, request, k10.FindCoordinatorResponse)) == answer

    play(tmp_path, scenario)


def test_several_clients_search_at_once(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        request = k10.FindCoordinatorRequest(key="g")
        answers = await asyncio.gather(
            *(client.ask(2, request, k10.FindCoordinatorResponse) for _ in range(5))
        )
        assert [(a.error_code, a.node_id) for a in answers] == [(0, 1)] * 5

    play(tmp_path, scenario)


def test_the_coordinator_of_a_transaction(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        request = k10.FindCoordinatorRequest(key="tx", key_type=1)
        answer = await client.ask(2, request, k10.FindCoordinatorResponse)
        assert (answer.error_code, answer.node_id) == (0, 1)
        topic = client.broker.metadata.topics[TRANSACTION_STATE_TOPIC]
        assert len(topic.partitions) == 50
        configs = await client.harness.configs.read("topics", TRANSACTION_STATE_TOPIC)
        assert configs == {
            "cleanup.policy": "compact",
            "segment.bytes": "104857600",
            "compression.type": "uncompressed",
            "unclean.leader.election.enable": "false",
            "min.insync.replicas": "1",
        }
        assert GROUP_METADATA_TOPIC not in client.broker.metadata.topics

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", [2, 6])
def test_coordinators_of_unknown_kinds(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        request = k10.FindCoordinatorRequest(key="x", key_type=2, coordinator_keys=["x"])
        answer = await client.ask(version, request, k10.FindCoordinatorResponse)
        found = answer.coordinators[0] if version >= 4 else answer
        assert (found.error_code, found.node_id, found.host, found.port) == (
            *(ErrorCode.INVALID_REQUEST, -1),
            *("", -1),
        )
        assert set(client.broker.metadata.topics) == {"t"}

    play(tmp_path, scenario)


def test_without_enough_brokers_there_is_no_coordinator(tmp_path: Path) -> None:
    client = Client(tmp_path, {"offsets.topic.replication.factor": "3"})

    async def scenario() -> None:
        request = k10.FindCoordinatorRequest(key="g")
        answer = await client.ask(1, request, k10.FindCoordinatorResponse)
        assert (answer.error_code, answer.node_id, answer.host, answer.port) == (
            *(ErrorCode.COORDINATOR_NOT_AVAILABLE, -1),
            *("", -1),
        )
        assert GROUP_METADATA_TOPIC not in client.broker.metadata.topics

    run(client, scenario)


def test_a_coordinator_that_the_listener_cannot_reach(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        request = k10.FindCoordinatorRequest(key="g")
        answer = await client.ask(1, request, k10.FindCoordinatorResponse, "ELSEWHERE")
        assert answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE

    play(tmp_path, scenario)


# -- looking and deleting ---------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(15))
def test_describe(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        client.coordinator.stable(metadata=b"sub")
        request = k15.DescribeGroupsRequest(groups=["g", "nobody"])
        answer = await client.ask(version, request, k15.DescribeGroupsResponse)
        described, unknown = answer.groups
        assert (described.error_code, described.group_id, described.group_state) == (
            *(0, "g"),
            "Stable",
        )
        assert (described.protocol_type, described.protocol_data) == ("consumer", "range")
        (member,) = described.members
        assert (member.member_id, member.client_id, member.client_host) == (
            *("c-1", "c"),
            "/127.0.0.1",
        )
        assert (member.member_metadata, member.member_assignment) == (b"sub", b"all")
        assert (unknown.error_code, unknown.group_state, unknown.members) == (0, "Dead", [])
        if version >= 3:
            assert described.authorized_operations == -(2**31)
            request.include_authorized_operations = True
            answer = await client.ask(version, request, k15.DescribeGroupsResponse)
            assert answer.groups[0].authorized_operations == 1 << 3 | 1 << 6 | 1 << 8

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", versions(16))
def test_list(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        client.coordinator.stable("s")
        client.coordinator.commit(1, group="e")
        request = k16.ListGroupsRequest(states_filter=["Empty"], types_filter=["classic"])
        answer = await client.ask(version, request, k16.ListGroupsResponse)
        assert answer.error_code == 0
        listed = [(g.group_id, g.protocol_type, g.group_state, g.group_type) for g in answer.groups]
        state, kind = ("Empty" if version >= 4 else ""), ("Classic" if version >= 5 else "")
        assert listed[-1] == ("e", "", state, kind)
        assert len(listed) == (1 if version >= 4 else 2)

    play(tmp_path, scenario)


@pytest.mark.parametrize("version", versions(42))
def test_delete_groups(tmp_path: Path, version: int) -> None:
    async def scenario(client: Client) -> None:
        client.coordinator.stable("s")
        client.coordinator.commit(1, group="e")
        request = k42.DeleteGroupsRequest(groups_names=["s", "e", "nobody"])
        answer = await client.ask(version, request, k42.DeleteGroupsResponse)
        assert {r.group_id: r.error_code for r in answer.results} == {
            "s": ErrorCode.NON_EMPTY_GROUP,
            "e": 0,
            "nobody": ErrorCode.GROUP_ID_NOT_FOUND,
        }

    play(tmp_path, scenario)


def test_delete_offsets(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        client.coordinator.commit(1)
        client.coordinator.commit(2, T1)
        request = k47.OffsetDeleteRequest(
            group_id="g",
            topics=[
                k47.OffsetDeleteRequestTopic(
                    name=name,
                    partitions=[k47.OffsetDeleteRequestPartition(partition_index=0)],
                )
                for name in ("t", "unknown")
            ],
        )
        answer = await client.ask(0, request, k47.OffsetDeleteResponse)
        assert answer.error_code == 0
        assert [(t.name, t.partitions[0].error_code) for t in answer.topics] == [
            ("t", 0),
            ("unknown", 3),
        ]
        assert client.coordinator.fetch(partition=T1) == 2
        request.group_id = "nobody"
        answer = await client.ask(0, request, k47.OffsetDeleteResponse)
        assert (answer.error_code, answer.topics) == (ErrorCode.GROUP_ID_NOT_FOUND, [])

    play(tmp_path, scenario)


@pytest.mark.parametrize("group_id", ["a/b", "..", "", "a\0b"])
def test_names_that_are_no_path_in_the_store(tmp_path: Path, group_id: str) -> None:
    async def scenario(client: Client) -> None:
        request = commit_request(1)
        request.group_id = group_id
        answer = await client.ask(0, request, k08.OffsetCommitResponse)
        assert answer.topics[0].partitions[0].error_code == ErrorCode.INVALID_GROUP_ID
        topic = k09.OffsetFetchRequestTopic(name="t", partition_indexes=[0])
        fetch = k09.OffsetFetchRequest(group_id=group_id, topics=[topic])
        found = await client.ask(0, fetch, k09.OffsetFetchResponse)
        assert found.topics[0].partitions[0].error_code == ErrorCode.INVALID_GROUP_ID

    play(tmp_path, scenario)
