"""Every case of the table of ACLs, asked of a real Kafka 2.3: it refuses what this broker refuses.

The table itself is held to by ``tests/process/test_acl_table.py``; this holds the table to Kafka.
"""

from collections.abc import Iterator, Sequence

import pytest

from kavka.broker.authorization import Resource
from kavka.protocol.keys import RANGES_2_3
from kavka.protocol.messages.k10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from kavka.protocol.schema import ZERO_UUID, Message
from tests.broker_process import wait_for
from tests.cluster.kafka_process import running_kafka
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper
from tests.process.acl_cases import CASES, GROUP, TOPIC, Case, Right
from tests.process.test_acl_table import (
    EYES,
    USERS,
    Users,
    ask,
    create_topics,
    expect,
    give,
    take_everything,
)
from tests.secured import ADMIN, settings

pytestmark = [pytest.mark.cluster, pytest.mark.java, needs_zookeeper]

VERSION = 1  # of the APIs of ACLs
# Later releases let more people do this (KIP-679; WriteTxnMarkers since 3.0), and so does Kavka.
LATER = {(22, "idempotent writer"), (27, "tool")}
OLD = [
    case
    for case in CASES
    if case.key in RANGES_2_3
    and case.versions[0] <= RANGES_2_3[case.key][1]
    and (case.key, case.name) not in LATER
]


@pytest.fixture(scope="module")
def users(zookeeper: ZooKeeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    own = {
        **settings(USERS[1:]),
        "authorizer.class.name": "kafka.security.auth.SimpleAclAuthorizer",
        "super.users": f"User:{ADMIN};User:ANONYMOUS",  # the broker itself is the latter
        "zookeeper.connect": zookeeper.chroot(),
    }
    with running_kafka("2.3", tmp_path_factory.mktemp("kafka"), own) as kafka:
        connected = Users(kafka)

        def answers() -> bool:
            try:
                return bool(connected[ADMIN])
            except (ConnectionError, OSError):
                return False

        wait_for(f"Kafka 2.3\n{kafka.log()}", answers, timeout=60)
        wait_for("a topic", lambda: is_created(connected))
        wait_for("a coordinator", lambda: is_coordinated(connected))
        give(connected[ADMIN], "describer", EYES, version=VERSION)
        yield connected
        for wire in connected.values():
            wire.socket.close()


def is_created(users: Users) -> bool:
    try:
        create_topics(users[ADMIN], TOPIC)
    except AssertionError:
        return False  # there is no controller yet
    return True


def is_coordinated(users: Users) -> bool:
    request = FindCoordinatorRequest(key=GROUP)
    return not users[ADMIN].ask(request, FindCoordinatorResponse, 1).error_code


def versions(case: Case) -> range:
    low, high = RANGES_2_3[case.key]
    return range(max(low, case.versions[0]), min(high, case.versions[1]) + 1)


def asked(users: Users, user: str, case: Case, version: int) -> Message:
    return ask(users[user], case, version, TOPIC, ZERO_UUID)


def known(rights: Sequence[Right]) -> list[Right]:
    return [right for right in rights if right[0] < Resource.USER]


@pytest.mark.parametrize("case", OLD, ids=lambda case: f"{case.key}-{case.name}")
def test_kafka_refuses_the_same(case: Case, users: Users) -> None:
    for version in versions(case):
        expect(asked(users, "nobody", case, version), case.denied, case, version)
        expect(asked(users, "describer", case, version), case.describer, case, version)
    for rights, code in (*case.partly, (case.needs, 0)):
        take_everything(users[ADMIN], "worker", VERSION)
        give(users[ADMIN], "worker", known(rights), version=VERSION)
        for version in versions(case):
            # Kafka 2.3 obeys at once on the broker that was asked.
            expect(asked(users, "worker", case, version), code, case, version)


def test_only_what_later_releases_allow_is_left_out() -> None:
    for case in CASES:
        if (case.key, case.name) in LATER:
            assert case.denied == 31
    assert len(OLD) > 50
