"""`make bench-operator`: what the operator does with faults, with starts from zero, and with many objects, on the local cluster.

Prints three tables and writes them to a file. Seconds are those of a person who polls with kubectl, so they are rounded up by
the time of one call; they depend on what else the machine does, and the load is printed beside them.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

E2E = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(E2E), str(E2E / "tests")]
import progress  # noqa: E402
import stack  # noqa: E402
import suite  # noqa: E402

OUT = progress.ROOT / ".cache" / "operator-bench.md"


def machine() -> str:
    """Its kind, never its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}; load {load}"


def inside(arguments: argparse.Namespace) -> None:
    """The measurements, in the cluster's network. What is measured is written at once."""
    import operator_faults
    import operator_scale
    import operator_starts

    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    sections = [f"{datetime.date.today()}, {machine()}, {source()}"]

    def write(*more: str) -> None:
        out.write_text("\n\n".join([*sections, *more]) + "\n")

    rows = []
    for row in operator_faults.measured(arguments.only) if arguments.faults else ():
        print(row, flush=True)
        rows.append(row)
        write(operator_faults.table(rows))
    if rows:
        sections.append(operator_faults.table(rows))
    if arguments.starts:
        with progress.Step(f"{arguments.starts} starts from zero") as step:
            sections.append(operator_starts.table(operator_starts.measured(arguments.starts, step.says)))
        write()
    scale = []
    for shape in operator_scale.SHAPES if arguments.objects else ():
        with progress.Step(f"{arguments.objects} ModelDeployments") as step:
            scale.append(operator_scale.of_shape(shape, arguments.objects, step.says))
        write(operator_scale.table(scale))
    print(f"\n{out.read_text()}\nwritten to {out}")


def source() -> str:
    """The commit that is measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=progress.ROOT, capture_output=True, text=True)
    return f"commit {done.stdout.strip() or 'unknown'}"


def main() -> int:
    """Brings the stack up, then runs itself inside the cluster's network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100, help="ModelDeployments at once; 0 leaves this out")
    parser.add_argument("--starts", type=int, default=20, help="starts from zero; 0 leaves this out")
    parser.add_argument("--no-faults", dest="faults", action="store_false", help="leave the faults out")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    parser.add_argument("--as-installed", action="store_true", help="measure what the running cluster has")
    parser.add_argument("--out", default=str(OUT), help="file for the tables")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments)
        return 0
    try:
        count = suite.Count()
        if not suite.clients(count):
            return 1
        if not arguments.as_installed:
            stack.up()
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    command = [str(suite.VENV / "bin" / "python"), __file__, "--inside", *sys.argv[1:]]
    return subprocess.run([*stack.CLUSTER, "exec", "--", *command], env={**os.environ, **stack.cluster_environment()}).returncode


if __name__ == "__main__":
    sys.exit(main())
