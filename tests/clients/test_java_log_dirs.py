"""kafka-reassign-partitions moves a partition to another log directory of the same broker."""

import json
from pathlib import Path

import pytest

from tests.broker_process import running_broker, wait_for
from tests.clients.messages import sample
from tests.clients.test_confluent import consume, create, produce
from tests.java import run_tool

pytestmark = pytest.mark.java

RELEASE = "4.3"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
TOPIC = "moved"


def test_a_log_directory_is_chosen_with_the_tool(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    settings = {"log.dirs": ",".join(map(str, paths)), "log.segment.delete.delay.ms": "0"}
    with running_broker(tmp_path / "data", settings) as broker:
        create(broker, TOPIC)
        messages = sample(500)
        produce(broker, TOPIC, messages)
        [source] = [path for path in paths if (path / f"{TOPIC}-0").exists()]
        [target] = [path for path in paths if path != source]
        plan = tmp_path / "plan.json"
        plan.write_text(
            json.dumps(
                {
                    "version": 1,
                    "partitions": [
                        {
                            "topic": TOPIC,
                            "partition": 0,
                            "replicas": [1],
                            "log_dirs": [str(target)],
                        }
                    ],
                }
            )
        )
        asked = ("--bootstrap-server", broker.bootstrap, "--reassignment-json-file", str(plan))
        done = run_tool(RELEASE, REASSIGN, *asked, "--execute")
        assert f"log directory to {target} for replica {TOPIC}-0 with broker 1" in done.stdout
        wait_for("the move", lambda: (target / f"{TOPIC}-0").exists())
        verified = run_tool(RELEASE, REASSIGN, *asked, "--verify").stdout
        assert f"Reassignment of replica {TOPIC}-0-1 completed successfully" in verified
        assert consume(broker, TOPIC, 500) == messages
