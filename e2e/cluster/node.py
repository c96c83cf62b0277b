"""The node's first process: process 1 of the namespaces in which the whole cluster runs.

It arranges the node's view of the file system, then starts and restarts the programs of
state/daemons.json. It dies with whatever kills it and takes everything with it: the kernel ends all
processes of a PID namespace with its first, and the mounts and interfaces go with the last of them.
Knows nothing of Kubernetes. Run by `unshare` (native.py); argument: the folders of state and programs.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from layout import INSIDE, NODE

RESTART_PAUSE_S = 1.0
RESTARTS_MAX = 20
"""Starts in a row that did not last LASTED_S; after that only the next `up` tries again."""
LASTED_S = 30.0

SIGNALS = {signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM}


def main() -> None:
    state, programs = map(Path, sys.argv[1:])
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    identity = read_identity()
    arrange_mounts(state, programs)
    socket.sethostname(NODE)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    write_record(INSIDE / "state/node.json", identity)
    Supervisor(INSIDE / "state").run()


def read_identity() -> dict:
    """What names this process on the host: read before the node's own /proc hides it."""
    pid = int(os.readlink("/proc/self"))
    start_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return {"pid": pid, "start_ticks": start_ticks, "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}


def arrange_mounts(state: Path, programs: Path) -> None:
    """Give the node its own /proc, /run, /var/lib and /var/log, so that no program can litter the host's.

    /run is put together on /mnt and moved, because the folders it shows may themselves lie under /run.
    """
    shown = {"state": state, "programs": programs}
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
    for name, source in shown.items():
        target = Path("/mnt") / INSIDE.name / name
        target.mkdir(parents=True)
        mount("--bind", source, target)
    mount("--move", "/mnt", "/run")
    for name in ("lock", "netns"):
        (Path("/run") / name).mkdir()
    mount("--bind", INSIDE / "state/lib", "/var/lib")
    mount("--bind", INSIDE / "state/logs", "/var/log")
    mount("-t", "proc", "proc", "/proc")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", "--no-mtab", *map(str, arguments)], check=True)


def write_record(path: Path, record: dict) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record))
    partial.rename(path)


@dataclass
class Daemon:
    """One program that should run."""

    name: str
    argv: list[str]
    process: subprocess.Popen | None = None
    started_s: float = 0.0
    retry_s: float = 0.0
    n_short_runs: int = field(default=0)


class Supervisor:
    """Starts what state/daemons.json lists; SIGHUP makes it read the list again."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.daemons: dict[str, Daemon] = {}

    def run(self) -> None:
        self.read_list()
        while True:
            self.start_due()
            received = signal.sigtimedwait(SIGNALS, RESTART_PAUSE_S)
            if received is None:
                continue
            if received.si_signo == signal.SIGTERM:
                sys.exit(0)
            if received.si_signo == signal.SIGHUP:
                self.read_list()
            self.reap()

    def start_due(self) -> None:
        """Start what does not run and has waited long enough."""
        now_s = time.monotonic()
        idle = [daemon for daemon in self.daemons.values() if daemon.process is None]
        due = [daemon for daemon in idle if daemon.retry_s <= now_s and daemon.n_short_runs < RESTARTS_MAX]
        for daemon in due:
            self.start(daemon)
        if due:
            self.write_processes()

    def read_list(self) -> None:
        """Add what is new in the list, and give up on nothing any longer."""
        path = self.state / "daemons.json"
        listed = json.loads(path.read_text()) if path.exists() else []
        for entry in listed:
            daemon = self.daemons.setdefault(entry["name"], Daemon(**entry))
            daemon.n_short_runs = 0
            daemon.retry_s = 0.0

    def start(self, daemon: Daemon) -> None:
        """Start one program with its output in logs/NAME.log."""
        with open(self.state / "logs" / f"{daemon.name}.log", "ab") as log:
            daemon.process = subprocess.Popen(
                daemon.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, []),
            )
        daemon.started_s = time.monotonic()

    def reap(self) -> None:
        """Collect every process that ended: the programs, and the orphans that the kernel hands to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for daemon in self.daemons.values():
                if daemon.process and daemon.process.pid == pid:
                    self.note_end(daemon, os.waitstatus_to_exitcode(status))

    def note_end(self, daemon: Daemon, exit_code: int) -> None:
        """Plan the restart of a program that ended."""
        now_s = time.monotonic()
        lasted_s = now_s - daemon.started_s
        daemon.process.returncode = exit_code
        daemon.process = None
        daemon.n_short_runs = daemon.n_short_runs + 1 if lasted_s < LASTED_S else 0
        daemon.retry_s = now_s + RESTART_PAUSE_S
        print(f"{daemon.name} ended with {exit_code} after {lasted_s:.1f} s", flush=True)
        self.write_processes()

    def write_processes(self) -> None:
        """Tell `status` which program runs under which process number of this namespace."""
        running = {daemon.name: daemon.process.pid if daemon.process else None for daemon in self.daemons.values()}
        write_record(self.state / "processes.json", running)


if __name__ == "__main__":
    main()
