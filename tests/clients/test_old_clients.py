"""Clients of the 0.10 era and on: kafka-python 2.0.2 told to speak as to old brokers.

With 0.10.0 it sends Produce v2 and Fetch v2 and knows only message format 1: what it writes is
up-converted, what it reads is down-converted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess
from tests.clients.messages import Message, plain, sample
from tests.clients.test_confluent import consume, create, produce

SCRIPT = Path(__file__).with_name("old_kafka_python.py")
API_VERSIONS = ("0.10.0", "0.10.1", "0.11.0", "1.0.0")
CODECS = ("none", "gzip", "snappy", "lz4")


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kafka-python 2.0.2 in a folder of its own, beside the newer one of the environment."""
    target = tmp_path_factory.mktemp("kafka-python-2.0.2")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", str(target), "kafka-python==2.0.2"], check=True)
    return target


def run(library: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "PYTHONPATH": str(library)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_lines(messages: list[Message]) -> str:
    return "".join(
        json.dumps(
            [
                None if m.key is None else m.key.decode("latin-1"),
                None if m.value is None else m.value.decode("latin-1"),
                m.timestamp,
            ]
        )
        + "\n"
        for m in messages
    )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", API_VERSIONS)
def test_old_producer_new_consumer(
    broker: BrokerProcess, topic: str, old_library: Path, version: str, codec: str
) -> None:
    create(broker, topic)
    arguments = ("produce", version, broker.bootstrap, topic, codec)
    run(old_library, *arguments, stdin=as_lines(sample()))
    assert consume(broker, topic, len(sample())) == plain(sample())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", API_VERSIONS)
def test_new_producer_old_consumer(
    broker: BrokerProcess, topic: str, old_library: Path, version: str, codec: str
) -> None:
    create(broker, topic)
    produce(broker, topic, sample(), **{"compression.type": codec})
    count = str(len(sample()))
    printed = run(old_library, "consume", version, broker.bootstrap, topic, count)
    assert printed == as_lines(sample())
