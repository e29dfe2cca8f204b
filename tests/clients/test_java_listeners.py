"""The stock Java tools open and close listeners, and are told of caps and of bad addresses."""

import socket
from collections.abc import Iterator

import pytest

from tests.broker_process import BrokerProcess, free_port
from tests.java import run_tool

pytestmark = pytest.mark.java

CONFIGS = "kafka.admin.ConfigCommand"
PUBLIC_PORT = free_port()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = BrokerProcess(
        tmp_path_factory.mktemp("java-listeners") / "data",
        {
            "instance.flavour": "100",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PUBLIC_PLAIN:PLAINTEXT",
        },
    ).start()
    yield process
    assert process.stop() == 0, process.log()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("release", ["4.3", "2.3"])
def test_configs_tool_opens_and_closes_a_listener(broker: BrokerProcess, release: str) -> None:
    entity = (
        *("--bootstrap-server", broker.bootstrap, "--alter"),
        *("--entity-type", "brokers", "--entity-name", "1"),
    )
    own = broker.settings["listeners"]
    both = f"{own},PUBLIC_PLAIN://127.0.0.1:{PUBLIC_PORT}"
    run_tool(release, CONFIGS, *entity, "--add-config", f"listeners=[{both}]")
    assert listens(PUBLIC_PORT)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = f"{own},PUBLIC_PLAIN://127.0.0.1:{foreign.getsockname()[1]}"
        refused = run_tool(
            release, CONFIGS, *entity, "--add-config", f"listeners=[{taken}]", check=False
        )
    assert refused.returncode != 0
    assert "is taken by another process" in refused.stdout + refused.stderr
    assert listens(PUBLIC_PORT)
    described = run_tool(
        *(release, CONFIGS, "--bootstrap-server", broker.bootstrap, "--describe"),
        *("--entity-type", "brokers", "--entity-name", "1"),
    )
    assert f"listeners={both}" in described.stdout
    run_tool(release, CONFIGS, *entity, "--delete-config", "listeners")
    assert not listens(PUBLIC_PORT)


@pytest.mark.parametrize(
    ("release", "topics"),
    [("4.3", "org.apache.kafka.tools.TopicCommand"), ("2.3", "kafka.admin.TopicCommand")],
)
def test_topics_tool_is_told_of_the_cap(broker: BrokerProcess, release: str, topics: str) -> None:
    more = run_tool(
        *(release, topics, "--bootstrap-server", broker.bootstrap, "--create"),
        *("--topic", f"t-{release}", "--partitions", "301", "--replication-factor", "1"),
        check=False,
    )
    said = more.stdout + more.stderr
    assert more.returncode != 0
    assert "0 of the 300 partitions of flavour 100 are used, 301 more requested" in said
