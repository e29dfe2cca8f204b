"""The machine that the figures belong to, in one sentence."""

import os
import platform
import re
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def description() -> str:
    """Processor, memory, file system, kernel and the versions that matter."""
    cpus = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", cpus)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert memory
    return ", ".join(
        (
            f"{os.cpu_count()} × {model[1].strip() if model else platform.machine()}",
            f"{int(memory[1]) / 1e6:.0f} GB",
            _file_system(),
            f"Linux {platform.release()}",
            f"{platform.python_implementation()} {platform.python_version()}",
            *(f"{name} {_version(name)}" for name in ("uvloop", "confluent-kafka")),
            f"load {os.getloadavg()[0]:.1f}",
        )
    )


def _file_system() -> str:
    where = Path(tempfile.gettempdir()).stat().st_dev
    free = shutil.disk_usage(tempfile.gettempdir()).free
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        major, minor = map(int, fields[2].split(":"))
        if os.makedev(major, minor) == where:
            return f"{fields[fields.index('-') + 1]} ({free / 1e9:.0f} GB free)"
    return "unknown file system"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
