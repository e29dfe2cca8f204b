"""How much memory a process has, from /proc."""

import re
from pathlib import Path
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB


def _status(pid: int, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match, f"no {name} in the status of process {pid}"
    return int(match[1]) * KIB


def resident_bytes(pid: int) -> int:
    """What the process holds in memory now."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most it has ever held."""
    return _status(pid, "VmHWM")
