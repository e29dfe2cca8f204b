"""The command line: ``kavka serve``, ``kavka cluster``, ``kavka configs`` and the others.

Whatever keeps a command from doing its work is one sentence on standard error that says what to
change, and the exit code: 2 when the command was not understood, 1 otherwise. The broker itself
is imported only to be started.
"""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from kavka import __version__
from kavka.config import load as sources
from kavka.config.options import BROKER_OPTIONS, ConfigError

_PROGRAM = "kavka"
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_ELSEWHERE: Final = {
    "certs": "certs",
    "check": "inspection",
    "cluster": "cluster",
    "dump-log": "inspection",
    "users": "users",
}
"""Commands that a starting broker does without, and the modules here that have them."""


class _Commands(click.Group):
    """The commands of this module, and those elsewhere, which are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"kavka.broker.cli.{_ELSEWHERE[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """A Kafka-compatible broker."""


@cli.command()
@click.option(
    "--config",
    "path",
    metavar="FILE",
    help="A server.properties with Kafka's own key names.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="One setting, over those of the file and the environment; may be repeated.",
)
def serve(path: str | None, assignments: tuple[str, ...]) -> int:
    """Run a broker until it is told to stop.

    Without any setting it listens on 127.0.0.1:9092 and keeps its data in ./kavka-data. Settings
    may also come from environment variables: KAVKA_CFG_LOG_DIRS for log.dirs. All of them are
    listed by: kavka configs
    """
    for assignment in assignments:
        if "=" not in assignment:
            raise click.UsageError(f"--set {assignment} must have the form KEY=VALUE")
    config = sources.load(path, os.environ, assignments)
    exposed = sources.secrets_among(assignments)
    if exposed:
        click.echo(
            f"{_PROGRAM}: everybody on this machine can read the arguments of a process: put "
            f"{', '.join(exposed)} into the file of --config",
            err=True,
        )
    idle = sources.without_effect(config)
    if idle:
        click.echo(
            f"{_PROGRAM}: these settings have no effect here (see: kavka configs): "
            f"{', '.join(idle)}",
            err=True,
        )
    gc.disable()  # until all that will stay is there: the server switches it on again
    from kavka.broker.server import run  # the broker; the other commands do without it

    return run(config)


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--topics", is_flag=True, help="Settings of topics instead of the broker's.")
@click.option("--markdown", is_flag=True, help="One table, for documents.")
def configs(names: tuple[str, ...], topics: bool, markdown: bool) -> int:
    """List the settings, or those whose name contains one of NAMES."""
    from kavka.config import listing
    from kavka.config.topic import TOPIC_OPTIONS

    table = TOPIC_OPTIONS if topics else BROKER_OPTIONS
    options = sorted(
        (o for o in table.values() if not names or any(name in o.name for name in names)),
        key=lambda option: (option.importance, option.name),
    )
    if not options:
        raise ConfigError(
            "", f"No setting's name contains {' or '.join(names)}; kavka configs lists all"
        )
    click.echo(listing.markdown(options) if markdown else listing.text(options), nl=False)
    return 0


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        result = cli.main(list(arguments) or ["--help"], prog_name=_PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else _PROGRAM
        _complain(f"{error.format_message().rstrip('.')} (see {where} --help)")
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except ConfigError as error:
        _complain(error.message)
        return 1
    except click.Abort:  # interrupted before the broker had its own handling of signals
        return 130
    return result if isinstance(result, int) else 0


def _complain(sentence: str) -> None:
    click.echo(f"{_PROGRAM}: {sentence}", err=True)


def main() -> NoReturn:
    """The program: runs the command line of the process and ends with its exit code."""
    sys.exit(execute(sys.argv[1:]))
