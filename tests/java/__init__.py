"""The stock Java tools of several Kafka releases, fetched by Maven.

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

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".java"

RELEASES = ("4.3", "2.3", "1.1", "0.11", "0.10")

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
def own_class_path(program: str) -> str:
    """The class path of a program of this folder for the newest release; compiles it if need be."""
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
    return f"{classes}:{used}"


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


def own_command(program: str, *arguments: str) -> list[str]:
    """The command line of a program of this folder."""
    return _command(RELEASES[0], own_class_path(program), program, *arguments)


def command(release: str, main_class: str, *arguments: str) -> list[str]:
    """The command line of a tool."""
    archive = _archive(release)
    ready = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
    return _command(release, class_path(release), *ready, main_class, *arguments)


def _command(release: str, classes: str, *arguments: str) -> list[str]:
    config = HERE / ("log4j2.properties" if release.startswith("4") else "log4j.properties")
    logging = "log4j2.configurationFile" if release.startswith("4") else "log4j.configuration"
    return [
        "java",
        *JVM_FLAGS,
        f"-D{logging}=file:{config}",
        *("-cp", classes),
        *arguments,
    ]


def run_tool(
    release: str,
    main_class: str,
    *arguments: str,
    stdin: str | None = None,
    timeout: float = 90,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end and return what it printed."""
    line = command(release, main_class, *arguments)
    archive = _archive(release)
    made = archive.with_suffix(f".{os.getpid()}")
    if not archive.exists():
        line.insert(1, f"-XX:ArchiveClassesAtExit={made}")
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=timeout)
    if made.exists():
        made.rename(archive)
    if check:
        assert done.returncode == 0, f"{main_class}: {done.stdout}\n{done.stderr}"
    return done


def lines(text: str) -> Sequence[str]:
    """Non-empty lines."""
    return [line for line in text.splitlines() if line.strip()]
