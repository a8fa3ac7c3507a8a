"""Two faults of Fast DDS' shared memory: a node's port may be taken from under it; a driver's memory may be too small.

A process that starts where another was killed adopts the dead one's port, `/dev/shm/fastdds_port<n>`
(`fastrtps_port<n>` in Jazzy and before). A sender that finds the dead port at that very moment deletes and makes it
anew: from then on all senders write to a file that nobody reads. The node is deaf, though it can still speak (Fast DDS
3.2: about one of forty restarts after kill -9 at 55 MB/s).

A process has 512 KB of shared memory unless its profile says more. Frames that do not fit leave as UDP fragments, most
of which are lost; and those on their way to subscribers that are killed can fill it for good (docs/first-robot.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# Held by the process that listens on the port.
_LOCK = re.compile(r"(/dev/shm/fast(?:dds|rtps)_port\d+)_el(?: \(deleted\))?")
_MAPPED = re.compile(r"(/dev/shm/fast(?:dds|rtps)_port\d+)( \(deleted\))?$", re.MULTILINE)
# Held by the process whose messages lie in the segment.
_SEGMENT = re.compile(r"(/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16})_el")
RESTARTS = "LAM_ROS_RESTARTS"
MOST_RESTARTS = 3
FAST_DDS = b"\x01\x0f"  # its vendor id


def own_ports(pid: int | str = "self") -> set[str]:
    """The shared-memory ports that a process listens on; none where there are no such files to look at."""
    return _locked(pid, _LOCK)


def _locked(pid: int | str, lock: re.Pattern[str]) -> set[str]:
    """Which files of that kind a process has locked."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                held = lock.fullmatch(os.readlink(f"/proc/{pid}/fd/{entry}"))
                if held:
                    found.add(held.group(1))
    return found


def shared_memory_of(gid: Sequence[int], own: Sequence[int]) -> int | None:
    """How much shared memory (bytes) the process of a publisher has for what it sends.

    Args:
        gid: of the publisher. With Fast DDS its first four bytes name vendor and host, the next two the lowest 16 bits
            of the process' number.
        own: of a publisher of this process.

    Returns:
        None where that is not to be seen: on another host, with another middleware, or a process of another user.
    """
    if bytes(own[:2]) != FAST_DDS or bytes(gid[:4]) != bytes(own[:4]):
        return None
    number = gid[4] | gid[5] << 8
    sizes = [0]
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) & 0xFFFF == number:
            for segment in _locked(process.name, _SEGMENT):
                with contextlib.suppress(OSError):
                    sizes.append(Path(segment).stat().st_size)
    return max(sizes) or None


def is_deaf() -> bool:
    """Whether a port that this process listens on has been deleted, so that nobody can send to it any more."""
    ports = own_ports()
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return False
    mapped: dict[str, bool] = {}
    for port, is_deleted in _MAPPED.findall(maps):
        mapped[port] = mapped.get(port, False) or not is_deleted
    return any(not mapped[port] for port in ports & mapped.keys())


def was_restarted() -> bool:
    """Whether this process began anew by ``restart``: for a while before it heard nothing."""
    return RESTARTS in os.environ


def restart() -> None:
    """Run this process anew, with the arguments it was started with; returns only where it has been tried too often."""
    restarts = int(os.environ.get(RESTARTS, "0"))
    if restarts < MOST_RESTARTS:
        os.environ[RESTARTS] = str(restarts + 1)
        sys.stdout.flush()
        sys.stderr.flush()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the middleware's locks and sockets must not live on
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
