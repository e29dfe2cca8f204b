"""ACLs from the side of clients: what they are told, and the tools and calls that change them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.java import lines, run_tool
from tests.secured import ADMIN, client_file, client_settings, sasl_address, settings

USERS = ("alice", "bob")
ANY_ACL = AclBindingFilter(
    *(ResourceType.ANY, None, ResourcePatternType.ANY, None, None),
    *(AclOperation.ANY, AclPermissionType.ANY),
)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    directory = tmp_path_factory.mktemp("secured")
    with running_broker(directory / "data", settings(USERS)) as process:
        yield process


@pytest.fixture
def admin(secured: BrokerProcess) -> Iterator[AdminClient]:
    client = AdminClient(client_settings(secured, ADMIN))
    yield client
    for future in client.delete_acls([ANY_ACL]).values():
        future.result(30)


def binding(
    kind: ResourceType,
    name: str,
    user: str,
    operation: AclOperation,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
    permission: AclPermissionType = AclPermissionType.ALLOW,
    host: str = "*",
) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{user}", host, operation, permission)


def create_acls(admin: AdminClient, *acls: AclBinding) -> None:
    for future in admin.create_acls(list(acls)).values():
        future.result(30)


def create_topic(admin: AdminClient, topic: str) -> None:
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)


def outcome(broker: BrokerProcess, user: str, topic: str, **config: object) -> int | None:
    """The code that one record's delivery ends with; None when it went well."""
    errors: list[int | None] = []
    producer = Producer({**client_settings(broker, user), **config})
    producer.produce(
        topic, b"x", on_delivery=lambda error, _: errors.append(error.code() if error else None)
    )
    assert producer.flush(30) == 0
    return errors[0]


