"""A listener for invited principals only: others log in there and are refused everything."""

from collections.abc import Iterator

import pytest

from kavka.protocol.messages import k03_metadata as k03
from kavka.protocol.messages import k16_list_groups as k16
from kavka.protocol.messages import k19_create_topics as k19
from kavka.protocol.messages import k29_describe_acls as k29
from kavka.protocol.messages import k44_incremental_alter_configs as k44
from tests.broker_process import BrokerProcess, free_port, running_broker
from tests.secured import AUTHORIZER, jaas, log_in
from tests.wire import WireClient

USERS = ("alice", "bob")
LIST = "listener.name.cross.allowed.principals"


def settings(**more: str) -> dict[str, str]:
    addresses = ",".join(
        f"{name}://127.0.0.1:{free_port()}" for name in ("PLAINTEXT", "INSIDE", "CROSS")
    )
    return {
        "listeners": addresses,
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,INSIDE:SASL_PLAINTEXT,CROSS:SASL_PLAINTEXT"
        ),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.inside.plain.sasl.jaas.config": jaas(USERS),
        "listener.name.cross.plain.sasl.jaas.config": jaas(USERS),
        LIST: "User:alice",
        **more,
    }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    directory = tmp_path_factory.mktemp("cross")
    with running_broker(directory / "data", settings()) as process:
        yield process


def client(broker: BrokerProcess, listener: str, user: str) -> WireClient:
    addresses = broker.settings["listeners"].split(",")
    (address,) = [each for each in addresses if each.startswith(f"{listener}://")]
    return log_in(WireClient(int(address.rpartition(":")[2])), user)


def outcome(broker: BrokerProcess, listener: str, user: str) -> int:
    """The code of making a topic that is not really made."""
    topic = k19.CreatableTopic(name="t", num_partitions=1, replication_factor=1)
    request = k19.CreateTopicsRequest(topics=[topic], validate_only=True)
    with client(broker, listener, user) as wire:
        return wire.ask(request, k19.CreateTopicsResponse, 5).topics[0].error_code


def test_who_is_not_invited_logs_in_and_is_refused_there_and_nowhere_else(
    broker: BrokerProcess,
) -> None:
    assert outcome(broker, "CROSS", "alice") == 0
    assert outcome(broker, "INSIDE", "bob") == 0
    assert outcome(broker, "CROSS", "bob") == 29
    with client(broker, "CROSS", "bob") as bob:
        named = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(name="made-by-asking")])
        assert bob.ask(named, k03.MetadataResponse, 9).topics[0].error_code == 29
        assert bob.ask(k03.MetadataRequest(topics=None), k03.MetadataResponse, 9).topics == []
        assert bob.ask(k16.ListGroupsRequest(), k16.ListGroupsResponse, 4).groups == []
        acls = bob.ask(k29.DescribeAclsRequest(), k29.DescribeAclsResponse, 1)
        assert acls.error_code == 31
    assert (
        "CreateTopics denied resource=Topic:t operation=Create principal=User:bob" in broker.log()
    )
    with client(broker, "CROSS", "alice") as alice:  # a list of guests is no list of rights
        acls = alice.ask(k29.DescribeAclsRequest(), k29.DescribeAclsResponse, 1)
        assert acls.error_code == 54


def invite(broker: BrokerProcess, principals: str) -> None:
    config = k44.AlterableConfig(name=LIST, config_operation=0, value=principals)
    resource = k44.AlterConfigsResource(resource_type=4, resource_name="1", configs=[config])
    with client(broker, "INSIDE", "alice") as alice:
        request = k44.IncrementalAlterConfigsRequest(resources=[resource])
        answer = alice.ask(request, k44.IncrementalAlterConfigsResponse, 1)
        assert answer.responses[0].error_code == 0, answer


def test_guests_are_invited_while_the_broker_runs(broker: BrokerProcess) -> None:
    with client(broker, "CROSS", "bob") as bob:
        request = k03.MetadataRequest(topics=[k03.MetadataRequestTopic(name="t")])
        request.allow_auto_topic_creation = False
        assert bob.ask(request, k03.MetadataResponse, 9).topics[0].error_code == 29
        invite(broker, "User:bob;User:carol")
        assert bob.ask(request, k03.MetadataResponse, 9).topics[0].error_code == 3
        assert outcome(broker, "CROSS", "alice") == 29
        invite(broker, "User:alice")
        assert bob.ask(request, k03.MetadataResponse, 9).topics[0].error_code == 29
        assert outcome(broker, "CROSS", "alice") == 0


def test_super_users_need_an_invitation_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    how = settings(
        **{
            "authorizer.class.name": AUTHORIZER,
            "super.users": "User:alice;User:bob",
            "log.level": "ERROR",
        }
    )
    with running_broker(tmp_path_factory.mktemp("cross") / "data", how) as process:
        assert outcome(process, "INSIDE", "bob") == 0
        assert outcome(process, "CROSS", "bob") == 29
        assert outcome(process, "CROSS", "alice") == 0
        # Audit is a record, not a matter of log levels.
        lines = process.log().splitlines()
        assert not any(" INFO " in line and "audit: " not in line for line in lines), lines
        (denied,) = (line for line in lines if "denied" in line)
        assert "audit: CreateTopics denied" in denied
