"""Starting a ZooKeeper on this machine, for a cluster that is to be tried out."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_DEBIAN: Final = Path("/usr/share/java")
_DEBIAN_JARS: Final = (
    *("zookeeper.jar", "zookeeper-jute.jar", "slf4j-api.jar", "slf4j-nop.jar"),
    *("metrics-core.jar", "snappy-java.jar", "commons-cli.jar", "commons-io.jar"),
)
_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
# It serves a handful of nodes: that it is there soon is worth more than that it gets faster.
_JAVA_OPTIONS: Final = (
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m"),
)
START_SECONDS: Final = 30.0


class ZooKeeperMissing(Exception):
    """There is no ZooKeeper to be started; the message says what to do."""


def java_command(environment: Mapping[str, str]) -> list[str]:
    """How to start a server, up to the path of its configuration.

    Looks for the release that ``ZOOKEEPER_HOME`` names, then for Debian's package. Raises
    ZooKeeperMissing.
    """
    home = environment.get("JAVA_HOME")
    java = shutil.which("java") or (f"{home}/bin/java" if home else None)
    if java is None:
        raise ZooKeeperMissing(
            "ZooKeeper needs Java, which is not here: install default-jre-headless, or name a "
            "running ZooKeeper by --zookeeper"
        )
    release = environment.get("ZOOKEEPER_HOME")
    if release:
        class_path = f"{release}/lib/*"
        if not list(Path(release, "lib").glob("zookeeper-*.jar")):
            raise ZooKeeperMissing(f"ZOOKEEPER_HOME={release} has no lib/zookeeper-*.jar")
    elif (_DEBIAN / _DEBIAN_JARS[0]).exists():
        netty = sorted(map(str, _DEBIAN.glob("netty-*.jar")))  # for TLS
        class_path = ":".join([*(str(_DEBIAN / name) for name in _DEBIAN_JARS), *netty])
    else:
        raise ZooKeeperMissing(
            "There is no ZooKeeper on this machine: install Debian's package zookeeper, set "
            "ZOOKEEPER_HOME to an unpacked release, or name a running one by --zookeeper"
        )
    return [java, *_JAVA_OPTIONS, "-cp", class_path, _MAIN]


def write_config(path: Path, data: Path, port: int, lines: Sequence[str] = ()) -> None:
    """Write the configuration of a server that is alone and serves this machine only."""
    text = [
        f"dataDir={data}",
        "clientPortAddress=127.0.0.1",
        f"clientPort={port}",
        "tickTime=1000",
        "initLimit=10",
        "syncLimit=5",
        "maxClientCnxns=0",
        "admin.enableServer=false",
        "4lw.commands.whitelist=ruok,srvr",
        "autopurge.purgeInterval=1",
        *lines,
    ]
    path.write_text("\n".join(text) + "\n")


def answers(port: int) -> bool:
    """Whether a server serves at this port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as link:
        link.sendall(b"ruok")
        return link.recv(16) == b"imok"
    return False


def start(config: Path, port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a server and wait until it answers.

    Raises ZooKeeperMissing, or RuntimeError with a sentence when it does not come up.
    """
    command = [*java_command(os.environ), str(config)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it must outlive the brokers when somebody presses Ctrl-C
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if answers(port):
            return process
        time.sleep(0.05)  # between two looks
    process.kill()
    process.wait()
    raise RuntimeError(f"ZooKeeper does not come up at port {port}, see {log}")
