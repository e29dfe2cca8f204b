"""``kavka dump-log`` and ``kavka check``: thin commands over :mod:`kavka.storage.inspect`."""

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kavka.storage.inspect.findings import Finding


class _NotCheckedError(click.ClickException):
    """A directory that could not be looked at: not the same as one with problems."""

    exit_code = 2


@click.command("dump-log")
@click.argument("paths", metavar="[FILE]...", nargs=-1)
@click.option("--files", metavar="FILE,FILE...", multiple=True, help="Files, as Kafka's tool.")
@click.option("--deep-iteration", is_flag=True, help="A line for each record, too.")
@click.option("--print-data-log", is_flag=True, help="Show the records' keys and values.")
@click.option("--skip-record-metadata", is_flag=True, help="Of records only keys and values.")
@click.option(
    "--max-bytes",
    type=click.IntRange(min=0),
    metavar="SIZE",
    help="Show only the batches in the first SIZE bytes of each log.",
)
@click.option(
    "--index-sanity-check",
    is_flag=True,
    help="Of indexes only whether a broker would rebuild them at its start.",
)
@click.option("--verify-index-only", is_flag=True, help="Of indexes only what is wrong.")
@click.option("--offsets-decoder", is_flag=True, help="The log is of __consumer_offsets.")
@click.option("--transaction-log-decoder", is_flag=True, help="The log is of __transaction_state.")
def dump_log(
    paths: tuple[str, ...],
    files: tuple[str, ...],
    deep_iteration: bool,
    print_data_log: bool,
    skip_record_metadata: bool,
    max_bytes: int | None,
    index_sanity_check: bool,
    verify_index_only: bool,
    offsets_decoder: bool,
    transaction_log_decoder: bool,
) -> int:
    """Show what is in files of a data directory.

    Logs (.log), indexes (.index, .timeindex, .txnindex), producer snapshots (.snapshot) and
    checkpoint files, with the options and in the words of Kafka's own dump-log tool. The files are
    only read; those of a running broker may be incomplete.
    """
    chosen = [*paths, *(path for names in files for path in names.split(",") if path)]
    if not chosen:
        raise click.UsageError("Name the files to be shown")
    if offsets_decoder and transaction_log_decoder:
        raise click.UsageError("Choose one of --offsets-decoder and --transaction-log-decoder")
    from kavka.storage.fs import FileSystem
    from kavka.storage.inspect import decoders, dump, dump_log

    decoder = None
    if offsets_decoder:
        decoder = decoders.decode_offsets_record
    elif transaction_log_decoder:
        decoder = decoders.decode_transaction_record
    log = dump_log.LogOptions(
        deep=deep_iteration,
        data=print_data_log or decoder is not None,
        metadata=not skip_record_metadata,
        decoder=decoder,
        max_bytes=dump_log.UNBOUNDED if max_bytes is None else max_bytes,
    )
    options = dump.Options(log, index_sanity_check, verify_index_only)
    dumper = dump.Dumper(FileSystem(), options, _write, _complain)
    try:
        for path in chosen:
            dumper.dump(path)
        sys.stdout.flush()
        dumper.finish()
    except BrokenPipeError:
        return _nobody_reads()
    return 1 if dumper.failed else 0


@click.command()
@click.argument("directory")
@click.option("--deep", is_flag=True, help="Decode every record, too: slower, by far.")
def check(directory: str, deep: bool) -> int:
    """Check a data directory (one of log.dirs) that no broker is using.

    Reads every batch and its checksum, and compares offsets, indexes, leader epochs, producer
    snapshots and checkpoints with them. Each problem is a line on standard output: file, offset,
    what is wrong. What is only worth knowing goes to standard error. Nothing is repaired: a broker
    does that at its start, where it can.

    Exit code: 0 no problem, 1 problems, 2 the directory could not be checked.
    """
    import logging

    from kavka.storage.fs import FileSystem
    from kavka.storage.inspect.check import Unusable, check_directory

    logging.getLogger("kavka").addHandler(logging.NullHandler())  # findings tell the same
    try:
        report = check_directory(FileSystem(), directory, _tell, deep=deep)
        sys.stdout.flush()
    except Unusable as error:
        raise _NotCheckedError(str(error)) from None
    except BrokenPipeError:
        return _nobody_reads()
    except OSError as error:
        raise _NotCheckedError(
            f"{error.filename or directory} cannot be read: {error.strerror}"
        ) from None
    found = {0: "no problem", 1: "1 problem"}.get(report.problems, f"{report.problems} problems")
    print(
        f"{report.partitions} partitions, {report.segments} segments, {report.batches} batches, "
        f"{report.bytes} bytes: {found}",
        file=sys.stderr,
    )
    return 1 if report.problems else 0


def _tell(finding: "Finding") -> None:
    if finding.problem:
        _write(str(finding))
    else:
        _complain(f"note: {finding}")


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _complain(line: str) -> None:
    sys.stdout.flush()
    print(line, file=sys.stderr)


def _nobody_reads() -> int:
    """The reader of our output (``| head``) has seen enough: no error, and nothing more to say."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the flush at the end of the process
    return 0
