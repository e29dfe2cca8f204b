"""kcat, as a person at a shell uses it."""

import shutil
import subprocess

import pytest

from tests.broker_process import BrokerProcess
from tests.clients.messages import CODECS


def kcat(broker: BrokerProcess, *arguments: str, stdin: str | None = None) -> str:
    if shutil.which("kcat") is None:
        pytest.fail("kcat is required: the test run installs it")
    done = subprocess.run(
        ["kcat", "-b", broker.bootstrap, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker: BrokerProcess, topic: str, codec: str) -> None:
    lines = "".join(f"k{i}:value {i} {'x' * i}\n" for i in range(200))
    kcat(broker, "-P", "-t", topic, "-p", "0", "-K:", "-z", codec, stdin=lines)
    got = kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-K:")
    assert got == lines


def test_headers_and_timestamps(broker: BrokerProcess, topic: str) -> None:
    kcat(broker, "-P", "-t", topic, "-p", "0", "-H", "a=1", "-H", "b=two", stdin="hello\n")
    out = kcat(
        broker,
        *("-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q"),
        *("-f", "%h|%s|%o|%T\n"),
    )
    headers, value, offset, timestamp = out.strip().split("|")
    assert (headers, value, offset) == ("a=1,b=two", "hello", "0")
    assert int(timestamp) > 1_600_000_000_000


def test_listing_shows_the_auto_created_topic(broker: BrokerProcess, topic: str) -> None:
    kcat(broker, "-P", "-t", topic, stdin="x\n")
    listing = kcat(broker, "-L", "-t", topic)
    assert f'topic "{topic}" with 3 partitions' in listing