def first_outcome(broker: BrokerProcess, user: str, topic: str, group: str) -> bytes | int:
    """The first value that a consumer gets, or the code it is refused with."""
    consumer = Consumer(
        {
            **client_settings(broker, user),
            "group.id": group,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    try:
        for _ in range(60):
            message = consumer.poll(1)
            if message is not None:
                error = message.error()
                value = message.value()
                assert error is not None or value is not None
                return error.code() if error is not None else value
        raise AssertionError("nothing came")
    finally:
        consumer.close()


def test_a_user_may_what_he_was_given_and_is_told_what_he_may_not(
    secured: BrokerProcess, admin: AdminClient, topic_name: Callable[[], str]
) -> None:
    topic, group = topic_name(), "readers"
    create_topic(admin, topic)
    denied = KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert outcome(secured, "alice", topic) == denied
    create_acls(admin, binding(ResourceType.TOPIC, topic, "alice", AclOperation.WRITE))
    assert outcome(secured, "alice", topic) is None
    assert outcome(secured, "alice", topic, **{"enable.idempotence": True}) is None
    assert outcome(secured, "bob", topic) == denied
    refused = first_outcome(secured, "bob", topic, group)
    assert refused in (denied, KafkaError.GROUP_AUTHORIZATION_FAILED)
    create_acls(admin, binding(ResourceType.GROUP, group, "bob", AclOperation.READ))
    assert first_outcome(secured, "bob", topic, group) == denied
    create_acls(
        admin,
        binding(
            ResourceType.TOPIC, topic[:5], "bob", AclOperation.READ, ResourcePatternType.PREFIXED
        ),
    )
    assert first_outcome(secured, "bob", topic, group) == b"x"
    create_acls(
        admin,
        binding(
            *(ResourceType.TOPIC, topic, "bob", AclOperation.ALL),
            permission=AclPermissionType.DENY,
            host="127.0.0.1",
        ),
    )
    assert first_outcome(secured, "bob", topic, "readers") == denied


def test_transactions_need_the_transactional_id(
    secured: BrokerProcess, admin: AdminClient, topic: str
) -> None:
    create_topic(admin, topic)
    create_acls(admin, binding(ResourceType.TOPIC, topic, "alice", AclOperation.WRITE))
    config = {**client_settings(secured, "alice"), "transactional.id": "orders"}
    with pytest.raises(KafkaException) as caught:
        Producer(config).init_transactions(30)
    code = caught.value.args[0].code()
    assert code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    create_acls(
        admin, binding(ResourceType.TRANSACTIONAL_ID, "orders", "alice", AclOperation.WRITE)
    )
    producer = Producer(config)
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"x")
    producer.commit_transaction(30)


def test_acls_are_created_described_and_deleted(admin: AdminClient) -> None:
    first = binding(ResourceType.TOPIC, "orders", "alice", AclOperation.READ)
    second = binding(
        *(ResourceType.GROUP, "billing-", "bob", AclOperation.DESCRIBE),
        *(ResourcePatternType.PREFIXED, AclPermissionType.DENY, "10.0.0.7"),
    )
    create_acls(admin, first, second)
    create_acls(admin, first)
    assert set(admin.describe_acls(ANY_ACL).result(30)) == {first, second}
    match = AclBindingFilter(
        *(ResourceType.GROUP, "billing-2", ResourcePatternType.MATCH, None, None),
        *(AclOperation.ANY, AclPermissionType.ANY),
    )
    assert set(admin.describe_acls(match).result(30)) == {second}
    (future,) = admin.delete_acls([match]).values()
    assert set(future.result(30)) == {second}
    assert set(admin.describe_acls(ANY_ACL).result(30)) == {first}
    (future,) = admin.delete_acls([match]).values()
    assert set(future.result(30)) == set()


def test_acls_that_cannot_be_are_refused_by_themselves(admin: AdminClient) -> None:
    good = binding(ResourceType.TOPIC, "orders", "alice", AclOperation.READ)
    bad = [
        binding(ResourceType.BROKER, "other", "alice", AclOperation.ALTER),
        binding(ResourceType.TOPIC, "a/b", "alice", AclOperation.READ),
        AclBinding(
            *(ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, "alice", "*"),
            *(AclOperation.READ, AclPermissionType.ALLOW),
        ),
    ]
    futures = admin.create_acls([good, *bad])
    futures[good].result(30)
    for each in bad:
        with pytest.raises(KafkaException) as caught:
            futures[each].result(30)
        assert caught.value.args[0].code() == KafkaError.INVALID_REQUEST
    assert set(admin.describe_acls(ANY_ACL).result(30)) == {good}


def test_who_may_not_touch_acls_is_told_so(secured: BrokerProcess, admin: AdminClient) -> None:
    create_acls(admin, binding(ResourceType.TOPIC, "orders", "bob", AclOperation.READ))
    alice = AdminClient(client_settings(secured, "alice"))
    wanted = binding(ResourceType.TOPIC, "t", "alice", AclOperation.ALL)
    for future in (*alice.create_acls([wanted]).values(), *alice.delete_acls([ANY_ACL]).values()):
        with pytest.raises(KafkaException) as caught:
            future.result(30)
        assert caught.value.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED
    # librdkafka does not pass on the error of DescribeAcls: it shows no ACLs.
    assert alice.describe_acls(ANY_ACL).result(30) == []


@pytest.mark.java
@pytest.mark.parametrize(
    ("release", "tool"),
    [("4.3", "org.apache.kafka.tools.AclCommand"), ("2.3", "kafka.admin.AclCommand")],
)
def test_the_acls_tool_adds_lists_and_removes(
    secured: BrokerProcess, admin: AdminClient, tmp_path: Path, release: str, tool: str
) -> None:
    server = (
        *("--bootstrap-server", sasl_address(secured)),
        *("--command-config", str(client_file(ADMIN, tmp_path / "admin.properties"))),
    )
    who = ("--allow-principal", "User:alice")
    run_tool(release, tool, *server, "--add", *who, "--producer", "--topic", "orders")
    run_tool(
        *(
            release,
            tool,
            *server,
            "--add",
            "--deny-principal",
            "User:bob",
            "--deny-host",
            "10.0.0.7",
        ),
        *("--operation", "Read", "--group", "billing-", "--resource-pattern-type", "prefixed"),
    )
    described = {
        (each.restype, each.name, each.operation, each.permission_type)
        for each in admin.describe_acls(ANY_ACL).result(30)
    }
    allow, deny = AclPermissionType.ALLOW, AclPermissionType.DENY
    assert described == {
        (ResourceType.TOPIC, "orders", AclOperation.WRITE, allow),
        (ResourceType.TOPIC, "orders", AclOperation.DESCRIBE, allow),
        (ResourceType.TOPIC, "orders", AclOperation.CREATE, allow),
        (ResourceType.GROUP, "billing-", AclOperation.READ, deny),
    }
    listed = run_tool(release, tool, *server, "--list").stdout
    assert re.search(r"resourceType=TOPIC, name=orders, patternType=LITERAL", listed)
    assert re.search(r"resourceType=GROUP, name=billing-, patternType=PREFIXED", listed)
    assert "principal=User:bob, host=10.0.0.7, operation=READ, permissionType=DENY" in listed
    run_tool(
        *(release, tool, *server, "--remove", "--force", *who, "--operation", "Write"),
        *("--topic", "orders"),
    )
    listed = run_tool(release, tool, *server, "--list", "--topic", "orders").stdout
    assert "operation=WRITE" not in listed and "operation=DESCRIBE" in listed
    run_tool(release, tool, *server, "--remove", "--force", "--topic", "orders")
    assert not lines(run_tool(release, tool, *server, "--list", "--topic", "orders").stdout)
    alice = client_file("alice", tmp_path / "alice.properties")
    refused = run_tool(
        *(release, tool, "--bootstrap-server", sasl_address(secured)),
        *("--command-config", str(alice), "--list"),
        check=False,
    )
    assert "ClusterAuthorizationException" in refused.stdout + refused.stderr


def test_an_acl_outlives_the_broker(tmp_path: Path) -> None:
    kept = binding(ResourceType.TOPIC, "orders", "alice", AclOperation.READ)
    how = settings(USERS)
    with running_broker(tmp_path / "data", how) as process:
        create_acls(AdminClient(client_settings(process, ADMIN)), kept)
        process.stop()
        process.start()
        client = AdminClient(client_settings(process, ADMIN))

        def found() -> object:
            return client.describe_acls(ANY_ACL).result(30)

        assert wait_for("the ACL", found) == [kept]
