"""What the kernel says of a process: processor time, memory, bytes read."""

import contextlib
import mmap
import re
import time
from collections.abc import Callable
from pathlib import Path

_SCHEDULER_CLOCK = 2  # CPUCLOCK_SCHED: what the process has run, in nanoseconds


def family(pid: int) -> list[int]:
    """A process and its descendants that live now (the broker compacts in one of its own)."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, living and ended."""
    return time.clock_gettime((~pid << 3) | _SCHEDULER_CLOCK)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1024


def bytes_read(pid: int) -> int:
    """Bytes that a process has read by system calls, from sockets too."""
    match = re.search(r"rchar: (\d+)", Path(f"/proc/{pid}/io").read_text())
    assert match
    return int(match[1])


def open_files(pid: int) -> list[str]:
    """Paths of the files that a process has open."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def warm_memory(megabytes: int) -> None:
    """Touch memory once: in a virtual machine the first touch of a page costs 16 times a later one,
    and the first measurement would pay for it."""
    with mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000):
        pass  # 0x8000: MAP_POPULATE


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Poll until something is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.0005)
