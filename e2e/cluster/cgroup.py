"""The cluster's control groups, on hosts with version 1, version 2 or both.

Every process of the cluster, pods included, is in a group below /slipway of each hierarchy; that is how
they are found when nothing else is left to tell.
"""

import os
import signal
import time
from pathlib import Path

from layout import NAME

DAEMONS = "node"
"""The group of the node's own programs; the pods' groups lie beside it."""

EMPTY_WAIT_S_MAX = 10.0
POLL_S = 0.05


def hierarchies() -> tuple[list[Path], list[Path]]:
    """Where the hierarchies of version 1 and of version 2 are mounted."""
    version_1, version_2 = [], []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind = rest.split()[0]
        if kind in ("cgroup", "cgroup2"):
            (version_1 if kind == "cgroup" else version_2).append(Path(fields.split()[4]))
    return version_1, version_2


def roots() -> list[Path]:
    """The hierarchies that hold the controllers: those of version 1 if there is any, else that of version 2."""
    version_1, version_2 = hierarchies()
    return version_1 or version_2[:1]


def create() -> None:
    """Make /slipway and /slipway/node in every hierarchy, with the controllers a kubelet needs."""
    for root in roots():
        group = root / NAME
        group.mkdir(exist_ok=True)
        prepare(root, group)
        (group / DAEMONS).mkdir(exist_ok=True)
        prepare(group, group / DAEMONS)


def prepare(parent: Path, group: Path) -> None:
    """Version 1: an empty cpuset takes no process, so copy the parent's. Version 2: hand the controllers down."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (parent / "cgroup.controllers").exists() or not (group / name).exists():
            continue
        (group / name).write_text((parent / name).read_text())
    if (parent / "cgroup.subtree_control").exists():
        for controller in (parent / "cgroup.controllers").read_text().split():
            try:
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                # A controller the kernel refuses here is missed, and named, by the kubelet alone.
                continue


def enter() -> None:
    """Move this process into the group of the node's programs."""
    for root in roots():
        (root / NAME / DAEMONS / "cgroup.procs").write_text(str(os.getpid()))


def processes() -> set[int]:
    """Every process of the cluster, by its number on the host."""
    found: set[int] = set()
    for root in roots():
        for procs in (root / NAME).rglob("cgroup.procs"):
            try:
                found.update(int(pid) for pid in procs.read_text().split())
            except OSError:
                # The group ended while it was read.
                continue
    return found - {0}


def kill_all() -> bool:
    """Kill every process of the cluster; whether all of them ended in time."""
    deadline_s = time.monotonic() + EMPTY_WAIT_S_MAX
    while time.monotonic() < deadline_s:
        remaining = processes()
        if not remaining:
            return True
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_S)
    return not processes()


def remove() -> bool:
    """Remove the groups, innermost first; whether all are gone. The kernel may need a moment after the last exit.

    Where both versions are mounted, runc makes groups in both.
    """
    deadline_s = time.monotonic() + EMPTY_WAIT_S_MAX
    while time.monotonic() < deadline_s:
        groups = [group for root in sum(hierarchies(), []) if (root / NAME).is_dir() for group in tree(root / NAME)]
        if not groups:
            return True
        for group in groups:
            try:
                group.rmdir()
            except OSError:
                continue
        if any(group.exists() for group in groups):
            time.sleep(POLL_S)
    return False


def tree(group: Path) -> list[Path]:
    """A group and all below it, the innermost first."""
    return [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]
