"""Every API asked by users with and without rights, over SASL, in every version."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from kavka.broker.authorization import CLUSTER_NAME, NOT_ASKED, Operation, Resource
from kavka.broker.dispatch import HANDLERS, offered_versions
from kavka.protocol import keys
from kavka.protocol.messages import k00_produce as k00
from kavka.protocol.messages import k01_fetch as k01
from kavka.protocol.messages import k03_metadata as k03
from kavka.protocol.messages import k08_offset_commit as k08
from kavka.protocol.messages import k09_offset_fetch as k09
from kavka.protocol.messages import k10_find_coordinator as k10
from kavka.protocol.messages import k15_describe_groups as k15
from kavka.protocol.messages import k16_list_groups as k16
from kavka.protocol.messages import k19_create_topics as k19
from kavka.protocol.messages import k20_delete_topics as k20
from kavka.protocol.messages import k22_init_producer_id as k22
from kavka.protocol.messages import k30_create_acls as k30
from kavka.protocol.messages import k31_delete_acls as k31
from kavka.protocol.messages import k60_describe_cluster as k60
from kavka.protocol.messages import k66_list_transactions as k66
from kavka.protocol.schema import ZERO_UUID, Message, Struct
from tests.broker_process import BrokerProcess, running_broker
from tests.process.acl_cases import (
    CASES,
    DENIALS,
    GROUP,
    MISSING,
    NOT_ATTEMPTED,
    TOPIC,
    TRANSACTION,
    Case,
    Right,
    records,
)
from tests.secured import ADMIN, log_in, sasl_address, settings
from tests.wire import WireClient, fetch_request, produce_request

OFFERED = offered_versions("latest")
ALLOW, DENY = 3, 2
LITERAL, PREFIXED = 3, 4
EYES: Sequence[Right] = (
    (Resource.TOPIC, "*", Operation.DESCRIBE),
    (Resource.GROUP, "*", Operation.DESCRIBE),
    (Resource.TRANSACTIONAL_ID, "*", Operation.DESCRIBE),
    (Resource.CLUSTER, CLUSTER_NAME, Operation.DESCRIBE),
)
USERS = (ADMIN, "nobody", "describer", "worker")


def client(broker: BrokerProcess, user: str) -> WireClient:
    """Somebody who has logged in."""
    return log_in(WireClient(int(sasl_address(broker).rpartition(":")[2])), user)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    data = tmp_path_factory.mktemp("acl") / "data"
    how = {**settings(USERS[1:]), "delegation.token.master.key": "master-secret"}
    with running_broker(data, how) as process:
        with client(process, "admin") as admin:
            create_topics(admin, TOPIC)
            give(admin, "describer", EYES)
        yield process


class Users(dict[str, WireClient]):
    """By name; each logs in when he is first needed."""

    def __init__(self, broker: BrokerProcess) -> None:
        super().__init__()
        self._broker = broker

    def __missing__(self, user: str) -> WireClient:
        wire = self[user] = client(self._broker, user)
        return wire


@pytest.fixture
def users(broker: BrokerProcess) -> Iterator[Users]:
    connected = Users(broker)
    yield connected
    for wire in connected.values():
        wire.socket.close()


def create_topics(admin: WireClient, *names: str) -> None:
    topics = [k19.CreatableTopic(name=n, num_partitions=1, replication_factor=1) for n in names]
    request = k19.CreateTopicsRequest(topics=topics, timeout_ms=10_000)
    answer = admin.ask(request, k19.CreateTopicsResponse, 3)
    assert {topic.error_code for topic in answer.topics} <= {0, 36}


def give(
    admin: WireClient,
    user: str,
    rights: Sequence[Right],
    *,
    permission: int = ALLOW,
    pattern: int = LITERAL,
    version: int = 3,
) -> None:
    creations = [
        k30.AclCreation(
            resource_type=resource,
            resource_name=name,
            resource_pattern_type=pattern,
            principal=f"User:{user}",
            host="*",
            operation=operation,
            permission_type=permission,
        )
        for resource, name, operation in rights
    ]
    request = k30.CreateAclsRequest(creations=creations)
    answer = admin.ask(request, k30.CreateAclsResponse, version)
    assert [result.error_code for result in answer.results] == [0] * len(rights)


def take_everything(admin: WireClient, user: str, version: int = 3) -> None:
    wanted = k31.DeleteAclsFilter(
        resource_type_filter=1,
        resource_name_filter=None,
        pattern_type_filter=1,
        principal_filter=f"User:{user}",
        host_filter=None,
        operation=1,
        permission_type=1,
    )
    answer = admin.ask(k31.DeleteAclsRequest(filters=[wanted]), k31.DeleteAclsResponse, version)
    assert [result.error_code for result in answer.filter_results] == [0]


def build(struct: type[Struct], fields: Mapping[str, Any]) -> Any:
    """A message of nested mappings."""
    declared = {field.name: field for field in struct.FIELDS}
    values = {}
    for name, value in fields.items():
        if name not in declared:
            continue  # of another version's request
        element = declared[name].element
        if isinstance(element, type) and isinstance(value, list):
            value = [build(element, each) for each in value]
        elif isinstance(element, type) and value is not None:
            value = build(element, value)
        values[name] = value
    return struct(**values)


def codes(answer: Struct) -> set[int]:
    """Every error code of an answer, but 0."""
    found = set()
    for field in type(answer).FIELDS:
        value = getattr(answer, field.name)
        if field.name == "topic_config_error_code":
            continue  # of a CreateTopics that went well: has a test of its own
        if field.name.endswith("error_code"):
            found.add(value)
        elif isinstance(value, Struct):
            found |= codes(value)
        elif isinstance(value, list):
            found = found.union(*(codes(each) for each in value if isinstance(each, Struct)))
    return found - {0}


def topic_id(admin: WireClient, name: str) -> bytes:
    request = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(name=name)])
    request.allow_auto_topic_creation = False
    (topic,) = admin.ask(request, k03.MetadataResponse, 12).topics
    return topic.topic_id


def versions(case: Case) -> range:
    low, high = OFFERED[case.key]
    return range(max(low, case.versions[0]), min(high, case.versions[1]) + 1)


def ask(wire: WireClient, case: Case, version: int, topic: str, identity: bytes) -> Message:
    request, response = keys.message_classes(case.key)
    return wire.ask(build(request, case.fields(topic, identity)), response, version)


def denials(answer: Message) -> set[int]:
    return codes(answer) & (DENIALS | {NOT_ATTEMPTED})


def expect(answer: Message, code: int, case: Case, version: int) -> None:
    if code and version >= case.silent_before:
        assert denials(answer) - {NOT_ATTEMPTED} == {code}, (version, answer)
        assert codes(answer) <= {code, NOT_ATTEMPTED}, (version, answer)
    else:
        assert not denials(answer), (version, answer)


IDS = [f"{case.key}-{case.name}" for case in CASES]


def test_every_api_has_its_case() -> None:
    assert {case.key for case in CASES} == set(HANDLERS)
    for key, (low, high) in OFFERED.items():
        asked = {version for case in CASES if case.key == key for version in versions(case)}
        missing = set(range(low, high + 1)) - asked
        # Old versions of which one has its own test, or could not be asked without doing it.
        assert missing <= {19: {0}}.get(key, set()), key


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_who_may_not_is_refused_and_who_may_describe_is_not_let_do_more(
    case: Case, users: Users
) -> None:
    identity = topic_id(users["admin"], TOPIC)
    for version in versions(case):
        expect(ask(users["nobody"], case, version, TOPIC, identity), case.denied, case, version)
        seen = ask(users["describer"], case, version, TOPIC, identity)
        expect(seen, case.describer, case, version)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_who_may_is_let(case: Case, users: Users) -> None:
    identity = topic_id(users["admin"], TOPIC)
    take_everything(users["admin"], "worker")
    give(users["admin"], "worker", case.needs)
    for version in versions(case):
        answer = ask(users["worker"], case, version, TOPIC, identity)
        assert not denials(answer), (version, answer)


@pytest.mark.parametrize("case", [c for c in CASES if c.partly], ids=lambda c: f"{c.key}-{c.name}")
def test_who_has_half_of_it_is_refused_the_other(case: Case, users: Users) -> None:
    identity = topic_id(users["admin"], TOPIC)
    for rights, code in case.partly:
        take_everything(users["admin"], "worker")
        give(users["admin"], "worker", rights)
        for version in versions(case):
            answer = ask(users["worker"], case, version, TOPIC, identity)
            expect(answer, code, case, version)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.names_topic], ids=lambda c: f"{c.key}-{c.name}"
)
def test_nobody_learns_whether_a_topic_exists(case: Case, users: Users) -> None:
    for version in versions(case):
        there = ask(users["nobody"], case, version, TOPIC, ZERO_UUID)
        missing = ask(users["nobody"], case, version, MISSING, ZERO_UUID)
        assert repr(there).replace(TOPIC, MISSING) == repr(missing)


# -- what is left out rather than refused -------------------------------------------------------


def test_lists_hold_what_may_be_described(users: Users) -> None:
    admin, worker = users["admin"], users["worker"]
    take_everything(admin, "worker")
    create_topics(admin, "t-list-1", "t-list-2", "u-list")
    give(admin, "worker", [(Resource.TOPIC, "t-list-", Operation.WRITE)], pattern=PREFIXED)
    everything = k03.MetadataRequest(topics=None)
    for version in range(1, 13):
        listed = worker.ask(everything, k03.MetadataResponse, version)
        assert sorted(str(topic.name) for topic in listed.topics) == ["t-list-1", "t-list-2"]
    assert users["nobody"].ask(everything, k03.MetadataResponse, 12).topics == []
    oldest = users["nobody"].ask(k03.MetadataRequest(topics=[]), k03.MetadataResponse, 0)
    assert oldest.topics == []
    seen = users["describer"].ask(everything, k03.MetadataResponse, 12)
    assert {TOPIC, "u-list"} <= {topic.name for topic in seen.topics}


def test_a_topic_that_may_not_be_described_has_no_id(users: Users) -> None:
    admin, nobody = users["admin"], users["nobody"]
    identity = topic_id(admin, TOPIC)
    for asked in (identity, b"\7" * 16):
        request = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(topic_id=asked, name=None)])
        (topic,) = nobody.ask(request, k03.MetadataResponse, 12).topics
        assert (topic.error_code, topic.name, topic.topic_id) == (100, None, asked)
    deletion = k20.DeleteTopicsRequest(topics=[k20.DeleteTopicState(topic_id=identity, name=None)])
    (result,) = nobody.ask(deletion, k20.DeleteTopicsResponse, 6).responses
    assert (result.error_code, result.name) == (29, None)
    (result,) = users["describer"].ask(deletion, k20.DeleteTopicsResponse, 6).responses
    assert (result.error_code, result.name) == (29, TOPIC)


def commit(wire: WireClient, group: str, topic: str) -> None:

    partition = k08.OffsetCommitRequestPartition(partition_index=0, committed_offset=5)
    topics = [k08.OffsetCommitRequestTopic(name=topic, partitions=[partition])]
    request = k08.OffsetCommitRequest(group_id=group, topics=topics)
    answer = wire.ask(request, k08.OffsetCommitResponse, 8)
    assert answer.topics[0].partitions[0].error_code == 0


def test_groups_and_their_offsets_are_listed_as_far_as_they_may_be_described(
    users: Users,
) -> None:

    admin, worker = users["admin"], users["worker"]
    take_everything(admin, "worker")
    create_topics(admin, "t-offsets")
    while admin.ask(
        k10.FindCoordinatorRequest(key=GROUP), k10.FindCoordinatorResponse, 0
    ).error_code:
        pass
    for group in (GROUP, "h-there"):
        commit(admin, group, TOPIC)
        commit(admin, group, "t-offsets")
    give(
        admin,
        "worker",
        [
            (Resource.GROUP, GROUP, Operation.READ),
            (Resource.TOPIC, "t-offsets", Operation.READ),
        ],
    )

    def listed(wire: WireClient) -> set[str]:
        answer = wire.ask(k16.ListGroupsRequest(), k16.ListGroupsResponse, 4)
        return {group.group_id for group in answer.groups}

    assert listed(users["nobody"]) == set()
    assert listed(worker) == {GROUP}
    assert {GROUP, "h-there"} <= listed(users["describer"])
    wanted = k09.OffsetFetchRequest(group_id=GROUP, topics=None)
    for version in range(2, 8):
        answer = worker.ask(wanted, k09.OffsetFetchResponse, version)
        assert [topic.name for topic in answer.topics] == ["t-offsets"]
    groups = [
        k09.OffsetFetchRequestGroup(group_id=name, topics=None) for name in (GROUP, "h-there")
    ]
    answer = worker.ask(k09.OffsetFetchRequest(groups=groups), k09.OffsetFetchResponse, 8)
    assert [group.error_code for group in answer.groups] == [0, 30]
    assert [topic.name for topic in answer.groups[0].topics] == ["t-offsets"]


def test_transactions_are_listed_as_far_as_they_may_be_described(
    users: Users,
) -> None:

    admin, worker = users["admin"], users["worker"]
    take_everything(admin, "worker")
    for name in (TRANSACTION, "y-there"):
        request = k22.InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
        while admin.ask(request, k22.InitProducerIdResponse, 2).error_code:
            coordinator(admin, name)
    give(admin, "worker", [(Resource.TRANSACTIONAL_ID, TRANSACTION, Operation.WRITE)])

    def listed(wire: WireClient) -> set[str]:
        answer = wire.ask(k66.ListTransactionsRequest(), k66.ListTransactionsResponse, 0)
        return {each.transactional_id for each in answer.transaction_states}

    assert listed(users["nobody"]) == set()
    assert listed(worker) == {TRANSACTION}
    assert {TRANSACTION, "y-there"} <= listed(users["describer"])


def coordinator(wire: WireClient, transactional_id: str) -> None:

    request = k10.FindCoordinatorRequest(key=transactional_id, key_type=1)
    wire.ask(request, k10.FindCoordinatorResponse, 1)


# -- authorized operations (KIP-430) ------------------------------------------------------------


def bits(*operations: Operation) -> int:
    return sum(1 << operation for operation in operations)


def test_authorized_operations_are_those_that_are_allowed(users: Users) -> None:
    admin, worker = users["admin"], users["worker"]
    take_everything(admin, "worker")
    read_write = [(Resource.TOPIC, TOPIC, op) for op in (Operation.READ, Operation.ALTER_CONFIGS)]
    group = [(Resource.GROUP, GROUP, Operation.DELETE)]
    give(admin, "worker", [*read_write, *group])
    named = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(name=TOPIC)])
    named.include_topic_authorized_operations = True
    named.include_cluster_authorized_operations = True
    for version in range(8, 13):
        answer = worker.ask(named, k03.MetadataResponse, version)
        assert answer.topics[0].topic_authorized_operations == bits(
            Operation.READ,
            Operation.DESCRIBE,
            Operation.ALTER_CONFIGS,
            Operation.DESCRIBE_CONFIGS,
        )
        if version <= 10:
            assert answer.cluster_authorized_operations == 0
    everything = admin.ask(named, k03.MetadataResponse, 12)
    assert everything.topics[0].topic_authorized_operations == bits(
        *(Operation.READ, Operation.WRITE, Operation.CREATE, Operation.DELETE, Operation.ALTER),
        *(Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS),
    )
    groups = k15.DescribeGroupsRequest(groups=[GROUP, "h-there"])
    groups.include_authorized_operations = True
    mine, other = worker.ask(groups, k15.DescribeGroupsResponse, 5).groups
    assert mine.authorized_operations == bits(Operation.DELETE, Operation.DESCRIBE)
    assert (other.error_code, other.authorized_operations) == (30, NOT_ASKED)
    cluster = k60.DescribeClusterRequest(include_cluster_authorized_operations=True)
    answers = {user: users[user].ask(cluster, k60.DescribeClusterResponse, 1) for user in USERS}
    assert all(answer.brokers for answer in answers.values())
    told = {user: answer.cluster_authorized_operations for user, answer in answers.items()}
    assert told == {
        "nobody": 0,
        "worker": 0,
        "describer": bits(Operation.DESCRIBE),
        "admin": bits(
            *(Operation.CREATE, Operation.ALTER, Operation.DESCRIBE, Operation.CLUSTER_ACTION),
            *(Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS, Operation.IDEMPOTENT_WRITE),
        ),
    }


def test_settings_of_a_new_topic_are_told_to_who_may_read_them(
    users: Users,
) -> None:
    admin, worker = users["admin"], users["worker"]
    take_everything(admin, "worker")
    give(admin, "worker", [(Resource.TOPIC, "t-new", Operation.CREATE)])
    topic = k19.CreatableTopic(name="t-new", num_partitions=1, replication_factor=1)
    request = k19.CreateTopicsRequest(topics=[topic], timeout_ms=5000, validate_only=True)
    (result,) = worker.ask(request, k19.CreateTopicsResponse, 7).topics
    assert (result.error_code, result.topic_config_error_code) == (0, 29)
    assert (result.configs, result.num_partitions, result.replication_factor) == (None, -1, -1)
    give(admin, "worker", [(Resource.TOPIC, "t-new", Operation.DESCRIBE_CONFIGS)])
    (result,) = worker.ask(request, k19.CreateTopicsResponse, 7).topics
    assert (result.topic_config_error_code, result.num_partitions) == (0, 1)
    assert result.configs


# -- what takes effect when ---------------------------------------------------------------------


def test_a_right_taken_away_ends_a_waiting_fetch(users: Users) -> None:

    admin, worker = users["admin"], users["worker"]
    take_everything(admin, "worker")
    create_topics(admin, "t-waited")
    give(admin, "worker", [(Resource.TOPIC, "t-waited", Operation.READ)])
    worker.send(fetch_request("t-waited", 0, max_wait_ms=60_000), 11)
    give(admin, "worker", [(Resource.TOPIC, "t-waited", Operation.READ)], permission=DENY)
    answer = admin.ask(produce_request("t-waited", records(), acks=1), k00.ProduceResponse, 7)
    assert answer.responses[0].partition_responses[0].error_code == 0
    fetched = worker.receive(k01.FetchResponse, 11)
    assert fetched.responses[0].partitions[0].error_code == 29


def test_whoever_comes_without_a_name_is_anonymous(broker: BrokerProcess, users: Users) -> None:
    admin = users["admin"]
    named = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(name=TOPIC)])
    with WireClient(broker.port) as nameless:
        (topic,) = nameless.ask(named, k03.MetadataResponse, 9).topics
        assert topic.error_code == 29
        give(admin, "ANONYMOUS", [(Resource.TOPIC, TOPIC, Operation.DESCRIBE)])
        (topic,) = nameless.ask(named, k03.MetadataResponse, 9).topics
        assert topic.error_code == 0
    take_everything(admin, "ANONYMOUS")


# -- the audit log ------------------------------------------------------------------------------


def test_what_was_done_and_what_was_refused_is_on_record(
    broker: BrokerProcess, users: Users
) -> None:
    create_topics(users["admin"], "t-on-record")
    request = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(name="t not\nfor me")])
    users["nobody"].ask(request, k03.MetadataResponse, 9)
    lines = [line for line in broker.log().splitlines() if " audit: " in line]
    assert any(
        re.search(
            r"CreateTopics done resource=Topic:t-on-record principal=User:admin host=127\.0\.0\.1 "
            r"listener=SASL_PLAINTEXT client_id=wire$",
            line,
        )
        for line in lines
    )
    for case in CASES:
        if case.denied:
            name = keys.api_name(case.key)
            assert any(f" {name} denied " in line for line in lines), name
