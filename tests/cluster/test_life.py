"""Brokers come and go, and lose ZooKeeper; the cluster goes on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from tests.broker_process import wait_for
from tests.cluster.kafka_cluster import Cluster, running_cluster
from tests.cluster.witness import Writer, compare_replicas, judge
from tests.cluster.zookeeper import (
    ZooKeeper,
    needs_zookeeper,
    running_ensemble,
    running_zookeeper,
)

pytestmark = [pytest.mark.cluster, needs_zookeeper]

SESSION_SECONDS = 1.5  # see SETTINGS


@pytest.fixture
def own_zookeeper(tmp_path: Path) -> Iterator[ZooKeeper]:
    """A ZooKeeper that a test may stop."""
    with running_zookeeper(tmp_path / "zookeeper") as server:
        yield server


def test_the_loss_of_leader_and_controller_is_survived(cluster: Cluster) -> None:
    cluster.create("t", min_insync_replicas="2")
    writer = Writer(cluster, "t").start()
    victim = cluster.controller()
    victim.kill()
    writer.progress()
    others = {member.broker_id for member in cluster.running}
    cluster.wait_for_brokers(others)
    assert cluster.controller().broker_id in others
    victim.start()
    cluster.wait_for_isr("t", 3)
    writer.progress()
    writer.stop()
    judge(writer)
    assert compare_replicas(cluster, "t") > 0


def test_a_stopping_broker_hands_over_before_it_goes(cluster: Cluster) -> None:
    cluster.create("t", min_insync_replicas="2")
    writer = Writer(cluster, "t").start()
    for member in list(cluster.members.values()):  # a rolling restart
        assert member.stop() == 0, member.log()
        assert "Leadership is handed over" in member.log()
        writer.progress()
        member.start()
        cluster.wait_for_isr("t", 3)
    writer.stop()
    judge(writer)
    compare_replicas(cluster, "t")


def test_a_broker_that_was_away_too_long_comes_back_by_itself(cluster: Cluster) -> None:
    cluster.create("t", min_insync_replicas="2")
    writer = Writer(cluster, "t").start()
    sleeper = cluster.controller()
    sleeper.pause()
    writer.progress()
    others = [member for member in cluster.running if member is not sleeper]
    wait_for(
        "the others to notice",
        lambda: all(sleeper.broker_id not in cluster.metadata(m).brokers for m in others),
    )
    sleeper.resume()
    cluster.wait_for_brokers({1, 2, 3})
    cluster.wait_for_isr("t", 3)
    assert len({cluster.metadata(member).controller_id for member in cluster.running}) == 1
    writer.stop()
    judge(writer)
    compare_replicas(cluster, "t")
    cluster.create("afterwards")


def made(cluster: Cluster, topic: str) -> bool:
    """Make a topic; False while the brokers' sessions with ZooKeeper are not there again."""
    try:
        cluster.create(topic)
    except KafkaException as refused:
        # The new controller may be in office before all are members again.
        early = (KafkaError.NOT_CONTROLLER, KafkaError.INVALID_REPLICATION_FACTOR)
        assert refused.args[0].code() in early, refused
        return False
    return True


def test_leaders_serve_without_zookeeper_and_all_recovers(
    own_zookeeper: ZooKeeper, tmp_path: Path
) -> None:
    with running_cluster(own_zookeeper, tmp_path) as cluster:
        cluster.create("t", min_insync_replicas="2")
        writer = Writer(cluster, "t").start()
        own_zookeeper.stop()
        admin = cluster.admin()
        asked = admin.create_topics([NewTopic("meanwhile", 1, 3)], operation_timeout=60)
        time.sleep(2 * SESSION_SECONDS)  # longer than a session lasts without a server
        writer.progress()
        assert set(cluster.metadata().brokers) == {1, 2, 3}
        own_zookeeper.start()
        # Who asked while there was a controller is answered in its next session.
        asked["meanwhile"].result(60)
        wait_for("the topic", lambda: "meanwhile" in cluster.metadata().topics)
        wait_for("a topic made by brokers with new sessions", partial(made, cluster, "afterwards"))
        cluster.controller().kill()
        writer.progress()
        writer.stop()
        judge(writer)


def test_brokers_keep_their_sessions_while_any_one_zookeeper_is_away(tmp_path: Path) -> None:
    settings = {"zookeeper.session.timeout.ms": "6000"}
    with (
        running_ensemble(tmp_path / "zookeeper") as ensemble,
        running_cluster(ensemble, tmp_path, settings=settings) as cluster,
    ):
        cluster.create("t", min_insync_replicas="2")
        writer = Writer(cluster, "t").start()
        controller = cluster.controller()
        leader = ensemble.leader()
        other = next(each for each in ensemble.members if each is not leader)
        other.stop()
        cluster.create("without-one")
        other.start()
        leader.stop()  # and with it all connections, until the others have another one
        cluster.create("without-their-leader")
        writer.progress()
        assert ensemble.leader() is not leader
        for member in cluster.running:
            wait_for("it", lambda member=member: "to ZooKeeper is back" in member.log())
            assert "The session with ZooKeeper has expired" not in member.log()
        assert cluster.controller() is controller
        writer.stop()
        judge(writer)


def test_a_killed_broker_may_be_started_at_once(cluster: Cluster) -> None:
    cluster[3].kill()
    cluster[3].start()
    cluster.wait_for_brokers({1, 2, 3})
    cluster.create("t")


def test_another_clusters_directory_is_refused(cluster: Cluster, zookeeper: ZooKeeper) -> None:
    member = cluster[3]
    assert member.stop() == 0
    command = [sys.executable, "-m", "kavka", "serve"]
    for name, value in {**member.settings, "zookeeper.connect": zookeeper.chroot()}.items():
        command += ["--set", f"{name}={value}"]
    foreign = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert foreign.returncode == 1
    assert "cluster" in foreign.stderr and "log.dirs" in foreign.stderr


def test_a_second_broker_of_the_same_id_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    twin = cluster.add(4, {"broker.id": "2", "zookeeper.session.timeout.ms": "500"})
    twin.settings["log.dirs"] = str(tmp_path / "twin")
    command = [sys.executable, "-m", "kavka", "serve"]
    for name, value in twin.settings.items():
        command += ["--set", f"{name}={value}"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "broker.id=2 is in use" in refused.stderr
