"""Showing long work: one line a step that is rewritten on a terminal, and a line now and then elsewhere."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "logs"
LINE_EVERY_SECONDS = 20  # where there is no terminal to rewrite a line on


class StepFailed(Exception):
    """A step ended badly; the message says what to read."""


class Step:
    """One step of something long: a title, a detail that changes, and how long it took."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self._start = time.monotonic()
        self._done = threading.Event()
        self._shower = threading.Thread(target=self._show, daemon=True)

    def says(self, detail: str) -> None:
        """Changes the detail."""
        self.detail = detail

    def __enter__(self) -> "Step":
        self._shower.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._shower.join()
        mark = "✓" if kind is None else "✗"
        self._print(f"{mark} {self.title}", end="\n")

    def _show(self) -> None:
        terminal = sys.stdout.isatty()
        while not self._done.wait(0.2 if terminal else LINE_EVERY_SECONDS):
            self._print(f"… {self.title}", end="" if terminal else "\n")

    def _print(self, text: str, end: str) -> None:
        seconds = time.monotonic() - self._start
        took = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
        detail = f"  {self.detail}" if self.detail else ""
        start = "\r\033[K" if sys.stdout.isatty() else ""
        columns = os.get_terminal_size().columns - 1 if sys.stdout.isatty() else 200
        print(start + f"{text}  {took}{detail}"[:columns], end=end, flush=True)


def run(title: str, command: Sequence[str], read: Callable[[str], str | None] | None = None, **options) -> str:
    """Runs a command as a step: its output goes to a log file, `read` turns a line of it into the detail.

    Returns the output; raises `StepFailed` with the log's end if the command fails.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / (re.sub(r"\W+", "-", title.lower()).strip("-") + ".log")
    lines: list[str] = []
    with Step(title) as step, log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT, **options
        )
        for line in process.stdout:
            out.write(line)
            lines.append(line)
            detail = read(line) if read else None
            if detail is not None:
                step.detail = detail
        if process.wait() != 0:
            tail = "".join(lines[-40:])
            raise StepFailed(f"{title}: '{' '.join(command)}' ended with {process.returncode}\n{tail}\nwhole log: {log}")
    return "".join(lines)


def last_word_of_cargo(line: str) -> str | None:
    """The detail of a cargo build: what it compiles."""
    found = re.match(r"\s*(Compiling|Checking|Downloaded|Downloading|Finished) (\S+)", line)
    return f"{found[1]} {found[2]}" if found else None
