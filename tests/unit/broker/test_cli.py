"""The command line: what it starts, what it says, how it ends."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kavka import __version__
from kavka.broker.cli.main import execute
from kavka.config.broker import BrokerConfig
from kavka.config.options import BROKER_OPTIONS


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[BrokerConfig]:
    """The configurations that brokers were started with; such a broker ends with code 5."""
    configs: list[BrokerConfig] = []

    def run(config: BrokerConfig) -> int:
        configs.append(config)
        return 5

    server = ModuleType("kavka.broker.server")
    server.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kavka.broker.server", server)
    return configs


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    assert execute(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kavka: ") and err.count("\n") == 1
    return err


def test_serve_starts_a_broker_with_what_was_set(
    started: list[BrokerConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.properties"
    file.write_text("num.partitions=4\nbroker.rack=file\n")
    monkeypatch.setenv("KAVKA_CFG_BROKER_RACK", "env")
    arguments = ["serve", "--config", str(file), "--set", "log.dirs=/a", "--set", "port=0"]
    assert execute(arguments) == 5
    (config,) = started
    assert config.get_int("num.partitions") == 4
    assert config.get_str("broker.rack") == "env"
    assert config.log_dirs == ["/a"]
    assert config.listeners[0].port == 0


def test_serve_needs_nothing(
    started: list[BrokerConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["serve"]) == 5
    assert len(started) == 1
    assert capsys.readouterr() == ("", "")


def test_settings_without_effect_are_named(
    started: list[BrokerConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["serve", "--set", "num.io.threads=8"]) == 5
    assert "have no effect here" in capsys.readouterr().err
    assert len(started) == 1


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("num.partition=3", "did you mean num.partitions?"),
        ("num.partitions=three", "it must be a whole number of at least 1 (--set)"),
        ("log.retention.ms=0", "log.retention.ms must be unlimited"),
    ],
)
def test_bad_settings_are_one_sentence(
    started: list[BrokerConfig], capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    assert said in complaint(capsys, "serve", "--set", setting)
    assert started == []


def test_a_missing_file(started: list[BrokerConfig], capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "serve", "--config", "/no/such/file")
    assert "Cannot read the configuration file /no/such/file: No such file" in said
    assert started == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--nonsense"], "No such option"),
        (["serve", "extra"], "unexpected extra argument"),
        (["serve", "--set", "a"], "--set a must have the form KEY=VALUE"),
        (["serve", "--config"], "requires an argument"),
        (["sever"], "No such command 'sever'"),
    ],
)
def test_misuse_ends_with_2(
    started: list[BrokerConfig], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    text = complaint(capsys, *arguments, code=2)
    assert said in text and "--help)" in text
    assert started == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"kavka {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert execute(arguments) == 0
    out = capsys.readouterr().out
    assert "serve" in out and "configs" in out


def test_listing_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["configs"]) == 0
    out = capsys.readouterr().out
    assert {line for line in out.splitlines() if line and line[0] != " "} == set(BROKER_OPTIONS)
    assert max(map(len, out.splitlines())) <= 100
    assert execute(["configs", "retention.hours", "num.io.threads"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "log.retention.hours\n    How long records are kept, in hours. Default: 72"
    )
    assert "Has no effect here." in out
    assert "no setting" not in out


def test_listing_topic_settings_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["configs", "--topics", "--markdown", "cleanup"]) == 0
    header, rule, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|") == 6
    assert row.startswith("| `cleanup.policy` | delete | a list of compact, delete |")


def test_listing_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "kavka configs lists all" in complaint(capsys, "configs", "zzz")


def test_the_other_commands_do_not_load_the_broker() -> None:
    code = (
        "import sys; from kavka.broker.cli.main import execute; execute(['configs', 'rack']);"
        "print([m for m in sys.modules if m.startswith('kavka.') and"
        " m.split('.')[1] in ('protocol', 'storage', 'replication') or m == 'asyncio'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
