"""Checks licences, sources and bans of the dependency tree with cargo-deny, which is installed into the cache first.

Advisories are not checked: their database is a Git repository that a build machine may not reach.
"""

import os
import subprocess
import sys

import progress

VERSION = "0.20.2"
TOOLS = progress.ROOT / ".cache" / "tools"
BINARY = TOOLS / "bin" / "cargo-deny"


def install() -> None:
    """Builds cargo-deny without its Git client and without optimisation: it runs for three seconds."""
    command = ["cargo", "install", "--locked", "cargo-deny", "--version", VERSION, "--no-default-features", "--root", str(TOOLS)]
    quick = {"CARGO_PROFILE_RELEASE_OPT_LEVEL": "1", "CARGO_PROFILE_RELEASE_LTO": "off"}
    progress.run("Install cargo-deny", command, progress.last_word_of_cargo, env={**os.environ, **quick})


def main() -> int:
    """Returns the exit status of cargo-deny."""
    try:
        installed = subprocess.run([BINARY, "--version"], capture_output=True, text=True).stdout if BINARY.exists() else ""
        if VERSION not in installed:
            install()
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    check = [str(BINARY), "--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]
    return subprocess.run(check, cwd=progress.ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
