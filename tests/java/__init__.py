"""The stock Java tools of several Kafka releases, fetched by Maven.

To start a JVM takes longer than most tools run, so those of a release share one.

Where a machine has no JVM or no Maven the tests that need them skip and say so. With
``KAVKA_REQUIRE_JAVA=1`` (the full test run sets it) that is a failure instead.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.java.tools import Tools

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".java"

RELEASES = ("4.3", "2.3", "1.1", "0.11", "0.10")
CLOSING = ("0.10",)
"""Those whose tools end their JVM, whoever shares it."""

# A tool is a short-lived JVM: the full optimiser and a big heap only cost start-up time.
JVM_FLAGS = (
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m"),
    "-Xlog:disable",  # what it thinks of an archive of classes is none of the tool's output
)


@functools.cache
def class_path(release: str) -> str:
    """The class path of a release's tools; skips the test where it cannot be had."""
    cached = CACHE / f"{release}.classpath"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # the tests may run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists() or not all(map(os.path.exists, cached.read_text().split(":"))):
            _fetch(release, cached)
        return cached.read_text()


def _fetch(release: str, cached: Path) -> None:
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        _cannot(f"no {' and no '.join(missing)} on this machine")
    done = subprocess.run(
        [
            *("mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "-P", f"kafka-{release}"),
            *("dependency:build-classpath", f"-Dmdep.outputFile={cached}"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        _cannot(f"Maven cannot fetch Kafka {release}: {done.stdout[-500:]}")


@functools.cache
def _own_classes(program: str) -> Path:
    """A program of this folder, compiled for the newest release."""
    used = class_path(RELEASES[0])
    source = HERE / f"{program}.java"
    mark = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    classes = CACHE / f"{program}-{mark}"
    compiler = class_path("compiler")
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not classes.exists():
            made = CACHE / f"{program}-half-done"
            shutil.rmtree(made, ignore_errors=True)
            subprocess.run(
                [
                    *("java", "-cp", compiler, "org.eclipse.jdt.internal.compiler.batch.Main"),
                    *("-17", "-cp", used, "-d", str(made), str(source)),
                ],
                check=True,
            )
            made.rename(classes)
    return classes


def _cannot(reason: str) -> None:
    if os.environ.get("KAVKA_REQUIRE_JAVA"):
        pytest.fail(f"the Java tools are required: {reason}")
    pytest.skip(f"the Java tools cannot run: {reason}")


@functools.cache
def _archive(release: str) -> Path:
    """Where the JVM finds a release's classes ready to use: half of a tool's time is loading them.

    The first tool of a release that ends well leaves it there for the others.
    """
    jvm = Path(shutil.which("java") or "java").resolve()
    mark = hashlib.sha256(f"{jvm} {class_path(release)}".encode()).hexdigest()[:16]
    return CACHE / f"{release}-{mark}.jsa"


def own_command(program: str, *arguments: str, release: str = RELEASES[0]) -> list[str]:
    """The command line of a program of this folder."""
    classes = f"{class_path(release)}:{_own_classes(program)}"
    return _command(release, classes, program, *arguments)


def command(release: str, main_class: str, *arguments: str, ahead: str = "") -> list[str]:
    """The command line of a tool; its class path has what is ``ahead`` before the release's own."""
    classes = f"{ahead}:{class_path(release)}" if ahead else class_path(release)
    return _command(release, classes, main_class, *arguments)


def _command(release: str, classes: str, main_class: str, *arguments: str) -> list[str]:
    config = HERE / ("log4j2.properties" if release.startswith("4") else "log4j.properties")
    logging = "log4j2.configurationFile" if release.startswith("4") else "log4j.configuration"
    archive = _archive(release)
    return [
        "java",
        *JVM_FLAGS,
        *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []),
        f"-D{logging}=file:{config}",
        *("-cp", classes, main_class, *arguments),
    ]


def run_tool(
    release: str,
    main_class: str,
    *arguments: str,
    stdin: str = "",
    timeout: float = 90,
    check: bool = True,
    alone: bool = False,
    ahead: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end and return what it printed.

    It runs ``alone`` in a JVM of its own where it must not find what others have left there, or
    ends it by itself. ``ahead`` is as in :func:`command`.
    """
    archive = None if ahead or _archive(release).exists() else _archive(release)
    if alone or release in CLOSING or archive:
        line = command(release, main_class, *arguments, ahead=ahead)
        done = _run_alone(line, stdin, timeout, archive)
    else:
        texts = [main_class, *arguments]
        done = subprocess.CompletedProcess(
            texts, *_shared(release, ahead).run(texts, stdin, timeout)
        )
    if check:
        assert done.returncode == 0, f"{main_class}: {done.stdout}\n{done.stderr}"
    return done


_running: dict[tuple[str, str], Tools] = {}


def _shared(release: str, ahead: str) -> Tools:
    """The JVM of a release's tools."""
    known = _running.get((release, ahead))
    if known is not None and known.is_running:
        return known
    line = own_command("Tools", release=release)
    line[1:1] = ("--add-opens", "java.base/java.lang=ALL-UNNAMED")
    if ahead:
        at = line.index("-cp") + 1
        line[at] = f"{ahead}:{line[at]}"
    started = _running[release, ahead] = Tools(line)
    return started


def close_tools() -> None:
    """End the JVMs of the tools."""
    for jvm in _running.values():
        jvm.close()
    _running.clear()


def _run_alone(
    line: Sequence[str], stdin: str, timeout: float, archive: Path | None
) -> subprocess.CompletedProcess[str]:
    """Run a tool in a JVM of its own, and make the archive if there shall be one."""
    java, *rest = line
    made = archive and archive.with_suffix(f".{os.getpid()}")
    if made:
        rest.insert(0, f"-XX:ArchiveClassesAtExit={made}")
    done = subprocess.run(
        [java, *rest], input=stdin, capture_output=True, text=True, timeout=timeout
    )
    if archive and made and made.exists():
        made.rename(archive)
    return done


def lines(text: str) -> Sequence[str]:
    """Non-empty lines."""
    return [line for line in text.splitlines() if line.strip()]
