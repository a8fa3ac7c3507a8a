"""A fault of Fast DDS that a node must notice by itself: its shared-memory port may be taken from under it.

A process that starts where another was killed adopts the dead one's port, `/dev/shm/fastdds_port<n>`
(`fastrtps_port<n>` in Jazzy and before). A sender that finds the dead port at that very moment deletes and makes it
anew: from then on all senders write to a file that nobody reads. The node is deaf, though it can still speak (Fast DDS
3.2: about one of forty restarts after kill -9 at 55 MB/s).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

# Held by the process that listens on the port.
_LOCK = re.compile(r"(/dev/shm/fast(?:dds|rtps)_port\d+)_el(?: \(deleted\))?")
_MAPPED = re.compile(r"(/dev/shm/fast(?:dds|rtps)_port\d+)( \(deleted\))?$", re.MULTILINE)
RESTARTS = "LAM_ROS_RESTARTS"
MOST_RESTARTS = 3


def own_ports(pid: int | str = "self") -> set[str]:
    """The shared-memory ports that a process listens on; none where there are no such files to look at."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                held = _LOCK.fullmatch(os.readlink(f"/proc/{pid}/fd/{entry}"))
                if held:
                    found.add(held.group(1))
    return found


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


def restart() -> None:
    """Run this process anew, with the arguments it was started with; returns only where it has been tried too often."""
    restarts = int(os.environ.get(RESTARTS, "0"))
    if restarts < MOST_RESTARTS:
        os.environ[RESTARTS] = str(restarts + 1)
        sys.stdout.flush()
        sys.stderr.flush()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the middleware's locks and sockets must not live on
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
